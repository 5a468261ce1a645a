"""The objective and its gradients equal a brute-force loop, in one process and in several.

Terms to 1e-5 relative, gradients to 1e-4 of the largest, fp32 against float64.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import math
from collections.abc import Iterator
from typing import Any

import brute_force
import pytest
import tiny
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
    brute,
    check_close,
    check_equal,
    evaluate,
    in_crop,
    make_batch,
    only,
)
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from sparseg import losses
from sparseg.config import IGNORED, UNLABELLED, LossConfig


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Iterator[None]:
    """The tensors are tiny: threads would only get in each other's way."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


# ------------------------------------------------------------------------------------------- worked by hand


def hand_batch() -> Batch:
    """Three pixels in a row, feature and logits of that size, D = 1; the third is padding, its values absurd.

    F = 0, 2, 100;  m = 0, 1, IGNORED;  K = 3, class 2 is nowhere in the image;
    P = (1/2, 1/4, 1/4) at pixel 0 and (1/4, 1/4, 1/2) at pixel 1.
    mu_0 = 0, mu_1 = 2, so d_0 = (0, 2), d_1 = (2, 0) and S = 2.
    """
    prob_K3 = torch.tensor([[1 / 2, 1 / 4, 0.998], [1 / 4, 1 / 4, 0.001], [1 / 4, 1 / 2, 0.001]])
    return Batch(
        torch.tensor([0.0, 2.0, 100.0]).reshape(1, 1, 1, 3),
        prob_K3.log().reshape(1, 3, 1, 3),
        torch.tensor([[[0, 1, IGNORED]]], dtype=torch.uint8),
        torch.tensor([[True, True, False]]),
    )


@pytest.mark.parametrize("function", [brute_force.objective, losses.objective])
@pytest.mark.parametrize("distance", ["l1", "l2"])
@pytest.mark.parametrize("variance", VARIANCES)
def test_numbers_worked_out_by_hand(function: Any, variance: str, distance: str) -> None:
    """The batch of `hand_batch`; with D = 1 both distances give d^2 = 4.

    G of class 0 at pixel 1 is g0, of class 1 at pixel 0 is g1; both are 1 at their own pixel.
      published   2 sigma^2 = 1                                     g0 = g1 = e^-4
      adaptive    sigma_0^2 = (1/4 * 4) / (1/2 + 1/4) = 4/3         g0 = exp(-4 / (8/3)) = e^-1.5
                  sigma_1^2 = (1/4 * 4) / (1/4 + 1/4) = 2           g1 = exp(-4 / 4) = e^-1
      unweighted  sigma^2 = (0 + 4) / 2 = 2                         g0 = g1 = e^-1
    seg    = (log 2 + log 4) / 2 = 1.0397
    absent = (-log(3/4) - log(1/2)) / 2 = 0.4904
    mix    = 1/8 * (log 2 + b(g1) + b(g0) + log 4), b(g) = g log 4 + (1 - g) log 4/3
             1/8 is 1/2 of the pixels * 1/S * the 1/2 of the equation
    label  = 1/8 * (-log(1 - g1) - log(1 - g0))       the classes at their own pixel give -log 1 = 0
    sep    = exp(-2^2) = 0.0183                       one image: its sum and its mean are the same
    """
    g0, g1 = {
        "published": (math.exp(-4), math.exp(-4)),
        "adaptive": (math.exp(-1.5), math.exp(-1)),
        "unweighted": (math.exp(-1), math.exp(-1)),
    }[variance]
    between = [g * math.log(4) + (1 - g) * math.log(4 / 3) for g in (g0, g1)]
    expected = {
        "seg": (math.log(2) + math.log(4)) / 2,
        "absent": (-math.log(3 / 4) - math.log(1 / 2)) / 2,
        "mix": (math.log(2) + sum(between) + math.log(4)) / 8,
        "label": (-math.log(1 - g1) - math.log(1 - g0)) / 8,
        "sep": math.exp(-4),
    }
    expected["total"] = sum(expected.values())
    terms, *_ = evaluate(
        function, hand_batch(), LossConfig(method="agmm", variance=variance, distance=distance)
    )
    for name, value in expected.items():
        assert float(terms[name]) == pytest.approx(value, rel=1e-5, abs=1e-5), (
            name
        )  # the 1e-6 in logs and quotients


