"""PASCAL VOC 2012 on disk, with SBD's additions, AGMM's label folders and ScribbleSup's."""

from __future__ import annotations

from pathlib import Path

from sparseg.config import FieldError, flag
from sparseg.data.importers.files import existing, read_ids, some
from sparseg.data.importers.source import Item, Source, identity

VOC_NAMES = (
    "background aeroplane bicycle bird boat bottle bus car cat chair cow diningtable dog horse motorbike "
    "person pottedplant sheep sofa train tvmonitor"
).split()
VOC_PALETTE = [  # the bits of a colour are those of its class
    *((0, 0, 0), (128, 0, 0), (0, 128, 0), (128, 128, 0), (0, 0, 128), (128, 0, 128), (0, 128, 128)),
    *((128, 128, 128), (64, 0, 0), (192, 0, 0), (64, 128, 0), (192, 128, 0), (64, 0, 128), (192, 0, 128)),
    *((64, 128, 128), (192, 128, 128), (0, 64, 0), (128, 64, 0), (0, 192, 0), (128, 192, 0), (0, 64, 128)),
]
IMAGES = "JPEGImages"
MASKS = ("SegmentationClassAug", "SegmentationClass")
PLACES = {
    "tag": ("Annotations",),  # VOC's own XML files, with the boxes of all objects
    "box": ("Annotations",),
    # What's-the-Point JSON; the clicks as PNGs; AGMM (its data set reads point/segcls and scribble/seginst)
    "point": ("points", "PointAnnotations", "point/segcls", "point", "SegmentationClassPoint"),
    # PNG folders of AGMM and others; the XML files of ScribbleSup's own release lie in pascal_2012/
    "scribble": (
        *("scribble/seginst", "scribbles", "scribble", "ScribbleAnnotations", "SegmentationClassScribble"),
        *("pascal_2012_scribble", "voc_scribbles", "scribble_annotation/pascal_2012", "pascal_2012"),
    ),
}


def home_of(root: Path) -> Path | None:
    """The folder that holds JPEGImages/: `root`, or the one of the archive below it."""
    tries = (root, root / "VOC2012", root / "VOCdevkit" / "VOC2012")
    return next((path for path in tries if (path / IMAGES).is_dir()), None)


def _list(home: Path, *names: str) -> Path:
    tries = [
        home / "ImageSets" / sets / name for name in names for sets in ("SegmentationAug", "Segmentation")
    ]
    first = next((path for path in tries if path.is_file()), None)
    if first is None:
        raise ValueError(f"{home}: no list of images; looked for {some(tries, 9)}")
    return first


def voc(root: Path) -> Source:
    """VOC 2012, with SBD's masks and train_aug.txt where they are there; validation images never train.

    Raises ValueError for a list that is absent, empty, no text, or names what is no image id.
    """
    home = home_of(root)
    if home is None:
        raise FieldError(
            f"{root}: no JPEGImages/ folder, so this is no VOC layout; correct {flag('data.root')}"
        )
    lists = {"train": _list(home, "train_aug.txt", "train.txt"), "val": _list(home, "val.txt")}
    ids, notes = {}, []
    for split, file in lists.items():
        ids[split], again = read_ids(file, IMAGES)
        if again:
            notes.append(f"{len(again)} ids stand more than once in {file}, taken once: {some(again)}")
    held_out = set(ids["val"])
    leaked = sorted(held_out & set(ids["train"]))
    if leaked:
        notes.append(f"{len(leaked)} validation images left out of {lists['train']}: {some(leaked)}")
        ids["train"] = [name for name in ids["train"] if name not in held_out]
        if not ids["train"]:
            raise ValueError(f"{lists['train']}: all its images are validation images of {lists['val']} too")
    splits = {split: [_item(home, name) for name in names] for split, names in ids.items()}
    notes += [f"{split}: {len(names)} images of {lists[split]}" for split, names in ids.items()]
    return Source(
        layout="voc",
        root=home,
        names=VOC_NAMES,
        splits=splits,
        dense_table=identity(len(VOC_NAMES)),
        places={kind: tuple(home / name for name in names) for kind, names in PLACES.items()},
        notes=(*notes, "dense masks: 255 = void"),
        mask_place=next((home / name for name in MASKS if (home / name).is_dir()), None),
    )


def _item(home: Path, name: str) -> Item:
    masks = (existing(home / folder / f"{name}.png") for folder in MASKS)
    return Item(name, home / IMAGES / f"{name}.jpg", next((mask for mask in masks if mask), None))
