"""Search spaces: the shipped ones fit the recipes; a bad one is refused in one line that names the key."""

from __future__ import annotations

import functools
from pathlib import Path

import optuna
import pytest

from sparseg import sweep
from sparseg.sweep.space import contains, fill, propose, range_of

ROOT = Path(__file__).resolve().parents[2]
SPACES = sorted((ROOT / "search_spaces").glob("*.py"))


def parse(space: Path, *args: str, trainer: str = "camvid") -> sweep.Sweep:
    return sweep.parse(ROOT / "trainers", ["--trainer", trainer, "--space", str(space), *args])[0]


def space_file(folder: Path, text: str) -> Path:
    path = folder / "space.py"
    path.write_text(f"from sparseg.sweep import choice, integers, uniform, when\n{text}\n")
    return path


@pytest.mark.parametrize("path", SPACES, ids=lambda path: path.stem)
def test_shipped_space_fits_the_camvid_recipe(path: Path) -> None:
    found = parse(path, "--loss.method", "agmm")
    assert found.metric == "val_miou"
    assert found.folder.name == f"camvid-{path.stem}"


@pytest.mark.parametrize("name", ["mixture", "loss_weights", "joint"])
@pytest.mark.parametrize("trainer", ["camvid", "voc", "cityscapes", "folder"])
def test_recipe_lies_inside_the_space_so_that_it_can_be_trial_0(name: str, trainer: str) -> None:
    found = parse(ROOT / "search_spaces" / f"{name}.py", "--loss.method", "agmm", trainer=trainer)
    for dotted, entry in found.space.items():
        section, field = dotted.split(".")
        values = range_of(entry)
        assert contains(values, getattr(getattr(found.config, section), field)), dotted


@pytest.mark.parametrize(
    ("space", "args", "message"),
    [
        (
            "{'loss.bandwidth': uniform(1, 2), 'loss.distance': choice('l1', 'l2')}",
            (),
            "loss.bandwidth, loss.distance would",
        ),
        ("{'loss.sigma': uniform(1, 2)}", ("--loss.method", "agmm-em"), "give --loss.method agmm"),
        ("{'loss.em_trust': uniform(0, 1)}", ("--loss.method", "agmm"), "give --loss.method agmm-em"),
        ("{'loss.absent_weight': uniform(1, 2)}", (), "with loss.method=ce; give --loss.method ce.absent"),
        ("{'loss.mix_weight': uniform(1, 2)}", ("--loss.method", "ce+absent"), "give --loss.method agmm"),
        ("{'loss.method': choice('ce', 'agmm'), 'loss.mix_weight': uniform(1, 2)}", (), ""),
        ("{'loss.absent_weight': uniform(1, 2)}", ("--loss.method", "ce+absent"), ""),
    ],
)
def test_a_search_that_would_change_nothing_is_refused(
    tmp_path: Path, space: str, args: tuple[str, ...], message: str
) -> None:
    path = space_file(tmp_path, f"SPACE = {space}")
    if not message:
        assert parse(path, *args).space
        return
    with pytest.raises(ValueError, match=message):
        parse(path, *args)


def test_a_grid_of_networks_that_cannot_be_is_refused_before_anything_starts(tmp_path: Path) -> None:
    text = "SPACE = {'data.crop_px': choice(256, 64)}\nSAMPLER = 'grid'"
    with pytest.raises(ValueError, match=r"aspp_dilations \(.*\) reach past data.crop_px=64"):
        parse(space_file(tmp_path, text))


def test_label_sparsity_is_a_grid_that_finishes_one_seed_before_the_next() -> None:
    found = parse(ROOT / "search_spaces" / "label_sparsity.py")
    assert (found.sampler, found.scheduler, found.trials) == ("grid", "none", 30)
    assert found.grid is not None
    assert [point["run.seed"] for point in found.grid] == [0] * 10 + [1] * 10 + [2] * 10
    assert len({tuple(point.items()) for point in found.grid}) == 30


