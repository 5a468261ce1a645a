"""What a raw dataset consists of, before anything is decoded; and small helpers that every layout uses."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sparseg.config import IGNORED, MAX_CLASSES, PIXELLESS, DataConfig, check_tiles
from sparseg.data import shards, sparsify
from sparseg.data.importers.files import label_files, nearest, read_lines, some

READ_KINDS = ("point", "scribble", "clicks", "block", *PIXELLESS)
STROKE_SUFFIXES = {
    **{"whats-the-point": ".json", "labelme": ".json", "coco": ".json", "label-studio": ".json"},
    **{"scribblesup": ".xml", "cvat": ".xml", "voc": ".xml", "csv": ".csv"},
}
"""Format of point and stroke files, of tags and boxes -> the suffix it is read from."""
WEAK_FORMATS = {"tag": ("csv", "coco", "cvat", "voc"), "box": ("coco", "labelme", "cvat", "voc")}
"""Label kind that places no class at a pixel -> the formats that it is read from; voc has no other kind."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings:
    """What an import was asked for; part of the cached dataset's name."""

    layout: str
    label: str = "point"
    label_path: str | None = None
    label_format: str = "auto"
    stroke_px: float = 1.0
    unlabelled_code: int | None = None
    random_pixels: int = 0
    clicks_per_class: int = 0
    label_seed: int = 0
    num_classes: int | None = None
    skip_bad: bool = False
    store: str = "original"
    tile_px: int = 0
    tile_overlap_px: int = 0
    recipe: sparsify.Recipe | None = None
    """Of `sparseg sparsify`; runs name random_pixels or clicks_per_class instead."""

    def __post_init__(self) -> None:
        check_tiles(self.tile_px, self.tile_overlap_px, self.label)

    @property
    def drawn(self) -> bool:
        """Whether the sparse labels are drawn from the dense masks."""
        return self.drawing is not None

    @property
    def drawing(self) -> sparsify.Recipe | None:
        """How the sparse labels are drawn from the dense masks; None: they are not."""
        if self.random_pixels:
            return sparsify.Recipe(kind="point", budget=self.random_pixels, seed=self.label_seed)
        if self.clicks_per_class:
            return sparsify.Recipe(kind="clicks", budget=self.clicks_per_class, seed=self.label_seed)
        return self.recipe


def settings_of(data: DataConfig, layout: str) -> Settings:
    """What a run's configuration asks of its import."""
    names = {field.name for field in dataclasses.fields(Settings)} - {"layout", "recipe"}
    return Settings(layout=layout, **{name: getattr(data, name) for name in names})


@dataclasses.dataclass(frozen=True)
class Item:
    """One image and where its annotations are."""

    id: str
    image: Path
    mask: Path | None = None
    """Dense ground truth."""
    label: Path | None = None
    """Sparse annotation as PNG."""


SparseRule = Callable[[Any, int | None, str], tuple[dict[int, int], str] | None]
"""(pixels of every value in all sparse PNGs (256,), declared code, where) -> (value -> class or code, what it
is), or None."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Source:
    """A raw dataset, listed but not read."""

    root: Path
    names: list[str]
    splits: dict[str, list[Item]]
    dense_table: dict[int, int]
    """Value in a dense mask -> class id or code; other values are refused."""
    places: dict[str, tuple[Path, ...]] = dataclasses.field(default_factory=dict)
    """Label kind -> where the layout keeps that annotation, first existing one wins."""
    point_files: tuple[Path, ...] = ()
    notes: tuple[str, ...] = ()
    dense_is_labels: bool = False
    """Dense masks are taken from labels/ for want of masks/: their density must be checked."""
    dense_hint: str = ""
    """What to do about a wrong value in a dense mask, where the layout knows better than the general."""
    sparse_rule: SparseRule | None = None
    """The layout's own reading of sparse PNGs; None from it means the general rule."""
    label_place: Path | None = None
    """Folder of the sparse PNGs, once found."""
    mask_place: Path | None = None
    """Folder of the dense masks, where there is one."""
    refused: tuple[dict[str, str], ...] = ()
    """Images that were left out: split, id, reason."""


