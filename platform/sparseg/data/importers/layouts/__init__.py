"""Which raw layout lies at a path, and how it is listed; nothing is decoded here."""

from __future__ import annotations

from pathlib import Path

from sparseg.config import FieldError, ImportConfig, flag
from sparseg.data import shards
from sparseg.data.importers.files import some
from sparseg.data.importers.layouts.ade20k import ade20k
from sparseg.data.importers.layouts.ade20k import home_of as home_of_ade20k
from sparseg.data.importers.layouts.camvid import CAMVID_PALETTE, camvid
from sparseg.data.importers.layouts.cityscapes import CITYSCAPES_PALETTE, cityscapes
from sparseg.data.importers.layouts.folder import folder
from sparseg.data.importers.layouts.voc import VOC_PALETTE, voc
from sparseg.data.importers.layouts.voc import home_of as home_of_voc
from sparseg.data.importers.mask_values import with_values_as_asked
from sparseg.data.importers.source import Source

LAYOUTS = ("voc", "camvid", "cityscapes", "ade20k", "folder")
PALETTES = {"voc": VOC_PALETTE, "camvid": CAMVID_PALETTE, "cityscapes": CITYSCAPES_PALETTE}
"""Layout -> its official colours."""


def detect(root: Path) -> str:
    """Name of the raw layout.  Raises ValueError saying what was looked for."""
    if home_of_voc(root) is not None:
        return "voc"
    if (root / "leftImg8bit").is_dir():
        return "cityscapes"
    if (root / "trainannot").is_dir() or ((root / "masks" / "train").is_dir() and (root / "splits").is_dir()):
        return "camvid"
    if home_of_ade20k(root) is not None:
        return "ade20k"
    if (root / "images").is_dir():
        return "folder"
    raise FieldError(
        f"{root}: layout not recognised (neither an imported dataset, nor JPEGImages/, leftImg8bit/, "
        "trainannot/, images/training/ with annotations/training/, images/); found "
        f"{some(sorted(p.name for p in root.iterdir()), 6) or 'an empty folder'}; name it with "
        f"{flag('data.layout')} {'|'.join(LAYOUTS)} or correct {flag('data.root')}"
    )


def read_layout(layout: str, root: Path, config: ImportConfig) -> Source:
    """The raw dataset at `root`.  Raises ValueError for an unknown layout or one that is not there."""
    match layout:
        case "voc":
            source = voc(root)
        case "camvid":
            source = camvid(root)
        case "cityscapes":
            source = cityscapes(root, config)
        case "ade20k":
            source = ade20k(root, config)
        case "folder":
            source = folder(root, config)
        case _:
            raise ValueError(f"unknown layout {layout!r}; known: {', '.join(LAYOUTS)}")
    return with_values_as_asked(source, config)


def palette_of(source: Source) -> list[shards.Colour] | None:
    """The colours of a data set: of its class list, else of its layout, else None for the default ones."""
    official = PALETTES.get(source.layout, [])
    if len(official) != len(source.names):
        official = []
    if source.colours:
        return shards.with_gaps_filled(source.colours, official)
    return official or None
