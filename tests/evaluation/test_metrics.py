"""Scores against plain loops, scipy, and torchmetrics on the same predictions."""

from __future__ import annotations

import pytest
import torch
from scipy import ndimage
from torch import Tensor

from sparseg.config import IGNORED, UNLABELLED
from sparseg.evaluation.metrics import (
    CALIBRATION_BINS,
    Counts,
    boundary_counts,
    confusion,
    count,
    detailed_scores,
    scores,
)

K = 3


def test_confusion_equals_the_plain_loop() -> None:
    random = torch.Generator().manual_seed(1)
    prediction = torch.randint(0, K, (2, 9, 7), generator=random)
    truth = torch.tensor([0, 1, 2, UNLABELLED, IGNORED], dtype=torch.uint8)[
        torch.randint(0, 5, (2, 9, 7), generator=random)
    ]
    expected = [[0] * K for _ in range(K)]
    for t, p in zip(truth.flatten().tolist(), prediction.flatten().tolist(), strict=True):
        if t < K:
            expected[t][p] += 1
    found = confusion(prediction, truth, K)
    assert found.tolist() == expected and found.dtype == torch.int64
    assert confusion(prediction, torch.full_like(truth, IGNORED), K).sum() == 0


def test_scores_by_hand() -> None:
    """IoU 6 / (7 + 8 - 6), 5 / (7 + 6 - 5), class c in neither, class d predicted but never there: 0."""
    counts = torch.tensor([[6, 1, 0, 0], [1, 5, 0, 1], [0, 0, 0, 0], [0, 0, 0, 0]])
    found = scores(counts, ["a", "b", "c", "d"])
    assert found["iou"] == {"a": pytest.approx(6 / 8), "b": pytest.approx(5 / 8), "c": None, "d": 0.0}
    assert found["miou"] == pytest.approx((6 / 8 + 5 / 8 + 0) / 3)
    assert (found["pixel_accuracy"], found["pixels"]) == (pytest.approx(11 / 14), 14)
    assert found["mean_accuracy"] == pytest.approx((6 / 7 + 5 / 7) / 2)
    assert found["frequency_weighted_iou"] == pytest.approx((7 * 6 / 8 + 7 * 5 / 8) / 14)


def test_scores_of_nothing_are_no_numbers() -> None:
    found = scores(torch.zeros(K, K, dtype=torch.int64), ["a", "b", "c"])
    assert found["miou"] != found["miou"] and found["iou"] == {"a": None, "b": None, "c": None}


# ---------------------------------------------------------------------------------------------------- details


def blobs(seed: int, size: tuple[int, int] = (40, 60), B: int = 2) -> tuple[Tensor, Tensor]:
    """Smooth random probabilities and a truth that resembles them, some of it void."""
    random = torch.Generator().manual_seed(seed)
    coarse = torch.randn(B, K, 5, 7, generator=random)
    logits = torch.nn.functional.interpolate(coarse, size, mode="bilinear", align_corners=False)
    noisy = logits + 0.3 * torch.nn.functional.interpolate(
        torch.randn(B, K, 9, 11, generator=random), size, mode="bilinear", align_corners=False
    )
    truth = noisy.argmax(1).to(torch.uint8)
    truth[:, :7, :9] = IGNORED
    truth[:, 20:25, 30:33] = UNLABELLED
    return (3 * logits).softmax(1), truth


def test_boundary_bands_equal_scipys_erosion() -> None:
    p, truth = blobs(0)
    prediction = p.argmax(1)
    found = boundary_counts(prediction, truth, K)
    radius = round(0.02 * (40**2 + 60**2) ** 0.5)
    square = torch.ones(2 * radius + 1, 2 * radius + 1).numpy()
    for klass in range(K):
        both = either = 0
        for seen, real in zip(prediction, truth, strict=True):
            void = (real >= K).numpy()
            bands = []
            for labels in (real.numpy(), seen.numpy()):
                mask = (labels == klass) | void
                bands.append(mask & ~ndimage.binary_erosion(mask, square) & ~void)
            both += int((bands[0] & bands[1]).sum())
            either += int((bands[0] | bands[1]).sum())
        assert found[klass].tolist() == [both, either] and 0 < both < either


