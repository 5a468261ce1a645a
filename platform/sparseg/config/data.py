"""The configuration of the data: which images, which labels, how they are cut."""

from __future__ import annotations

import dataclasses
import re
from typing import Literal

from sparseg.config.checks import field, flag, require
from sparseg.config.labels import MAX_CLASSES, PIXELLESS

NO_VALIDATION = "none"
"""As `val_split`: the run trains without validation."""
LEAST_TILE_PX = 64
"""Smaller tiles would be mostly border."""


MOST_TILE_PX = 4096
"""Tiles of other splits reach 1.5 times the side, and shards refuse images above 8192 * 8192 pixels when they
are read, which is long after they were cut."""


def check_tiles(tile_px: int, tile_overlap_px: int, label: str) -> None:
    """Raise ValueError unless an import can cut images with such labels into such tiles (0 = it does not)."""
    side, overlap = field("data.tile_px"), field("data.tile_overlap_px")
    require(
        tile_px == 0 or label != "tag",
        f"{field('data.label')}=tag says of a whole image, not of its tiles, which classes it has, and "
        f"{side} is {tile_px}; leave that out, or cut the images before they are tagged",
    )
    require(
        tile_px == 0 or LEAST_TILE_PX <= tile_px <= MOST_TILE_PX,
        f"{side} must be 0 (off) or {LEAST_TILE_PX}..{MOST_TILE_PX} pixels, got {tile_px}",
    )
    require(
        tile_px > 0 or tile_overlap_px == 0,
        f"{overlap}={tile_overlap_px} has no meaning without {side}; set that, too",
    )
    require(
        0 <= tile_overlap_px <= tile_px // 2,
        f"{overlap} must be in 0..{tile_px // 2} (half of {side}={tile_px}), got {tile_overlap_px}",
    )


def _check_group(val_group: str | None, val_split: str) -> None:
    """Raise ValueError unless images can be held out by such groups."""
    if val_group is None:
        return
    name = field("data.val_group")
    require(
        val_split != NO_VALIDATION,
        f"{name}={val_group!r} chooses the images held out, but {field('data.val_split')} is none; leave "
        "one of them out",
    )
    try:
        re.compile(val_group)
    except re.error as error:
        require(False, f"{name} must be folder or a regular expression, got {val_group!r} ({error})")


@dataclasses.dataclass(frozen=True, kw_only=True)
class ImportConfig:
    """How a raw dataset is imported: which annotation is read from it, and how its images are stored."""

    label: Literal["point", "scribble", "clicks", "block", "tag", "box", "full"] = "point"
    """Annotation trained on. `clicks` are drawn from dense masks by `random_pixels` or `clicks_per_class`;
    `tag`: the classes of an image and no pixel; `box`: nothing is known inside of the boxes, outside is
    class 0; `full` is the dense mask; the others are read from the data."""
    label_path: str | None = None
    """Folder of PNG label masks, or a file or folder of points, strokes, tags or boxes (default: the
    layout's own place)."""
    label_format: Literal[
        "auto",
        "png",
        "whats-the-point",
        "scribblesup",
        "csv",
        "labelme",
        "label-studio",
        "cvat",
        "coco",
        "voc",
    ] = "auto"
    """What is at `label_path`; `auto` looks at the files and says what it took."""
    stroke_px: float = 1.0
    """Width of strokes whose file states none (ScribbleSup: projects draw 1 or 3), pixels; recorded in the
    data."""
    unlabelled_code: int | None = None
    """Value in the label PNGs that means "nobody annotated this" (default: detected, and reported)."""
    mask_values: Literal["auto", "from-0", "from-1", "binary"] = "auto"
    """What the values of dense masks mean. `from-0`: class ids, 255 is void; `from-1`: v is class v-1, 0 is
    void; `binary`: 0 and 255 are the two classes, in label PNGs too; `auto`: as the layout has them, or asked
    for where that is in doubt."""
    random_pixels: int = 0
    """With label=clicks: labelled pixels per image, drawn uniformly from the annotated ones. 0 = off."""
    clicks_per_class: int = 0
    """With label=clicks: labelled pixels per class present in an image. 0 = off."""
    label_seed: int = 0
    """Seed of the drawn clicks. It is not `run.seed`: runs that differ in seed see the same annotation."""
    num_classes: int | None = None
    """Number of classes expected; a dataset with another number is refused (default: what the data says)."""
    orientation: Literal["upright", "stored"] = "upright"
    """What the labels of images with an EXIF orientation were made on: the picture as viewers and annotation
    tools show it, or (`stored`) the rows as the file holds them; the dataset keeps the same."""
    skip_bad: bool = False
    """At import, leave out unreadable or unlabelled images and list them instead of refusing the dataset."""
    unannotated: Literal["refuse", "keep"] = "refuse"
    """Images that nobody annotated: `keep` puts them into the split `pool`, which training never reads."""
    val_split: str = "val"
    """Split validated on; `none`: no validation, and the last checkpoint is the best. An import of a folder
    without split folders then trains on all its images."""
    val_group: str | None = None
    """Hold out whole groups of images: `folder` (the first folder below images/), or a regular expression
    whose first group, or whole match, in an image's id names its group (default: each image for itself)."""
    store: Literal["original", "fast", "raw"] = "original"
    """What an import keeps of the images: the files' own bytes; `fast`, which turns what is no JPEG into
    lossless tiles of which a crop decodes its own only; or `raw`: 3 bytes a pixel, nothing to decode."""
    tile_px: int = 0
    """Side of the tiles that an import cuts larger images into, pixels; 0 = off. `random_pixels` and
    `clicks_per_class` are then drawn in every tile."""
    tile_overlap_px: int = 0
    """Least overlap of neighbouring training tiles, pixels, at most half a tile; tiles of other splits never
    overlap."""
    long_side_px: int = 0
    """Working resolution: images with a longer side are resized to it at import, with their labels, and so is
    what the network predicts; masks come at full size. 0 = off."""

    def __post_init__(self) -> None:
        drawn = {"data.random_pixels": self.random_pixels, "data.clicks_per_class": self.clicks_per_class}
        for name, count in drawn.items():
            require(count >= 0, f"{field(name)} must be >= 0, got {count}")
            require(
                count == 0 or self.label == "clicks",
                f"{field(name)}={count} draws clicks from dense masks and needs "
                f"{field('data.label')}=clicks, got {self.label}",
            )
        require(
            not (self.random_pixels and self.clicks_per_class),
            f"set {field('data.random_pixels')} ({self.random_pixels}) or {field('data.clicks_per_class')} "
            f"({self.clicks_per_class}), not both",
        )
        code = self.unlabelled_code
        require(
            code is None or 0 <= code < 256, f"{field('data.unlabelled_code')} must be in 0..255, got {code}"
        )
        classes = self.num_classes
        require(
            classes is None or 2 <= classes <= MAX_CLASSES,
            f"{field('data.num_classes')} must be in 2..{MAX_CLASSES}, got {classes}",
        )
        check_tiles(self.tile_px, self.tile_overlap_px, self.label)
        _check_group(self.val_group, self.val_split)
        side, name = self.long_side_px, field("data.long_side_px")
        require(
            side == 0 or LEAST_TILE_PX <= side <= MOST_TILE_PX,
            f"{name} must be 0 (off) or {LEAST_TILE_PX}..{MOST_TILE_PX} pixels, got {side}",
        )
        require(
            side == 0 or self.tile_px == 0,
            f"{name}={side} resizes the images that {field('data.tile_px')}={self.tile_px} would cut; leave "
            "one of them out",
        )
        require(self.stroke_px >= 1, f"{field('data.stroke_px')} must be >= 1, got {self.stroke_px}")

    @property
    def validates(self) -> bool:
        """Whether there is a validation."""
        return self.val_split != NO_VALIDATION

    @property
    def draws_clicks(self) -> bool:
        """Whether the training labels are clicks that are drawn from the dense masks."""
        return bool(self.random_pixels or self.clicks_per_class)


