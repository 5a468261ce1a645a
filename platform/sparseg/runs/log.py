"""What a run tells: metrics.jsonl, the progress line, TensorBoard, environment.json."""

from __future__ import annotations

import json
import math
import os
import platform
import secrets
import socket
import sys
import time
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sparseg.common import files
from sparseg.common.numbers import percent
from sparseg.config import Config, term_names, to_dict
from sparseg.data import drawing
from sparseg.runs import checkpoint

if TYPE_CHECKING:  # the driver of a run on Ray reads and writes notes, and never loads torch
    import torch
    from torch import Tensor

PACKAGES = (
    "sparseg",
    "torch",
    "torchvision",
    "timm",
    "ray",
    "datasets",
    "pyarrow",
    "optuna",
    "numpy",
    "pillow",
)


FEW_STEPS = 20  # of so few nobody asks how long they take
SHOWN_IMAGES, SHOWN_PX = 4, 512  # of a validation, on TensorBoard
OWNER_FILE = ".owner"
"""Names the process that writes the run.  The workers of a killed driver may live on for some seconds."""


class SupersededError(RuntimeError):
    """Another process has taken the run over; this one must not write to it any more."""


class RunLog:
    """Writes the files of one run; only rank 0 has one.  `metrics_bytes` is the place to go on from."""

    def __init__(
        self,
        config: Config,
        metrics_bytes: int,
        total_steps: int,
        device: torch.device,
        told: dict[str, Any],
    ) -> None:
        self.folder, self.total_steps = config.folder, total_steps
        self.folder.mkdir(parents=True, exist_ok=True)
        self.owner = f"{socket.gethostname()} {os.getpid()} {secrets.token_hex(8)}"
        files.write_atomically(self.folder / OWNER_FILE, self.owner)
        files.write_atomically(self.folder / "config.json", json_text(to_dict(config)))
        files.write_atomically(self.folder / "environment.json", json_text(environment(device) | told))
        path = self.folder / "metrics.jsonl"
        path.touch()
        os.truncate(path, min(metrics_bytes, path.stat().st_size))  # lines after the checkpoint come again
        self.file = path.open("a")
        self.writer = _tensorboard(self.folder) if config.run.tensorboard else None
        self.mark_s = time.perf_counter()
        self.steps_timed, self.seconds_timed = 0, 0.0
        self.shown_step = -1
        self.estimates = device.type == "cpu" and config.run.log_every > 2 and total_steps >= FEW_STEPS
        self.early_s: list[float] = []

    @property
    def metrics_bytes(self) -> int:
        """Bytes of metrics.jsonl that are complete."""
        self.file.flush()
        return self.file.tell()

    def check_owner(self) -> None:
        """Raise SupersededError if a later process has claimed the run."""
        found = (self.folder / OWNER_FILE).read_text()
        if found != self.owner:
            raise SupersededError(f"{self.folder} is written by another process now ({found}); this one ends")

    def pause(self) -> None:
        """What happens until the next `train` line is not training: leave it out of images/s and ETA."""
        self.mark_s = time.perf_counter()

    def stepped(self, step: int) -> None:
        """Note that a step was made.  On a CPU it may take seconds, and the first line is far: say after the
        second step how long they will all take; the first has waited for the loader."""
        if not self.estimates:
            return
        self.early_s.append(time.perf_counter())
        if len(self.early_s) == 2:
            seconds = self.early_s[1] - self.early_s[0]
            left = duration((self.total_steps - step) * seconds)
            self._say(f"about {seconds:.1f} s a step: {left} for the {self.total_steps - step} to come")
            self.estimates = False

    def train(
        self, step: int, epoch: float, values: dict[str, float], steps: int, batch_size: int
    ) -> dict[str, Any]:
        """Log the training line after `step`, the mean speed over the last `steps`."""
        import torch

        seconds = time.perf_counter() - self.mark_s
        self.mark_s = time.perf_counter()
        self.steps_timed, self.seconds_timed = self.steps_timed + steps, self.seconds_timed + seconds
        rate = steps * batch_size / max(seconds, 1e-9)
        line = {
            "kind": "train",
            "step": step,
            "epoch": round(epoch, 4),
            **values,
            "images_per_s": round(rate, 3),
        }
        eta_s = (self.total_steps - step) * self.seconds_timed / self.steps_timed
        shown = ["total", *(name for name in term_names(values) if values[name])]
        terms = " ".join(f"{name} {values[name]:.4f}" for name in shown)
        memory = ""
        if torch.cuda.is_available():
            memory = f" | {torch.cuda.max_memory_allocated() / 2**30:.1f} GiB"
        self._say(
            f"step {step}/{self.total_steps} | epoch {epoch:.2f} | {terms} | lr "
            f"{values['learning_rate']:.2e} | "
            f"{rate:.1f} img/s{memory} | ETA {duration(eta_s)}"
        )
        return self._write(line, values)

    def validation(self, step: int, epoch: float, scores: dict[str, Any], is_best: bool) -> dict[str, Any]:
        """Log a validation after `step`."""
        line = {"kind": "val", "step": step, "epoch": round(epoch, 4), "miou": scores["miou"]}
        line |= {"pixel_accuracy": scores["pixel_accuracy"], "iou": scores["iou"], "best": is_best}
        if where := on_sparse_labels(scores):
            line |= {"labels": "sparse", "pixels": scores["pixels"]}
        self._say(
            f"step {step}/{self.total_steps} | epoch {epoch:.2f} | val mIoU {percent(scores['miou'])} | "
            "pixel accuracy "
            f"{percent(scores['pixel_accuracy'])}{where}{' | best so far' if is_best else ''}"
        )
        flat = {f"iou/{name}": value for name, value in scores["iou"].items() if value is not None}
        return self._write(line, {"miou": scores["miou"], **flat})

    def pictures(
        self,
        step: int,
        image_B3HW: Tensor,
        prediction_BHW: Tensor,
        truth_BHW: Tensor,
        palette: Sequence[drawing.Colour],
    ) -> None:
        """TensorBoard: the first images of a step's first batch, prediction beside truth."""
        if self.writer is None or step == self.shown_step:
            return
        import torch

        self.shown_step = step
        shown = zip(image_B3HW[:SHOWN_IMAGES], prediction_BHW, truth_BHW, strict=False)
        for number, (image_3HW, *labels) in enumerate(shown):
            every = math.ceil(max(image_3HW.shape) / SHOWN_PX)  # the event file grows with each validation
            image_HW3 = image_3HW.permute(1, 2, 0)[::every, ::every].numpy()
            small = [label[::every, ::every].to(torch.uint8).cpu().numpy() for label in labels]
            sides = [drawing.overlay(image_HW3, label_HW, palette) for label_HW in small]
            self.writer.add_image(f"val/image_{number}", np.hstack(sides), step, dataformats="HWC")

    def _write(self, line: dict[str, Any], scalars: dict[str, float]) -> dict[str, Any]:
        self.check_owner()
        plain = {
            key: None if isinstance(value, float) and not math.isfinite(value) else value
            for key, value in line.items()
        }
        self.file.write(json.dumps(plain) + "\n")
        self.file.flush()
        if self.writer is not None:
            for name, value in scalars.items():
                self.writer.add_scalar(f"{line['kind']}/{name}", value, line["step"])
            self.writer.flush()
        return line

    def _say(self, text: str) -> None:
        print(f"[{self.folder.name}] {text}", flush=True)

    def close(self) -> None:
        """Close the files."""
        self.file.close()
        if self.writer is not None:
            self.writer.close()


