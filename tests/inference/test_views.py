"""Probabilities against plain loops; the same counts on any number of ranks."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from sparseg.common.tiling import window_starts
from sparseg.data import shards
from sparseg.evaluation.counts import count_split
from sparseg.evaluation.metrics import Counts, confusion
from sparseg.inference.views import TILES, check_views, class_probabilities, probability_strips

K = 3


class Net(nn.Module):
    """Not equivariant to anything: logits at stride 4 that depend on place and neighbourhood."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.convolve = nn.Conv2d(3, K, 7, stride=4, padding=3)
        self.views: list[tuple[int, ...]] = []
        self.images: list[int] = []

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        self.views.append(tuple(image.shape[2:]))
        self.images.append(len(image))
        logits = self.convolve(image.float() / 64 - 2)
        ramp = torch.linspace(-1, 1, logits.shape[3])
        return logits, 3 * logits + ramp


def picture(H: int, W: int, B: int = 2) -> Tensor:
    return torch.randint(
        0, 256, (B, 3, H, W), generator=torch.Generator().manual_seed(H * W), dtype=torch.uint8
    )


# ---------------------------------------------------------------------------------------------- probabilities


def whole(net: Net, image: Tensor) -> Tensor:
    logits = net(image)[1]
    return F.interpolate(logits, image.shape[2:], mode="bilinear", align_corners=False).softmax(1)


