"""Save, find, load checkpoints.  A checkpoint folder alone is enough to predict; it appears whole or not at
all, and its manifest.json knows the size and the checksum of every file.  What state.pt holds:
train/state.py:saved_values.

torch and timm take seconds to load; they are imported by the functions that hold tensors, because a run's
driver and the commands that only look for checkpoints do without them.
"""

from __future__ import annotations

import dataclasses
import json
import os
import pickle
import shutil
import socket
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import safetensors

from sparseg import config as configuration
from sparseg.common import plugins
from sparseg.common.files import checksum, write_atomically
from sparseg.common.process import one_line
from sparseg.config import Config

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

VERSION = 2
MANIFEST = "manifest.json"
_TEMPORARY = ".partial-"


@dataclasses.dataclass(frozen=True)
class Loaded:
    """A network ready to predict, and what its checkpoint says of it."""

    model: nn.Module
    names: list[str]
    palette: list[tuple[int, int, int]]
    config: Config
    metadata: dict[str, str]


def name_of(step: int) -> str:
    """Folder name of the checkpoint after `step` optimizer steps."""
    return f"checkpoint_{step:07d}"


def save(
    folder: Path,
    step: int,
    model_state: dict[str, Tensor],
    train_state: dict[str, Any],
    *,
    config: Config,
    names: list[str],
    palette: list[tuple[int, int, int]],
    miou: float | None,
) -> Path:
    """Write FOLDER/checkpoint_STEP: model.safetensors (self-describing) and state.pt (to go on training)."""
    import torch
    from safetensors.torch import save_file

    final = folder / name_of(step)
    temporary = folder / f"{_TEMPORARY}{name_of(step)}-{socket.gethostname()}-{os.getpid()}"
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    metadata = {
        "format": f"sparseg-{VERSION}",
        "config": json.dumps(configuration.to_dict(config)),
        "classes": json.dumps(names),
        "palette": json.dumps(palette),
        "step": str(step),
        "miou": "" if miou is None else repr(miou),
        "commit": commit(),
    }
    tensors = {name: value.detach().cpu().contiguous() for name, value in model_state.items()}
    try:
        save_file(tensors, temporary / "model.safetensors", metadata=metadata)
        torch.save(train_state, temporary / "state.pt")
        files = {path.name: _sum_of(path) for path in sorted(temporary.iterdir())}
        (temporary / MANIFEST).write_text(
            json.dumps({"version": VERSION, "step": step, "files": files}, indent=2)
        )
        for path in temporary.iterdir():  # on disk before the name says so
            with path.open("rb") as file:
                os.fsync(file.fileno())
        _remove(final)
        os.replace(temporary, final)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)  # a full disk needs the room
        raise
    return final


def _sum_of(path: Path) -> dict[str, Any]:
    return {"bytes": path.stat().st_size, "xxh3": checksum(path)}


def verify(checkpoint: Path) -> None:
    """Raise ValueError, naming the file, unless every file is the one that was written."""
    path = checkpoint / MANIFEST
    try:
        manifest = json.loads(path.read_text())
        version, files = manifest["version"], manifest["files"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path}: no readable manifest of a checkpoint ({one_line(error)})") from error
    if version != VERSION:
        raise ValueError(f"{path}: version {version} of the format, this sparseg reads {VERSION}")
    for name, wanted in files.items():
        file = checkpoint / name
        if not file.is_file():
            raise ValueError(f"{file}: is missing")
        found_sum = _sum_of(file)
        if found_sum != wanted:
            what = "is truncated or longer" if found_sum["bytes"] != wanted["bytes"] else "was altered"
            raise ValueError(f"{file}: {what} ({found_sum['bytes']} bytes, {wanted['bytes']} were written)")


def _remove(checkpoint: Path) -> None:
    """Delete a checkpoint; the name goes first, so that a kill leaves none that is half deleted."""
    if checkpoint.exists():
        aside = checkpoint.with_name(f"{_TEMPORARY}{checkpoint.name}.old")
        shutil.rmtree(aside, ignore_errors=True)
        os.replace(checkpoint, aside)
        shutil.rmtree(aside, ignore_errors=True)


