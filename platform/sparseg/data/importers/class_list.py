"""classes.txt: one class name a line, and the colour that it is shown in."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

from sparseg.config import MAX_CLASSES
from sparseg.data.importers.files import is_void, read_lines, some
from sparseg.data.shards import IGNORED_COLOUR, UNLABELLED_COLOUR, Colour

_INDEXED = re.compile(r"(?:(\d+)[\s:,]+)?(\S.*?)")
_COLOURED = re.compile(r"(.*\S)\s+#([0-9a-f]{3}|[0-9a-f]{6})", re.IGNORECASE)


@dataclasses.dataclass(frozen=True)
class ClassList:
    """The classes of a data set in their order, before any image of it is read."""

    names: list[str]
    colours: tuple[Colour | None, ...] = ()
    """None for a class without one; empty where no class has any."""
    notes: list[str] = dataclasses.field(default_factory=list)


def read_class_list(file: Path) -> ClassList:
    """Read a classes.txt: one name a line, optionally led by its index and followed by #rrggbb or #rgb.

    Lines that name no class (void, labelme's __ignore__) are left out and noted.  Raises ValueError naming
    the file and the line.
    """
    names: list[str] = []
    colours: list[Colour | None] = []
    left_out: list[str] = []
    line_of: dict[Colour, int] = {}
    for number, line in enumerate(read_lines(file), 1):
        match = _INDEXED.fullmatch(line.strip())
        if not match or line.lstrip().startswith("#"):
            continue
        where = f"{file}, line {number}"
        index, text = match.groups()
        name, colour = _name_and_colour(text)
        if is_void(name):
            left_out.append(name)
            continue
        if index is not None and int(index) != len(names):
            raise ValueError(f"{where}: index {index} of {name!r} should be {len(names)}; number from 0")
        if name in names:
            read = f" ({text.removeprefix(name).strip()} behind it is read as a colour)" if colour else ""
            raise ValueError(f"{where}: class {name!r} stands there twice{read}; remove or rename one")
        if colour is not None:
            _refuse_taken_colour(colour, line_of, f"{where}: class {name!r} has the colour")
            line_of[colour] = number
        names.append(name)
        colours.append(colour)
    _refuse_other_lists(names, file)
    if not 1 <= len(names) <= MAX_CLASSES:
        raise ValueError(
            f"{file}: needs 1 to {MAX_CLASSES} different class names, one a line; found {len(names)}"
        )
    notes = []
    if left_out:
        what = f"{some(map(repr, left_out))} left out, no class; class 0 is {names[0]!r}"
        notes.append(f"{file.name}: {what}")
    return ClassList(names, tuple(colours) if line_of else (), notes)


def _name_and_colour(text: str) -> tuple[str, Colour | None]:
    """Split 'coral #f80' into the name and (255, 136, 0); a text without a colour at its end is a name."""
    match = _COLOURED.fullmatch(text)
    if match is None:
        return text, None
    name, digits = match.groups()
    if len(digits) == 3:
        digits = "".join(2 * digit for digit in digits)
    red, green, blue = bytes.fromhex(digits)
    return name, (red, green, blue)


def _refuse_taken_colour(colour: Colour, line_of: dict[Colour, int], what: str) -> None:
    """Raise ValueError for a colour that means something else; `what` names the line and the class."""
    shown = f"{what} #{bytes(colour).hex()}"
    codes = {UNLABELLED_COLOUR: "not labelled", IGNORED_COLOUR: "ignored (void)"}
    if colour in codes:
        raise ValueError(f"{shown}, in which pixels are shown that are {codes[colour]}; choose another")
    if colour in line_of:
        raise ValueError(f"{shown}, which that of line {line_of[colour]} has already; choose another")


def _refuse_other_lists(names: list[str], file: Path) -> None:
    """Raise ValueError for names that are a whole list in one line, or lines of JSON, YAML or a labelmap."""
    if len(names) == 1 and (separators := sorted(set(names[0]) & set(",;|\t[{ "))):
        shown = some("spaces" if mark == " " else mark for mark in separators)
        raise ValueError(
            f"{file}: holds one name, {names[0][:60]!r}, with {shown} in it; write one name a line (a single "
            "class needs a second one beside it, such as background)"
        )
    odd = {
        "JSON or a list in brackets": names[:1] and names[0][0] in "[{",
        "a list of YAML": names and all(name.startswith("- ") for name in names),
        "names in quotes": names and all(name[0] in "\"'" for name in names),
        "names with a comma behind them": len(names) > 1 and all(name.endswith(",") for name in names[:-1]),
        "colours of a labelmap.txt, which belongs into masks/": names
        and all(re.fullmatch(r".+:\d+, *\d+, *\d+:.*:.*", name) for name in names),
    }
    if what := next((what for what, is_so in odd.items() if is_so), None):
        raise ValueError(f"{file}: holds {what}, as in {names[0][:60]!r}; write one bare name a line")