def identity(num_classes: int, **codes: int) -> dict[int, int]:
    """Table of a mask whose classes are 0..K-1 and whose void is `codes["void"]` (default IGNORED)."""
    return {**{k: k for k in range(num_classes)}, codes.get("void", IGNORED): IGNORED}


def read_names(file: Path) -> list[str]:
    """Class names of a classes.txt: one a line, optionally led by its index; void entries left out.

    Raises ValueError naming the file and the line.
    """
    names: list[str] = []
    for number, line in enumerate(read_lines(file), 1):
        match = re.fullmatch(r"(?:(\d+)[\s:,]+)?(\S.*?)", line.strip())
        if not match or line.lstrip().startswith("#"):
            continue
        index, name = match.groups()
        if re.match(r"(void|ignored?|unlabell?ed)\b", name, re.IGNORECASE):
            continue
        if index is not None and int(index) != len(names):
            raise ValueError(
                f"{file}, line {number}: index {index} of {name!r} should be {len(names)}; number from 0"
            )
        names.append(name)
    if not 1 <= len(names) <= MAX_CLASSES or len(set(names)) != len(names):
        raise ValueError(
            f"{file}: needs 1 to {MAX_CLASSES} different class names, one a line; found {len(names)}"
        )
    return names


def attach(source: Source, settings: Settings) -> Source:
    """The source with the training images' annotation found, and all that is needed known to be there.

    Raises ValueError naming images without label, or the place where an annotation was looked for.
    """
    if settings.num_classes not in (None, len(source.names)):
        raise ValueError(
            f"{source.root}: has {len(source.names)} classes ({some(source.names, 25)}) but data.num_classes="
            f"{settings.num_classes}; correct --data.num-classes or the data's classes.txt"
        )
    read = settings.label in READ_KINDS and not settings.drawn
    if read:
        source = _attach_annotation(source, settings)
    for split, items in source.splits.items():
        if not items:
            raise ValueError(f"{source.root}: no rows in split {split!r}; check its list or image folder")
        absent = [item.image for item in items if not settings.skip_bad and not item.image.is_file()]
        if absent:
            raise ValueError(
                f"{source.root}, split {split!r}: {len(absent)} of {len(items)} listed images do not exist: "
                f"{some(absent)}; correct the list, or leave them out with --data.skip-bad"
            )
        source = _without_unlabelled(source, split, settings, read=split == "train" and read)
    return source


def _attach_annotation(source: Source, settings: Settings) -> Source:
    kind = settings.label
    if settings.label_path is not None:
        given = Path(settings.label_path)
        place = next((path for path in (given, source.root / given) if path.exists()), None)
        if place is None:
            raise ValueError(f"data.label_path: {given} does not exist (nor below {source.root})")
    else:
        places = source.places.get(kind, ())
        place = next((path for path in places if path.exists()), None)
        if place is None:
            looked = f" (looked for {some(places, 9)})" if places else ""
            name = "name its folder of PNGs, or its point or stroke files, with --data.label-path"
            draw = "for clicks drawn from dense masks use --data.label clicks --data.random-pixels N"
            if kind in WEAK_FORMATS:
                name = f"name its {', '.join(WEAK_FORMATS[kind])} files with --data.label-path"
                draw = f"`sparseg sparsify --kind {kind}` draws it from dense masks"
            raise ValueError(f"{source.root}: no {kind} annotation{looked}; {name}; {draw}")
    point_files = stroke_files(place, settings.label_format)
    if point_files:
        return dataclasses.replace(source, point_files=point_files)
    if kind in WEAK_FORMATS:
        raise ValueError(
            f"{place}: holds no file of {', '.join(WEAK_FORMATS[kind])}, from which data.label={kind} is "
            "read; correct --data.label-path or --data.label-format"
        )
    if place.is_file():
        raise ValueError(
            f"data.label_path: {place} is a file, but label PNGs are read from a folder; point and stroke "
            f"files end in {' '.join(sorted(set(STROKE_SUFFIXES.values())))}"
        )
    labels, notes = label_files(place, [item.id for item in source.splits["train"]])
    items = [dataclasses.replace(item, label=labels[item.id]) for item in source.splits["train"]]
    splits = {**source.splits, "train": items}
    return dataclasses.replace(source, splits=splits, notes=(*source.notes, *notes), label_place=place)


