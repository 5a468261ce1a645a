"""SparseLoss is the objective as a module: the same numbers, its memory, its similarity, its refusals."""

from __future__ import annotations

import dataclasses
import doctest
from typing import Any

import brute_force
import pytest
import torch
from loss_batches import Batch, make_batch
from torch import Tensor

from sparseg import losses
from sparseg.config import IGNORED, METHODS, UNLABELLED, LossConfig
from sparseg.losses import SparseLoss, mixture, sparse_loss
from sparseg.losses.mixture import Memory

K, D = 5, 8


def image_of(batch: Batch) -> Tensor:
    shape = (len(batch.label), 3, *batch.label.shape[1:])
    return torch.randint(0, 256, shape, generator=torch.Generator().manual_seed(0), dtype=torch.uint8)


def leaves(batch: Batch) -> tuple[Tensor, Tensor]:
    return batch.feature.clone().requires_grad_(), batch.logits.clone().requires_grad_()


def made(method: str, **fields: Any) -> SparseLoss:
    return SparseLoss(method, num_classes=K, feature_channels=D, **fields)


@pytest.mark.parametrize("fields", [{}, {"centroids": "memory", "target": "posterior"}], ids=str)
@pytest.mark.parametrize("method", METHODS)
def test_it_is_the_objective_to_the_last_bit_step_after_step(method: str, fields: dict[str, Any]) -> None:
    """Terms, gradients and class means over three steps, as the training loop makes them."""
    loss, config = made(method, **fields), LossConfig(method=method, **fields)
    memory = Memory.empty(K, D, torch.device("cpu")) if config.keeps_memory else None
    for seed in (1, 2, 3):
        batch = make_batch(seed)
        mine, theirs = leaves(batch), leaves(batch)
        found = loss(*mine, batch.label, batch.present, image=image_of(batch))
        expected = losses.objective(
            *theirs, batch.label, batch.present, config, memory=memory, image_B3HW=image_of(batch)
        )
        assert found.keys() == expected.keys() and "total" in found
        assert all(torch.equal(found[name], expected[name]) for name in expected)
        found["total"].backward()
        expected["total"].backward()
        for one, other in zip(mine, theirs, strict=True):
            assert (one.grad is None) == (other.grad is None)
            assert one.grad is None or (other.grad is not None and torch.equal(one.grad, other.grad))
        if memory is not None:
            assert memory.seen_K.any() == config.has_mixture
            assert torch.equal(loss.centroid_KD, memory.centroid_KD)
            assert torch.equal(loss.seen_K, memory.seen_K)


def test_class_weights_reach_seg() -> None:
    batch, weight_K = make_batch(2), torch.tensor([2.0, 0.5, 1.0, 3.0, 0.25])
    loss = made("ce", class_balance=0.5)
    found = loss(batch.feature, batch.logits, batch.label, class_weight_K=weight_K)["seg"]
    expected = losses.objective(
        batch.feature, batch.logits, batch.label, batch.present, LossConfig(), class_weight_K=weight_K
    )["seg"]
    assert torch.equal(found, expected)
    with pytest.raises(ValueError, match=r"loss.class_balance=0.5 needs class_weight_K"):
        loss(batch.feature, batch.logits, batch.label)


def test_without_present_the_crop_says_what_is_present() -> None:
    batch, loss = make_batch(3), made("agmm")
    crop_BK = mixture.crop_classes(batch.label, K)
    assert not torch.equal(crop_BK, batch.present)
    found = loss(batch.feature, batch.logits, batch.label)
    expected = loss(batch.feature, batch.logits, batch.label, crop_BK)
    assert found == expected and found != loss(batch.feature, batch.logits, batch.label, batch.present)


def test_the_warm_up_ends_at_its_epoch() -> None:
    batch, loss = make_batch(2), made("agmm", warmup_epochs=2.0)
    given = (batch.feature, batch.logits, batch.label, batch.present)
    for epoch, on in ((0, False), (1, False), (2, True)):
        loss.epoch = epoch
        assert loss.mixture_on == (loss(*given)["mix"] > 0) == on
    assert made("agmm").mixture_on


def test_its_state_goes_on_where_it_was() -> None:
    first, second = make_batch(1), make_batch(2)
    loss, other = made("agmm-em"), made("agmm-em")
    loss(first.feature, first.logits, first.label, first.present)
    assert set(loss.state_dict()) == {"centroid_KD", "seen_K"} and not made("agmm").state_dict()
    other.load_state_dict(loss.state_dict())
    given = (second.feature, second.logits, second.label, second.present)
    assert loss(*given) == other(*given) != made("agmm-em")(*given)


