"""How VOC, CamVid, Cityscapes and plain folders lie on disk: listing only, nothing is decoded here."""

from __future__ import annotations

import hashlib
from pathlib import Path

from sparseg.config import IGNORED
from sparseg.importers.source import (
    READ_KINDS,
    Item,
    Settings,
    Source,
    existing,
    first_folder,
    identity,
    list_images,
    read_names,
    some,
)

VOC_NAMES = (
    "background aeroplane bicycle bird boat bottle bus car cat chair cow diningtable dog horse motorbike "
    "person "
    "pottedplant sheep sofa train tvmonitor"
).split()
CAMVID_NAMES = "sky building pole road pavement tree signsymbol fence car pedestrian bicyclist".split()
CITYSCAPES_NAMES = [
    *("road", "sidewalk", "building", "wall", "fence", "pole", "traffic light", "traffic sign", "vegetation"),
    *("terrain", "sky", "person", "rider", "car", "truck", "bus", "train", "motorcycle", "bicycle"),
]
CITYSCAPES_IDS = (7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33)
CAMVID_PALETTE = [
    *((128, 128, 128), (128, 0, 0), (192, 192, 128), (128, 64, 128), (60, 40, 222), (128, 128, 0)),
    *((192, 128, 128), (64, 64, 128), (64, 0, 128), (64, 64, 0), (0, 128, 192)),
]
CITYSCAPES_PALETTE = [
    *((128, 64, 128), (244, 35, 232), (70, 70, 70), (102, 102, 156), (190, 153, 153), (153, 153, 153)),
    *(
        (250, 170, 30),
        (220, 220, 0),
        (107, 142, 35),
        (152, 251, 152),
        (70, 130, 180),
        (220, 20, 60),
        (255, 0, 0),
    ),
    *((0, 0, 142), (0, 0, 70), (0, 60, 100), (0, 80, 100), (0, 0, 230), (119, 11, 32)),
]
PALETTES = {"camvid": CAMVID_PALETTE, "cityscapes": CITYSCAPES_PALETTE}


def detect(root: Path) -> str:
    """Name of the raw layout.  Raises ValueError saying what was looked for."""
    if _voc_root(root) is not None:
        return "voc"
    if (root / "leftImg8bit").is_dir():
        return "cityscapes"
    if (root / "trainannot").is_dir() or ((root / "masks" / "train").is_dir() and (root / "splits").is_dir()):
        return "camvid"
    if (root / "images").is_dir():
        return "folder"
    raise ValueError(
        f"{root}: layout not recognised (neither an imported dataset, nor JPEGImages/, leftImg8bit/, "
        "trainannot/, "
        f"images/); found {some(sorted(p.name for p in root.iterdir()), 6) or 'an empty folder'}; name it "
        "with "
        "--data.layout voc|camvid|cityscapes|folder or correct --data.root"
    )


def read_layout(root: Path, settings: Settings) -> Source:
    """The raw dataset at `root`.  Raises ValueError for an unknown layout or one that is not there."""
    match settings.layout:
        case "voc":
            return voc(root)
        case "camvid":
            return camvid(root)
        case "cityscapes":
            return cityscapes(root)
        case "folder":
            return folder(root, settings)
    raise ValueError(f"unknown layout {settings.layout!r}; known: voc, camvid, cityscapes, folder")


# -------------------------------------------------------------------------------------------------------- VOC


def _voc_root(root: Path) -> Path | None:
    tries = (root, root / "VOC2012", root / "VOCdevkit" / "VOC2012")
    return next((path for path in tries if (path / "JPEGImages").is_dir()), None)


def _voc_list(root: Path, *names: str) -> Path:
    tries = [
        root / "ImageSets" / sets / name for name in names for sets in ("SegmentationAug", "Segmentation")
    ]
    found = next((path for path in tries if path.is_file()), None)
    if found is None:
        raise ValueError(f"{root}: no list of images; looked for {some(tries, 9)}")
    return found