def by_windows(net: Net, image: Tensor, window: int, stride: int | None = None) -> Tensor:
    """Every window alone; its probabilities are added pixel by pixel and divided by how often it was seen."""
    B, _, H, W = image.shape
    height, width = min(window, H), min(window, W)
    total, seen = torch.zeros(B, K, H, W), torch.zeros(H, W)
    step = stride or max(window * 2 // 3, 1)
    for top in starts(H, height, step):
        for left in starts(W, width, step):
            total[:, :, top : top + height, left : left + width] += whole(
                net, image[:, :, top : top + height, left : left + width]
            )
            seen[top : top + height, left : left + width] += 1
    assert seen.min() >= 1
    return total / seen


def starts(length: int, window: int, step: int) -> list[int]:
    places = []
    place = 0
    while place + window < length:
        places.append(place)
        place += step
    return [*places, length - window]


def plain(
    net: Net,
    image: Tensor,
    scales: Sequence[float] = (1.0,),
    flip: bool = False,
    window_px: int | None = None,
    stride_px: int | None = None,
) -> Tensor:
    """The mean over scales and mirrored views of softmax at the view's size, resized to the image's."""
    H, W = image.shape[2:]
    views = []
    for scale in scales:
        size = (round(H * scale), round(W * scale))
        view = (
            image if scale == 1 else F.interpolate(image.float(), size, mode="bilinear", align_corners=False)
        )
        for mirrored in [False, True] if flip else [False]:
            seen = torch.flip(view, [3]) if mirrored else view
            p = whole(net, seen) if window_px is None else by_windows(net, seen, window_px, stride_px)
            p = torch.flip(p, [3]) if mirrored else p
            views.append(F.interpolate(p, (H, W), mode="bilinear", align_corners=False))
    return torch.stack(views).mean(0)


@pytest.mark.parametrize("size", [(24, 40), (31, 45)])
@pytest.mark.parametrize(
    "views",
    [
        {},
        {"flip": True},
        {"scales": (0.5, 1.0, 1.7)},
        {"scales": (0.75, 1.25), "flip": True},
        {"window_px": 16},
        {"window_px": 24},
        {"window_px": 32},  # larger than the height, smaller than the width
        {"window_px": 45},
        {"window_px": 16, "stride_px": 5},
        {"window_px": 20, "stride_px": 20},
        {"window_px": 17, "flip": True, "scales": (0.5, 1.3)},
    ],
    ids=str,
)
@pytest.mark.parametrize("tiles", [1, 6])
def test_probabilities_equal_the_plain_loop(
    size: tuple[int, int], views: dict[str, Any], tiles: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(TILES, "cpu", tiles)
    net, image = Net().eval(), picture(*size)
    with torch.inference_mode():
        found, expected = class_probabilities(net, image, **views), plain(net, image, **views)
    assert found.shape == (2, K, *size) and found.dtype == torch.float32
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)
    torch.testing.assert_close(found.sum(1), torch.ones(2, *size), rtol=0, atol=1e-5)


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("tiles", [1, 6])
def test_strips_are_the_prediction_from_the_top_down(
    tiles: int, flip: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(TILES, "cpu", tiles)
    net, image = Net().eval(), picture(90, 40)
    found = []
    for p in probability_strips(net, image, flip=flip, window_px=16):
        if not found:
            assert sum(net.images) < 20 * (1 + flip), "of 72 windows, twice as many mirrored"
        found.append(p.clone())
        p.fill_(math.nan)  # whoever has it may change it
    assert max(p.shape[2] for p in found) <= 3 * 16 and len(found) > 1
    torch.testing.assert_close(
        torch.cat(found, 2), plain(net, image, flip=flip, window_px=16), rtol=0, atol=1e-5
    )
    assert sum(1 for _ in probability_strips(net, image, scales=(1.0, 0.5), window_px=16)) == 1
    with pytest.raises(ValueError, match="stride"):
        class_probabilities(net, image, window_px=16, stride_px=40)


def test_each_view_is_computed_once() -> None:
    net = Net().eval()
    class_probabilities(net, picture(24, 40), scales=(0.5, 1.0), flip=True)
    assert net.views == [(12, 20)] * 2 + [(24, 40)] * 2
    net.views.clear()
    class_probabilities(net, picture(24, 40), window_px=64)
    class_probabilities(net, picture(24, 40), window_px=40)
    assert net.views == [(24, 40)] * 2


@pytest.mark.parametrize(("tiles", "images"), [(1, [1] * 8), (3, [3, 3, 2]), (8, [8])])
def test_every_window_is_computed_once_several_at_a_time(
    tiles: int, images: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(TILES, "cpu", tiles)
    net = Net().eval()
    class_probabilities(net, picture(24, 40, B=1), window_px=16)  # 2 x 4 windows at 0 8 and 0 10 20 24
    assert net.views == [(16, 16)] * len(images) and net.images == images


@settings(deadline=None)
@given(length=st.integers(1, 300), window=st.integers(1, 300), stride=st.integers(1, 300))
def test_windows_cover_everything_and_stay_inside(length: int, window: int, stride: int) -> None:
    window = min(window, length)
    stride = min(stride, window)
    found = window_starts(length, window, stride)
    assert found == sorted(set(found)) and found[0] == 0 and found[-1] + window == length
    assert all(after - before <= stride for before, after in itertools.pairwise(found))


@pytest.mark.parametrize(
    ("views", "message"),
    [
        ((0, None, [1.0]), "--window must be at least 1 pixel, got 0"),
        ((16, 17, [1.0]), r"--stride must be between 1 and --window \(16\), got 17"),
        ((None, 8, [1.0]), "--stride 8 needs --window"),
        ((16, 0, [1.0]), "got 0"),
        ((None, None, [0.5, -1.0]), "--scales must be above 0, got 0.5 -1"),
        ((None, None, []), "--scales must be above 0"),
    ],
)
def test_views_that_leave_gaps_are_refused(views: tuple[Any, ...], message: str) -> None:
    check_views(16, 16, [0.5])
    with pytest.raises(ValueError, match=message):
        check_views(*views)


# ------------------------------------------------------------------------------------------------------ ranks

VAL = [(48, 48), (48, 48), (40, 52), (33, 61), (48, 48)]
CALLS: dict[str, dict[str, Any]] = {"whole": {}, "views": {"window_px": 32, "flip": True}}


def counts_on_ranks(rank: int, world: int, folder: str) -> dict[str, list[Tensor]]:
    opened = shards.open(Path(folder) / "data")
    few = opened.splits["val"].select([0, 2])  # a rank of three has nothing
    device = torch.device("cpu")
    found = {
        name: listed(
            count_split(Net(), opened.splits["val"], K, device=device, rank=rank, details=True, **views)
        )
        for name, views in CALLS.items()
    }
    return {**found, "few": listed(count_split(Net(), few, K, device=device, rank=rank))}


def listed(counts: Counts) -> list[Tensor]:
    return [counts.confusion_KK, counts.boundary_K2, counts.calibration_N3]


@pytest.mark.slow
def test_counts_are_the_same_on_one_two_and_three_ranks(tmp_path: Path) -> None:
    opened = shards.open(tiny.dataset(tmp_path, val=VAL))
    ranks = tiny.in_groups(counts_on_ranks, tmp_path, (1, 2, 3))
    expected = torch.zeros(K, K, dtype=torch.int64)
    net = Net().eval()
    for row in opened.splits["val"]:
        image = torch.from_numpy(shards.decode_image(row["image"]["bytes"]).copy()).permute(2, 0, 1)[None]
        truth = torch.from_numpy(shards.decode_label(row["label"]["bytes"]).copy())[None]
        expected += confusion(whole(net, image).argmax(1), truth, K)
    valid = sum((H - 1) * W for H, W in VAL)  # the last row is void
    for world in ranks.values():
        for rank in world:
            assert torch.equal(rank["whole"][0], expected) and expected.sum() == valid
            for name in ("whole", "views", "few"):
                for found, alone in zip(rank[name], ranks[1][0][name], strict=True):
                    assert torch.equal(found, alone)
            assert rank["whole"][2][:, 0].sum() == valid and rank["whole"][1].sum() > 0
            assert rank["few"][0].sum() == 47 * 48 + 39 * 52
            assert rank["few"][1].sum() == rank["few"][2].sum() == 0, "details that nobody asked for"


def test_evaluate_leaves_batch_norm_statistics_alone(tmp_path: Path) -> None:
    opened = shards.open(tiny.dataset(tmp_path))
    net = Net()
    norm = nn.BatchNorm2d(K)
    net.convolve = nn.Sequential(net.convolve, norm)  # type: ignore[assignment]
    net.train()
    count_split(net, opened.splits["val"], K, device=torch.device("cpu"))
    assert norm.running_mean is not None and norm.running_mean.tolist() == [0, 0, 0]