COMMIT_VARIABLE = "SPARSEG_COMMIT"
"""Environment variable that names the commit where there is no checkout: a job's upload has no .git in it."""


def commit() -> str:
    """Commit of this source tree; outside a checkout what COMMIT_VARIABLE says, '' if nothing."""
    here = Path(__file__).parent
    try:
        done = subprocess.run(
            ["git", "-C", str(here), "rev-parse", "HEAD"],
            capture_output=True,
            text=True,
            timeout=10,
            check=False,
        )
        found = done.stdout.strip() if done.returncode == 0 else ""
    except (OSError, subprocess.TimeoutExpired):
        found = ""
    return found or os.environ.get(COMMIT_VARIABLE, "").strip()


FREE_TO_CHANGE = {
    "model": ("weights", "start"),  # the checkpoint holds what came of them
    "data": (
        "root",
        "layout",
        "shards",
        "loader_processes",
        "cache",
        "skip_bad",
        "unannotated",
        "label_path",
        "long_side_px",  # of the dataset, whose fingerprint tells
    ),
    "optim": ("skip_nonfinite",),
    "resources": None,
    "run": (
        *("storage", "log_every", "validate_every", "checkpoint_every", "checkpoint_seconds"),
        *("keep", "fresh", "tensorboard", "hang_seconds", "mirror", "plugins"),
    ),
}
"""Fields in which a run may go on differently; None = the whole section.  Everything else changes the
result."""


def refuse_other_run(config: Config) -> None:
    """Raise ValueError if STORAGE/NAME holds a run with other settings than `config` (it would be a mixture
    of both)."""
    path = config.folder / "config.json"
    if not all_of(config.folder) or not path.is_file():
        return
    saved = configuration.to_dict(configuration.load(path))
    for section, fields in configuration.to_dict(config).items():
        free = FREE_TO_CHANGE.get(section, ())
        for name, value in fields.items():
            if free is not None and name not in free and value != saved[section][name]:
                raise ValueError(
                    f"{config.folder} holds a run with {section}.{name}={saved[section][name]}, this "
                    f"one has {value}; "
                    "give another --run.name, the same value, or --run.fresh (moves the old run aside)"
                )


def refuse_other_classes(folder: Path, names: Sequence[str]) -> None:
    """Raise ValueError if the run in a folder was trained with other classes, or the same in another order.

    Output k of its network stands for class k; it would go on as another class.
    """
    for path in reversed(all_of(folder)):
        try:
            saved = json.loads(read_metadata(path / "model.safetensors")["classes"])
        except ValueError:
            continue  # a damaged one, which `newest` passes over, and says so
        if saved != list(names):
            raise ValueError(
                f"{path}: the checkpoint's classes are {', '.join(saved)}, the data's are "
                f"{', '.join(names)}; "
                "mend the data's classes, give another --run.name, or --run.fresh (moves the old run aside)"
            )
        return


def mark_best(folder: Path, checkpoint: Path) -> None:
    """FOLDER/best names the best checkpoint."""
    write_atomically(folder / "best", checkpoint.name + "\n")


def best(folder: Path) -> Path | None:
    """The checkpoint that FOLDER/best names, if both are there."""
    try:
        path = folder / (folder / "best").read_text().strip()
    except OSError:
        return None
    return path if path.is_dir() else None


def all_of(folder: Path) -> list[Path]:
    """Complete checkpoints, oldest first."""
    return sorted(path for path in folder.glob("checkpoint_*") if (path / "state.pt").is_file())


def newest(
    folder: Path, device: torch.device | str = "cpu", *, warn: Callable[[str], None] = lambda text: None
) -> tuple[Path, dict[str, Tensor], dict[str, Any]] | None:
    """The newest sound checkpoint as (folder, tensors, training state), None if there is no checkpoint.

    `warn` hears of each damaged one that is passed over.  Raises ValueError if all are damaged.
    """
    found = all_of(folder)
    for path in reversed(found):
        try:
            verify(path)
            return path, *load_state(path, device)
        except ValueError as error:
            warn(f"damaged checkpoint left out: {error}")
    if found:
        raise ValueError(
            f"{folder}: all {len(found)} checkpoints are damaged; bring one back from a copy, or start anew "
            "with --run.fresh (moves the run aside)"
        )
    return None


