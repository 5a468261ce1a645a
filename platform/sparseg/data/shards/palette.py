"""The colours that classes are shown in: those of everyone, and a data set's own with the gaps filled."""

from __future__ import annotations

from collections.abc import Sequence

from sparseg.config import MAX_CLASSES

Colour = tuple[int, int, int]
"""Red, green, blue, 0..255."""
UNLABELLED_COLOUR, IGNORED_COLOUR = (40, 40, 40), (224, 224, 192)
LEAST_DIFFERENCE = 48
"""In one channel at least, between a colour that fills a gap and those that the user chose."""

# Class 0, most often the background, is black; 1..7 are the other colours of Okabe and Ito (Color Universal
# Design, 2008); each further one is the farthest from all before it, in the eyes of people with and without
# deuteranopia or protanopia.  tests/support/colour_vision.py searches them; a test compares.
_COLOURS = """
    000000 e69f00 56b4e9 009e73 f0e442 0072b2 d55e00 cc79a7 603000 78d8ff 303078 a8c090 0000c0
    48ffff 006060 c0d878 6018ff 904800 4878ff 004848 7890ff d8ffa8 c01890 f0c000 d800c0 d8c0c0
    007860 60c060 9060d8 489030 6018d8 f090c0 604830 a8a890 606090 f0ff00 c07860 7830a8 9090d8
    f0f0d8 906030 78ff78 907890 603030 c09018 184878 60c0d8 900090 ff9060 90c0ff c03078 00f0f0
    60a8ff 601860 78d8d8 486048 3060f0 c0d8a8 f000a8 78c030 4800a8 f06078 9048d8 00c0a8 6078a8
    4830c0 c078c0 a83048 9078d8 603060 ff3090 604800 6078c0 c01860 d8c060 007878 0000f0 781848
    d8d848 9078f0 f04848 004890 00c0c0 90f090 d800a8 f090a8 a86000 78f0d8 00a890 901878 d8f0a8
    c0c0a8 c0fff0 90d890 004818 f0a878 486030 18a878 f090d8 789060 f0d8d8 a87830 4860c0 c04860
    c0d8c0 481890 c090ff c09048 7890c0 f0f0c0 a81830 309078 486000 fff090 a8a878 f0f018 48d8c0
    903060 c078f0 906048 c0ff60 a8c078 9030ff 60a800 c048ff a8a848 90d800 c0f0f0 789048 7830d8
    f0a848 ff7890 90f078 c09060 f0c090 f0a8f0 ff1878 c0f060 f07818 d8d8f0 0000d8 ff30c0 787848
    c090d8 c0d860 d890f0 c060d8 7800a8 307830 a8a8ff 4848c0 606078 ffd800 0048f0 a8c0f0 901848
    f0d890 78f0ff 90f0c0 784878 90f0a8 30d8a8 7860a8 c0c000 787830 f060a8 0078f0 a80060 7860c0
    d8c078 4818c0 009090 f0d8a8 d8c048 a8ffd8 d8c0d8 c0ffff d8c0f0 00a848 a8ffc0 781818 a8c0d8
    0090d8 90c048 7890f0 789090 d8ff78 0000ff d8c0ff a890f0 d80048 c00078 906018 78d860 907818
    9090a8 1830f0 c0a860 ffd8ff a80018 48ff60 307890 c078ff f0a890 ff30d8 c03090 c04830 783048
    787860 78a848 ff4890 484890 d890a8 9060f0 f060c0 48fff0 c07830 781830 d890c0 9048ff 901818
    ff78c0 d8a830 c0ff90 307800 d8f078 781860 c0f048 f090f0 a800c0 d8a8ff 306090 780048 d83060
    783078 d89030 f000d8 7878ff 90a830 a8ff00 ff0018 c0d830 c0a8a8 90d8a8 78c078 c0a8d8 ffc060
    ff1860 00f060 d8f090
"""


def default_palette(count: int) -> list[Colour]:
    """`count` distinct colours, at most MAX_CLASSES, of which neighbours differ clearly, to the colour-blind
    too."""
    red_green_blue = (bytes.fromhex(word) for word in _COLOURS.split()[: min(count, MAX_CLASSES)])
    return [(red, green, blue) for red, green, blue in red_green_blue]


def with_gaps_filled(own: Sequence[Colour | None], preferred: Sequence[Colour] = ()) -> list[Colour]:
    """The user's colours, and for None the class's colour in `preferred`, or else in the default palette.

    One that is like a colour of the user's (within LEAST_DIFFERENCE in every channel) gives way to a default
    colour of no other class, as long as there are any.
    """
    theirs = [colour for colour in own if colour is not None]
    table = default_palette(MAX_CLASSES)
    at_home = dict(enumerate(preferred or table))
    at_home = {k: at_home[k] for k, colour in enumerate(own) if colour is None}
    kept = {k: colour for k, colour in at_home.items() if not any(_alike(colour, other) for other in theirs)}
    spare = [colour for colour in table if colour not in theirs and colour not in kept.values()]
    of_classes = table[: len(own)]
    spare.sort(key=lambda colour: (any(_alike(colour, other) for other in theirs), colour in of_classes))
    unused = iter(spare)
    return [colour or kept.get(k) or next(unused) for k, colour in enumerate(own)]


def _alike(first: Colour, second: Colour) -> bool:
    return max(abs(a - b) for a, b in zip(first, second, strict=True)) < LEAST_DIFFERENCE
