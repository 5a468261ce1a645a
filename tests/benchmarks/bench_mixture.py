"""All mixture terms, forward and backward: time and peak memory against the plain published formulation.

PYTHONPATH=platform python tests/benchmarks/bench_mixture.py [--rounds 5] [--cases voc4 step] [--device cuda]

Plain is what the equations of the published code say, written down as they stand: the feature upsampled to
image size, a loop over classes for the means, one (B, K, D, h, w) difference, similarities of all K classes
at image size, a loop over pairs.  Both get the same feature, probabilities and labels; values and gradients
are compared first.  One process, rounds interleaved, medians.  Memory is what a call adds at its peak: on a
CPU of the process (VmHWM, reset before each call), on a GPU of torch's allocator.
"""

from __future__ import annotations

import argparse
import ctypes
import dataclasses
import gc
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from sparseg import losses
from sparseg.config import IGNORED, UNLABELLED, LossConfig, ModelConfig
from sparseg.losses import agmm, mixture
from sparseg.network import segmenter

EPS = 1e-6
CONFIG = LossConfig(method="agmm", variance="published")


@dataclasses.dataclass(frozen=True)
class Case:
    """Shapes of one measurement; `classes` lie in each crop, 5 labelled pixels of each."""

    name: str
    batch: int
    feature_px: int
    crop_px: int
    num_classes: int
    classes: tuple[int, int]
    plain: bool = True


CASES = {
    "voc4": Case("VOC, batch 4", 4, 81, 321, 21, (3, 4)),
    "voc16": Case("VOC, batch 16", 16, 81, 321, 21, (3, 4)),
    "cityscapes2": Case("Cityscapes, batch 2", 2, 181, 721, 19, (12, 15)),
}


@dataclasses.dataclass(frozen=True)
class Inputs:
    """What both formulations are given."""

    feature_BDhw: Tensor
    p_BKHW: Tensor
    label_BHW: Tensor
    present_BK: Tensor

    def leaves(self) -> Inputs:
        """The same values as fresh leaves of a graph."""
        leaf = [value.detach().requires_grad_() for value in (self.feature_BDhw, self.p_BKHW)]
        return dataclasses.replace(self, feature_BDhw=leaf[0], p_BKHW=leaf[1])