@pytest.mark.parametrize("function", [brute_force.objective, losses.objective])
def test_sigma_bandwidth_and_weights_enter_as_the_equations_say(function: Any) -> None:
    """L_label of `hand_batch` is -(log(1 - g1) + log(1 - g0)) / 8.

    published, sigma = 1:           2 sigma^2 = 2, g0 = g1 = exp(-4 / 2)
    unweighted, beta = 1/2:         2 * 1/4 * 2 = 1, g0 = g1 = exp(-4)
    """
    for config, g in (
        (LossConfig(method="agmm", variance="published", sigma=1.0), math.exp(-2)),
        (LossConfig(method="agmm", variance="unweighted", bandwidth=0.5), math.exp(-4)),
    ):
        weighted = dataclasses.replace(
            config, seg_weight=2.0, mix_weight=3.0, label_weight=5.0, sep_weight=7.0, absent_weight=11.0
        )
        terms, *_ = evaluate(function, hand_batch(), weighted)
        assert float(terms["label"]) == pytest.approx(-math.log(1 - g) / 4, rel=1e-5, abs=1e-6)
        by_hand = sum(w * float(terms[name]) for w, name in zip((2, 3, 5, 7, 11), TERMS, strict=True))
        assert float(terms["total"]) == pytest.approx(by_hand, rel=1e-6)


@pytest.mark.parametrize("function", [brute_force.objective, losses.objective])
def test_sum_and_mean_of_centroids_by_hand(function: Any) -> None:
    """`hand_batch` twice, its second image with class 0 alone (class 1's pixel unlabelled) and F = 1, 2.

    mu = (0, 2) and (1, -).  sum: v_0 = 1, v_1 = 2, exp(-1).  mean: v_0 = 1/2, v_1 = 2, exp(-2.25).
    """
    one = hand_batch()
    feature = torch.cat([one.feature, one.feature])
    feature[1, 0, 0, 0] = 1
    label = torch.cat([one.label, one.label])
    label[1, 0, 1] = UNLABELLED
    batch = Batch(feature, one.logits.repeat(2, 1, 1, 1), label, one.present.repeat(2, 1))
    for fields, power in (
        ({"variance": "published"}, 1),
        ({"variance": "adaptive"}, 2.25),
        ({"variance": "unweighted"}, 2.25),
        ({"variance": "published", "centroid_reduction": "mean"}, 2.25),
        ({"variance": "adaptive", "centroid_reduction": "sum"}, 1),
    ):
        terms, *_ = evaluate(function, batch, LossConfig(**{"method": "agmm", **fields}))
        assert float(terms["sep"]) == pytest.approx(math.exp(-power), rel=1e-5), fields


def test_brute_force_gradient_is_its_derivative() -> None:
    """With a fixed variance nothing is detached, so autograd must agree with finite differences."""
    batch = make_batch(3, B=2, K=3, D=2, size=(6, 7), cells=(2, 2), labelled=0.3)
    for config in (
        LossConfig(method="agmm", variance="published"),
        LossConfig(method="agmm", variance="published", distance="l2"),
    ):

        def total(feature: Tensor, logits: Tensor, config: LossConfig = config) -> Tensor:
            return brute_force.objective(feature, logits, batch.label, batch.present, config)["total"]

        leaves = [t.double().requires_grad_() for t in (batch.feature, batch.logits)]
        assert torch.autograd.gradcheck(total, leaves, fast_mode=True)


# -------------------------------------------------------------------------------- equality with brute force


@pytest.mark.parametrize("reduction", ["auto", "sum", "mean"])
@pytest.mark.parametrize("distance", ["l1", "l2"])
@pytest.mark.parametrize("variance", VARIANCES)
def test_every_term_and_gradient_equals_brute_force(variance: str, distance: str, reduction: str) -> None:
    config = LossConfig(
        method="agmm",
        variance=variance, distance=distance, centroid_reduction=reduction, sigma=0.6, bandwidth=1.3,
        seg_weight=0.7, mix_weight=1.5, label_weight=0.9, sep_weight=2.0, absent_weight=0.4,
    )  # fmt: skip
    for seed in (1, 2, 3):
        batch = make_batch(seed)
        check_equal(evaluate(losses.objective, batch, config), brute(batch, config))
    for term in MIXTURE_TERMS:  # alone, so that no larger gradient hides an error
        check_equal(evaluate(losses.objective, batch, only(term, config)), brute(batch, only(term, config)))


