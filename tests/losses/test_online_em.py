"""agmm-em: against EM written out in loops, on several workers, with nothing to learn from."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
import torch.distributed as dist
import torch.nn.functional as F
from loss_batches import Batch, check_close, evaluate, make_batch
from torch import Tensor

from sparseg import losses
from sparseg.config import IGNORED, UNLABELLED, LossConfig
from sparseg.losses.mixture import MIXING_STEPS, Memory
from sparseg.runs import checkpoint
from sparseg.train import loop

K, D = 5, 8
EM = LossConfig(method="agmm-em", em_steps=2, em_confidence=0.6, em_trust=0.3, bandwidth=0.7)

pytestmark = pytest.mark.filterwarnings("ignore:model.weights=none")


def filled(seen: tuple[int, ...] = (0, 1, 2, 4)) -> Memory:
    memory = Memory.empty(K, D, torch.device("cpu"))
    memory.centroid_KD.copy_(torch.randn(K, D, generator=torch.Generator().manual_seed(0)))
    memory.seen_K[list(seen)] = True
    return memory


def batch_of(seed: int) -> Batch:
    """Features that stand in clusters, so that some cells are sure."""
    batch = make_batch(seed, K=K, D=D)
    centre_KD = 2 * filled().centroid_KD
    which = torch.randint(0, K, (len(batch.feature), 9, 12), generator=torch.Generator().manual_seed(seed))
    return dataclasses.replace(batch, feature=0.3 * batch.feature + centre_KD[which].permute(0, 3, 1, 2))


@dataclasses.dataclass
class Image:
    """An image in float64, its probabilities and validity at the feature's cells."""

    feature_Dhw: Tensor
    p_KHW: Tensor
    label_HW: Tensor
    classes: list[int]

    def __post_init__(self) -> None:
        size = self.feature_Dhw.shape[1:]
        self.p_Khw = F.interpolate(self.p_KHW[None], size=size, mode="bilinear")[0]
        self.valid_hw = F.interpolate((self.label_HW != IGNORED)[None, None].double(), size=size)[0, 0]

    def up(self, value_hw: Tensor) -> Tensor:
        return F.interpolate(value_hw[None, None], size=self.label_HW.shape, mode="bilinear")[0, 0]

    def own_mean(self, k: int) -> Tensor | None:
        at_HW = self.label_HW == k
        up_DHW = torch.stack([self.up(channel) for channel in self.feature_Dhw])
        return up_DHW[:, at_HW].mean(1) if bool(at_HW.any()) else None

    def d2(self, mean_D: Tensor) -> Tensor:
        return (self.feature_Dhw - mean_D[:, None, None]).abs().mean(0) ** 2

    def variance(self, mean_KD: Tensor) -> float:
        weight = {k: self.p_Khw[k] * self.valid_hw for k in self.classes}
        total = sum(float((weight[k] * self.d2(mean_KD[k])).sum()) for k in self.classes)
        return total / (sum(float(weight[k].sum()) for k in self.classes) + 1e-6)

    def expect(self, mean_KD: Tensor) -> dict[int, Tensor]:
        scale = 2 * EM.bandwidth**2 * self.variance(mean_KD) + 1e-6
        joint = {
            k: (self.p_Khw[k] * self.valid_hw + 1e-6) * torch.exp(-self.d2(mean_KD[k]) / scale)
            for k in self.classes
        }
        share = dict.fromkeys(self.classes, 1.0)
        for step in range(MIXING_STEPS + 1):
            parts = {k: (share[k] + 1e-4) * joint[k] for k in self.classes}
            everything = sum(parts.values())
            r = {k: parts[k] / everything for k in self.classes}
            if step < MIXING_STEPS:
                share = {k: float((r[k] * self.valid_hw).sum() / self.valid_hw.sum()) for k in self.classes}
        return r


def images_of(batch: Batch, seen_K: Tensor) -> list[Image]:
    images = []
    for feature, logits, label, present in zip(
        batch.feature.double(), batch.logits.double(), batch.label, batch.present, strict=True
    ):
        p_KHW = F.interpolate(logits[None], size=label.shape, mode="bilinear")[0].softmax(0)
        classes = [k for k in range(K) if bool((label == k).any()) or bool(present[k] & seen_K[k])]
        images.append(Image(feature, p_KHW, label, classes))
    return images


