"""A checkpoint for use elsewhere: safetensors, torch.export, ONNX, a folder for the Hugging Face Hub."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import timm
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sparseg.common.numbers import percent
from sparseg.common.process import one_line
from sparseg.config import DataConfig, ModelConfig
from sparseg.inference import timm_for_export, views
from sparseg.inference.views import SMALLEST_PX
from sparseg.runs import checkpoint as checkpoints
from sparseg.runs.checkpoint import Loaded

FORMATS = ("safetensors", "torch-export", "onnx", "hub")
ONNX_PACKAGES = ("onnx", "onnxscript", "onnxruntime")
TOLERANCE = 1e-3  # between the probabilities of a program and of the network
ANY_SIZE = ({0: "batch", 2: "height", 3: "width"},)
Run = Callable[[Tensor], Tensor]


class WholeImage(nn.Module):
    """RGB image (B, 3, H, W), uint8 or float 0..255, any B, H, W >= 1 -> probabilities (B, K, H, W) float32.

    `class_probabilities` of the whole view; below SMALLEST_PX padded by repetition, as `predict` does."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        contiguous: Any = {"memory_format": torch.contiguous_format}  # torch.export.save needs that
        self.model = model.requires_grad_(False).to(**contiguous)

    def forward(self, image: Tensor) -> Tensor:
        H, W = image.shape[2:]
        padding: Any = (0, torch.sym_max(SMALLEST_PX - W, 0), 0, torch.sym_max(SMALLEST_PX - H, 0))
        padded = F.pad(image.float(), padding, mode="replicate")
        # no slice: torch.export would take one that cuts nothing at `size_px` for one that never does
        return F.pad(views.class_probabilities(self.model, padded), [-length for length in padding])


def export(
    checkpoint: str | Path,
    out: str | Path,
    *,
    to: str = "safetensors",
    size_px: tuple[int, int] = (256, 320),
    push_to: str | None = None,
) -> Path:
    """Write a checkpoint (or a run's best) as the file or folder OUT, whole or not at all -> OUT.

    ``to``: ``safetensors``, weights whose metadata holds configuration, classes and score; ``torch-export``,
    a program for `torch.export.load`; ``onnx``, one for any ONNX runtime; ``hub``, a folder with weights,
    config.json and model card, which `sparseg predict` takes too.  Programs compute `WholeImage` and are run
    against the network before OUT appears; ``size_px`` is the height and width that they are traced at, and
    the largest tried.  ``push_to`` ("user/name") uploads the folder of ``hub``; nothing else is sent.

    Raises ValueError, before anything is written, if a value is not allowed, OUT exists, a package is
    missing, or the checkpoint is damaged or foreign; RuntimeError if the network cannot be traced, if the
    program gives other probabilities than the network, or if the Hub refuses."""
    out = Path(out)
    _check(out, to, size_px, push_to)
    folder = checkpoints.resolve(checkpoint)
    if all((folder / name).is_file() for name in (checkpoints.MANIFEST, "state.pt")):  # copies may lack them
        checkpoints.verify(folder)
    loaded = checkpoints.load_model(folder)
    with tempfile.TemporaryDirectory(prefix=f".partial-{out.name}-", dir=out.parent) as temporary:
        file = Path(temporary) / out.name
        match to:
            case "safetensors":
                shutil.copyfile(folder / "model.safetensors", file)
            case "torch-export" | "onnx":
                _write_program(file, loaded, size_px, to)
            case "hub":
                _write_hub_folder(file, loaded, folder)
        os.replace(file, out)
    if push_to is not None:
        _push(out, push_to)
    return out


def _check(out: Path, to: str, size_px: tuple[int, int], push_to: str | None) -> None:
    if to not in FORMATS:
        raise ValueError(f"--to {to}: no such format; allowed: {', '.join(FORMATS)}")
    if out.exists() or out.is_symlink():
        raise ValueError(f"{out} exists; give another name or remove it")
    if not out.parent.is_dir():
        raise ValueError(f"{out}: there is no folder {out.parent}; make it or give another name")
    for other, suffix in (("onnx", ".onnx"), ("torch-export", ".pt2"), ("safetensors", ".safetensors")):
        if out.suffix == suffix and to != other:
            raise ValueError(f"{out}: named as what --to {other} writes, but --to is {to}; add --to {other}")
    if to == "torch-export" and out.suffix != ".pt2":
        raise ValueError(f"{out}: torch.export.load expects a name that ends in .pt2; give it one")
    if len(size_px) != 2 or min(size_px) < 2:  # torch.export takes a size of 1 for a constant
        raise ValueError(f"--size needs a height and a width of at least 2 pixels, got {size_px}")
    if push_to is not None and (to != "hub" or not re.fullmatch(r"[\w.-]+/[\w.-]+", push_to)):
        raise ValueError(f"--push-to needs --to hub and a name like user/name, got --to {to} and {push_to!r}")
    missing = [name for name in ONNX_PACKAGES if importlib.util.find_spec(name) is None]
    if to == "onnx" and missing:
        raise ValueError(f"--to {to} needs {', '.join(missing)}, not installed: pip install 'sparseg[onnx]'")