def inputs(case: Case, device: torch.device, channels: int = 256) -> Inputs:
    """Smooth random features (channels_last, as the decoder gives them), clicks, a void border."""
    rng = torch.Generator().manual_seed(0)
    shape = (case.batch, channels, case.feature_px, case.feature_px)
    feature_BDhw = torch.rand(shape, generator=rng).to(device, memory_format=torch.channels_last)
    logits_BKHW = torch.randn(case.batch, case.num_classes, case.crop_px, case.crop_px, generator=rng) * 2
    label_BHW = torch.full((case.batch, case.crop_px, case.crop_px), UNLABELLED, dtype=torch.uint8)
    label_BHW[:, -case.crop_px // 16 :] = IGNORED
    for b in range(case.batch):
        count = case.classes[0] + b % (case.classes[1] - case.classes[0] + 1)
        for k in torch.randperm(case.num_classes, generator=rng)[:count]:
            y, x = torch.randint(case.crop_px * 15 // 16, (2, 5), generator=rng)
            label_BHW[b, y, x] = int(k)
    present_BK = mixture.crop_classes(label_BHW, case.num_classes)
    return Inputs(
        feature_BDhw, logits_BKHW.softmax(1).to(device), label_BHW.to(device), present_BK.to(device)
    )


# ------------------------------------------------------------------------------------------ the two subjects


def ours(given: Inputs, config: LossConfig = CONFIG) -> dict[str, Tensor]:
    """The body of losses.objective, mixture terms only; num_slots is known, as from the loader."""
    labelled, valid = 1 / losses.pixel_counts(given.label_BHW, given.p_BKHW.shape[1]).float()
    num_slots = int(given.present_BK.sum(1).max())
    shared = losses.LossInputs(
        given.feature_BDhw, given.p_BKHW, given.label_BHW, given.present_BK, labelled, valid, num_slots
    )
    return agmm.terms(shared, given.p_BKHW, config)


def bce(p: Tensor, target: Tensor) -> Tensor:
    return -(target * torch.log(p + EPS) + (1 - target) * torch.log(1 - p + EPS))


def plain(given: Inputs) -> dict[str, Tensor]:
    """The published equations, term by term, on dense tensors of all classes."""
    feature_BDhw, p_BKHW, label_BHW = given.feature_BDhw, given.p_BKHW, given.label_BHW
    (batch, num_classes), size = p_BKHW.shape[:2], label_BHW.shape[1:]
    classes_K = torch.arange(num_classes, device=label_BHW.device)
    onehot_BKHW = (label_BHW[:, None] == classes_K[:, None, None]).float()
    n_BK = onehot_BKHW.sum((2, 3))
    c_BK = (n_BK > 0).float()
    valid_B1HW = (label_BHW != IGNORED).float()[:, None]
    labelled_B1HW = (label_BHW < num_classes).float()[:, None]

    up_BDHW = F.interpolate(feature_BDhw, size=size, mode="bilinear", align_corners=False)
    means = []
    for k in range(num_classes):
        if c_BK[:, k].any():
            means.append((up_BDHW * onehot_BKHW[:, k, None]).sum((2, 3)) / (n_BK[:, k, None] + EPS))
        else:
            means.append(up_BDHW.new_zeros(batch, up_BDHW.shape[1]))
    mu_BKD = torch.stack(means, 1)

    down_B1hw = F.interpolate(valid_B1HW, size=feature_BDhw.shape[2:], mode="nearest")
    distance_BKhw = (feature_BDhw[:, None] - mu_BKD[..., None, None]).abs().mean(2)
    distance_BKhw = distance_BKhw * c_BK[:, :, None, None] * down_B1hw
    g_BKhw = torch.exp(-(distance_BKhw**2) / (2 * CONFIG.sigma**2))
    g_BKHW = F.interpolate(g_BKhw, size=size, mode="bilinear", align_corners=False) * c_BK[:, :, None, None]

    share_BK11 = (c_BK / (c_BK.sum(1, keepdim=True) + EPS) / 2)[..., None, None]
    mix = (bce(p_BKHW, g_BKHW) * share_BK11 * valid_B1HW).sum() / valid_B1HW.sum()
    label = (bce(g_BKHW, onehot_BKHW) * share_BK11 * labelled_B1HW).sum() / labelled_B1HW.sum()
    v_KD = mu_BKD.sum(0)
    found = [k for k in range(num_classes) if c_BK[:, k].any()]
    pairs = [(i, j) for i in found for j in found if i < j]
    sep = sum((torch.exp(-((v_KD[i] - v_KD[j]).abs().mean() ** 2)) for i, j in pairs), mix.new_zeros(()))
    return {"mix": mix, "label": label, "sep": sep / (len(pairs) + EPS)}


def backward(given: Inputs, terms: Callable[[Inputs], dict[str, Tensor]]) -> tuple[dict[str, Tensor], Inputs]:
    """The terms and, in the leaves, the gradients of their sum."""
    leaves = given.leaves()
    values = terms(leaves)
    sum(values.values(), torch.zeros((), device=leaves.label_BHW.device)).backward()
    return {name: value.detach() for name, value in values.items()}, leaves


# ------------------------------------------------------------------------------------------------ measuring


def _status_kb(field: str) -> int:
    text = Path("/proc/self/status").read_text()
    return int(text.split(f"{field}:")[1].split()[0])


def measure(call: Callable[[], object], device: torch.device) -> tuple[float, float]:
    """(seconds, MiB that the call adds at its peak)."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        call()
        end.record()
        torch.cuda.synchronize()
        return begin.elapsed_time(end) / 1e3, (torch.cuda.max_memory_allocated() - before) / 2**20
    ctypes.CDLL("libc.so.6").malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")  # VmHWM starts anew
    before_kb, begin_s = _status_kb("VmRSS"), time.perf_counter()
    call()
    elapsed_s = time.perf_counter() - begin_s
    return elapsed_s, (_status_kb("VmHWM") - before_kb) / 2**10


def interleaved(
    calls: dict[str, Callable[[], object]], rounds: int, device: torch.device
) -> dict[str, tuple[float, float]]:
    """Medians of (seconds, MiB) over the rounds, in which the calls take turns; one round warms up."""
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in calls}
    for number in range(rounds + 1):
        for name, call in calls.items():
            result = measure(call, device)
            if number:
                found[name].append(result)
    return {
        name: (statistics.median(s for s, _ in values), statistics.median(mb for _, mb in values))
        for name, values in found.items()
    }


def compare(case: Case, rounds: int, device: torch.device) -> None:
    """One row: equality, then time and memory of both."""
    given = inputs(case, device)
    (our_terms, our_leaves), (plain_terms, plain_leaves) = backward(given, ours), backward(given, plain)
    apart = max(float((our_terms[name] / plain_terms[name] - 1).abs()) for name in plain_terms)
    gradients = [
        float((a.grad - b.grad).norm() / b.grad.norm())
        for a, b in (
            (our_leaves.feature_BDhw, plain_leaves.feature_BDhw),
            (our_leaves.p_BKHW, plain_leaves.p_BKHW),
        )
    ]
    del our_leaves, plain_leaves
    found = interleaved(
        {"plain": lambda: backward(given, plain), "ours": lambda: backward(given, ours)}, rounds, device
    )
    (plain_s, plain_mb), (our_s, our_mb) = found["plain"], found["ours"]
    print(
        f"{case.name:<22} {plain_s:8.3f} s {our_s:8.4f} s {plain_s / our_s:6.1f}x | "
        f"{plain_mb:8.0f} MiB {our_mb:7.0f} MiB  1/{plain_mb / max(our_mb, 1):.1f} | "
        f"values {apart:.1e}, gradients {max(gradients):.1e}",
        flush=True,
    )


def share_of_step(backbone: str, rounds: int, device: torch.device, batch: int) -> None:
    """One row: the mixture terms against a whole training step without optimizer, VOC shape."""
    case = dataclasses.replace(CASES["voc4"], batch=batch)
    given = inputs(case, device)
    network = segmenter.build(ModelConfig(backbone=backbone, output_stride=8), case.num_classes, quiet=True)
    network = network.to(device, memory_format=torch.channels_last).train()
    image = torch.rand(batch, 3, case.crop_px, case.crop_px, device=device)
    image = image.to(memory_format=torch.channels_last)
    bf16 = device.type == "cuda"

    def step() -> None:
        with torch.autocast(device.type, dtype=torch.bfloat16, enabled=bf16):
            feature_BDhw, logits_BKhw = network(image)
        terms = losses.objective(
            feature_BDhw, logits_BKhw, given.label_BHW, given.present_BK, CONFIG, num_slots=4
        )
        terms["total"].backward()
        network.zero_grad(set_to_none=True)

    found = interleaved({"step": step, "mixture": lambda: backward(given, ours)}, rounds, device)
    step_s, mixture_s = found["step"][0], found["mixture"][0]
    print(
        f"{backbone}, batch {batch}{', bf16' if bf16 else ''}: step {step_s:.3f} s, mixture terms "
        f"{mixture_s:.4f} s = {100 * mixture_s / step_s:.1f} %",
        flush=True,
    )


def options_of(doc: str, cases: list[str]) -> tuple[argparse.Namespace, torch.device]:
    """The command line of a benchmark with cases, and its device; prints what it is measured on."""
    parser = argparse.ArgumentParser(description=doc.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=5, help="timed rounds of every case")
    parser.add_argument("--cases", nargs="+", default=cases, choices=cases)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    options = parser.parse_args()
    device = torch.device(options.device)
    what = (
        torch.cuda.get_device_name() if device.type == "cuda" else f"CPU, {torch.get_num_threads()} threads"
    )
    print(f"torch {torch.__version__}, {what}; medians of {options.rounds}")
    return options, device


def main() -> None:
    """Print the tables."""
    options, device = options_of(__doc__ or "", [*CASES, "step"])
    print(f"{'mixture terms':<22} {'plain':>10} {'ours':>10} {'ratio':>7} | {'plain':>12} {'ours':>11}")
    for name in options.cases:
        if name != "step":
            compare(CASES[name], options.rounds, device)
    if "step" in options.cases:
        for backbone in ("resnet50d", "resnet101d"):
            share_of_step(backbone, min(options.rounds, 3), device, 4 if device.type == "cpu" else 16)


if __name__ == "__main__":
    main()