def test_an_evaluated_batch_leaves_the_class_means_alone() -> None:
    batch, loss = make_batch(1), made("agmm", centroids="memory").eval()
    found = loss(batch.feature, batch.logits, batch.label, batch.present)
    assert found["mix"] > 0 and not loss.seen_K.any() and not loss.centroid_KD.any()
    assert loss.train()(batch.feature, batch.logits, batch.label, batch.present) == found
    assert loss.seen_K.any()


def test_half_precision_and_autocast_are_computed_in_fp32() -> None:
    batch, loss = make_batch(3), made("agmm", centroids="memory").eval()
    feature, logits = batch.feature.bfloat16(), batch.logits.bfloat16()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = loss(feature, logits, batch.label, batch.present)
        maps = loss.similarity(feature, logits, batch.label, batch.present)
    assert found == loss(feature.float(), logits.float(), batch.label, batch.present)
    assert torch.equal(maps, loss.similarity(feature.float(), logits.float(), batch.label, batch.present))
    assert maps.dtype == torch.float32
    with pytest.raises(ValueError, match=r"class means of torch.float32 on cpu, .* needs torch.float64"):
        loss(batch.feature.double(), batch.logits.double(), batch.label, batch.present)
    assert loss.double()(batch.feature.double(), batch.logits.double(), batch.label)["mix"] > 0


# ------------------------------------------------------------------------------------------ similarity maps


@pytest.mark.parametrize("variance", ["published", "adaptive", "unweighted"])
def test_similarity_equals_brute_force(variance: str) -> None:
    batch = make_batch(3, empty=(1,))
    loss = made("agmm", variance=variance, bandwidth=1.3)
    found = loss.similarity(batch.feature, batch.logits, batch.label, batch.present)
    expected = torch.zeros(found.shape, dtype=torch.float64)
    for b, label_HW in enumerate(batch.label):
        feature = batch.feature[b].double()
        p_KHW = brute_force.resize(batch.logits[b].double(), tuple(label_HW.shape)).softmax(0)
        for k in label_HW[label_HW < K].unique().tolist():
            mean_D = brute_force.centroid(feature, label_HW, k)
            weight_HW = p_KHW[k] * batch.present[b, k]
            g_HW = brute_force.similarity(feature, mean_D, weight_HW, label_HW, loss.config)
            expected[b, k] = g_HW * (label_HW != IGNORED)
    assert expected.any() and not expected[1].any()
    torch.testing.assert_close(found.double(), expected, rtol=1e-4, atol=1e-6)
    assert not found.requires_grad


def test_similarity_of_one_mixture_equals_brute_force() -> None:
    """agmm-em: the running means and one sigma an image, also for a class without a label in the crop."""
    loss, batch = made("agmm-em", bandwidth=0.7), make_batch(3)
    loss.centroid_KD.copy_(torch.randn(K, D, generator=torch.Generator().manual_seed(5)))
    loss.seen_K[:4] = True  # class 4 has the mean of its labelled pixels
    before = loss.centroid_KD.clone()
    found = loss.similarity(batch.feature, batch.logits, batch.label, batch.present)
    assert torch.equal(loss.centroid_KD, before)
    expected = torch.zeros(found.shape, dtype=torch.float64)
    unlabelled = 0
    for b, label_HW in enumerate(batch.label):
        feature, size = batch.feature[b].double(), tuple(label_HW.shape)
        cells = tuple(feature.shape[1:])
        valid_hw = brute_force.down_nearest(label_HW != IGNORED, cells)
        p_KHW = brute_force.resize(batch.logits[b].double(), size).softmax(0)
        p_Khw = brute_force.resize(p_KHW, cells) * valid_hw
        labelled = [k for k in range(K) if bool((label_HW == k).any())]
        held = [k for k in range(K) if k in labelled or (k < 4 and bool(batch.present[b, k]))]
        unlabelled += len(held) - len(labelled)
        means = {k: before[k].double() if k < 4 else brute_force.centroid(feature, label_HW, k) for k in held}
        d2 = {k: (feature - means[k][:, None, None]).abs().mean(0).square() * valid_hw for k in held}
        variance = sum((p_Khw[k] * d2[k]).sum() for k in held) / (sum(p_Khw[k].sum() for k in held) + 1e-6)
        for k in held:
            g_hw = torch.exp(-d2[k] / (2 * 0.7**2 * variance + 1e-6))
            expected[b, k] = brute_force.resize(g_hw[None], size)[0] * (label_HW != IGNORED)
    assert unlabelled > 0 and expected[:, 4].any()
    torch.testing.assert_close(found.double(), expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("method", ["ce", "ce+absent", "tel"])
def test_there_is_no_similarity_without_a_mixture(method: str) -> None:
    batch = make_batch(1)
    message = (
        rf"loss.method={method.replace('+', '.')} has no mixture .* agmm, agmm-em, agmm\+tel, agmm\+gated"
    )
    with pytest.raises(ValueError, match=message):
        made(method).similarity(batch.feature, batch.logits, batch.label)


# ----------------------------------------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"method": "agnn"}, r"loss.method must be one of ce, .*; got 'agnn'"),
        ({"method": "agmm", "bandwith": 2.0}, r"unknown field 'loss.bandwith'; did you mean 'bandwidth'"),
        ({"method": "agmm", "sigma": -1.0}, r"loss.sigma must be > 0, got -1"),
        ({}, r"needs a method, one of ce, "),
        ({"method": "agmm", "config": LossConfig()}, r"config= is the whole .*; method cannot"),
        ({"sigma": 1.0, "config": LossConfig()}, r"config= is the whole .*; sigma cannot"),
        ({"method": "agmm-em"}, r"loss.method=agmm-em with .* give feature_channels"),
        ({"method": "agmm", "centroids": "memory"}, r"loss.centroids=memory keeps .* give feature_channels"),
        ({"method": "ce", "num_classes": 251}, r"num_classes must be in 1..250, got 251"),
    ],
)
def test_what_cannot_be_made_is_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SparseLoss(**{"num_classes": K, **arguments})


