"""Where do the loss terms push?  Their gradients beside that of dense supervision, on the same crops.

    python trainers/camvid_small.py ... --run.checkpoint-every 50 --run.keep 99
    PYTHONPATH=platform python experiments/mixture_gradients.py RUN DATASET [--batches 6]

For the first, a middle and the last checkpoint of a run: training batches, their gradients under the
cross-entropy with the DENSE masks, which no method of the tables may see, and those of the sparse terms.  A
term helps where adding it turns the gradient of L_seg towards the dense one.  Printed are the norm of each
term's gradient over that of L_seg, its cosine with the dense one, and the cosine of L_seg + w times the term.
"""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path

import torch
from torch import Tensor

from sparseg import config, losses
from sparseg.data import loader, shards
from sparseg.runs import checkpoint

WEIGHTS = (0.1, 0.3, 1.0)
TERMS = {
    "L_mix, published": ("mix", {"loss.variance": "published"}),
    "L_mix, adaptive": ("mix", {"loss.variance": "adaptive"}),
    "L_mix, adaptive, bandwidth 0.3": ("mix", {"loss.variance": "adaptive", "loss.bandwidth": 0.3}),
    "L_label, adaptive": ("label", {"loss.variance": "adaptive"}),
    "L_sep": ("sep", {}),
    "L_absent": ("absent", {}),
}
"""Name -> the term of the objective, and the settings it is computed with."""


def gradient(loss: Tensor, parameters: list[Tensor]) -> Tensor:
    """All parameters' gradients in one vector; zeros where the loss does not reach."""
    found = torch.autograd.grad(loss, parameters, retain_graph=True, allow_unused=True)
    pairs = zip(found, parameters, strict=True)
    return torch.cat([(torch.zeros_like(p) if g is None else g).flatten() for g, p in pairs]).double()


def cosine(one: Tensor, other: Tensor) -> float:
    return float(one @ other / (one.norm() * other.norm()).clamp(min=1e-30))


def term(
    name: str,
    settings: config.Config,
    outputs: tuple[Tensor, Tensor],
    batch: loader.Batch,
    parameters: list[Tensor],
) -> Tensor:
    """Gradient of one term of the objective alone."""
    weights = {f"{other}_weight": float(other == name) for other in losses.TERMS}
    loss = dataclasses.replace(
        settings.loss, method="agmm", target="similarity", centroids="batch", **weights
    )
    return gradient(losses.objective(*outputs, batch.label_BHW, batch.present_BK, loss)[name], parameters)


def measure(path: Path, data: shards.ShardedDataset, batches: int) -> dict[str, list[list[float]]]:
    """Name -> for each batch: relative norm, cosine, cosines of the sums."""
    loaded = checkpoint.load_model(path)
    model = loaded.model.train()
    parameters = [p for p in model.parameters() if p.requires_grad]
    base = config.with_overrides(loaded.config, {"run.seed": 7, "loss.class_balance": 0.0})
    dense = config.with_overrides(
        base, {"data.label": "full", "data.clicks_per_class": 0, "data.random_pixels": 0}
    )
    streams = (
        loader.training_batches(data, settings, rank=0, world=1, first_step=0, last_step=batches)
        for settings in (base, dense)
    )
    found: dict[str, list[list[float]]] = {}
    for batch, truth in zip(*streams, strict=True):
        assert torch.equal(batch.image_B3HW, truth.image_B3HW)
        feature_BDhw, logits_BKhw = model(batch.image_B3HW)

        outputs = (feature_BDhw, logits_BKhw)
        oracle = term("seg", base, outputs, truth, parameters)
        seg = term("seg", base, outputs, batch, parameters)
        found.setdefault("L_seg", []).append([1.0, cosine(seg, oracle)])
        for name, (which, overrides) in TERMS.items():
            pushed = term(which, config.with_overrides(base, overrides), outputs, batch, parameters)
            sums = [cosine(seg + weight * pushed, oracle) for weight in WEIGHTS]
            norm = float(pushed.norm() / seg.norm())
            found.setdefault(name, []).append([norm, cosine(pushed, oracle), *sums])
    return found


def main() -> None:
    """Print a table for each checkpoint."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("dataset", type=Path)
    parser.add_argument("--batches", type=int, default=6)
    options = parser.parse_args()
    paths, data = checkpoint.all_of(options.run), shards.open(options.dataset)
    for path in (paths[0], paths[len(paths) // 2], paths[-1]):
        sums = " | ".join(f"L_seg + {weight:g}" for weight in WEIGHTS)
        print(f"\n| {path.name} | norm / L_seg | cosine with the dense gradient | {sums} |", flush=True)
        print("|---" * (3 + len(WEIGHTS)) + "|")
        for name, rows in measure(path, data, options.batches).items():
            means = torch.tensor(rows).mean(0).tolist()
            print(f"| {name} | " + " | ".join(f"{value:.2f}" for value in means) + " |", flush=True)


if __name__ == "__main__":
    main()