def prune(folder: Path, keep: int, step: int) -> None:
    """Of a run that stands at `step`: remove all but the newest `keep` checkpoints and the best one.

    What killed saves left goes too, and checkpoints of later steps, which were damaged.
    """
    earlier = [path for path in all_of(folder) if path.name <= name_of(step)]
    spared = {path.name for path in earlier[-keep:]} | {path.name for path in earlier if path == best(folder)}
    for path in folder.glob("checkpoint_*"):
        if path.name not in spared:
            _remove(path)
    for path in folder.glob(f"{_TEMPORARY}checkpoint_*"):
        shutil.rmtree(path, ignore_errors=True)


def resolve(path: str | Path) -> Path:
    """A checkpoint folder from itself, or from a run folder (its best, else its newest).

    Raises ValueError naming what was looked for.
    """
    path = Path(path)
    if (path / "model.safetensors").is_file():
        return path
    found = best(path) or next(reversed(all_of(path)), None)
    if found is None:
        raise ValueError(
            f"{path}: neither a checkpoint (model.safetensors) nor a run folder with checkpoint_* in it"
        )
    return found


def read_metadata(file: Path) -> dict[str, str]:
    """What a model.safetensors says of itself.  Raises ValueError as `load_model` does."""
    try:
        with safetensors.safe_open(file, framework="numpy") as opened:
            metadata: dict[str, str] = opened.metadata() or {}
    except (OSError, safetensors.SafetensorError) as error:
        raise ValueError(
            f"{file}: cannot be read ({error}); it is truncated or not a safetensors file"
        ) from error
    if not metadata.get("format", "").startswith("sparseg-"):
        raise ValueError(f"{file}: not a sparseg checkpoint (its metadata has no format 'sparseg-...')")
    return metadata


def load_model(path: str | Path, device: torch.device | str = "cpu") -> Loaded:
    """Load the network of a checkpoint, or of a run's best one, ready to predict.

    Args:
        path: A checkpoint's folder, or a run's (its best checkpoint, else its newest).
        device: Where the network is put.

    Returns:
        The network in evaluation mode as `model`, with its class `names`, their `palette`, the run's `config`
        and the checkpoint's `metadata`.

    Raises:
        ValueError: The file is missing, truncated, or not written by sparseg, or a module that the run named
            in run.plugins is not on the user's path; the message names it.

    Example:
        >>> loaded = sparseg.load_model("runs/tiny")
        >>> loaded.names, loaded.config.optim.max_steps
        (['ground', 'red', 'green'], 2)
    """
    import torch

    from sparseg.network import segmenter

    file = resolve(path) / "model.safetensors"
    metadata = read_metadata(file)
    with safetensors.safe_open(file, framework="pt") as opened:
        state = {name: opened.get_tensor(name) for name in opened.keys()}
    config = configuration.from_dict(json.loads(metadata["config"]))
    names = json.loads(metadata["classes"])
    plugins.load_of_checkpoint(config.run.plugins, file.parent)
    bare = dataclasses.replace(config.model, weights="none")
    model = segmenter.build(bare, len(names), quiet=True)
    model.load_state_dict(state)
    palette = [tuple(colour) for colour in json.loads(metadata["palette"])]
    model.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]  # 10 % faster
    return Loaded(model.eval(), names, palette, config, metadata)


def load_state(
    checkpoint: Path, device: torch.device | str = "cpu"
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """(tensors of model.safetensors, training state) to resume from.  Nothing but tensors and plain data is
    unpickled."""
    import torch
    from safetensors.torch import load_file

    file = checkpoint / "model.safetensors"
    try:
        tensors = load_file(file)
        file = checkpoint / "state.pt"
        return tensors, torch.load(file, map_location=device, weights_only=True)
    except (OSError, safetensors.SafetensorError, RuntimeError, pickle.UnpicklingError, EOFError) as error:
        raise ValueError(f"{file}: cannot be read ({one_line(error)[:120]}); it is damaged") from error