def _tensorboard(folder: Path) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        print(
            "TensorBoard is not installed (pip install 'sparseg[tensorboard]'): no event file",
            file=sys.stderr,
        )
        return None
    return SummaryWriter(str(folder))


def on_sparse_labels(scores: Mapping[str, Any]) -> str:
    """Say on how many pixels scores are, for the end of a line; empty where the labels were dense."""
    return f" on {scores['pixels']:,} labelled pixels" if scores.get("labels") == "sparse" else ""


def json_text(value: Any) -> str:
    """Readable JSON."""
    return json.dumps(value, indent=2)


def read_json(path: Path) -> Any:
    """What `json_text` wrote."""
    return json.loads(path.read_text())


def duration(seconds: float) -> str:
    """Seconds as 1h02m, 3m05s or 42s."""
    whole = round(seconds)
    if whole >= 3600:
        return f"{whole // 3600}h{whole % 3600 // 60:02d}m"
    return f"{whole // 60}m{whole % 60:02d}s" if whole >= 60 else f"{whole}s"


def environment(device: torch.device) -> dict[str, Any]:
    """Versions, devices, commit: what a number in a table depends on besides the configuration."""
    import torch

    from sparseg.common.distributed import world_size

    versions: dict[str, str | None] = {}
    for name in PACKAGES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            versions[name] = None
    return {
        "command": sys.argv,
        "commit": checkpoint.commit(),
        "python": platform.python_version(),
        "system": platform.platform(),
        "packages": versions,
        "workers": world_size(),
        "device": torch.cuda.get_device_name(device)
        if device.type == "cuda"
        else platform.processor() or "cpu",
        "cpu_threads": torch.get_num_threads(),
    }