@pytest.mark.parametrize("term", TERMS)
@pytest.mark.parametrize("full_logits", [False, True], ids=["stride_4_logits", "full_size_logits"])
def test_each_term_alone_equals_brute_force(term: str, full_logits: bool) -> None:
    for seed in (4, 5):
        batch = make_batch(seed, full_logits=full_logits, size=(40, 36), cells=(10, 9))
        config = only(term, LossConfig(method="agmm"))
        found, expected = evaluate(losses.objective, batch, config), brute(batch, config)
        assert float(expected[0][term]) > 0
        check_equal(found, expected)


@settings(max_examples=40, deadline=None, derandomize=True)
@given(
    seed=st.integers(0, 10_000),
    num_classes=st.integers(2, 21),
    images=st.integers(1, 3),
    height=st.integers(9, 40),  # two cells at least: on one cell d is the rounding of 1e-6
    width=st.integers(9, 40),
    shrink=st.sampled_from([1, 2, 4, 8]),
    full_logits=st.booleans(),
    labelled=st.sampled_from([0.0, 0.02, 0.3, 1.0]),
    variance=st.sampled_from(VARIANCES),
    distance=st.sampled_from(["l1", "l2"]),
    reduction=st.sampled_from(["sum", "mean"]),
)
def test_any_shape_equals_brute_force(
    seed: int, num_classes: int, images: int, height: int, width: int, shrink: int, full_logits: bool,
    labelled: float, variance: str, distance: str, reduction: str,
) -> None:  # fmt: skip
    cells = (math.ceil(height / shrink), math.ceil(width / shrink))
    # In two places G = 1 for a class that is not the pixel's, and 1 - G + 1e-6 is rounding in fp32: on a cell
    # that is void beside labelled pixels, and along the rim, where all pixels take the feature of one cell.
    batch = make_batch(
        seed, B=images, K=num_classes, size=(height, width), cells=cells, full_logits=full_logits,
        labelled=labelled, specks=False,
    )  # fmt: skip
    rim = shrink // 2
    inner_HW = torch.zeros(height, width, dtype=torch.bool)
    inner_HW[rim : height - rim, rim : width - rim] = True
    batch = batch.relabelled(batch.label.where(inner_HW | (batch.label == IGNORED), UNLABELLED))
    config = LossConfig(method="agmm", variance=variance, distance=distance, centroid_reduction=reduction)
    check_equal(evaluate(losses.objective, batch, config), brute(batch, config))


@pytest.mark.parametrize("variance", VARIANCES)
@pytest.mark.parametrize("num_classes", [2, 21])
def test_few_and_many_classes(num_classes: int, variance: str) -> None:
    batch = make_batch(7, K=num_classes, B=4)
    config = LossConfig(method="agmm", variance=variance)
    check_equal(evaluate(losses.objective, batch, config), brute(batch, config))


@pytest.mark.parametrize("variance", VARIANCES)
def test_one_empty_crop_among_labelled_ones(variance: str) -> None:
    """Its pixels still count in the means over Omega_v, and still feel L_absent."""
    batch = make_batch(11, empty=(1,))
    assert not in_crop(batch.label, batch.num_classes)[1].any()
    config = LossConfig(method="agmm", variance=variance)
    check_equal(evaluate(losses.objective, batch, config), brute(batch, config))


@pytest.mark.parametrize("distance", ["l1", "l2"])
@pytest.mark.parametrize("variance", VARIANCES)
@pytest.mark.parametrize("code", [UNLABELLED, IGNORED])
def test_a_batch_without_labels_is_finite(code: int, variance: str, distance: str) -> None:
    batch = make_batch(12)
    batch = dataclasses.replace(batch, label=torch.full_like(batch.label, code))
    config = LossConfig(method="agmm", variance=variance, distance=distance)
    found = evaluate(losses.objective, batch, config)
    for name in ("seg", *MIXTURE_TERMS):
        assert float(found[0][name]) == 0, name
    check_equal(found, brute(batch, config))
    if code == UNLABELLED:
        assert float(found[0]["absent"]) > 0