@dataclasses.dataclass(frozen=True, kw_only=True)
class DataConfig(ImportConfig):
    """Which images, which labels, how they are cut."""

    root: str = ""
    """Folder of an imported dataset, or of a raw layout (see `layout`) that is imported once into
    `shards`."""
    layout: Literal["auto", "shards", "voc", "cityscapes", "ade20k", "camvid", "folder"] = "auto"
    """How `root` is laid out on disk; `auto` recognises it and says what it took."""
    shards: str | None = None
    """Folder that receives the import of a raw `root` (default: a name derived from the settings, under
    STORAGE/datasets)."""
    keep_labels: float = 1.0
    """Share of the clicks and strokes of every image that is kept, in (0, 1]; nested: less is a subset of
    more."""
    crop_px: int = 321
    """Side of the square training crop, pixels."""
    scale_min: float = 0.5
    """Smallest random resize factor of the training images."""
    scale_max: float = 2.0
    """Largest random resize factor of the training images."""
    crop_choice: Literal["random", "labelled"] = "random"
    """`labelled`: the window holds at least one labelled pixel, of a class drawn evenly among the image's."""
    colour: bool = False
    """Colour jitter, grey and blur of the VOC recipe."""
    sharding: Literal["global", "node"] = "global"
    """`global`: every node reads all shards. `node`: each reads, and copies from object storage, only its
    own; the order of the rows then depends on the number of nodes."""
    cache: str | None = None
    """Local folder for shards from object storage (default: sparseg in $XDG_CACHE_HOME or ~/.cache)."""
    loader_processes: int = 0
    """Processes per worker that decode and augment; 0 = in the training process, one step ahead in a
    thread."""
    train_split: str = "train"
    """Split trained on."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.crop_px >= 32, f"{field('data.crop_px')} must be at least 32 pixels, got {self.crop_px}")
        require(
            0 < self.scale_min <= self.scale_max,
            f"{field('data.scale_min')} and {field('data.scale_max')} must satisfy 0 < min <= max, got "
            f"{self.scale_min} and {self.scale_max}",
        )
        keep = self.keep_labels
        require(0 < keep <= 1, f"{field('data.keep_labels')} must be in (0, 1], got {keep}")
        require(
            keep == 1 or self.label not in PIXELLESS,
            f"{field('data.keep_labels')}={keep} drops clicks, of which "
            f"{field('data.label')}={self.label} has none; a class without its tag or box would be taught to "
            f"be absent; set {flag('data.keep_labels')} 1",
        )
        processes = self.loader_processes
        require(processes >= 0, f"{field('data.loader_processes')} must be >= 0, got {processes}")
        require(
            self.train_split != self.val_split,
            f"{field('data.train_split')} and {field('data.val_split')} are both {self.val_split!r}",
        )