def _voc_ids(file: Path) -> list[str]:
    """Ids of a list; a line may also be `/JPEGImages/ID.jpg /SegmentationClassAug/ID.png`."""
    ids = [Path(line.split()[0]).stem for line in file.read_text().splitlines() if line.strip()]
    return list(dict.fromkeys(ids))


def voc(root: Path) -> Source:
    """PASCAL VOC 2012, with SBD's SegmentationClassAug where it is there; validation images never train."""
    home = _voc_root(root)
    if home is None:
        raise ValueError(f"{root}: no JPEGImages/ folder, so this is no VOC layout; correct --data.root")
    masks = [home / name for name in ("SegmentationClassAug", "SegmentationClass")]
    notes = []
    lists = {"train": _voc_list(home, "train_aug.txt", "train.txt"), "val": _voc_list(home, "val.txt")}
    ids = {split: _voc_ids(file) for split, file in lists.items()}
    leaked = sorted(set(ids["train"]) & set(ids["val"]))
    if leaked:
        notes.append(f"{len(leaked)} validation images left out of {lists['train']}: {some(leaked)}")
        ids["train"] = [name for name in ids["train"] if name not in set(leaked)]
    splits = {}
    for split, names in ids.items():
        splits[split] = [
            Item(
                name,
                home / "JPEGImages" / f"{name}.jpg",
                next((m / f"{name}.png" for m in masks if (m / f"{name}.png").is_file()), None),
            )
            for name in names
        ]
        notes.append(f"{split}: {len(names)} images of {lists[split]}")
    places = {
        "point": tuple(home / n for n in ("points", "PointAnnotations", "point", "SegmentationClassPoint")),
        "scribble": tuple(
            home / n for n in ("scribbles", "scribble", "ScribbleAnnotations", "SegmentationClassScribble")
        ),
    }
    return Source(
        root=home,
        names=VOC_NAMES,
        splits=splits,
        dense_table=identity(len(VOC_NAMES)),
        places=places,
        notes=tuple(notes),
    )


# ----------------------------------------------------------------------------------------- CamVid, Cityscapes


def camvid(root: Path) -> Source:
    """CamVid in SegNet's layout (train/ trainannot/ ...) or as images/SPLIT masks/SPLIT; value 11 is void."""
    splits = {}
    for split in ("train", "val", "test"):
        if (root / f"{split}annot").is_dir() and (root / split).is_dir():
            images, masks = root / split, root / f"{split}annot"
        elif (root / "images" / split).is_dir() and (root / "masks" / split).is_dir():
            images, masks = root / "images" / split, root / "masks" / split
        elif split == "test":
            continue
        else:
            raise ValueError(
                f"{root}: no CamVid split {split!r}; expected {split}/ and {split}annot/, or "
                f"images/{split}/ and "
                f"masks/{split}/"
            )
        files = list_images(images)
        wanted = root / "splits" / f"{split}.txt"
        if wanted.is_file():
            names = wanted.read_text().split()
            by_stem = {file.stem: file for file in files}
            files = [by_stem.get(name, images / f"{name}.jpg") for name in dict.fromkeys(names)]
        splits[split] = [Item(file.stem, file, existing(masks / f"{file.stem}.png")) for file in files]
    names = read_names(root / "classes.txt") if (root / "classes.txt").is_file() else CAMVID_NAMES
    return Source(root=root, names=names, splits=splits, dense_table=identity(len(names), void=len(names)))


