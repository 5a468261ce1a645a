"""What each loss.method costs: a whole training step, and the loss alone, forward and backward.

PYTHONPATH=platform python tests/benchmarks/bench_methods.py [--rounds 5] [--cases small voc] [--device cuda]

The images are smooth noise with five clicks of some classes.  One process, the methods take turns, medians;
memory is what a call adds at its peak.  The trees are SciPy's, on one CPU core, whatever the device.
"""

from __future__ import annotations

import dataclasses

import torch
import torch.nn.functional as F
from bench_mixture import Case, inputs, interleaved, options_of

from sparseg import losses
from sparseg.config import LossConfig, ModelConfig
from sparseg.losses.mixture import Memory
from sparseg.network import segmenter

METHODS = ("ce", "ce+absent", "agmm", "agmm-em", "tel", "gated-crf", "dense-pairwise", "agmm+tel")


@dataclasses.dataclass(frozen=True)
class Setting:
    """A recipe's shapes."""

    case: Case
    network: ModelConfig


SETTINGS = {
    "small": Setting(
        Case("camvid-small", 8, 40, 160, 11, (6, 9)),
        ModelConfig(
            backbone="mobilenetv2_100", aspp_dilations=(1, 2, 4), feature_channels=128, separable=True
        ),
    ),
    "voc": Setting(
        Case("VOC, ResNet-50, batch 4", 4, 81, 321, 21, (3, 4)),
        ModelConfig(backbone="resnet50d", output_stride=8),
    ),
}


def compare(setting: Setting, rounds: int, device: torch.device) -> None:
    """A row a method."""
    case = setting.case
    given = inputs(case, device, setting.network.feature_channels)
    network = segmenter.build(setting.network, case.num_classes, quiet=True)
    network = network.to(device, memory_format=torch.channels_last).train()
    coarse = torch.rand(case.batch, 3, 20, 20, generator=torch.Generator().manual_seed(0))
    image = F.interpolate(255 * coarse, size=(case.crop_px, case.crop_px), mode="bilinear").byte()
    image = image.to(device, memory_format=torch.channels_last)
    with torch.no_grad():
        outputs = [value.float() for value in network(image)]

    memory = Memory.empty(case.num_classes, setting.network.feature_channels, device)

    def step(method: str, whole: bool) -> None:
        if whole:
            with torch.autocast(device.type, dtype=torch.bfloat16, enabled=device.type == "cuda"):
                feature_BDhw, logits_BKhw = network(image)
        else:
            feature_BDhw, logits_BKhw = (value.clone().requires_grad_() for value in outputs)
        config = LossConfig(method=method)  # type: ignore[arg-type]
        running = memory if config.keeps_memory else None
        terms = losses.objective(
            feature_BDhw,
            logits_BKhw,
            given.label_BHW,
            given.present_BK,
            config,
            num_slots=case.classes[1] if running is None else int(given.present_BK.sum(1).max()),
            memory=running,
            image_B3HW=image,
        )
        terms["total"].backward()
        network.zero_grad(set_to_none=True)

    calls = {
        (method, whole): lambda method=method, whole=whole: step(method, whole)
        for method in METHODS
        for whole in (True, False)
    }
    found = interleaved(calls, rounds, device)  # type: ignore[arg-type, type-var]
    base_s, _ = found["ce", True]  # type: ignore[index]
    print(f"{case.name:<24} {'step':>8} {'over ce':>8} {'peak':>10} | {'loss':>9} {'peak':>10}")
    for method in METHODS:
        (step_s, step_mb), (loss_s, loss_mb) = found[method, True], found[method, False]  # type: ignore[index]
        print(
            f"{method:<24} {step_s:6.3f} s {step_s / base_s:7.2f}x {step_mb:6.0f} MiB | "
            f"{loss_s:7.4f} s {loss_mb:6.0f} MiB",
            flush=True,
        )


def main() -> None:
    """Print the tables."""
    options, device = options_of(__doc__ or "", [*SETTINGS])
    for name in options.cases:
        compare(SETTINGS[name], options.rounds, device)


if __name__ == "__main__":
    main()