def test_a_shift_hurts_the_boundary_more_than_the_area() -> None:
    truth = torch.zeros(1, 100, 100, dtype=torch.uint8)
    truth[:, 20:80, 20:80] = 1
    moved = torch.roll(truth.long(), 2, 2)
    p = torch.nn.functional.one_hot(moved, 2).permute(0, 3, 1, 2).float()
    found = detailed_scores(count(p, truth, details=True), ["out", "in"])
    assert found["iou"]["in"] > 0.93 and found["boundary_iou_per_class"]["in"] < 0.7
    perfect = torch.nn.functional.one_hot(truth.long(), 2).permute(0, 3, 1, 2).float()
    assert detailed_scores(count(perfect, truth, details=True), ["out", "in"])["boundary_iou"] == 1


def test_the_edge_of_a_void_region_is_no_boundary() -> None:
    truth = torch.zeros(1, 100, 100, dtype=torch.uint8)
    truth[:, 40:60, 40:60] = IGNORED
    counts = boundary_counts(torch.zeros(1, 100, 100, dtype=torch.long), truth, 1)
    frame = 100**2 - (100 - 2 * 3) ** 2  # the image's own edge, 3 pixels wide
    assert counts.tolist() == [[frame, frame]]


def test_scores_agree_with_torchmetrics() -> None:
    classification = pytest.importorskip("torchmetrics.classification")
    parts = [blobs(seed) for seed in range(3)]
    counts = Counts.zeros(K)
    for p, truth in parts:
        counts += count(p, truth, details=True)
    found = detailed_scores(counts, ["a", "b", "c"])
    p = torch.cat([p for p, _ in parts])
    truth = torch.cat([truth for _, truth in parts]).long()
    truth[truth >= K] = IGNORED
    settings = {"num_classes": K, "ignore_index": IGNORED}

    def theirs(name: str, **more: object) -> Tensor:
        return getattr(classification, f"Multiclass{name}")(**settings, **more)(p, truth).double()

    assert found["iou"] == pytest.approx(dict(zip("abc", theirs("JaccardIndex", average="none").tolist())))  # noqa: B905
    assert found["pixel_accuracy"] == pytest.approx(float(theirs("Accuracy", average="micro")))
    assert found["mean_accuracy"] == pytest.approx(float(theirs("Accuracy", average="macro")))
    assert found["frequency_weighted_iou"] == pytest.approx(float(theirs("JaccardIndex", average="weighted")))
    assert found["confusion"] == theirs("ConfusionMatrix").long().tolist()
    error = float(theirs("CalibrationError", n_bins=CALIBRATION_BINS, norm="l1"))
    assert found["calibration_error"] == pytest.approx(error, abs=1e-5)


def test_calibration_by_hand() -> None:
    """Four pixels 0.9 sure of which three are right, one 0.6 sure and wrong, one void."""
    confidence = torch.tensor([0.9, 0.9, 0.9, 0.9, 0.6, 0.99])
    p = torch.stack([confidence, 1 - confidence])[None, :, None]
    truth = torch.tensor([0, 0, 0, 1, 1, IGNORED], dtype=torch.uint8)[None, None]
    found = detailed_scores(count(p, truth, details=True), ["a", "b"])
    assert found["calibration_error"] == pytest.approx((4 * abs(0.75 - 0.9) + 0.6) / 5, abs=1e-5)
    filled = {n: row for n, row in enumerate(found["calibration"]) if row[0]}
    assert filled == {13: [4, 0.75, pytest.approx(0.9, abs=1e-5)], 9: [1, 0.0, pytest.approx(0.6, abs=1e-5)]}
    assert found["calibration"][0] == [0, None, None]


def test_counts_add_up_to_the_last_bit_in_any_order() -> None:
    parts = [count(*blobs(seed), details=True) for seed in range(4)]
    forward, backward = Counts.zeros(K), Counts.zeros(K)
    for part in parts:
        forward += part
    for part in reversed(parts):
        backward += part
    assert detailed_scores(forward, ["a", "b", "c"]) == detailed_scores(backward, ["a", "b", "c"])


def test_details_are_left_out_unless_asked_for() -> None:
    plain = count(*blobs(0))
    assert plain.confusion_KK.sum() > 0 and plain.boundary_K2.sum() == plain.calibration_N3.sum() == 0


def test_a_network_that_gives_no_numbers_is_counted_as_unsure() -> None:
    p, truth = torch.full((1, K, 4, 4), torch.nan), torch.zeros(1, 4, 4, dtype=torch.uint8)
    counts = count(p, truth, details=True)
    assert counts.calibration_N3[0].tolist()[0] == 16 and counts.calibration_N3[:, 2].sum() == 0
