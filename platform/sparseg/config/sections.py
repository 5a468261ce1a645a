"""The configuration of the network, the optimizer, the resources and the run, and a whole run's: `Config`."""

from __future__ import annotations

import dataclasses
import hashlib
import math
import re
from pathlib import Path
from typing import Literal

from sparseg.common.files import cache_folder
from sparseg.config.checks import require
from sparseg.config.data import DataConfig
from sparseg.config.labels import PIXELLESS
from sparseg.config.loss import LossConfig


@dataclasses.dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """timm backbone and DeepLabV3+ decoder, or a light one on a plain vision transformer."""

    backbone: str = "resnet101d"
    """timm model name: what offers `features_only` at any stride (ResNets, MobileNets, ConvNeXt, ...) or at
    its own (DenseNet, HRNet, Swin, ...: output_stride 32), or a plain vision transformer that takes images of
    any size (DeiT, DINOv2, DINOv3, ...)."""
    weights: str = "none"
    """Pretrained backbone: a .safetensors or .pth file, `timm` (its cache, or download where there is a
    network), `auto` (as `timm` if that gives them, else `none`; the run's config.json says which), or `none`
    (random, with a warning)."""
    start: str | None = None
    """A run or a checkpoint of sparseg whose whole network is the start, decoder and all: for a new round
    with more labels of the same classes. `weights` is not read then."""
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
        require(
            self.output_stride in (8, 16, 32),
            f"model.output_stride must be 8, 16 or 32, got {self.output_stride}",
        )
        require(
            self.feature_channels >= 8,
            f"model.feature_channels must be at least 8, got {self.feature_channels}",
        )
        require(
            len(self.aspp_dilations) >= 1 and min(self.aspp_dilations) >= 1,
            f"model.aspp_dilations must be one or more integers >= 1, got {self.aspp_dilations}",
        )


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
            require(value > 0, f"optim.{name} must be > 0, got {value}")
        for name in ("weight_decay", "poly_power", "clip_norm", "warmup_steps", "skip_nonfinite"):
            value = getattr(self, name)
            require(value >= 0, f"optim.{name} must be >= 0, got {value}")
        for name in ("momentum", "ema_decay"):
            value = getattr(self, name)
            require(0 <= value < 1, f"optim.{name} must be in [0, 1), got {value}")
        require(
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
    max_preemptions: int = 100
    """Announced losses of nodes (a spot notice, `ray drain-node`) that a run survives so, counted apart."""

    def __post_init__(self) -> None:
        require(self.workers >= 0, f"resources.workers must be >= 0, got {self.workers}")
        least = self.min_workers
        require(
            least is None or 1 <= least <= self.workers,
            f"resources.min_workers must be in 1..{self.workers} (resources.workers), got {least}",
        )
        gpus = self.gpus_per_worker
        require(gpus is None or gpus >= 0, f"resources.gpus_per_worker must be >= 0, got {gpus}")
        require(
            self.cpus_per_worker > 0, f"resources.cpus_per_worker must be > 0, got {self.cpus_per_worker}"
        )
        threads = self.threads_per_worker
        require(threads is None or threads >= 1, f"resources.threads_per_worker must be >= 1, got {threads}")
        require(self.resize_seconds > 0, f"resources.resize_seconds must be > 0, got {self.resize_seconds}")
        require(self.wait_seconds >= 0, f"resources.wait_seconds must be >= 0, got {self.wait_seconds}")
        for name in ("max_failures", "max_preemptions"):
            value = getattr(self, name)
            require(value >= 0, f"resources.{name} must be >= 0, got {value}")


@dataclasses.dataclass(frozen=True, kw_only=True)
class RunConfig:
    """Name, place and rhythm of the run, and the modules of one's own that it needs."""

    name: str = "run"
    """Folder of the run under `storage`. The same name again resumes it."""
    storage: str = "runs"
    """Folder for runs, or a URL (s3://bucket/runs); with several nodes one that all of them reach."""
    mirror: str | None = None
    """With a URL as storage: each node's folder for its copy of the run (default: sparseg/runs in
    $XDG_CACHE_HOME or ~/.cache)."""
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
    plugins: tuple[str, ...] = ()
    """Python modules or FILE.py of your own, imported wherever the run's network is built, such as one that
    registers a backbone with timm; looked for in the current folder and on Python's path."""
    tensorboard: bool = True
    """Write events.out.tfevents.* (needs the `tensorboard` extra; left out with a notice where it is
    missing)."""

    def __post_init__(self) -> None:
        require(
            re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", self.name) is not None,
            f"run.name must be letters, digits, '.', '_' or '-', starting with a letter or digit; got "
            f"{self.name!r}",
        )
        for name in ("log_every", "validate_every", "keep"):
            value = getattr(self, name)
            require(value > 0, f"run.{name} must be > 0, got {value}")
        require(self.checkpoint_every >= 0, f"run.checkpoint_every must be >= 0, got {self.checkpoint_every}")
        for name in ("checkpoint_seconds", "hang_seconds"):
            value = getattr(self, name)
            require(value >= 0, f"run.{name} must be >= 0, got {value}")
        require(self.seed >= 0, f"run.seed must be >= 0, got {self.seed}")
        for plugin in self.plugins:
            module = plugin.rpartition("/")[2].removesuffix(".py") if plugin.endswith(".py") else plugin
            require(
                re.fullmatch(r"[^\W\d]\w*(\.[^\W\d]\w*)*", module) is not None
                and not (plugin.endswith(".py") and "." in module),
                f"run.plugins must be names of Python modules (my.module) or files (FILE.py), got {plugin!r}",
            )


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
                require(not infinite, f"{section}.{name} must be a finite number, got {value}")
        workers, passes, batch = max(self.resources.workers, 1), self.optim.accumulate, self.optim.batch_size
        require(
            batch >= workers * passes,
            f"optim.batch_size={batch} is the GLOBAL batch and cannot be cut into "
            f"resources.workers={workers} x "
            f"optim.accumulate={passes} parts; raise it to at least {workers * passes} or lower those",
        )
        label, loss = self.data.label, self.loss
        require(
            label not in PIXELLESS or loss.with_absent or loss.with_extra,
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
            mirror = Path(self.run.mirror or cache_folder() / "runs").expanduser()
            storage = mirror / key
        return storage / self.run.name