def em_by_loop(images: list[Image], memory: Memory) -> tuple[Tensor, Tensor]:
    """The running means and which there are after a batch, class by class."""
    start_KD, start_K = memory.centroid_KD.double(), memory.seen_K

    def moved(means: dict[int, list[Tensor]]) -> tuple[Tensor, Tensor]:
        centroid_KD, seen_K = start_KD.clone(), start_K.clone()
        for k, found in means.items():
            if found:
                mean_D = torch.stack(found).mean(0)
                centroid_KD[k] = 0.9 * start_KD[k] + 0.1 * mean_D if start_K[k] else mean_D
                seen_K[k] = True
        return centroid_KD, seen_K

    own = [{k: image.own_mean(k) for k in image.classes} for image in images]
    centroid_KD, seen_K = moved({k: [o[k] for o in own if o.get(k) is not None] for k in range(K)})
    for _ in range(EM.em_steps):
        means: dict[int, list[Tensor]] = {k: [] for k in range(K)}
        for image, mine in zip(images, own, strict=True):
            r = image.expect(centroid_KD)
            for k in image.classes:
                weight_hw = r[k] * (r[k] >= EM.em_confidence) * image.valid_hw
                pseudo_D = (weight_hw * image.feature_Dhw).sum((1, 2)) / (weight_hw.sum() + 1e-6)
                if mine[k] is not None:
                    trust = EM.em_trust if weight_hw.any() else 0.0
                    means[k].append((1 - trust) * mine[k] + trust * pseudo_D)
                elif weight_hw.any():
                    means[k].append(pseudo_D)
        centroid_KD, seen_K = moved(means)
    return centroid_KD, seen_K


@pytest.mark.parametrize("seed", [1, 2, 3, 7])
def test_memory_and_terms_equal_loops(seed: int) -> None:
    batch, memory = batch_of(seed), filled()
    images = images_of(batch, memory.seen_K)
    centroid_KD, seen_K = em_by_loop(images, memory)
    mix = label = pixels = 0.0
    for image in images:
        r = image.expect(centroid_KD)
        sure_hw = (torch.stack([r[k] for k in image.classes]).amax(0) >= EM.em_confidence) * image.valid_hw
        scale = 2 * EM.bandwidth**2 * image.variance(centroid_KD) + 1e-6
        log_KHW = {k: image.up(-image.d2(centroid_KD[k]) * image.valid_hw / scale) for k in image.classes}
        total_HW = torch.logsumexp(torch.stack(list(log_KHW.values())), 0)
        for k in image.classes:
            cost_HW = torch.log(image.p_KHW[k] + 1e-6) * image.up(r[k] * sure_hw)
            mix -= float(cost_HW[image.label_HW != IGNORED].sum())
            label -= float((log_KHW[k] - total_HW)[image.label_HW == k].sum())
        pixels += int((image.label_HW < K).sum())
    valid = int((batch.label != IGNORED).sum())
    before = memory.centroid_KD.clone()
    terms, feature_gradient, logits_gradient = evaluate(losses.objective, batch, EM, memory=memory)
    assert torch.equal(memory.seen_K, seen_K) and not torch.equal(before, memory.centroid_KD)
    check_close("centroids", memory.centroid_KD, centroid_KD, 1e-5, 1e-7)
    check_close("mix", terms["mix"], torch.tensor(mix / valid), 1e-5, 1e-6)
    check_close("label", terms["label"], torch.tensor(label / pixels), 1e-5, 1e-6)
    assert float(terms["mix"]) > 0 and float(terms["absent"]) > 0
    assert feature_gradient.any() and logits_gradient.any()


def test_pseudo_labels_reach_classes_without_a_pixel() -> None:
    """An image of which only tags are known moves the means; with em_trust=0 nothing does."""
    batch, memory, untouched = batch_of(4), filled(), filled()
    tagged = dataclasses.replace(batch, label=torch.full_like(batch.label, UNLABELLED))
    evaluate(losses.objective, tagged, EM, memory=memory)
    assert not torch.equal(memory.centroid_KD, filled().centroid_KD)
    assert torch.equal(memory.seen_K, filled().seen_K)
    evaluate(losses.objective, tagged, dataclasses.replace(EM, em_trust=0.0), memory=untouched)
    assert torch.equal(untouched.centroid_KD, filled().centroid_KD)


def test_without_a_step_it_is_the_memory_of_labelled_pixels() -> None:
    batch, memory, plain = batch_of(2), filled(), filled()
    evaluate(losses.objective, batch, dataclasses.replace(EM, em_steps=0), memory=memory)
    evaluate(losses.objective, batch, LossConfig(method="agmm", centroids="memory"), memory=plain)
    check_close("centroids", memory.centroid_KD, plain.centroid_KD, 1e-6, 1e-7)


