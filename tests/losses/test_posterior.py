"""Memory of centroids and the posterior target: against plain loops, in resumed runs, on several workers."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
import torch.distributed as dist
from loss_batches import Batch, check_close, evaluate, make_batch
from torch import Tensor

from sparseg import losses
from sparseg.config import IGNORED, UNLABELLED, LossConfig
from sparseg.losses import mixture
from sparseg.runs import checkpoint
from sparseg.train import loop

POSTERIOR = LossConfig(
    method="agmm", target="posterior", centroids="memory", label_weight=0.0, sep_weight=0.0, bandwidth=0.7
)
K, D = 5, 8

pytestmark = pytest.mark.filterwarnings("ignore:model.weights=none")


def filled(seed: int = 0, seen: tuple[int, ...] = (0, 1, 2, 4)) -> mixture.Memory:
    memory = mixture.Memory.empty(K, D, torch.device("cpu"))
    memory.centroid_KD.copy_(torch.randn(K, D, generator=torch.Generator().manual_seed(seed)))
    memory.seen_K[list(seen)] = True
    return memory


def copied(memory: mixture.Memory) -> mixture.Memory:
    return mixture.Memory(memory.centroid_KD.clone(), memory.seen_K.clone())


def mean_by_loop(batch: Batch, k: int) -> tuple[Tensor, int]:
    """Sum over the images whose crop has class k of its mean feature, and how many they are."""
    total, count = torch.zeros(D, dtype=torch.float64), 0
    for feature_Dhw, label_HW in zip(batch.feature.double(), batch.label, strict=True):
        if bool((label_HW == k).any()):
            up_DHW = torch.nn.functional.interpolate(feature_Dhw[None], size=label_HW.shape, mode="bilinear")[
                0
            ]
            total += up_DHW[:, label_HW == k].mean(1)
            count += 1
    return total, count


def mix_by_loop(batch: Batch, memory: mixture.Memory, config: LossConfig) -> float:
    """L_mix with the posterior target, image by image, class by class, EM written out, in float64."""
    total = 0.0
    size = tuple(batch.feature.shape[2:])
    for feature_Dhw, logits_Khw, label_HW, present_K in zip(
        batch.feature.double(), batch.logits.double(), batch.label, batch.present, strict=True
    ):
        up = {"size": tuple(label_HW.shape), "mode": "bilinear"}
        p_KHW = torch.nn.functional.interpolate(logits_Khw[None], **up)[0].softmax(0)
        valid_hw = torch.nn.functional.interpolate((label_HW != IGNORED)[None, None].double(), size=size)[
            0, 0
        ]
        classes = [
            k for k in range(K) if bool((label_HW == k).any()) or bool(present_K[k] & memory.seen_K[k])
        ]
        if not classes:
            continue
        small = torch.nn.functional.interpolate(p_KHW[None], size=size, mode="bilinear")[0]
        weight = {k: small[k] * valid_hw for k in classes}
        d2 = {
            k: (feature_Dhw - memory.centroid_KD[k].double()[:, None, None]).abs().mean(0) ** 2
            for k in classes
        }
        variance = sum(float((weight[k] * d2[k]).sum()) for k in classes)
        variance /= sum(float(weight[k].sum()) for k in classes) + 1e-6
        joint = {
            k: (weight[k] + 1e-6) * torch.exp(-d2[k] / (2 * config.bandwidth**2 * variance + 1e-6))
            for k in classes
        }
        mixing = dict.fromkeys(classes, 1.0)
        for step in range(mixture.MIXING_STEPS + 1):
            parts = {k: (mixing[k] + 1e-4) * joint[k] for k in classes}
            everything = sum(parts.values())
            r = {k: parts[k] / everything for k in classes}
            if step < mixture.MIXING_STEPS:
                mixing = {k: float((r[k] * valid_hw).sum() / valid_hw.sum().clamp(min=1)) for k in classes}
        for k in classes:
            r_HW = torch.nn.functional.interpolate(r[k][None, None], **up)[0, 0]
            total -= float((torch.log(p_KHW[k] + 1e-6) * r_HW)[label_HW != IGNORED].sum())
    return total / int((batch.label != IGNORED).sum())


@pytest.mark.parametrize("seed", [1, 2, 3, 7])
def test_memory_and_posterior_equal_a_loop(seed: int) -> None:
    batch, memory = make_batch(seed, K=K, D=D), filled()
    expected = copied(memory)
    for k in range(K):
        total, count = mean_by_loop(batch, k)
        if count:
            mean = total / count
            moved = 0.9 * expected.centroid_KD[k].double() + 0.1 * mean if expected.seen_K[k] else mean
            expected.centroid_KD[k] = moved.float()
            expected.seen_K[k] = True
    seen_before = memory.seen_K.clone()
    terms, feature_gradient, logits_gradient = evaluate(losses.objective, batch, POSTERIOR, memory=memory)
    assert torch.equal(memory.seen_K, expected.seen_K)
    check_close("centroids", memory.centroid_KD, expected.centroid_KD, 1e-5, 1e-7)
    # a class seen for the first time in this very batch takes part where it is labelled
    slots_seen = mixture.Memory(expected.centroid_KD, seen_before)
    check_close("mix", terms["mix"], torch.tensor(mix_by_loop(batch, slots_seen, POSTERIOR)), 1e-5, 1e-6)
    assert not feature_gradient.any() and logits_gradient.any()  # the target is held fixed


def test_the_posterior_sums_to_one_and_finds_the_shares() -> None:
    """Two classes, four cells of five at the first one's centroid: pi is 0.8 and tips a cell in between."""
    memory = mixture.Memory(torch.tensor([[0.0], [1.0]]), torch.ones(2, dtype=torch.bool))
    d2 = torch.tensor([0.0] * 8 + [1.0] * 2).reshape(1, 1, 1, 10)
    d2_BShw = torch.cat([d2, 1 - d2], 1)
    d2_BShw[..., 0] = 0.5  # in between
    slots = mixture.Slots(torch.tensor([[0, 1]]), torch.tensor([[True, True]]))
    p_BShw, valid = torch.full((1, 2, 1, 10), 0.5), torch.ones(1, 1, 1, 10)
    r_BShw = mixture.posterior(d2_BShw, p_BShw, valid, slots, 0.2)
    torch.testing.assert_close(r_BShw.sum(1), torch.ones(1, 1, 10))
    odds = float(r_BShw[0, 0, 0, 0] / r_BShw[0, 1, 0, 0])
    mixing = float(r_BShw[0, 0].mean())
    assert odds == pytest.approx(mixing / (1 - mixing), rel=0.02) and odds > 3
    unused = dataclasses.replace(slots, used_BS=torch.tensor([[True, False]]))
    assert torch.equal(mixture.posterior(d2_BShw, p_BShw, valid, unused, 0.2)[0, 1], torch.zeros(1, 10))
    assert memory.seen_K.all()