@pytest.mark.parametrize("method", ["ce", "ce+absent", "agmm"])
def test_a_batch_without_labels_can_still_be_differentiated(method: str) -> None:
    """A training loop calls backward whatever the crop holds; without a graph that raises."""
    batch = make_batch(12)
    logits = batch.logits.requires_grad_()
    label = torch.full_like(batch.label, UNLABELLED)
    losses.objective(batch.feature, logits, label, batch.present, LossConfig(method=method))[
        "total"
    ].backward()
    assert logits.grad is not None
    assert logits.grad.isfinite().all()


@pytest.mark.parametrize("distance", ["l1", "l2"])
@pytest.mark.parametrize("variance", VARIANCES)
def test_fully_ignored_image_changes_nothing(variance: str, distance: str) -> None:
    batch = make_batch(13)
    label = batch.label.clone()
    label[1] = IGNORED
    ignored = dataclasses.replace(batch, label=label)
    config = LossConfig(method="agmm", variance=variance, distance=distance)
    found = evaluate(losses.objective, ignored, config)
    check_equal(found, brute(ignored, config))
    assert not found[1][1].any()
    assert not found[2][1].any()
    others = Batch(*(torch.cat([t[:1], t[2:]]) for t in dataclasses.astuple(ignored)))
    rest = evaluate(losses.objective, others, config)
    for name in TERMS:
        check_close(name, found[0][name], rest[0][name], RELATIVE, 1e-7)


@pytest.mark.parametrize("variance", VARIANCES)
def test_a_single_labelled_pixel(variance: str) -> None:
    """n = 1, S = 1: the smallest annotation there is; also in the corner, where nothing is interpolated."""
    for y, x in ((0, 0), (17, 23), (32, 46)):
        batch = make_batch(14, B=2)
        label = torch.full_like(batch.label, UNLABELLED)
        label[0, y, x] = 3
        batch = batch.relabelled(label)
        for distance in ("l1", "l2"):
            config = LossConfig(method="agmm", variance=variance, distance=distance)
            check_equal(evaluate(losses.objective, batch, config), brute(batch, config))


@pytest.mark.parametrize("distance", ["l1", "l2"])
@pytest.mark.parametrize("variance", VARIANCES)
def test_constant_feature_gives_finite_values_and_gradients(variance: str, distance: str) -> None:
    """d = 0 everywhere, and sigma^2 = 0 where it is estimated: a bare root or quotient would give NaN."""
    batch = make_batch(15)
    batch = dataclasses.replace(batch, feature=torch.full_like(batch.feature, 0.5))
    terms, *gradients = evaluate(
        losses.objective, batch, LossConfig(method="agmm", variance=variance, distance=distance)
    )
    for name, value in terms.items():
        assert value.isfinite(), name
    assert all(gradient.isfinite().all() for gradient in gradients)


# --------------------------------------------------------------------------------------- codes and switches


@pytest.mark.parametrize("variance", VARIANCES)
def test_unlabelled_pixels_are_supervised_and_ignored_ones_are_not(variance: str) -> None:
    """The encoding trap: with one code taken for the other, the mixture trains as partial cross-entropy."""
    batch = make_batch(16, full_logits=True)
    for method in ("ce", "agmm"):
        config = LossConfig(method=method, variance=variance, absent_weight=0)
        _, _, gradient_BKHW = evaluate(losses.objective, batch, config)
        touched_BHW = gradient_BKHW.abs().sum(1) > 0
        assert bool(touched_BHW[batch.label < batch.num_classes].all())
        assert not touched_BHW[batch.label == IGNORED].any()
        unlabelled = touched_BHW[batch.label == UNLABELLED]
        assert bool(unlabelled.all()) if method == "agmm" else not unlabelled.any()


@pytest.mark.parametrize("variance", VARIANCES)
def test_what_the_network_says_of_padding_does_not_matter(variance: str) -> None:
    """Whole stride-4 cells of padding: other logits and features there leave value and gradient alone."""
    batch = make_batch(17, size=(32, 48), cells=(8, 12), full_logits=True)
    label = batch.label.clone()
    label[:, 20:] = (
        IGNORED  # cells 5, 6, 7; the feature of cell 5 still enters labelled pixels by interpolation
    )
    batch = batch.relabelled(label)
    feature, logits = batch.feature.clone(), batch.logits.clone()
    feature[:, :, 6:] = 50
    logits[:, 0, 20:] = 50
    config = LossConfig(method="agmm", variance=variance)
    plain = evaluate(losses.objective, batch, config)
    other = evaluate(losses.objective, dataclasses.replace(batch, feature=feature, logits=logits), config)
    check_equal(other, plain)
    assert not other[1][:, :, 6:].any()


