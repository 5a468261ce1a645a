"""Tiny synthetic datasets on disk, in the layouts that the importers read."""

from __future__ import annotations

import hashlib
import io
import json
import struct
import zlib
from pathlib import Path

import numpy as np
from PIL import Image

from sparseg.config import IGNORED, UNLABELLED
from sparseg.data.shards.images import PNG_SIGNATURE

HEIGHT, WIDTH = 24, 32


def dense_mask(
    name: str, num_classes: int, void: int, *, height: int = HEIGHT, width: int = WIDTH
) -> np.ndarray:
    """(H, W) uint8: three vertical bands of classes chosen by the name, and a void row at the bottom."""
    first = hashlib.sha256(name.encode()).digest()[0] % num_classes
    bands = np.array([(first + k) % num_classes for k in range(3)], np.uint8)
    mask = np.repeat(bands[np.arange(width) * 3 // width][None], height, axis=0)
    mask[-1] = void
    return mask


def sparse_label(dense: np.ndarray, unlabelled: int) -> np.ndarray:
    """The labels of the second row of a dense mask, `unlabelled` elsewhere."""
    label = np.full_like(dense, unlabelled)
    label[1] = dense[1]
    return label


def save_image(file: Path, mask: np.ndarray) -> None:
    """A picture whose colours follow the mask."""
    file.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(list(f"{file.parent.name}/{file.stem}".encode()))  # no two are equal
    picture = np.stack([mask * 9 % 200, mask * 5 % 200, mask * 3 % 200], axis=2)
    picture = picture + rng.integers(0, 50, picture.shape)
    Image.fromarray(picture.astype(np.uint8)).save(file)


def save_label(file: Path, array: np.ndarray) -> None:
    """A palette PNG."""
    file.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(array.astype(np.uint8))
    image.putpalette([value % 256 for k in range(256) for value in (7 * k, 31 * k, 57 * k)])
    image.save(file)


def camvid(root: Path, *, segnet: bool = False, train: int = 4, val: int = 2, test: int = 0) -> Path:
    """CamVid: 11 classes, 11 = void; as images/SPLIT masks/SPLIT, or as SegNet's SPLIT and SPLITannot."""
    for split, count in {"train": train, "val": val, "test": test}.items():
        names = [f"{split}_{number:03d}" for number in range(count)]
        for name in names:
            mask = dense_mask(name, 11, 11)
            save_image((root / split if segnet else root / "images" / split) / f"{name}.png", mask)
            save_label((root / f"{split}annot" if segnet else root / "masks" / split) / f"{name}.png", mask)
        if count and not segnet:
            (root / "splits").mkdir(exist_ok=True)
            (root / "splits" / f"{split}.txt").write_text("\n".join(names) + "\n")
    return root


def voc(root: Path, *, train: int = 4, val: int = 2, scribbles: int | None = None) -> Path:
    """VOC: 21 classes, clicks as JSON (background apart) and as PNGs.

    Image 0's first click lies outside its picture.  `scribbles` is the unlabelled code of a folder of PNGs.
    """
    objects: dict[str, list[dict[str, float]]] = {}
    background: dict[str, list[dict[str, float]]] = {}
    names = {"train": [f"2007_{k:06d}" for k in range(train)], "val": [f"2008_{k:06d}" for k in range(val)]}
    for split, ids in names.items():
        for name in ids:
            mask = dense_mask(name, 21, 255)
            save_image(root / "JPEGImages" / f"{name}.jpg", mask)
            save_label(root / "SegmentationClass" / f"{name}.png", mask)
            clicks = [{"x": 3.7, "y": 2.2, "cls": 5, "rank": 1}, {"x": 20.0, "y": 9.9, "cls": 7, "rank": 1}]
            objects[name] = (
                [{"x": 754.2, "y": 3.0, "cls": 5, "rank": 1}, *clicks] if name.endswith("0") else clicks
            )
            background[name] = [{"x": 3.1, "y": 2.9, "cls": 0}, {"x": 30.5, "y": 1.0, "cls": 0}]
            label = np.full_like(mask, 255)
            label[1, 30], label[2, 3], label[9, 20] = 0, 5, 7
            save_label(root / "PointAnnotations" / f"{name}.png", label)
            if scribbles is not None:
                save_label(root / "scribbles" / f"{name}.png", sparse_label(mask, scribbles))
        lists = root / "ImageSets" / "Segmentation"
        lists.mkdir(parents=True, exist_ok=True)
        (lists / f"{split}.txt").write_text("\n".join(ids) + "\n")
    (root / "points").mkdir()
    (root / "points" / "voc_whats_the_point.json").write_text(json.dumps(objects))
    (root / "points" / "voc_whats_the_point_bg.json").write_text(json.dumps(background))
    return root


def cityscapes(root: Path, *, train: int = 2, val: int = 1, kind: str = "labelIds") -> Path:
    """Cityscapes: `kind` labelIds (0..33, some of which are void) or labelTrainIds (0..18, 255)."""
    for split, count in {"train": train, "val": val}.items():
        for number in range(count):
            name = f"ulm_{number:06d}_000019"
            mask = dense_mask(name, 34, 0) if kind == "labelIds" else dense_mask(name, 19, 255)
            save_image(root / "leftImg8bit" / split / "ulm" / f"{name}_leftImg8bit.png", mask)
            save_label(root / "gtFine" / split / "ulm" / f"{name}_gtFine_{kind}.png", mask)
    return root


def ade20k(root: Path, *, train: int = 4, val: int = 2, num_classes: int = 5, info: bool = True) -> Path:
    """ADE20K's folders; a mask holds class + 1, and 0 in its void row."""
    for split, count in {"training": train, "validation": val}.items():
        for number in range(count):
            name = f"ADE_{split[:-3]}_{number:08d}"
            mask = (dense_mask(name, num_classes, 255).astype(np.int16) + 1) % 256
            save_image(root / "images" / split / f"{name}.jpg", mask)
            save_label(root / "annotations" / split / f"{name}.png", mask)
    if info:
        lines = ["Idx\tRatio\tTrain\tVal\tStuff\tName"]
        lines += [f"{k + 1}\t0.1\t10\t2\t1\tthing {k}, object {k}" for k in range(num_classes)]
        (root / "objectInfo150.txt").write_text("\n".join(lines) + "\n")
    return root


def folder(
    root: Path,
    *,
    count: int = 10,
    splits: bool = False,
    masks: bool = True,
    unlabelled: int = 255,
    num_classes: int = 3,
) -> Path:
    """images/, sparse labels/ with that code, dense masks/, classes.txt; flat or with train/ and val/."""
    for number in range(count):
        name = f"photo_{number:02d}"
        part = Path(("val" if number % 5 == 0 else "train") if splits else "")
        mask = dense_mask(name, num_classes, 255)
        save_image(root / "images" / part / f"{name}.jpg", mask)
        label = sparse_label(mask, unlabelled)
        save_label(root / "labels" / part / f"{name}.png", label)
        if masks:
            save_label(root / "masks" / part / f"{name}.png", mask)
    (root / "classes.txt").write_text(
        "".join(f"{k} class {chr(97 + k) if k < 26 else k}\n" for k in range(num_classes))
    )
    return root


def row(name: str, label: np.ndarray, mask: np.ndarray | None = None) -> dict[str, object]:
    """A row for shards.write with a plain picture."""
    buffer = io.BytesIO()
    Image.fromarray(np.zeros((*label.shape, 3), np.uint8)).save(buffer, "PNG")
    height, width = label.shape
    return {
        "id": name,
        "image": buffer.getvalue(),
        "label": label,
        "mask": mask,
        "height": height,
        "width": width,
    }


def coded_label(height: int = 4, width: int = 6) -> np.ndarray:
    """(H, W) uint8 with the classes 0 and 2, unlabelled and ignored pixels."""
    label = np.full((height, width), UNLABELLED, np.uint8)
    label[0, 0], label[1, 1], label[-1] = 0, 2, IGNORED
    return label


def png_header(width: int, height: int, bits: int = 8, colour_type: int = 2) -> bytes:
    """A PNG that claims a size and holds a few bytes."""
    chunks = [(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, colour_type, 0, 0, 0))]
    chunks += [(b"IDAT", zlib.compress(bytes(64))), (b"IEND", b"")]
    body = b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in chunks
    )
    return PNG_SIGNATURE + body