def test_images_without_a_class_and_empty_batches_are_finite() -> None:
    batch = make_batch(1, K=K, D=D, empty=(0, 1, 2))
    bare = dataclasses.replace(batch, present=torch.zeros_like(batch.present))
    for label_BHW in (
        bare.label,
        torch.full_like(bare.label, IGNORED),
        torch.full_like(bare.label, UNLABELLED),
    ):
        given = dataclasses.replace(bare, label=label_BHW)
        memory = mixture.Memory.empty(K, D, torch.device("cpu"))
        terms, *gradients = evaluate(losses.objective, given, POSTERIOR, memory=memory)
        assert float(terms["mix"]) == 0 and all(math.isfinite(float(value)) for value in terms.values())
        assert all(bool(gradient.isfinite().all()) for gradient in gradients)
        assert not memory.seen_K.any() and not memory.centroid_KD.any()


def test_memory_alone_replaces_the_means_of_the_similarity() -> None:
    """With the batch's own means as memory, G of the labelled classes is that of the memory's centroid."""
    batch, memory = make_batch(5, K=K, D=D, B=1), mixture.Memory.empty(K, D, torch.device("cpu"))
    config = LossConfig(method="agmm", centroids="memory")
    found, _, _ = evaluate(losses.objective, batch, config, memory=memory)
    plain, _, _ = evaluate(losses.objective, batch, LossConfig(method="agmm"))
    for name in ("mix", "label", "sep"):  # one image: the first memory is its own means
        check_close(name, found[name], plain[name], 1e-5, 1e-6)


def test_the_posterior_needs_the_memory() -> None:
    with pytest.raises(ValueError, match=r"loss\.target=posterior.*loss\.centroids=memory"):
        LossConfig(method="agmm", target="posterior")


def test_a_resumed_run_remembers(tmp_path: Path) -> None:
    tiny.dataset(tmp_path)
    changes = {"loss.target": "posterior", "loss.centroids": "memory"}
    whole, parts = (tiny.config(tmp_path, {**changes, "run.name": name}) for name in ("whole", "parts"))
    expected = loop.run(whole)
    asked: list[int] = []
    loop.run(parts, should_stop=lambda: asked.append(1) or len(asked) == 3)  # type: ignore[func-returns-value]
    assert loop.run(parts) == expected
    states = [checkpoint.load_state(checkpoint.all_of(run.folder)[-1]) for run in (whole, parts)]
    for name, value in states[0][0].items():
        assert torch.equal(states[1][0][name], value), name
    assert states[0][1]["memory"]["seen_K"].any()
    assert torch.equal(states[0][1]["memory"]["centroid_KD"], states[1][1]["memory"]["centroid_KD"])


def on_ranks(rank: int, world: int, folder: str) -> dict[str, Any]:
    """Terms, memory and gradient of this rank's share of five images."""
    batch, memory = make_batch(7, B=5, K=K, D=D), filled()
    share = batch[slice(rank * 5 // world, (rank + 1) * 5 // world)]
    counts = losses.pixel_counts(share.label, K)
    terms, _, gradient = evaluate(losses.objective, share, POSTERIOR, memory=memory, counts=counts)
    packed = torch.stack([terms[name] for name in losses.TERMS])
    dist.all_reduce(packed)
    return {"terms": packed / world, "memory": memory.centroid_KD, "gradient": gradient / world}


@pytest.mark.slow
def test_several_workers_have_the_memory_of_one(tmp_path: Path) -> None:
    batch, memory = make_batch(7, B=5, K=K, D=D), filled()
    terms, _, gradient = evaluate(losses.objective, batch, POSTERIOR, memory=memory)
    for world, ranks in tiny.in_groups(on_ranks, tmp_path, (2, 3)).items():
        for found in ranks:
            check_close("memory", found["memory"], memory.centroid_KD, 1e-5, 1e-7)
            check_close("terms", found["terms"], torch.stack([terms[n] for n in losses.TERMS]), 1e-5, 1e-7)
        check_close(f"{world} ranks", torch.cat([f["gradient"] for f in ranks]), gradient, 1e-4, 1e-9)