@pytest.mark.parametrize("variance", VARIANCES)
@pytest.mark.parametrize("term", TERMS)
def test_weight_zero_switches_a_term_off(term: str, variance: str) -> None:
    """The term is 0, the total is the sum of the others, and its gradient is theirs."""
    batch = make_batch(18)
    full = LossConfig(method="agmm", variance=variance)
    config = dataclasses.replace(full, **{f"{term}_weight": 0.0})
    found, with_all = evaluate(losses.objective, batch, config), evaluate(losses.objective, batch, full)
    assert float(found[0][term]) == 0
    for name in TERMS:
        if name != term:
            check_close(name, found[0][name], with_all[0][name], RELATIVE, 1e-7)
    check_close("total", found[0]["total"], with_all[0]["total"] - with_all[0][term], RELATIVE, 1e-7)
    alone = evaluate(losses.objective, batch, only(term, full))
    assert max(float(gradient.abs().max()) for gradient in alone[1:]) > 0
    for name, gradient, all_, one in zip(
        ("feature", "logits"), found[1:], with_all[1:], alone[1:], strict=True
    ):
        check_close(name, gradient, all_ - one, RELATIVE_GRADIENT, 1e-9)


@pytest.mark.parametrize(
    ("method", "used"), [("ce", {"seg"}), ("ce+absent", {"seg", "absent"}), ("agmm", set(TERMS))]
)
def test_method_selects_the_terms(method: str, used: set[str]) -> None:
    batch = make_batch(19)
    config = LossConfig(method=method)
    found = evaluate(losses.objective, batch, config)
    assert {name for name in TERMS if float(found[0][name]) != 0} == used
    check_equal(found, brute(batch, config))
    assert bool(found[1].any()) == (method == "agmm")


def test_terms_that_are_off_are_not_computed() -> None:
    """A feature of NaN would spoil them."""
    batch = make_batch(19)
    batch = dataclasses.replace(batch, feature=torch.full_like(batch.feature, math.nan))
    for config, keywords in (
        (LossConfig(method="ce"), {}),
        (LossConfig(method="ce+absent"), {}),
        (LossConfig(method="agmm", mix_weight=0, label_weight=0, sep_weight=0), {}),
        (LossConfig(method="agmm"), {"with_mixture": False}),
    ):
        assert evaluate(losses.objective, batch, config, **keywords)[0]["total"].isfinite()
    assert not evaluate(losses.objective, batch, LossConfig(method="agmm"))[0][
        "total"
    ].isfinite()  # it would indeed


@pytest.mark.parametrize("variance", VARIANCES)
def test_warm_up_leaves_the_mixture_out(variance: str) -> None:
    batch = make_batch(20)
    config = LossConfig(method="agmm", variance=variance, seg_weight=0.5, absent_weight=2.0)
    found = evaluate(losses.objective, batch, config, with_mixture=False)
    assert {name for name in TERMS if float(found[0][name]) != 0} == {"seg", "absent"}
    check_equal(found, brute(batch, config, with_mixture=False))
    assert not found[1].any()
    check_equal(
        evaluate(losses.objective, batch, config, with_mixture=True),
        evaluate(losses.objective, batch, config),
    )


@pytest.mark.parametrize("variance", VARIANCES)
def test_bf16_inputs_are_computed_in_fp32(variance: str) -> None:
    batch = make_batch(21, K=21)
    rounded = dataclasses.replace(batch, feature=batch.feature.bfloat16(), logits=batch.logits.bfloat16())
    same = dataclasses.replace(batch, feature=rounded.feature.float(), logits=rounded.logits.float())
    config = LossConfig(method="agmm", variance=variance)
    found, expected = evaluate(losses.objective, rounded, config), evaluate(losses.objective, same, config)
    for name, value in expected[0].items():
        assert found[0][name].dtype == torch.float32, name
        check_close(name, found[0][name], value, RELATIVE, 1e-7)
    for name, gradient, wanted in zip(("feature", "logits"), found[1:], expected[1:], strict=True):
        assert gradient.dtype == torch.bfloat16, name
        check_close(name, gradient, wanted, 1e-2, 1e-9)  # rounded once, to 8 bits