@contextlib.contextmanager
def _in_one_line(failure: str) -> Iterator[None]:
    """Errors within, which others word at length, become a RuntimeError that says what failed, and why."""
    try:
        yield
    except Exception as error:
        raise RuntimeError(f"{failure}: {one_line(error.__cause__ or error)[:240]}") from error


def _metadata(loaded: Loaded) -> dict[str, Any]:
    """What the checkpoint says of itself, parsed; format, step and commit stay text."""
    parsed = {name: json.loads(loaded.metadata[name]) for name in ("config", "classes", "palette")}
    miou = loaded.metadata["miou"]
    return {**loaded.metadata, **parsed, "miou": float(miou) if miou else None}


def _traced(whole: WholeImage, loaded: Loaded, size_px: tuple[int, int]) -> torch.export.ExportedProgram:
    dynamic = dict.fromkeys(ANY_SIZE[0], torch.export.Dim.DYNAMIC)
    image = torch.zeros(2, 3, *size_px, dtype=torch.uint8)
    with (
        _in_one_line(f"torch.export cannot trace {loaded.config.model.backbone}"),
        timm_for_export.whole_numbers(),
    ):
        program = torch.export.export(whole, (image,), dynamic_shapes=(dynamic,))
    for node in list(program.graph.nodes):
        node.meta.pop("stack_trace", None)  # paths of this machine
        if node.target is torch.ops.aten._assert_tensor_metadata.default:  # type and device while traced
            program.graph.erase_node(node)
    program.graph_module.recompile()
    return program


def _write_program(file: Path, loaded: Loaded, size_px: tuple[int, int], to: str) -> None:
    whole = WholeImage(loaded.model)
    program = _traced(whole, loaded, size_px)
    save = _save_onnx if to == "onnx" else _save_program
    with _in_one_line(f"--to {to} cannot save {loaded.config.model.backbone}"):
        run = save(file, program, loaded)
    _compare(whole, run, size_px, to)


def _save_program(file: Path, program: torch.export.ExportedProgram, loaded: Loaded) -> Run:
    torch.export.save(program, file, extra_files={"metadata.json": json.dumps(_metadata(loaded))})
    return torch.export.load(file).module()


def _save_onnx(file: Path, program: torch.export.ExportedProgram, loaded: Loaded) -> Run:
    import onnx
    import onnxruntime

    names: Any = {"input_names": ["image"], "output_names": ["probabilities"], "dynamic_shapes": ANY_SIZE}
    exported: Any = torch.onnx.export(program, dynamo=True, verbose=False, **names)
    network = exported.model_proto
    for node in network.graph.node:  # how it came about: more bytes than the weights of a small network
        del node.metadata_props[:]
    network.doc_string = (WholeImage.__doc__ or "").split("\n")[0]
    onnx.helper.set_model_props(network, loaded.metadata)
    onnx.checker.check_model(network, full_check=True)
    onnx.save(network, file)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
    return lambda image: torch.from_numpy(session.run(None, {"image": image.numpy()})[0])


