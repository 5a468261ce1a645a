"""Masks in colours with a labelmap.txt, as CVAT's and Datumaro's "Segmentation mask 1.1" has them.

https://docs.cvat.ai/docs/dataset_management/formats/format-smask: a line a label, `name:red,green,blue:parts:
actions`; what follows the colour is not read.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from sparseg.data.importers.files import some
from sparseg.data.importers.readers.parsing import class_id, is_void, read_text, shown, whole

Colour = tuple[int, int, int]
"""Red, green and blue, 0..MOST."""
MOST = int(np.iinfo(np.uint8).max)


def read_labelmap(file: Path) -> dict[Colour, str]:
    """Colour -> label, in the order of the file.

    Raises ValueError naming file and line for what is no such line, and for a colour that occurs twice.
    """
    labels: dict[Colour, str] = {}
    for number, line in enumerate(read_text(file).splitlines(), 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        where = f"{file}, line {number}"
        name, colour, *_ = [*line.split(":"), "", ""]
        channels = colour.split(",")
        if not name.strip() or len(channels) != 3:
            raise ValueError(f"{where}: must be name:red,green,blue::, got {shown(line)}")
        red, green, blue = (whole(channel, f"{where}, colour", 0, MOST) for channel in channels)
        if (red, green, blue) in labels:
            raise ValueError(
                f"{where}: colour {red},{green},{blue} is that of {labels[red, green, blue]!r} already; a "
                "mask could not tell the two apart"
            )
        labels[red, green, blue] = name.strip()
    if not labels:
        raise ValueError(f"{file}: names no label; a line is name:red,green,blue::")
    return labels


def class_names(file: Path) -> list[str]:
    """The labels in their order, each once, without void ones.  Raises ValueError."""
    return list(dict.fromkeys(name for name in read_labelmap(file).values() if not is_void(name)))


def to_ids(rgb_HW3: np.ndarray, labels: dict[Colour, str], names: list[str], where: str) -> np.ndarray:
    """A mask in colours (H, W, 3) uint8 -> (H, W) uint8 of class ids, and IGNORED where its label is void.

    Raises ValueError for a label that is no class, and for colours that the labels do not name.
    """
    packed = np.array([red << 16 | green << 8 | blue for red, green, blue in labels], dtype=np.uint32)
    where_map = f"{where}, labelmap.txt"
    ids = np.array([class_id(name, names, where_map) for name in labels.values()], dtype=np.uint8)
    order = np.argsort(packed)
    packed, ids = packed[order], ids[order]
    red, green, blue = (rgb_HW3[..., channel].astype(np.uint32) for channel in range(3))
    pixels_HW = red << 16 | green << 8 | blue
    at_HW = np.searchsorted(packed, pixels_HW).clip(max=len(packed) - 1)
    unknown_HW = packed[at_HW] != pixels_HW
    if unknown_HW.any():
        found = [f"{v >> 16},{v // 256 % 256},{v % 256}" for v in np.unique(pixels_HW[unknown_HW]).tolist()]
        raise ValueError(
            f"{where}: {int(unknown_HW.sum())} pixels of colours that labelmap.txt does not name: "
            f"{some(found)}; add their lines, or mend the mask (no JPEG, not resized with smoothing)"
        )
    return ids[at_HW]
