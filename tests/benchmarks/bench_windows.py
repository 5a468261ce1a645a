"""Prediction by sliding windows against the plain loop of the published code bases, which runs the
network twice for every window (once for the feature, once for the logits) and one window at a time.

    PYTHONPATH=platform python tests/benchmarks/bench_windows.py [--rounds 3]

The same network, image and windows in one process, rounds interleaved, medians; the outputs are compared,
too."""

from __future__ import annotations

import argparse
import copy
import statistics
import time
import warnings

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sparseg.common.tiling import window_starts
from sparseg.config import ModelConfig
from sparseg.inference import views
from sparseg.network import segmenter

NUM_CLASSES, WINDOW, STRIDE = 19, 256, 170


def plain(network: nn.Module, image_13HW: Tensor) -> Tensor:
    """Windows one by one, twice each; softmax of each, summed at its place, divided by how often it was
    seen."""
    H, W = image_13HW.shape[2:]
    total, seen = torch.zeros(1, NUM_CLASSES, H, W), torch.zeros(H, W)
    for top in window_starts(H, WINDOW, STRIDE):
        for left in window_starts(W, WINDOW, STRIDE):
            window = image_13HW[:, :, top : top + WINDOW, left : left + WINDOW]
            network(window)  # its feature
            logits = network(window)[1]
            logits = F.interpolate(logits, size=(WINDOW, WINDOW), mode="bilinear", align_corners=False)
            total[:, :, top : top + WINDOW, left : left + WINDOW] += logits.softmax(1)
            seen[top : top + WINDOW, left : left + WINDOW] += 1
    return total / seen


def ours(network: nn.Module, image_13HW: Tensor) -> Tensor:
    """`views.class_probabilities`."""
    return views.class_probabilities(network, image_13HW, window_px=WINDOW, stride_px=STRIDE)


@torch.inference_mode()
def main() -> None:
    """Print a line for each size."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.manual_seed(0)
    settings = ModelConfig(backbone="mobilenetv2_100", weights="none", output_stride=16)
    network = segmenter.build(settings, NUM_CLASSES, quiet=True).eval()
    loaded = copy.deepcopy(network).to(memory_format=torch.channels_last)  # as checkpoint.load_model gives it
    for size in ((512, 512), (600, 800)):
        image_13HW = torch.randint(0, 256, (1, 3, *size), dtype=torch.uint8)
        times: dict[str, list[float]] = {"plain": [], "ours": []}
        results = {}
        for _ in range(options.rounds + 1):  # the first one warms up
            for name, used, predict in (("plain", network, plain), ("ours", loaded, ours)):
                start_s = time.perf_counter()
                results[name] = predict(used, image_13HW)
                times[name].append(time.perf_counter() - start_s)
        both = [statistics.median(times[name][1:]) for name in ("plain", "ours")]
        gap = (results["plain"] - results["ours"]).abs().max().item()
        print(
            f"{size[0]}x{size[1]}, windows of {WINDOW}: plain {both[0]:.2f} s, ours {both[1]:.2f} s, "
            f"{both[0] / both[1]:.2f} times, largest difference {gap:.1e}",
            flush=True,
        )


if __name__ == "__main__":
    main()