def test_a_whole_configuration_is_taken_as_it_is() -> None:
    config = LossConfig(method="agmm", bandwidth=2.0)
    assert SparseLoss(num_classes=K, config=config).config is config
    assert "'agmm', num_classes=5, feature_channels=8" in repr(made("agmm"))


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("feature", torch.zeros(3, D + 1, 9, 12), r"feature_BDhw must be of shape \(any, 8, any, any\), got"),
        ("logits", torch.zeros(3, K + 1, 9, 12), r"logits_BKhw must be of shape \(3, 5, any, any\), got"),
        ("logits", torch.zeros(3, K, 9, 12, dtype=torch.int64), r"logits_BKhw must be floating point"),
        ("label", torch.zeros(3, 1, 33, 47, dtype=torch.uint8), r"label_BHW must be of shape \(3, any"),
        ("label", torch.zeros(3, 33, 47), r"label_BHW must be of class ids .*; got torch.float32"),
        ("label", torch.full((3, 33, 47), K, dtype=torch.uint8), r"a class \(0..4\) nor a code: 5; .*254"),
        ("label", torch.full((3, 33, 47), -1), r"nor a code: -1; the codes are UNLABELLED \(254\) .*\(255\)"),
        ("present", torch.ones(3, K), r"present_BK must be bool, got torch.float32"),
        ("present", torch.ones(2, K, dtype=torch.bool), r"present_BK must be of shape \(3, 5\), got"),
        ("present", torch.zeros(3, K, dtype=torch.bool), r"class \d is nowhere in image 0 .* whole"),
    ],
)  # fmt: skip
def test_tensors_that_do_not_fit_are_refused(name: str, value: Tensor, message: str) -> None:
    given = dataclasses.replace(make_batch(2), **{name: value})
    with pytest.raises(ValueError, match=message) as caught:
        made("agmm")(given.feature, given.logits, given.label, given.present)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (None, r"loss.method=tel looks at the image; give image="),
        (torch.zeros(3, 3, 16, 16), r"image must be of shape \(3, 3, 33, 47\), got \(3, 3, 16, 16\)"),
        (torch.rand(3, 3, 33, 47), r"image must be 0..255, .* its values are 0?.*\.\.(1|0.99)"),
        (torch.randn(3, 3, 33, 47), r"image must be 0..255, as it was before any scaling; its values are -"),
    ],
)
def test_an_image_that_does_not_fit_is_refused(image: Tensor | None, message: str) -> None:
    batch = make_batch(2)
    with pytest.raises(ValueError, match=message):
        made("tel")(batch.feature, batch.logits, batch.label, image=image)


def test_labels_of_which_255_means_unlabelled_are_noticed() -> None:
    batch = make_batch(2)
    label_BHW = torch.where(batch.label == UNLABELLED, IGNORED, batch.label)
    with pytest.warns(UserWarning, match=r"no pixel of label_BHW is unlabelled and most are ignored"):
        made("agmm")(batch.feature, batch.logits, label_BHW)


def test_values_are_looked_at_only_if_asked() -> None:
    batch, loss = make_batch(2), made("agmm", check_values=False)
    label_BHW = batch.label.clone()
    label_BHW[0, 0, 0] = 200
    assert loss(batch.feature, batch.logits, label_BHW)["total"].isfinite()


def test_the_example_runs() -> None:
    results = doctest.testmod(sparse_loss)
    assert results.attempted > 5 and results.failed == 0