def test_autocast_does_not_reach_the_losses() -> None:
    """A training loop may compute the loss inside its autocast; matmuls there would round to 8 bits."""
    batch = make_batch(24, K=21)

    def objective_in_autocast(*arguments: Any) -> dict[str, Tensor]:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            return losses.objective(*arguments)

    for distance in ("l1", "l2"):
        config = LossConfig(method="agmm", distance=distance)
        check_equal(evaluate(objective_in_autocast, batch, config), brute(batch, config))


@pytest.mark.parametrize("distance", ["l1", "l2"])
@pytest.mark.parametrize("variance", VARIANCES)
def test_a_feature_far_from_zero_keeps_its_precision(variance: str, distance: str) -> None:
    """Distances are differences: an offset common to all pixels must not eat their digits."""
    batch = make_batch(25, D=32)
    batch = dataclasses.replace(batch, feature=0.5 * batch.feature + 20)
    config = LossConfig(method="agmm", variance=variance, distance=distance)
    found, expected = evaluate(losses.objective, batch, config), brute(batch, config)
    for name in TERMS:
        check_close(name, found[0][name], expected[0][name], RELATIVE, 1e-7)
    check_close("d/d feature", found[1], expected[1], RELATIVE_GRADIENT, 1e-9)


@pytest.mark.parametrize("variance", VARIANCES)
def test_a_network_that_is_certain_gives_finite_terms(variance: str) -> None:
    """P is 0 or 1 to the last digit (or split evenly), right or wrong: the logarithms end at log 1e-6."""
    batch = make_batch(26, full_logits=True)
    batch = dataclasses.replace(batch, logits=60 * batch.logits.sign())
    config = LossConfig(method="agmm", variance=variance)
    found, expected = evaluate(losses.objective, batch, config), brute(batch, config)
    assert float(found[0]["absent"]) > 0.5
    for name in TERMS:
        check_close(name, found[0][name], expected[0][name], RELATIVE, 1e-7)
    for name, gradient, wanted in zip(("feature", "logits"), found[1:], expected[1:], strict=True):
        check_close(name, gradient, wanted, 1e-2, 0)  # 1 / 1e-6 times the rounding of P = 1


@pytest.mark.parametrize("variance", VARIANCES)
@pytest.mark.parametrize("spare", [0, 1, 100])
def test_more_slots_than_classes_in_a_crop_change_nothing(spare: int, variance: str) -> None:
    """`num_slots` spares a wait for the device; a crop has fewer classes than the fullest one."""
    batch = make_batch(27, K=6, empty=(2,))
    config = LossConfig(method="agmm", variance=variance)
    num_slots = int(in_crop(batch.label, 6).sum(1).max()) + spare
    check_equal(evaluate(losses.objective, batch, config, num_slots=num_slots), brute(batch, config))