def _compare(whole: nn.Module, run: Run, size_px: tuple[int, int], to: str) -> None:
    """Raise RuntimeError unless `run` agrees with the network on three sizes, odd and small ones too."""
    sizes = [size_px, (size_px[0] // 2 | 1, size_px[1] // 3 | 1), (SMALLEST_PX // 2 + 1, SMALLEST_PX - 1)]
    random, differences = torch.Generator().manual_seed(0), []
    for shape in [(B, 3, *size) for size in sizes for B in (1, 2)]:
        image = torch.randint(0, 256, shape, generator=random, dtype=torch.uint8)
        with _in_one_line(f"--to {to} fails on an image {shape}"):
            found, expected = run(image), whole(image)
        assert found.shape == expected.shape
        differences.append((found - expected).abs().max())
    worst = torch.stack(differences).max().item()
    if not worst < TOLERANCE:  # NaN, too
        raise RuntimeError(f"--to {to} differs from the network by {worst:.1e}, {TOLERANCE:.0e} is allowed")
    print(f"--to {to}: probabilities differ from the network's by at most {worst:.1e}", file=sys.stderr)


CARD = """\
---
library_name: sparseg
pipeline_tag: image-segmentation
tags: [image-segmentation, semantic-segmentation, sparse-annotation, {config.data.label}]
{base_model}---
# {config.run.name}

A network for semantic segmentation, trained with sparseg. `hf download USER/NAME --local-dir FOLDER` gets it:

    sparseg predict FOLDER 'images/*.jpg' out

- method: `{config.loss.method}`
- labels: `{config.data.label}`; {budget}
- backbone: `{config.model.backbone}`, {stride}, started from {start}
- training: {told[step]} steps of {config.optim.batch_size} crops, {config.data.crop_px} px a side{working}
- mIoU: {score} on split `{config.data.val_split}`, every image whole and unscaled
- made with: {versions}

| id | class | colour | IoU |
| --- | --- | --- | --- |
{classes}

## What it must not be trusted for

- A score above is that of a split of the training data, by which a run's best checkpoint is chosen: it is
  optimistic, and says nothing of other places, cameras, seasons or kinds of images. Those are unknown.
- Every pixel gets one of the classes above; the network cannot say that something is none of them.
- Unknown: calibration of the probabilities; errors, bias and licence of the images and of their labels.
"""


def _write_hub_folder(target: Path, loaded: Loaded, folder: Path) -> None:
    target.mkdir()
    shutil.copyfile(folder / "model.safetensors", target / "model.safetensors")
    told = {**_metadata(loaded)["config"], "classes": loaded.names, "palette": loaded.palette}
    (target / "config.json").write_text(json.dumps(told, indent=2))
    best, environment = (_read(folder.parent / name) for name in ("iou.json", "environment.json"))
    (target / "README.md").write_text(model_card(loaded, best, environment), encoding="utf-8")


def _read(path: Path) -> dict[str, Any]:
    """{} where a run's file is missing; ValueError if it is damaged."""
    try:
        return dict(json.loads(path.read_text())) if path.is_file() else {}
    except (ValueError, TypeError) as error:
        raise ValueError(f"{path}: damaged ({error}); remove it or bring it back from a copy") from error


def model_card(loaded: Loaded, best: dict[str, Any], environment: dict[str, Any]) -> str:
    """README.md for the Hub.  best: the run's iou.json, which counts if it is of this very step and score;
    environment: its environment.json; {} where unknown."""
    told, config = _metadata(loaded), loaded.config
    iou = best["iou"] if (best.get("step"), best.get("miou")) == (int(told["step"]), told["miou"]) else {}
    shown = {key: percent(value) for key, value in [*iou.items(), (None, told["miou"])] if value is not None}
    rows = [
        f"| {k} | {name.replace('|', '/')} | #{bytes(colour).hex()} | {shown.get(name, 'unknown')} |"
        for k, (name, colour) in enumerate(zip(loaded.names, loaded.palette, strict=True))
    ]
    patch = getattr(loaded.model.backbone, "patch_px", None)
    found = {"commit": told["commit"], "Python": environment.get("python"), **environment.get("packages", {})}
    return CARD.format(
        config=config,
        told=told,
        base_model=_base_model(config.model),
        budget=_budget(config.data, environment.get("labels", {})),
        stride=f"patches of {patch} pixels" if patch else f"output stride {config.model.output_stride}",
        start=_start(config.model),
        working=_working(config.data),
        score=shown.get(None, "unknown"),
        versions=", ".join(f"{name} {version}" for name, version in found.items() if version) or "unknown",
        classes="\n".join(rows),
    )


def _start(config: ModelConfig) -> str:
    """What the network started from, in words."""
    if config.start is not None:
        return f"the network of an earlier run (`{'/'.join(Path(config.start).parts[-2:])}`)"
    weights = config.weights
    return {"none": "random weights", "timm": "timm's weights"}.get(weights, f"`{Path(weights).name}`")


def _working(config: DataConfig) -> str:
    """The rest of the line on the training, '' for a network that sees images at their own size."""
    side = config.long_side_px
    return f", of images resized to a long side of {side} px; resize larger ones so" if side else ""


def _base_model(config: ModelConfig) -> str:
    """The card's line, '' for a network that started from random weights."""
    name = config.backbone if config.weights == "timm" else Path(config.weights).stem
    known: Any = timm.get_pretrained_cfg(name) if timm.is_model_pretrained(name) else None
    hub_id = (known and known.hf_hub_id) or f"timm/{config.backbone}"
    return "" if config.weights == "none" else f"base_model: {hub_id}\n"


def _budget(config: DataConfig, labels: dict[str, Any]) -> str:
    """What was asked for, and what the run counted."""
    share, images, pixels = config.keep_labels, labels.get("images") or 0, labels.get("pixels") or 0
    told = {
        f"{config.random_pixels} pixels drawn in every image": config.random_pixels,
        f"{config.clicks_per_class} clicks on every class in an image": config.clicks_per_class,
        f"{share:.4g} of the labels kept": share < 1,
        f"{images} images with {share * pixels / max(images, 1):.4g} labelled pixels each": pixels,
    }
    return ", ".join(text for text, holds in told.items() if holds) or "their number is unknown"


def _push(folder: Path, push_to: str) -> None:
    import huggingface_hub

    with _in_one_line(f"--push-to failed; {folder} is there, `hf upload {push_to} {folder}` sends it"):
        api = huggingface_hub.HfApi()
        api.create_repo(push_to, exist_ok=True)
        api.upload_folder(repo_id=push_to, folder_path=folder)