def test_label_draws_features_to_their_centroid() -> None:
    """Steps against the gradient of L_label raise the posterior of the labelled class."""
    batch = batch_of(3)
    alone = dataclasses.replace(EM, seg_weight=0.0, mix_weight=0.0, sep_weight=0.0, absent_weight=0.0)
    found = []
    for _ in range(5):
        terms, gradient, _ = evaluate(losses.objective, batch, alone, memory=filled())
        found.append(float(terms["label"]))
        batch = dataclasses.replace(batch, feature=batch.feature - 50.0 * gradient)
    assert found == sorted(found, reverse=True) and found[-1] < 0.99 * found[0]


def test_a_label_whose_cells_are_all_ignored_weighs_no_more_than_others() -> None:
    """sigma is 0 there."""
    batch = batch_of(1)
    label_BHW = torch.full_like(batch.label, IGNORED)
    label_BHW[:, 1, 1] = 0  # a pixel that down-sampling does not meet
    present_BK = torch.ones_like(batch.present)
    sliver = dataclasses.replace(batch, label=label_BHW, present=present_BK)
    terms, gradient, _ = evaluate(losses.objective, sliver, EM, memory=filled())
    assert 0 < float(terms["label"]) < 10 and not gradient.isnan().any() and gradient.abs().max() < 1


@pytest.mark.parametrize("code", [UNLABELLED, IGNORED])
def test_nothing_to_learn_from_is_finite(code: int) -> None:
    batch = batch_of(1)
    bare = dataclasses.replace(
        batch, label=torch.full_like(batch.label, code), present=torch.zeros_like(batch.present)
    )
    memory = Memory.empty(K, D, torch.device("cpu"))
    terms, *gradients = evaluate(losses.objective, bare, EM, memory=memory)
    assert float(terms["mix"]) == float(terms["label"]) == 0
    assert all(math.isfinite(float(value)) for value in terms.values())
    assert all(bool(gradient.isfinite().all()) for gradient in gradients)
    assert not memory.seen_K.any() and not memory.centroid_KD.any()


def test_a_run_keeps_its_memory_and_resumes(tmp_path: Path) -> None:
    tiny.dataset(tmp_path)
    changes = {"loss.method": "agmm-em", "loss.em_confidence": 0.51}
    whole, parts = (tiny.config(tmp_path, {**changes, "run.name": name}) for name in ("whole", "parts"))
    expected = loop.run(whole)
    asked: list[int] = []
    loop.run(parts, should_stop=lambda: asked.append(1) or len(asked) == 3)  # type: ignore[func-returns-value]
    assert loop.run(parts) == expected
    states = [checkpoint.load_state(checkpoint.all_of(run.folder)[-1]) for run in (whole, parts)]
    for name, value in states[0][0].items():
        assert torch.equal(states[1][0][name], value), name
    for name, value in states[0][1]["memory"].items():
        assert value.any() and torch.equal(states[1][1]["memory"][name], value), name
    terms = [json.loads(line) for line in (parts.folder / "metrics.jsonl").read_text().splitlines()]
    assert all(line["mix"] > 0 for line in terms if line["kind"] == "train")


def on_ranks(rank: int, world: int, folder: str) -> dict[str, Any]:
    batch, memory = batch_of(7), filled()
    share = batch[slice(rank * 3 // world, (rank + 1) * 3 // world)]
    counts = losses.pixel_counts(share.label, K)
    terms, feature, logits = evaluate(losses.objective, share, EM, memory=memory, counts=counts)
    packed = torch.stack([terms[name] for name in losses.TERMS])
    dist.all_reduce(packed)
    gradient = torch.cat([feature.flatten(1), logits.flatten(1)], 1)
    return {"terms": packed / world, "memory": memory.centroid_KD, "gradient": gradient / world}


@pytest.mark.slow
def test_several_workers_have_the_memory_of_one(tmp_path: Path) -> None:
    memory = filled()
    terms, feature, logits = evaluate(losses.objective, batch_of(7), EM, memory=memory)
    gradient = torch.cat([feature.flatten(1), logits.flatten(1)], 1)
    for world, ranks in tiny.in_groups(on_ranks, tmp_path, (2, 3)).items():
        for found in ranks:
            check_close("memory", found["memory"], memory.centroid_KD, 1e-5, 1e-7)
            check_close("terms", found["terms"], torch.stack([terms[n] for n in losses.TERMS]), 1e-5, 1e-7)
        check_close(f"{world} ranks", torch.cat([f["gradient"] for f in ranks]), gradient, 1e-4, 1e-9)