@pytest.mark.parametrize("distance", ["l1", "l2"])
def test_no_tensor_of_the_full_size_feature_is_formed(distance: str) -> None:
    """Neither the resized feature (B, D, H, W) nor all differences (B, K, D, h, w), forward or backward."""
    B, D, K, H, W = 1, 96, 24, 64, 64
    batch = make_batch(5, B=B, D=D, K=K, size=(H, W), cells=(16, 16))
    largest = 0

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, op: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            nonlocal largest
            result = op(*args, **(kwargs or {}))
            for value in result if isinstance(result, tuple | list) else (result,):
                if isinstance(value, Tensor) and value.untyped_storage().size():
                    largest = max(largest, value.untyped_storage().nbytes() // value.element_size())
            return result

    with Watch():
        evaluate(losses.objective, batch, LossConfig(method="agmm", distance=distance))
    assert (
        B * K * H * W <= largest < B * D * H * W
    )  # the watch saw the resized logits, the largest that is needed


# --------------------------------------------------------------------------------------------- accumulation


def test_pixel_counts_by_hand() -> None:
    label = torch.tensor([[[0, 1, UNLABELLED], [4, IGNORED, UNLABELLED]]], dtype=torch.uint8)
    assert losses.pixel_counts(label, 5).tolist() == [3, 5]
    assert losses.pixel_counts(torch.full_like(label, IGNORED), 5).tolist() == [0, 0]


@pytest.mark.parametrize("variance", VARIANCES)
@pytest.mark.parametrize("cut", [1, 2, 3])
def test_two_micro_batches_with_the_counts_of_the_whole_add_up_to_it(cut: int, variance: str) -> None:
    """L_sep is a statistic of its own micro-batch, so it stays out."""
    batch = make_batch(22, B=4, empty=(3,))
    config = LossConfig(method="agmm", variance=variance, sep_weight=0)
    counts = losses.pixel_counts(batch.label, batch.num_classes)
    whole = evaluate(losses.objective, batch, config)
    parts = [
        evaluate(losses.objective, batch[s], config, counts=counts) for s in (slice(cut), slice(cut, None))
    ]
    check_equal(
        (
            {name: parts[0][0][name] + parts[1][0][name] for name in whole[0]},
            torch.cat([part[1] for part in parts]),
            torch.cat([part[2] for part in parts]),
        ),
        whole,
    )


@pytest.mark.parametrize("balance", [0.0, 0.5, 1.0])
def test_class_weights_by_hand(balance: float) -> None:
    weight_K = losses.class_weights([600, 300, 100, 0], balance).double()
    share_K = torch.tensor([0.6, 0.3, 0.1], dtype=torch.float64)
    power_K = share_K**-balance
    assert torch.allclose(weight_K[:3], power_K / (share_K * power_K).sum(), rtol=1e-6)
    assert weight_K[3] == 1  # never occurs in training
    assert (share_K * weight_K[:3]).sum().item() == pytest.approx(1, rel=1e-6)
    if balance == 1:  # every class then weighs the same
        assert torch.allclose(share_K * weight_K[:3], torch.full((3,), 1 / 3, dtype=torch.float64))


def test_class_weights_multiply_the_pixels_of_their_class_in_seg_only() -> None:
    batch, config = make_batch(3), LossConfig(method="agmm")
    weight_K = torch.tensor([2.0, 0.5, 1.0, 3.0, 0.25])
    plain, _, _ = evaluate(losses.objective, batch, config)
    weighted, _, _ = evaluate(losses.objective, batch, config, class_weight_K=weight_K)
    parts = []
    for k in range(5):  # seg is linear in the weights: a weight at a time
        alone = torch.zeros(5).index_fill(0, torch.tensor(k), 1.0)
        parts.append(evaluate(losses.objective, batch, config, class_weight_K=alone)[0]["seg"])
    assert torch.allclose(sum(parts), plain["seg"], rtol=1e-5)
    assert torch.allclose((torch.stack(parts) * weight_K).sum(), weighted["seg"], rtol=1e-5)
    assert not torch.allclose(weighted["seg"], plain["seg"], rtol=1e-2)
    for name in ("mix", "label", "sep", "absent"):
        assert torch.equal(weighted[name], plain[name])


def test_counts_of_nothing_are_safe() -> None:
    batch = make_batch(23)
    batch = dataclasses.replace(batch, label=torch.full_like(batch.label, IGNORED))
    terms, *_ = evaluate(
        losses.objective,
        batch,
        LossConfig(method="agmm"),
        counts=losses.pixel_counts(batch.label, batch.num_classes),
    )
    assert all(float(value) == 0 for value in terms.values())


# ---------------------------------------------------------------------------------- one batch, many workers

GLOBAL_IMAGES = 6
CONFIGS = {
    "published": LossConfig(method="agmm", variance="published", sep_weight=3.0),
    "adaptive": LossConfig(method="agmm", variance="adaptive", label_weight=0.5),
    "adaptive-l2-sum": LossConfig(
        method="agmm", variance="adaptive", distance="l2", centroid_reduction="sum"
    ),
    "unweighted-l2": LossConfig(method="agmm", variance="unweighted", distance="l2"),
    "sep-only": LossConfig(method="agmm", seg_weight=0, mix_weight=0, label_weight=0, absent_weight=0),
    "ce+absent": LossConfig(method="ce+absent"),
    "ce": LossConfig(method="ce"),
}
NO_SEP = dataclasses.replace(CONFIGS["adaptive"], sep_weight=0)
SHARES = {1: [(6,)], 2: [(3, 3), (4, 2), (1, 5)], 3: [(2, 2, 2), (3, 2, 1)]}
BATCHES = ("labelled", "last two images empty", "nothing labelled")


def global_batch(name: str) -> Batch:
    """The six images that the workers share; image 0 is without padding, image 5 has most."""
    empty = {
        "labelled": (),
        "last two images empty": (4, 5),
        "nothing labelled": tuple(range(GLOBAL_IMAGES)),
    }[name]
    return make_batch(30, B=GLOBAL_IMAGES, K=6, size=(21, 26), cells=(6, 7), empty=empty)


def cut_in_order(batch: Batch, shares: tuple[int, ...]) -> Iterator[Batch]:
    """Share r is the images that follow those of share r - 1."""
    for end, count in zip(itertools.accumulate(shares), shares, strict=True):
        yield batch[slice(end - count, end)]


def evaluate_shares(rank: int, workers: int, _folder: str) -> dict[Any, Any]:
    """Every case of this number of workers, in the same order on each rank."""
    results: dict[Any, Any] = {}
    for shares, config, name in itertools.product(SHARES[workers], CONFIGS, BATCHES):
        mine = list(cut_in_order(global_batch(name), shares))[rank]
        results[shares, config, name] = evaluate(losses.objective, mine, CONFIGS[config])
        if shares == SHARES[workers][0] and config == "adaptive":
            counts = losses.pixel_counts(mine.label, mine.num_classes)
            parts = [mine[:1], mine[1:]]
            found = [evaluate(losses.objective, part, NO_SEP, counts=counts) for part in parts]
            results["parts", workers, name] = (counts, found)
    return results


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> list[dict[Any, Any]]:
    """What each rank found."""
    folder = tmp_path_factory.mktemp("ranks")
    found = tiny.in_groups(evaluate_shares, folder, tuple(SHARES))
    return [
        {case: value for workers in SHARES if rank < workers for case, value in found[workers][rank].items()}
        for rank in range(max(SHARES))
    ]


@functools.cache
def brute_of_global_batch(batch: str, config: LossConfig) -> tuple[dict[str, Tensor], Tensor, Tensor]:
    return brute(global_batch(batch), config)


def averaged(
    parts: list[tuple[dict[str, Tensor], Tensor, Tensor]],
) -> tuple[dict[str, Tensor], Tensor, Tensor]:
    """What DistributedDataParallel makes of the ranks' results: means of values and of gradients."""
    return (
        {name: torch.stack([terms[name] for terms, *_ in parts]).mean() for name in parts[0][0]},
        torch.cat([feature for _, feature, _ in parts]) / len(parts),
        torch.cat([logits for *_, logits in parts]) / len(parts),
    )


@pytest.mark.parametrize("batch", BATCHES)
@pytest.mark.parametrize("config", CONFIGS)
@pytest.mark.parametrize("shares", [shares for every in SHARES.values() for shares in every])
def test_global_batch_is_the_same_on_any_number_of_workers(
    ranks: list[dict[Any, Any]], shares: tuple[int, ...], config: str, batch: str
) -> None:
    """The mean over ranks of every term, and of the gradients, is that of one process with all images."""
    found = averaged([rank[shares, config, batch] for rank in ranks[: len(shares)]])
    check_equal(found, brute_of_global_batch(batch, CONFIGS[config]))


@pytest.mark.parametrize("batch", BATCHES)
@pytest.mark.parametrize("workers", SHARES)
def test_accumulation_on_several_workers_adds_up_to_the_global_batch(
    ranks: list[dict[Any, Any]], workers: int, batch: str
) -> None:
    """Each worker takes its first image alone and then its others, with the counts of the global batch."""
    whole = global_batch(batch)
    labelled, valid = (whole.label < whole.num_classes).sum(), (whole.label != IGNORED).sum()
    summed = []
    for rank in ranks[:workers]:
        counts, (first, rest) = rank["parts", workers, batch]
        assert counts.tolist() == [labelled, valid]
        terms = {name: first[0][name] + rest[0][name] for name in first[0]}
        summed.append((terms, torch.cat([first[1], rest[1]]), torch.cat([first[2], rest[2]])))
    check_equal(averaged(summed), brute_of_global_batch(batch, NO_SEP))
