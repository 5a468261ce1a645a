"""A dataset and a run small enough to train inside a test; trainers as modules; groups of processes."""

from __future__ import annotations

import importlib.util
import io
import multiprocessing
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from PIL import Image

from sparseg.config import (
    IGNORED,
    UNLABELLED,
    Config,
    DataConfig,
    LossConfig,
    ModelConfig,
    OptimConfig,
    ResourcesConfig,
    RunConfig,
    with_overrides,
)
from sparseg.data import shards

ROOT = Path(__file__).resolve().parents[2]

torch.set_num_threads(1)  # the tensors are tiny: threads would only get in each other's way
TRAINERS = sorted(path.stem for path in (ROOT / "trainers").glob("*.py"))
NAMES = ["ground", "red", "green"]
COLOURS = np.array([(90, 90, 90), (200, 40, 40), (40, 200, 40)], np.uint8)

Size = tuple[int, int]


def picture(seed: int, size: Size) -> tuple[bytes, np.ndarray, np.ndarray]:
    """PNG bytes, label with six labelled pixels a class, dense mask with a void row: two boxes on a ground.

    With an odd seed there is no green box.
    """
    rng, (H, W) = np.random.default_rng(seed), size
    mask_HW = np.zeros(size, np.uint8)
    mask_HW[H // 8 : H // 2, W // 8 : W // 2] = 1
    if seed % 2 == 0:
        mask_HW[H // 2 : H - H // 8, W // 3 : W - W // 8] = 2
    mask_HW = np.roll(mask_HW, rng.integers(0, 5, 2), (0, 1))
    image_HW3 = np.clip(COLOURS[mask_HW].astype(int) + rng.integers(-20, 20, (H, W, 3)), 0, 255)
    mask_HW[-1] = IGNORED
    label_HW = np.full(size, UNLABELLED, np.uint8)
    for k in np.unique(mask_HW[mask_HW < UNLABELLED]):
        drawn = rng.choice(np.flatnonzero(mask_HW == k), 6, replace=False)
        label_HW.flat[drawn] = k
    label_HW[-1] = IGNORED
    buffer = io.BytesIO()
    Image.fromarray(image_HW3.astype(np.uint8)).save(buffer, "PNG")
    return buffer.getvalue(), label_HW, mask_HW


def rows(sizes: Sequence[Size], first_seed: int, *, dense: bool) -> Iterator[shards.Row]:
    """Rows for shards.write; `dense` (validation) puts the mask into the label column."""
    for number, size in enumerate(sizes, first_seed):
        image, label_HW, mask_HW = picture(number, size)
        yield {
            "id": f"image_{number:03d}",
            "image": image,
            "label": mask_HW if dense else label_HW,
            "mask": None if dense else mask_HW,
            "height": size[0],
            "width": size[1],
        }


def dataset(
    folder: Path,
    train: Sequence[Size] = ((48, 48),) * 8,
    val: Sequence[Size] = ((48, 48), (48, 48), (40, 52)),
) -> Path:
    """Write the dataset -> its folder."""
    path = folder / "data"
    splits = {"train": lambda: rows(train, 0, dense=False), "val": lambda: rows(val, 500, dense=True)}
    shards.write(path, splits, NAMES)
    return path


def config(folder: Path, overrides: dict[str, Any] | None = None) -> Config:
    """A run of six steps in this process, a line of metrics.jsonl a step; `overrides` are dotted."""
    base = Config(
        data=DataConfig(root=str(folder / "data"), crop_px=32, scale_min=0.8, scale_max=1.25),
        model=ModelConfig(
            backbone="test_efficientnet", output_stride=16, feature_channels=8, aspp_dilations=(1,)
        ),
        loss=LossConfig(method="agmm"),
        optim=OptimConfig(learning_rate=1e-2, decoder_lr_factor=1.0, batch_size=4, epochs=3, max_steps=6),
        resources=ResourcesConfig(workers=0),
        run=RunConfig(name="tiny", storage=str(folder / "runs"), log_every=1, tensorboard=False),
    )
    return with_overrides(base, overrides or {})


def trainer(name: str) -> ModuleType:
    """trainers/NAME.py, imported as a module of its own."""
    spec = importlib.util.spec_from_file_location(f"trainer_{name}", ROOT / "trainers" / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def _process(
    rank: int, function: Callable[[int, int, str], Any], folder: str, worlds: tuple[int, ...]
) -> None:
    torch.set_num_threads(1)
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    for world in worlds:
        if rank < world:
            rendezvous = f"file://{folder}/rendezvous{world}"
            dist.init_process_group("gloo", init_method=rendezvous, rank=rank, world_size=world)
            torch.save(function(rank, world, folder), f"{folder}/rank{rank}of{world}.pt")
            dist.destroy_process_group()


def start_processes(function: Callable[..., Any], arguments: tuple[Any, ...], count: int) -> None:
    """Run function(rank, *arguments) in `count` processes, and wait for them; an error of one is raised here.

    They are forked from a server that has loaded what they need, once for all tests: a process of its own
    would spend eight seconds on torch and timm.
    """
    multiprocessing.set_forkserver_preload(["sparseg.train.loop"])
    mp.start_processes(function, args=arguments, nprocs=count, start_method="forkserver")


def in_groups(
    function: Callable[[int, int, str], Any], folder: Path, worlds: tuple[int, ...]
) -> dict[int, list[Any]]:
    """{world: what function(rank, world, folder) gave on each rank}; the groups form one after the other.

    One set of processes serves all groups.
    """
    start_processes(_process, (function, str(folder), worlds), max(worlds))
    return {
        world: [torch.load(folder / f"rank{rank}of{world}.pt", weights_only=True) for rank in range(world)]
        for world in worlds
    }