def _without_unlabelled(source: Source, split: str, settings: Settings, *, read: bool) -> Source:
    """The source without the images that have no label file, if those may be left out (skip_bad)."""
    items = source.splits[split]
    if read:
        bare = [] if source.point_files else [item.id for item in items if item.label is None]
        place = source.label_place
    else:
        bare, place = [item.id for item in items if item.mask is None], source.mask_place
    if not bare:
        return source
    if not settings.skip_bad or len(bare) == len(items):
        stems = [file.stem for file in place.rglob("*.png")] if place is not None else []
        remedy = "add the missing label PNGs, or leave these images out with --data.skip-bad"
        raise ValueError(
            f"{source.root}, split {split!r}: {len(bare)} of {len(items)} images are without label: "
            f"{some(bare)}{f' (looked in {place})' if place else ''}{nearest(bare, stems)}; {remedy}"
        )
    reason = f"no label file{f' in {place}' if place else ''}"
    refused = [{"split": split, "id": name, "reason": f"{name}: {reason}"} for name in bare]
    gone = set(bare)
    splits = {**source.splits, split: [item for item in items if item.id not in gone]}
    return dataclasses.replace(source, splits=splits, refused=(*source.refused, *refused))


def stroke_files(place: Path, label_format: str) -> tuple[Path, ...]:
    """The point and stroke files at a file or (anywhere below) a folder; none if it holds label PNGs.

    Raises ValueError for an unknown format, for a declared one without its files, and for several suffixes.
    """
    if label_format == "png":
        return ()
    if label_format not in (*STROKE_SUFFIXES, "auto"):
        known = ", ".join(("auto", "png", *STROKE_SUFFIXES))
        raise ValueError(f"data.label_format must be one of {known}; got {label_format!r}")
    found = [place] if place.is_file() else sorted(place.rglob("*"))
    by_suffix: dict[str, list[Path]] = {}
    for file in found:
        if file.suffix.lower() in STROKE_SUFFIXES.values() and file.name[0] != "." and file.is_file():
            by_suffix.setdefault(file.suffix.lower(), []).append(file)
    if label_format != "auto":
        suffix = STROKE_SUFFIXES[label_format]
        if suffix not in by_suffix:
            holds = "is no" if place.is_file() else "holds no"
            raise ValueError(
                f"{place}: {holds} {suffix} file, from which {label_format} is read; correct "
                "--data.label-path or --data.label-format"
            )
        return tuple(by_suffix[suffix])
    if len(by_suffix) > 1:
        firsts = some(files[0] for files in by_suffix.values())
        raise ValueError(
            f"{place}: holds annotation files of several kinds ({firsts}); name one file with "
            "--data.label-path, or its format with --data.label-format"
        )
    return tuple(next(iter(by_suffix.values()), ()))


def fingerprint(source: Source, settings: Settings) -> str:
    """Short name of (settings, root, files with size and time): another import gives another one."""
    files = [
        file
        for items in source.splits.values()
        for item in items
        for file in (item.image, item.mask, item.label)
    ]
    facts = []
    for file in [*files, *source.point_files]:
        stat = file.stat() if file is not None and file.exists() else None
        facts.append([str(file), stat and stat.st_size, stat and stat.st_mtime_ns])
    left_out = {"num_classes"} if settings.tile_px else {"num_classes", "tile_px", "tile_overlap_px"}
    asked = {name: value for name, value in dataclasses.asdict(settings).items() if name not in left_out}
    ids = {split: [item.id for item in items] for split, items in source.splits.items()}
    text = json.dumps([shards.VERSION, asked, str(source.root.resolve()), source.names, ids, facts])
    return hashlib.sha256(text.encode()).hexdigest()[:10]
