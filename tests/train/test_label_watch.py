"""A run is stopped when most of its first steps hold no labelled pixel, and only then."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
import torch

from sparseg import launch
from sparseg.common.process import guarded
from sparseg.config import UNLABELLED, with_overrides
from sparseg.data import shards
from sparseg.runs import checkpoint
from sparseg.train import loop
from sparseg.train.label_watch import LabelWatch

pytestmark = pytest.mark.filterwarnings("ignore:model.weights=none")


def watch(counts: Sequence[int], *, first: int = 0, total: int = 100, **changes: Any) -> None:
    """Give a watch these labelled pixels of one step after the other."""
    config = tiny.config(Path(), {"loss.method": "ce", **changes})
    looking = LabelWatch(config, first, total)
    for step, count in enumerate(counts, first + 1):
        looking.note(step, torch.tensor(float(count)))


HALF = [0, 7] * 10
MOST = [0] * 11 + [7] * 9


def test_more_than_half_of_twenty_steps_stop_a_run() -> None:
    watch(HALF)
    with pytest.raises(ValueError, match=r"11 of its 20 steps up to step 20 had not one labelled pixel in"):
        watch(MOST)
    watch(MOST[:19])
    watch(HALF + [0] * 80)  # later ones are not looked at


def test_a_run_of_fewer_steps_is_judged_at_its_end() -> None:
    with pytest.raises(ValueError, match="11 of its 12 steps up to step 12"):
        watch([0] * 11 + [7], total=12)
    watch([0] * 11, total=12)
    watch([0] * 6 + [7] * 6, total=12)


def test_a_resumed_run_is_watched_anew() -> None:
    with pytest.raises(ValueError, match="11 of its 20 steps up to step 35"):
        watch(MOST, first=15)
    watch([0] * 5, first=15, total=20)  # too few to tell


@pytest.mark.parametrize("method", ["ce+absent", "agmm", "agmm-em", "tel", "gated-crf", "dense-pairwise"])
def test_losses_that_learn_from_other_pixels_go_on(method: str) -> None:
    watch([0] * 20, **{"loss.method": method})


@pytest.mark.parametrize(("method", "weight"), [("ce+absent", "absent"), ("agmm", "absent"), ("tel", "tree")])
def test_terms_that_are_off_do_not_count(method: str, weight: str) -> None:
    with pytest.raises(ValueError, match="20 of its 20 steps"):
        watch([0] * 20, **{"loss.method": method, f"loss.{weight}_weight": 0.0})


def bare_dataset(folder: Path, *, labelled: int = 4, name: str = "data") -> None:
    """Four images; of the first `labelled` of them a random crop seldom holds the one labelled pixel, and
    the others have none."""

    def rows() -> Any:
        for number, row in enumerate(tiny.rows(((160, 160),) * 4, 0, dense=False)):
            label_HW = np.full((160, 160), UNLABELLED, np.uint8)
            if number < labelled:
                label_HW[159, 40 * number] = 0
            yield {**row, "label": label_HW}

    splits = {"train": rows, "val": lambda: tiny.rows(((48, 48),), 9, dense=True)}
    shards.write(folder / name, splits, tiny.NAMES)


def test_a_run_on_nothing_ends_with_the_remedy_and_learns_with_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bare_dataset(tmp_path)
    changes = {"loss.method": "ce", "optim.batch_size": 1, "optim.max_steps": 3, "data.scale_min": 1.0}
    config = tiny.config(tmp_path, {**changes, "optim.epochs": 9})
    assert guarded(lambda: launch.finish(config)) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "3 of its 3 steps up to step 3 had not one labelled pixel" in line
    assert "set --data.crop-choice labelled" in line and "--run.fresh" in line
    assert not checkpoint.all_of(config.folder)
    remedied = {**changes, "optim.epochs": 9, "data.crop_choice": "labelled", "run.fresh": True}
    assert launch.launch(tiny.config(tmp_path, remedied))["steps"] == 3


def error_on_rank(rank: int, world: int, folder: str) -> dict[str, str]:
    """How a run ends of which no batch, or only rank 0's share of it, holds a labelled pixel."""
    changes = {"loss.method": "ce", "optim.batch_size": 2, "optim.max_steps": 2, "data.scale_min": 1.0}
    bare = tiny.config(Path(folder), {**changes, "run.name": "bare"})
    ended = {}
    for name, choice in (("bare", "random"), ("half", "labelled")):
        config = with_overrides(bare, {"run.name": name, "data.crop_choice": choice})
        data = Path(folder) / ("data" if name == "bare" else "half")
        try:
            loop.run(config, data, device=torch.device("cpu"))
            ended[name] = "done"
        except ValueError as error:
            ended[name] = str(error)
    return ended


@pytest.mark.slow
def test_all_ranks_decide_alike_by_the_whole_batch(tmp_path: Path) -> None:
    bare_dataset(tmp_path, labelled=4)
    bare_dataset(tmp_path, labelled=2, name="half")
    first, second = tiny.in_groups(error_on_rank, tmp_path, (2,))[2]
    assert first == second
    assert "2 of its 2 steps up to step 2" in first["bare"] and first["half"] == "done"


def test_the_folder_recipe_cuts_crops_that_hold_labels() -> None:
    assert tiny.trainer("folder").recipe().data.crop_choice == "labelled"