def test_label_sparsity_says_that_it_needs_clicks() -> None:
    with pytest.raises(ValueError, match=r"label_sparsity.*data.random_pixels=5 .* needs data.label=clicks"):
        parse(ROOT / "search_spaces" / "label_sparsity.py", trainer="voc")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("SPACE = {'loss.bandwith': uniform(0.5, 2)}", r"'loss.bandwith'; did you mean 'loss.bandwidth'"),
        ("SPACE = {'loss.bandwidth': uniform(-1, 2)}", r"loss.bandwidth must be > 0, got -1"),
        ("SPACE = {'loss.mix_weight': uniform(2, -1)}", r"cannot be loaded"),
        ("SPACE = {'loss.distance': choice('l1', 'l3')}", r"loss.distance must be one of l1, l2; got 'l3'"),
        ("SPACE = {'optim.epochs': choice(5, 2.5)}", r"optim.epochs must be of type int, got 2.5"),
        ("SPACE = {'loss.bandwidth': 0.5}", r"SPACE\['loss.bandwidth'\] must be uniform"),
        ("SPACE = {}", r"needs SPACE"),
        (
            "SPACE = {'loss.distance': choice('l1'), 'loss.sigma': when('loss.distanc', 'l1', choice(1))}",
            r"'loss.sigma'\] depends on 'loss.distanc', which is no field before it; did you mean 'loss.dist",
        ),
        (
            "SPACE = {'loss.distance': choice('l1'), 'loss.sigma': when('loss.distance', 'l2', choice(1))}",
            r"'loss.sigma'\] is searched where loss.distance is 'l2', which it never is",
        ),
        ("SPACE = {'loss.sigma': when('loss.x', 1, 0.5)}", r"SPACE\['loss.sigma'\] must be uniform"),
        ("SPACES = 1", r"needs SPACE"),
        ("import nowhere_to_be_found", r"cannot be loaded \(ModuleNotFoundError"),
        ("SPACE = {'loss.sigma': uniform(1, 2)}; SAMPLER = 'grid'", r"'loss.sigma'\] is continuous"),
        ("SPACE = {'loss.sigma': uniform(1, 2)}; SAMPLER = 'tpee'", r"SAMPLER='tpee' must be one of tpe"),
        ("SPACE = {'loss.sigma': uniform(1, 2)}; METRIC = 'miou'", r"METRIC='miou' one of val_miou"),
    ],
)
def test_bad_space_is_refused(tmp_path: Path, text: str, message: str) -> None:
    path = space_file(tmp_path, text)
    with pytest.raises(ValueError, match=message) as caught:
        parse(path)
    assert str(caught.value).startswith(str(path)) and "\n" not in str(caught.value)


def test_missing_space_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"--space .*nowhere.py: no such space; give one of joint, "):
        parse(tmp_path / "nowhere.py")


def test_grid_steps_through_integers(tmp_path: Path) -> None:
    path = space_file(
        tmp_path,
        "SPACE = {'optim.epochs': integers(10, 30, step=10), 'model.separable': choice(True, False)}",
    )
    grid = parse(path, "--sampler", "grid", "--loss.method", "agmm").grid
    assert grid is not None
    assert [tuple(point.values()) for point in grid] == [
        (epochs, separable) for epochs in (10, 20, 30) for separable in (True, False)
    ]


CONDITIONAL = """SPACE = {
    "loss.variance": choice("published", "adaptive"),
    "loss.sigma": when("loss.variance", "published", choice(0.5, 1.0)),
    "loss.distance": choice("l1", "l2"),
}"""


def test_a_conditional_field_is_searched_where_its_condition_holds_only(tmp_path: Path) -> None:
    path = space_file(tmp_path, CONDITIONAL)
    grid = parse(path, "--sampler", "grid", "--loss.method", "agmm").grid
    assert grid is not None and len(grid) == 2 * 2 + 2
    for point in grid:
        assert ("loss.sigma" in point) == (point["loss.variance"] == "published")
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    space = parse(path, "--loss.method", "agmm").space
    for _ in range(20):
        point = fill(space, functools.partial(propose, study.ask()))
        assert ("loss.sigma" in point) == (point["loss.variance"] == "published")
