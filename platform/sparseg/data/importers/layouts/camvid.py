"""CamVid on disk, as SegNet distributes it or with a folder a split below images/ and masks/."""

from __future__ import annotations

from pathlib import Path

from sparseg.data.importers.class_list import ClassList, read_class_list
from sparseg.data.importers.files import existing, list_images, read_ids, some
from sparseg.data.importers.source import Item, Source, identity

CAMVID_NAMES = "sky building pole road pavement tree signsymbol fence car pedestrian bicyclist".split()
CAMVID_PALETTE = [
    *((128, 128, 128), (128, 0, 0), (192, 192, 128), (128, 64, 128), (60, 40, 222), (128, 128, 0)),
    *((192, 128, 128), (64, 64, 128), (64, 0, 128), (64, 64, 0), (0, 128, 192)),
]


def camvid(root: Path) -> Source:
    """train/ trainannot/ ..., or images/SPLIT masks/SPLIT with lists in splits/; the value K is void.

    Raises ValueError for a split that is not there, or a list that cannot be read.
    """
    splits, notes = {}, []
    for split in ("train", "val", "test"):
        pairs = [(root / split, root / f"{split}annot"), (root / "images" / split, root / "masks" / split)]
        folders = next((pair for pair in pairs if all(folder.is_dir() for folder in pair)), None)
        if folders is None and split == "test":
            continue
        if folders is None:
            raise ValueError(
                f"{root}: no CamVid split {split!r}; expected {split}/ and {split}annot/, or images/{split}/ "
                f"and masks/{split}/"
            )
        images, masks = folders
        files, passed = list_images(images)
        notes += passed
        wanted = root / "splits" / f"{split}.txt"
        if wanted.is_file():
            names, again = read_ids(wanted)
            if again:
                notes.append(f"{len(again)} ids stand more than once in {wanted}, taken once: {some(again)}")
            by_stem = {file.stem: file for file in files}
            files = [by_stem.get(name, images / f"{name}.jpg") for name in names]
        splits[split] = [Item(file.stem, file, existing(masks / f"{file.stem}.png")) for file in files]
    notes += _leaks(splits)
    has_list = (root / "classes.txt").is_file()
    classes = read_class_list(root / "classes.txt") if has_list else ClassList(CAMVID_NAMES)
    void = len(classes.names)
    return Source(
        layout="camvid",
        root=root,
        names=classes.names,
        colours=classes.colours,
        splits=splits,
        dense_table=identity(void, void=void),
        notes=(*notes, *classes.notes, f"dense masks: {void} = void"),
    )


def _leaks(splits: dict[str, list[Item]]) -> list[str]:
    """Takes the images of val and test out of train -> notes on them."""
    notes = []
    for split in [name for name in splits if name != "train"]:
        held_out = {item.id for item in splits[split]}
        leaked = [item.id for item in splits["train"] if item.id in held_out]
        splits["train"] = [item for item in splits["train"] if item.id not in held_out]
        if leaked:
            notes.append(f"{len(leaked)} images of {split} left out of train: {some(leaked)}")
    return notes
