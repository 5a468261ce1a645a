"""The sections of the configuration, and the codes of a label map."""

from __future__ import annotations

import dataclasses
import hashlib
import math
import re
from pathlib import Path
from typing import Literal

UNLABELLED = 254
"""Pixel inside the image that nobody annotated: no cross-entropy, but the mixture supervises it."""
IGNORED = 255
"""Void border of the ground truth, or padding: no loss, no metric."""
PIXELLESS = ("tag", "box")
"""Values of data.label that name the classes of an image, but say of no pixel that it is an object's."""
MAX_CLASSES = 250
"""Class ids are 0..K-1 with K at most this, so that they never meet a code."""
LEAST_TILE_PX = 64
"""Smaller tiles would be mostly border."""
MOST_TILE_PX = 4096
"""Tiles of other splits reach 1.5 times the side, and shards refuse images above 8192 * 8192 pixels when they
are read, which is long after they were cut."""


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise ValueError(message)


def check_tiles(tile_px: int, tile_overlap_px: int, label: str) -> None:
    """Raise ValueError unless an import can cut images with such labels into such tiles (0 = it does not)."""
    _require(
        tile_px == 0 or label != "tag",
        f"data.label=tag says of a whole image, not of its tiles, which classes it has, and data.tile_px is "
        f"{tile_px}; leave that out, or cut the images before they are tagged",
    )
    _require(
        tile_px == 0 or LEAST_TILE_PX <= tile_px <= MOST_TILE_PX,
        f"data.tile_px must be 0 (off) or {LEAST_TILE_PX}..{MOST_TILE_PX} pixels, got {tile_px}",
    )
    _require(
        tile_px > 0 or tile_overlap_px == 0,
        f"data.tile_overlap_px={tile_overlap_px} has no meaning without data.tile_px; set that, too",
    )
    _require(
        0 <= tile_overlap_px <= tile_px // 2,
        f"data.tile_overlap_px must be in 0..{tile_px // 2} (half of data.tile_px={tile_px}), got "
        f"{tile_overlap_px}",
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class DataConfig:
    """Which images, which labels, how they are cut."""

    root: str = ""
    """Folder of an imported dataset, or of a raw layout (see `layout`) that is imported once into
    `shards`."""
    layout: Literal["auto", "shards", "voc", "cityscapes", "ade20k", "camvid", "folder"] = "auto"
    """How `root` is laid out on disk; `auto` recognises it and says what it took."""
    shards: str | None = None
    """Folder that receives the import of a raw `root` (default: a name derived from the settings, under
    STORAGE/datasets)."""
    label: Literal["point", "scribble", "clicks", "block", "tag", "box", "full"] = "point"
    """Annotation trained on. `clicks` are drawn from dense masks by `random_pixels` or `clicks_per_class`;
    `tag`: the classes of an image and no pixel; `box`: nothing is known inside of the boxes, outside is
    class 0; `full` is the dense mask; the others are read from the data."""
    label_path: str | None = None
    """Folder of PNG label masks, or a file or folder of points, strokes, tags or boxes (default: the
    layout's own place)."""
    label_format: Literal[
        "auto", "png", "whats-the-point", "scribblesup", "csv", "labelme", "cvat", "coco", "voc"
    ] = "auto"
    """What is at `label_path`; `auto` looks at the files and says what it took."""
    stroke_px: float = 1.0
    """Width of strokes whose file states none (ScribbleSup: projects draw 1 or 3), pixels; recorded in the
    data."""
    unlabelled_code: int | None = None
    """Value in the label PNGs that means "nobody annotated this" (default: detected, and reported)."""
    random_pixels: int = 0
    """With label=clicks: labelled pixels per image, drawn uniformly from the annotated ones. 0 = off."""
    clicks_per_class: int = 0
    """With label=clicks: labelled pixels per class present in an image. 0 = off."""
    label_seed: int = 0
    """Seed of the drawn clicks. It is not `run.seed`: runs that differ in seed see the same annotation."""
    store: Literal["original", "fast", "raw"] = "original"
    """What an import keeps of the images: the files' own bytes; `fast`, which turns what is no JPEG into
    lossless tiles of which a crop decodes its own only; or `raw`: 3 bytes a pixel, nothing to decode."""
    tile_px: int = 0
    """Side of the tiles that an import cuts larger images into, pixels; 0 = off. `random_pixels` and
    `clicks_per_class` are then drawn in every tile."""
    tile_overlap_px: int = 0
    """Least overlap of neighbouring training tiles, pixels, at most half a tile; tiles of other splits never
    overlap."""
    keep_labels: float = 1.0
    """Share of the clicks and strokes of every image that is kept, in (0, 1]; nested: less is a subset of
    more."""
    num_classes: int | None = None
    """Number of classes expected; a dataset with another number is refused (default: what the data says)."""
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
    """Local folder for shards copied from object storage (default: ~/.cache/sparseg)."""
    loader_processes: int = 0
    """Processes per worker that decode and augment; 0 = in the training process, one step ahead in a
    thread."""
    skip_bad: bool = False
    """At import, leave out unreadable or unlabelled images and list them instead of refusing the dataset."""
    train_split: str = "train"
    """Split trained on."""
    val_split: str = "val"
    """Split validated on."""

    def __post_init__(self) -> None:
        _require(self.crop_px >= 32, f"data.crop_px must be at least 32 pixels, got {self.crop_px}")
        _require(
            0 < self.scale_min <= self.scale_max,
            f"data.scale_min and data.scale_max must satisfy 0 < min <= max, got {self.scale_min} and "
            f"{self.scale_max}",
        )
        _require(0 < self.keep_labels <= 1, f"data.keep_labels must be in (0, 1], got {self.keep_labels}")
        _require(
            self.keep_labels == 1 or self.label not in PIXELLESS,
            f"data.keep_labels={self.keep_labels} drops clicks, of which data.label={self.label} has none; "
            "a class without its tag or box would be taught to be absent; set --data.keep-labels 1",
        )
        _require(
            self.loader_processes >= 0, f"data.loader_processes must be >= 0, got {self.loader_processes}"
        )
        for name in ("random_pixels", "clicks_per_class"):
            value = getattr(self, name)
            _require(value >= 0, f"data.{name} must be >= 0, got {value}")
            _require(
                value == 0 or self.label == "clicks",
                f"data.{name}={value} draws clicks from dense masks and needs data.label=clicks, got "
                f"{self.label}",
            )
        _require(
            not (self.random_pixels and self.clicks_per_class),
            f"set data.random_pixels ({self.random_pixels}) or data.clicks_per_class "
            f"({self.clicks_per_class}), not both",
        )
        code = self.unlabelled_code
        _require(code is None or 0 <= code <= 255, f"data.unlabelled_code must be in 0..255, got {code}")
        count = self.num_classes
        _require(
            count is None or 2 <= count <= MAX_CLASSES,
            f"data.num_classes must be in 2..{MAX_CLASSES}, got {count}",
        )
        _require(
            self.train_split != self.val_split,
            f"data.train_split and data.val_split are both {self.val_split!r}",
        )
        check_tiles(self.tile_px, self.tile_overlap_px, self.label)
        _require(self.stroke_px >= 1, f"data.stroke_px must be >= 1, got {self.stroke_px}")


@dataclasses.dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """timm backbone and DeepLabV3+ decoder, or a light one on a plain vision transformer."""

    backbone: str = "resnet101d"
    """timm model name: what offers `features_only` at any stride (ResNets, MobileNets, ConvNeXt, ...), or a
    plain vision transformer that takes images of any size (DeiT, DINOv2, DINOv3, ...)."""
    weights: str = "none"
    """Pretrained backbone: a .safetensors or .pth file, `timm` (its cache, or download where there is a
    network), or `none` (random, with a warning)."""
    output_stride: int = 8
    """Pixels of the image per cell of the deepest feature map: 8, 16 or 32. Not used with a plain
    transformer, whose cells are its patches."""
    aspp_dilations: tuple[int, ...] = (6, 12, 18)
    """Dilations of the 3x3 branches of the atrous pyramid, cells of the deepest map; a crop must have more
    cells a side. Not used with a plain transformer, which has no pyramid."""
    multi_grid: bool = False
    """Dilations x(1, 2, 4) inside the last stage (ResNets only)."""
    feature_channels: int = 256
    """Channels of the decoder and of the feature that the mixture sees."""
    separable: bool = False
    """Depthwise-separable 3x3 convolutions in the decoder: several times cheaper on a CPU."""
    bilateral: bool = False
    """Bilateral filter on the decoder's feature (DBFNet, Wu et al., TIP 2022; bilateral.py): near cells of
    like feature become more alike."""

    def __post_init__(self) -> None:
        _require(
            self.output_stride in (8, 16, 32),
            f"model.output_stride must be 8, 16 or 32, got {self.output_stride}",
        )
        _require(
            self.feature_channels >= 8,
            f"model.feature_channels must be at least 8, got {self.feature_channels}",
        )
        _require(
            len(self.aspp_dilations) >= 1 and min(self.aspp_dilations) >= 1,
            f"model.aspp_dilations must be one or more integers >= 1, got {self.aspp_dilations}",
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class LossConfig:
    """What is minimised; the equations stand in mixture.py and losses.py."""

    method: Literal[
        "ce",
        "ce+absent",
        "agmm",
        "agmm-em",
        "tel",
        "gated-crf",
        "dense-pairwise",
        "agmm+tel",
        "agmm+gated-crf",
    ] = "ce"
    """`ce`: cross-entropy on the labelled pixels, which all others have, too. `ce+absent`: and the
    absent-class term. `agmm`: and the mixture and the absent-class term. `agmm-em`: the same with one mixture
    over the data set, fitted by online EM (online_em.py). `tel`: and the tree energy.
    `gated-crf`, `dense-pairwise`: and a pairwise energy, of near pairs or of all. The default is what no
    other setting beat in the tables of RESULTS.md."""
    variance: Literal["published", "adaptive", "unweighted"] = "adaptive"
    """Variance of a class in an image: fixed `sigma`, responsibility-weighted (Eq. 7), or the plain mean of
    d^2."""
    sigma: float = 0.5**0.5
    """With variance=published: standard deviation, in units of the feature distance."""
    bandwidth: float = 1.0
    """With variance=adaptive or unweighted: factor beta on the estimated standard deviation."""
    distance: Literal["l1", "l2"] = "l1"
    """Feature distance: mean absolute, or root mean square, difference over the channels."""
    target: Literal["similarity", "posterior"] = "similarity"
    """What L_mix asks of the prediction. `similarity`: G of each class by itself, as published. `posterior`:
    the responsibilities of a whole mixture, pi_k P_k G_k made to sum to 1 over the classes annotated in the
    image, held fixed; sigma is shared by the classes, pi estimated. Needs centroids=memory."""
    centroids: Literal["batch", "memory"] = "batch"
    """`batch`: a class's mean over its labelled pixels in the crop. `memory`: a running mean over the
    batches, which also stands for classes whose labels lie outside the crop."""
    centroid_momentum: float = 0.9
    """With centroids=memory, or method=agmm-em: share of the old mean that a batch leaves."""
    centroid_reduction: Literal["auto", "sum", "mean"] = "auto"
    """How class means of the images join into the batch centroid of L_sep; `auto` = sum if variance=published
    (as in the released code), else mean."""
    em_steps: int = 1
    """With method=agmm-em: EM steps a batch."""
    em_confidence: float = 0.9
    """With method=agmm-em: responsibility from which on a cell counts as pseudo-labelled, above 0.5."""
    em_trust: float = 0.5
    """With method=agmm-em: share of the pseudo-labelled cells in a class's mean beside labelled pixels. 0 =
    labelled pixels alone."""
    class_balance: float = 0.0
    """In L_seg a class of share f of the labelled pixels weighs f ** -class_balance, scaled to a mean of 1
    over those pixels. 0 = every pixel counts the same, 1 = every class does."""
    seg_weight: float = 1.0
    """Weight of the cross-entropy on labelled pixels."""
    mix_weight: float = 1.0
    """Weight of L_mix (prediction follows the mixture). 0 = not computed."""
    label_weight: float = 1.0
    """Weight of L_label (mixture follows the labels). 0 = not computed."""
    sep_weight: float = 1.0
    """Weight of L_sep (class centroids apart). 0 = not computed."""
    absent_weight: float = 1.0
    """Weight of L_absent (classes not annotated in the image are improbable). 0 = not computed."""
    only_weight: float = 0.0
    """Weight of the only-class term, wherever L_absent is: an image with one annotated class is all that
    class (aerial tiles). 0 = not computed."""
    tree_weight: float = 0.4
    """Weight of the tree energy of unlabelled cells. 0 = not computed."""
    pairwise_weight: float = 0.1
    """Weight of the pairwise energy. 0 = not computed. 0.1 is published for gated-crf; on small images with
    random pixels 0.01 did a little better (RESULTS.md)."""
    warmup_epochs: float = 0.0
    """Epochs before L_mix, L_label, L_sep, the tree energy and the pairwise energy start."""

    @property
    def parts(self) -> frozenset[str]:
        """What the method is made of."""
        return frozenset(self.method.split("+"))

    @property
    def has_mixture(self) -> bool:
        """Whether the mixture's terms are part of the method."""
        return not self.parts.isdisjoint(("agmm", "agmm-em"))

    @property
    def knows_absent(self) -> bool:
        """Whether the method takes a class that is not annotated in an image to be absent from it."""
        return self.has_mixture or "absent" in self.parts

    @property
    def keeps_memory(self) -> bool:
        """Whether class means run over the batches."""
        return self.centroids == "memory" or "agmm-em" in self.parts

    @property
    def with_absent(self) -> bool:
        """Whether the absent-class term is part of what is minimised."""
        return self.absent_weight > 0 and self.knows_absent

    def __post_init__(self) -> None:
        _require(self.sigma > 0, f"loss.sigma must be > 0, got {self.sigma}")
        _require(self.bandwidth > 0, f"loss.bandwidth must be > 0, got {self.bandwidth}")
        _require(
            0 <= self.class_balance <= 1, f"loss.class_balance must be in 0..1, got {self.class_balance}"
        )
        _require(
            0 <= self.centroid_momentum < 1,
            f"loss.centroid_momentum must be in [0, 1), got {self.centroid_momentum}",
        )
        _require(
            self.target == "similarity" or self.centroids == "memory",
            "loss.target=posterior compares all classes of an image, also those whose labels lie outside the "
            "crop; it needs loss.centroids=memory",
        )
        _require(self.em_steps >= 0, f"loss.em_steps must be >= 0, got {self.em_steps}")
        _require(
            0.5 < self.em_confidence < 1, f"loss.em_confidence must be in (0.5, 1), got {self.em_confidence}"
        )
        _require(0 <= self.em_trust <= 1, f"loss.em_trust must be in [0, 1], got {self.em_trust}")
        _require(
            self.only_weight == 0 or self.knows_absent,
            f"loss.only_weight={self.only_weight:g} has no effect with loss.method={self.method}; take "
            "ce+absent or a method with agmm",
        )
        _require(self.warmup_epochs >= 0, f"loss.warmup_epochs must be >= 0, got {self.warmup_epochs}")
        for name in ("seg", "mix", "label", "sep", "absent", "only", "tree", "pairwise"):
            value = getattr(self, f"{name}_weight")
            _require(value >= 0, f"loss.{name}_weight must be >= 0, got {value}")


@dataclasses.dataclass(frozen=True, kw_only=True)
class OptimConfig:
    """Optimizer, schedule, precision."""

    optimizer: Literal["sgd", "adamw"] = "sgd"
    """Optimizer."""
    learning_rate: float = 1e-3
    """Peak rate of the backbone, per optimizer step; the decoder uses `decoder_lr_factor` times this."""
    decoder_lr_factor: float = 10.0
    """Decoder rate / backbone rate."""
    momentum: float = 0.9
    """Momentum of SGD."""
    weight_decay: float = 1e-4
    """Weight decay, per optimizer step and rate."""
    poly_power: float = 0.9
    """Rate at step t of T is (1 - t/T) ** poly_power times the peak."""
    warmup_steps: int = 0
    """Steps over which the rate grows linearly to its peak."""
    epochs: int = 80
    """Passes over the training split."""
    max_steps: int | None = None
    """Optimizer steps at most (default: what `epochs` gives); the schedule ends there too."""
    batch_size: int = 64
    """GLOBAL batch, images per optimizer step over all workers and accumulation passes."""
    accumulate: int = 1
    """Forward/backward passes per optimizer step and worker. L_sep and batch-norm statistics are then per
    pass."""
    clip_norm: float = 0.0
    """Largest gradient norm; 0 = no clipping."""
    skip_nonfinite: int = 0
    """Steps with a gradient that is not finite that are left out (the network stays as before the step)
    before the run ends; 0 = the first one ends it. Above 0 every step waits for the device."""
    ema_decay: float = 0.0
    """Decay per step of the averaged weights, which then validate and are saved as the model; 0 = off."""
    precision: Literal["fp32", "bf16"] = "fp32"
    """bf16 = autocast of the network; the losses stay in fp32."""
    channels_last: bool = True
    """NHWC memory layout."""
    compile: bool = False
    """torch.compile the network."""

    def __post_init__(self) -> None:
        for name in ("learning_rate", "decoder_lr_factor", "epochs", "batch_size", "accumulate"):
            value = getattr(self, name)
            _require(value > 0, f"optim.{name} must be > 0, got {value}")
        for name in ("weight_decay", "poly_power", "clip_norm", "warmup_steps", "skip_nonfinite"):
            value = getattr(self, name)
            _require(value >= 0, f"optim.{name} must be >= 0, got {value}")
        for name in ("momentum", "ema_decay"):
            value = getattr(self, name)
            _require(0 <= value < 1, f"optim.{name} must be in [0, 1), got {value}")
        _require(
            self.max_steps is None or self.max_steps > 0, f"optim.max_steps must be > 0, got {self.max_steps}"
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class ResourcesConfig:
    """What Ray Train is asked for."""

    workers: int = 1
    """Training processes, one per GPU where there are GPUs. 0 = in this process, without Ray."""
    min_workers: int | None = None
    """Fewest workers an elastic run goes on with (default: `workers`, not elastic)."""
    resize_seconds: float = 60.0
    """Seconds between looks whether an elastic run can have more workers; it then goes on from its newest
    checkpoint with them."""
    gpus_per_worker: float | None = None
    """GPUs per worker (default: 1 if the cluster has any, else 0)."""
    cpus_per_worker: float = 1.0
    """CPU slots per worker."""
    threads_per_worker: int | None = None
    """torch's CPU threads per worker (default: the node's cores, shared among the run's workers there)."""
    wait_seconds: float = 0.0
    """Seconds to wait for nodes that the cluster's autoscaler starts (0: what does not fit is refused at
    once)."""
    max_failures: int = 3
    """Lost workers or nodes that a run survives by going on from its last checkpoint."""

    def __post_init__(self) -> None:
        _require(self.workers >= 0, f"resources.workers must be >= 0, got {self.workers}")
        least = self.min_workers
        _require(
            least is None or 1 <= least <= self.workers,
            f"resources.min_workers must be in 1..{self.workers} (resources.workers), got {least}",
        )
        gpus = self.gpus_per_worker
        _require(gpus is None or gpus >= 0, f"resources.gpus_per_worker must be >= 0, got {gpus}")
        _require(
            self.cpus_per_worker > 0, f"resources.cpus_per_worker must be > 0, got {self.cpus_per_worker}"
        )
        threads = self.threads_per_worker
        _require(threads is None or threads >= 1, f"resources.threads_per_worker must be >= 1, got {threads}")
        _require(self.resize_seconds > 0, f"resources.resize_seconds must be > 0, got {self.resize_seconds}")
        _require(self.wait_seconds >= 0, f"resources.wait_seconds must be >= 0, got {self.wait_seconds}")
        _require(self.max_failures >= 0, f"resources.max_failures must be >= 0, got {self.max_failures}")


@dataclasses.dataclass(frozen=True, kw_only=True)
class RunConfig:
    """Name, place and rhythm of the run."""

    name: str = "run"
    """Folder of the run under `storage`. The same name again resumes it."""
    storage: str = "runs"
    """Folder for runs, or a URL (s3://bucket/runs); with several nodes one that all of them reach."""
    mirror: str = "~/.cache/sparseg/runs"
    """With a URL as storage: each node's folder for its copy of the run."""
    seed: int = 0
    """Seed of the initial weights, the order of the rows and the augmentation."""
    log_every: int = 10
    """Steps between lines of progress and of metrics.jsonl."""
    validate_every: float = 1.0
    """Epochs between validations; each one saves a checkpoint. The last step always validates."""
    checkpoint_every: int = 0
    """Steps between further checkpoints; 0 = only at validations and by time."""
    checkpoint_seconds: float = 600.0
    """Seconds after which the next logged line saves a checkpoint; 0 = off."""
    hang_seconds: float = 900.0
    """Seconds without a step after which a process writes the stacks of its threads to stderr; 0 = off."""
    keep: int = 2
    """Newest checkpoints kept; the best one is kept besides."""
    deterministic: bool = False
    """torch's deterministic algorithms, where they exist (slower on a GPU)."""
    fresh: bool = False
    """Start anew: an earlier run of this name is moved aside, not overwritten."""
    tensorboard: bool = True
    """Write events.out.tfevents.* (needs the `tensorboard` extra; left out with a notice where it is
    missing)."""

    def __post_init__(self) -> None:
        _require(
            re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", self.name) is not None,
            f"run.name must be letters, digits, '.', '_' or '-', starting with a letter or digit; got "
            f"{self.name!r}",
        )
        for name in ("log_every", "validate_every", "keep"):
            value = getattr(self, name)
            _require(value > 0, f"run.{name} must be > 0, got {value}")
        _require(
            self.checkpoint_every >= 0, f"run.checkpoint_every must be >= 0, got {self.checkpoint_every}"
        )
        for name in ("checkpoint_seconds", "hang_seconds"):
            value = getattr(self, name)
            _require(value >= 0, f"run.{name} must be >= 0, got {value}")
        _require(self.seed >= 0, f"run.seed must be >= 0, got {self.seed}")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    """A whole run."""

    data: DataConfig = DataConfig()
    model: ModelConfig = ModelConfig()
    loss: LossConfig = LossConfig()
    optim: OptimConfig = OptimConfig()
    resources: ResourcesConfig = ResourcesConfig()
    run: RunConfig = RunConfig()

    def __post_init__(self) -> None:
        for section, fields in dataclasses.asdict(self).items():
            for name, value in fields.items():
                infinite = isinstance(value, float) and not math.isfinite(value)
                _require(not infinite, f"{section}.{name} must be a finite number, got {value}")
        workers, passes, batch = max(self.resources.workers, 1), self.optim.accumulate, self.optim.batch_size
        _require(
            batch >= workers * passes,
            f"optim.batch_size={batch} is the GLOBAL batch and cannot be cut into "
            f"resources.workers={workers} x "
            f"optim.accumulate={passes} parts; raise it to at least {workers * passes} or lower those",
        )
        label, loss = self.data.label, self.loss
        _require(
            label not in PIXELLESS or loss.with_absent,
            f"data.label={label} labels no pixel of an object, so loss.method={loss.method} with "
            f"loss.absent_weight={loss.absent_weight} has nothing to learn from; choose --loss.method "
            "ce+absent or one with agmm, and --loss.absent-weight above 0",
        )

    @property
    def folder(self) -> Path:
        """STORAGE/NAME; of a storage that is a URL, its mirror on this node."""
        storage = Path(self.run.storage)
        if "://" in self.run.storage:
            key = hashlib.sha256(self.run.storage.rstrip("/").encode()).hexdigest()[:16]
            storage = Path(self.run.mirror).expanduser() / key
        return storage / self.run.name