def cityscapes(root: Path) -> Source:
    """Cityscapes' own folders; gtFine labelTrainIds, or labelIds mapped to the 19 training classes."""
    found: dict[str, dict[str, list[Item]]] = {"labelTrainIds": {}, "labelIds": {}}
    for split in ("train", "val"):
        images = sorted((root / "leftImg8bit" / split).glob("*/*_leftImg8bit.png"))
        if not images:
            raise ValueError(
                f"{root}: split {split!r} is absent: no leftImg8bit/{split}/CITY/*_leftImg8bit.png; unpack "
                "it there "
                "(training needs both train and val)"
            )
        for kind, splits in found.items():
            splits[split] = []
            for file in images:
                name = file.name.removesuffix("_leftImg8bit.png")
                mask = root / "gtFine" / split / file.parent.name / f"{name}_gtFine_{kind}.png"
                splits[split].append(Item(name, file, existing(mask)))
    # one kind for all, whichever is more complete: a mixture of the two could not be told apart by value
    counts = {
        kind: sum(i.mask is not None for items in s.values() for i in items) for kind, s in found.items()
    }
    kind = max(counts, key=counts.__getitem__)
    table = identity(len(CITYSCAPES_NAMES))
    if kind == "labelIds":
        table = dict.fromkeys([*range(34), IGNORED], IGNORED)
        table |= {value: k for k, value in enumerate(CITYSCAPES_IDS)}
    return Source(
        root=root,
        names=CITYSCAPES_NAMES,
        splits=found[kind],
        dense_table=table,
        notes=(f"dense masks: gtFine {kind}",),
    )


# ---------------------------------------------------------------------------------------------------- folders


def _folder_names(root: Path, settings: Settings) -> list[str]:
    file = root / "classes.txt"
    if file.is_file():
        return read_names(file)
    if settings.num_classes is None:
        raise ValueError(
            f"{root}: no classes.txt, so the classes are not known; write one name a line, or give "
            "--data.num-classes"
        )
    return [f"class_{k}" for k in range(settings.num_classes)]


def _hash_split(files: list[Path]) -> dict[str, list[Path]]:
    """80 % train, 20 % val by a hash of the stem: an image keeps its side when others are added."""
    rank = {file: int(hashlib.sha256(f"split/0/{file.stem}".encode()).hexdigest()[:8], 16) for file in files}
    val = {file for file in files if rank[file] < 0.2 * 2**32}
    if len(files) > 1 and not 0 < len(val) < len(files):
        extreme = min(files, key=rank.__getitem__) if not val else max(files, key=rank.__getitem__)
        val ^= {extreme}
    return {"train": [f for f in files if f not in val], "val": [f for f in files if f in val]}


def folder(root: Path, settings: Settings) -> Source:
    """images/ with labels/ and/or dense masks/ of the same stems, each flat or with a folder a split."""
    images, labels, masks = (root / name for name in ("images", "labels", "masks"))
    if not images.is_dir():
        raise ValueError(
            f"{root}: no images/ folder; expected images/ with labels/ or masks/, and classes.txt"
        )
    if first_folder(labels, masks) is None:
        raise ValueError(
            f"{root}: neither labels/ (sparse) nor masks/ (dense); label PNGs are named as the images"
        )
    notes = []
    if (images / "train").is_dir():
        files = {s: list_images(images / s) for s in ("train", "val", "test") if (images / s).is_dir()}
        if "val" not in files:
            raise ValueError(f"{images}: has train/ but no val/; validation needs images and dense masks")
    else:
        files = _hash_split(list_images(images))
        sizes = ", ".join(f"{split} {len(found)}" for split, found in files.items())
        notes.append(f"no split folders below {images}: split 80/20 by a hash of the names ({sizes})")
    dense = masks if masks.is_dir() else labels

    def find(home: Path, split: str, stem: str) -> Path | None:
        return existing(home / split / f"{stem}.png") or existing(home / f"{stem}.png")

    splits = {s: [Item(f.stem, f, find(dense, s, f.stem)) for f in found] for s, found in files.items()}
    read = settings.label in READ_KINDS and not settings.drawn
    if read and dense == labels:  # sparse labels must not be stored as the dense truth of training images
        splits["train"] = [Item(item.id, item.image) for item in splits["train"]]
    return Source(
        root=root,
        names=_folder_names(root, settings),
        splits=splits,
        dense_table=identity(len(_folder_names(root, settings))),
        places={kind: (labels / "train", labels) for kind in READ_KINDS} if read else {},
        notes=tuple(notes),
        dense_is_labels=dense == labels,
    )
