"""What must hold of the mixture terms for any batch: symmetries, an image without labels, scales, bf16."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from loss_batches import (
    MIXTURE_TERMS,
    RELATIVE,
    RELATIVE_GRADIENT,
    TERMS,
    VARIANCES,
    Batch,
    check_close,
    check_equal,
    evaluate,
    make_batch,
)
from torch import Tensor

from sparseg import losses
from sparseg.config import IGNORED, UNLABELLED, LossConfig
from sparseg.losses import mixture
from sparseg.losses.mixture import Memory

FEW = settings(max_examples=25, deadline=None, derandomize=True)
SEEDS = st.integers(0, 10_000)


def configs(**fixed: object) -> st.SearchStrategy[LossConfig]:
    return st.builds(
        LossConfig,
        variance=st.sampled_from(VARIANCES),
        distance=st.sampled_from(["l1", "l2"]),
        centroid_reduction=st.sampled_from(["sum", "mean"]),
        bandwidth=st.sampled_from([0.5, 1.0, 2.0]),
        **{name: st.just(value) for name, value in fixed.items()},  # type: ignore[arg-type]
    )


def check_terms(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    for name in TERMS:
        check_close(name, found[name], expected[name], RELATIVE, 1e-6)


@FEW
@given(seed=SEEDS, config=configs(), order=st.permutations(range(4)))
def test_the_order_of_the_images_does_not_matter(seed: int, config: LossConfig, order: list[int]) -> None:
    batch = make_batch(seed, B=4)
    shuffled = Batch(*(getattr(batch, field.name)[order] for field in dataclasses.fields(batch)))
    (terms, *gradients), (moved, *moved_gradients) = (
        evaluate(losses.objective, each, config) for each in (batch, shuffled)
    )
    check_terms(moved, terms)
    for name, gradient, wanted in zip(("feature", "logits"), moved_gradients, gradients, strict=True):
        check_close(name, gradient, wanted[order], RELATIVE_GRADIENT, 1e-9)


@FEW
@given(seed=SEEDS, config=configs(), order=st.permutations(range(5)))
def test_class_ids_are_names(seed: int, config: LossConfig, order: list[int]) -> None:
    """Class k becomes order[k], in labels, logits and annotated classes alike."""
    batch = make_batch(seed, K=5)
    renamed_256 = torch.arange(256, dtype=torch.uint8)
    renamed_256[:5] = torch.tensor(order, dtype=torch.uint8)
    logits, present = torch.empty_like(batch.logits), torch.empty_like(batch.present)
    logits[:, order], present[:, order] = batch.logits, batch.present
    renamed = Batch(batch.feature, logits, renamed_256[batch.label.long()], present)
    terms, feature_gradient, logits_gradient = evaluate(losses.objective, batch, config)
    found, found_feature_gradient, found_logits_gradient = evaluate(losses.objective, renamed, config)
    check_terms(found, terms)
    check_close("feature", found_feature_gradient, feature_gradient, RELATIVE_GRADIENT, 1e-9)
    check_close("logits", found_logits_gradient[:, order], logits_gradient, RELATIVE_GRADIENT, 1e-9)


@FEW
@given(seed=SEEDS, config=configs(absent_weight=0.0))
def test_an_image_without_labels_only_joins_the_mean_over_valid_pixels(seed: int, config: LossConfig) -> None:
    """It has no class, so no mixture: L_mix is spread over more pixels, all else stays."""
    batch = make_batch(seed)
    extra = make_batch(seed + 1, B=1)
    empty = extra.relabelled(extra.label.where(extra.label == IGNORED, UNLABELLED))
    joined = Batch(
        *(
            torch.cat([getattr(batch, field.name), getattr(empty, field.name)])
            for field in dataclasses.fields(Batch)
        )
    )
    before, after = (int((each.label != IGNORED).sum()) for each in (batch, joined))
    (terms, *gradients), (found, *found_gradients) = (
        evaluate(losses.objective, each, config) for each in (batch, joined)
    )
    check_terms(found, terms | {"mix": terms["mix"] * before / after})
    for gradient in found_gradients:
        assert not gradient[-1].any()
    fewer = dataclasses.replace(config, mix_weight=config.mix_weight * after / before)
    _, *scaled = evaluate(losses.objective, joined, fewer)
    for name, gradient, wanted in zip(("feature", "logits"), scaled, gradients, strict=True):
        check_close(name, gradient[:-1], wanted, RELATIVE_GRADIENT, 1e-9)


@FEW
@given(seed=SEEDS, factor=st.sampled_from([0.5, 2.0, 3.0]), distance=st.sampled_from(["l1", "l2"]))
def test_a_scaled_feature_is_a_scaled_sigma(seed: int, factor: float, distance: str) -> None:
    """G = exp(-d^2 / 2 sigma^2) and d is homogeneous: factor * F with factor * sigma has the same G."""
    batch = make_batch(seed)
    scaled = dataclasses.replace(batch, feature=factor * batch.feature)
    config = LossConfig(method="agmm", variance="published", distance=distance, sep_weight=0.0)
    wider = dataclasses.replace(config, sigma=factor * config.sigma)
    terms, gradient, _ = evaluate(losses.objective, batch, config)
    found, found_gradient, _ = evaluate(losses.objective, scaled, wider)
    check_terms(found, terms)
    check_close("feature", factor * found_gradient, gradient, RELATIVE_GRADIENT, 1e-9)


@FEW
@given(seed=SEEDS, factor=st.sampled_from([0.5, 2.0, 3.0]), config=configs(sep_weight=0.0))
def test_an_estimated_variance_takes_out_the_scale_of_the_feature(
    seed: int, factor: float, config: LossConfig
) -> None:
    """sigma^2 grows as d^2 does, so the bandwidth keeps its meaning; the EPS beside it is 1e-6 of either."""
    if config.variance == "published":
        config = dataclasses.replace(config, variance="adaptive")
    batch = make_batch(seed)
    scaled = dataclasses.replace(batch, feature=factor * batch.feature)
    terms, _, _ = evaluate(losses.objective, batch, config)
    found, _, _ = evaluate(losses.objective, scaled, config)
    for name in TERMS:
        check_close(name, found[name], terms[name], 1e-4, 1e-6)


@FEW
@given(seed=SEEDS, distance=st.sampled_from(["l1", "l2"]))
def test_bandwidth_multiplies_sigma(seed: int, distance: str) -> None:
    """With one image of one class, unweighted variance and bandwidth beta give what sigma = beta * (root
    mean square of d) gives."""
    batch = make_batch(4 * seed, B=1, specks=False)  # seed % 4 == 0: a single class
    batch = dataclasses.replace(batch, label=batch.label.where(batch.label != IGNORED, UNLABELLED))
    config = LossConfig(method="agmm", variance="unweighted", distance=distance, bandwidth=0.7)
    (k,) = {int(value) for value in batch.label.unique() if value < UNLABELLED}
    up_DHW = torch.nn.functional.interpolate(batch.feature, size=batch.label.shape[1:], mode="bilinear")[0]
    mu_D = up_DHW[:, batch.label[0] == k].mean(1)
    difference_Dhw = batch.feature[0] - mu_D[:, None, None]
    d2_hw = difference_Dhw.abs().mean(0) ** 2 if distance == "l1" else difference_Dhw.square().mean(0)
    fixed = dataclasses.replace(config, variance="published", sigma=0.7 * float(d2_hw.mean()) ** 0.5)
    found, _, _ = evaluate(losses.objective, batch, config)
    expected, _, _ = evaluate(losses.objective, batch, fixed)
    for name in ("mix", "label"):
        check_close(name, found[name], expected[name], 1e-4, 1e-6)


@FEW
@given(seed=SEEDS, config=configs())
def test_bf16_input_stays_near_fp32(seed: int, config: LossConfig) -> None:
    """What autocast hands over has 8 bits; the terms may move by no more than that."""
    batch = make_batch(seed, D=64)
    rounded = dataclasses.replace(batch, feature=batch.feature.bfloat16(), logits=batch.logits.bfloat16())
    found, _, _ = evaluate(losses.objective, rounded, config)
    terms, _, _ = evaluate(losses.objective, batch, config)
    for name in TERMS:
        check_close(name, found[name], terms[name], 1e-2, 1e-4)


@pytest.mark.parametrize("term", MIXTURE_TERMS)
def test_the_batches_of_this_file_have_something_to_say(term: str) -> None:
    """Properties of zeros would hold of anything."""
    for seed in (0, 1, 2, 3):
        terms, _, _ = evaluate(losses.objective, make_batch(seed), LossConfig(method="agmm"))
        assert float(terms[term]) > 1e-3 or (term == "sep" and seed == 0), (seed, terms)


@pytest.mark.parametrize("distance", ["l1", "l2"])
@pytest.mark.parametrize("variance", VARIANCES)
def test_the_objective_is_one_graph(variance: str, distance: str) -> None:
    """torch.compile finds no break and no wait for the device, and the terms and gradients stay."""
    torch._dynamo.reset()
    compiled = torch.compile(losses.objective, fullgraph=True, backend="aot_eager")
    config = LossConfig(method="agmm", variance=variance, distance=distance)
    for seed in (3, 5):
        batch = make_batch(seed)
        found = evaluate(compiled, batch, config, num_slots=4)
        check_equal(found, evaluate(losses.objective, batch, config, num_slots=4))


@pytest.mark.parametrize("method", ["agmm-em", "gated-crf", "dense-pairwise"])
def test_so_is_that_of_other_methods(method: str) -> None:
    """All but tel, whose trees SciPy grows."""
    torch._dynamo.reset()
    compiled = torch.compile(losses.objective, fullgraph=True, backend="aot_eager")
    batch, config = make_batch(3), LossConfig(method=method)
    image_B3HW = torch.randint(0, 256, (3, 3, *batch.label.shape[1:]), dtype=torch.uint8)

    def values(function: Any) -> Any:
        memory = Memory.empty(5, 8, torch.device("cpu"))
        return evaluate(function, batch, config, num_slots=4, image_B3HW=image_B3HW, memory=memory)

    check_equal(values(compiled), values(losses.objective))


def test_the_distance_of_the_gpu_is_that_of_the_cpu() -> None:
    """The CPU takes torch's kernel, a GPU our loop over slots: the same values and gradients."""
    random = torch.Generator().manual_seed(0)
    feature_BND = torch.randn(2, 35, 16, generator=random, requires_grad=True)
    mean_BSD = torch.randn(2, 3, 16, generator=random, requires_grad=True)
    weight_BSN = torch.randn(2, 3, 35, generator=random)
    results = []
    for function in (mixture.mean_absolute_difference, mixture._MeanAbsoluteDifference.apply):
        distance_BSN = function(feature_BND, mean_BSD)
        results.append(
            (distance_BSN, *torch.autograd.grad((distance_BSN * weight_BSN).sum(), (feature_BND, mean_BSD)))
        )
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other)
