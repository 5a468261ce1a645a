"""Training: it learns, a resumed run equals the uninterrupted one bit for bit, workers and passes add up."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
import torch.distributed as dist
from torch import Tensor, nn

from sparseg import losses
from sparseg.config import Config, with_overrides
from sparseg.data import loader, row_order, shards
from sparseg.losses import TERMS
from sparseg.network import batch_norm, segmenter
from sparseg.runs import background_save, checkpoint, log
from sparseg.train import loop
from sparseg.train.loop import step_seed
from sparseg.train.schedule import make_optimizer, plan
from sparseg.train.state import initial_network
from sparseg.train.weight_average import Average

pytestmark = pytest.mark.filterwarnings("ignore:model.weights=none")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Holds data/, eight training images."""
    folder = tmp_path_factory.mktemp("train")
    tiny.dataset(folder)
    return folder


def configure(folder: Path, storage: Path, overrides: dict[str, Any] | None = None) -> Config:
    """Data of `folder`, runs in `storage`."""
    return tiny.config(folder, {"run.storage": str(storage), **(overrides or {})})


def lines(config: Config, kind: str = "train") -> list[dict[str, Any]]:
    """metrics.jsonl without the speed."""
    found = [json.loads(line) for line in (config.folder / "metrics.jsonl").read_text().splitlines()]
    for line in found:
        line.pop("images_per_s", None)
    return [line for line in found if line["kind"] == kind]


def weights(config: Config) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors and state of the newest checkpoint."""
    return checkpoint.load_state(checkpoint.all_of(config.folder)[-1])


# -------------------------------------------------------------------------------------------- what a run does


def test_loss_goes_down_and_the_run_leaves_its_files(folder: Path, tmp_path: Path) -> None:
    overrides = {"optim.max_steps": 24, "optim.epochs": 20, "run.validate_every": 6.0, "loss.method": "ce"}
    config = configure(folder, tmp_path, {**overrides, "optim.optimizer": "adamw", "optim.clip_norm": 5.0})
    reported: list[dict[str, Any]] = []
    result = loop.run(config, report=reported.append)
    totals = [line["total"] for line in lines(config)]
    assert len(totals) == 24
    assert sum(totals[-4:]) < 0.7 * sum(totals[:4])
    assert (result["steps"], result["total_steps"]) == (24, 24)
    assert [line["step"] for line in reported] == [12, 24]
    assert [line["step"] for line in lines(config, "val")] == [12, 24]
    assert result["miou"] == max(line["miou"] for line in lines(config, "val"))
    for name in ("config.json", "metrics.jsonl", "environment.json", "best", "iou.json"):
        assert (config.folder / name).is_file(), name
    best = checkpoint.best(config.folder)
    assert best is not None and best.name == checkpoint.name_of(result["step"])
    assert json.loads((config.folder / "iou.json").read_text())["miou"] == result["miou"]


@pytest.mark.parametrize(
    ("method", "off"), [("agmm+tel", {"only", "pairwise"}), ("agmm+gated-crf", {"only", "tree"})]
)
def test_a_line_holds_every_term_and_the_rate(
    folder: Path, tmp_path: Path, method: str, off: set[str]
) -> None:
    changes = {"optim.max_steps": 2, "optim.poly_power": 1.0, "loss.method": method}
    config = configure(folder, tmp_path, changes)
    loop.run(config)
    first, second = lines(config)
    assert {*TERMS, "total", "grad_norm", "learning_rate", "step", "epoch"} <= set(first)
    assert (first["learning_rate"], second["learning_rate"]) == (pytest.approx(1e-2), pytest.approx(5e-3))
    assert (first["epoch"], second["epoch"]) == (0.5, 1.0)
    assert {term for term in TERMS if first[term] == 0} == off
    weighted = [getattr(config.loss, f"{term}_weight") * first[term] for term in TERMS]
    assert first["total"] == pytest.approx(sum(weighted), rel=1e-5)


def test_ce_leaves_the_mixture_out(folder: Path, tmp_path: Path) -> None:
    config = configure(folder, tmp_path, {"optim.max_steps": 1, "loss.method": "ce"})
    loop.run(config)
    [line] = lines(config)
    assert {term for term in TERMS if line[term] > 0} == {"seg"}


def test_the_mixture_starts_after_its_warm_up(folder: Path, tmp_path: Path) -> None:
    """Two steps an epoch: a warm-up of one and a half epochs is three steps."""
    config = configure(folder, tmp_path, {"optim.max_steps": 4, "loss.warmup_epochs": 1.5})
    loop.run(config)
    assert [line["mix"] > 0 for line in lines(config)] == [False, False, False, True]
    assert all(line["absent"] > 0 and line["seg"] > 0 for line in lines(config))


def test_class_balance_weighs_the_classes_by_their_counted_pixels(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"labelled pixels of split 'train'.*loss.class_balance"):
        loop.run(tiny.config(folder, {"loss.class_balance": 0.5, "run.storage": str(tmp_path / "none")}))
    counted = tmp_path / "data"
    shutil.copytree(folder / "data", counted)
    manifest = json.loads((counted / "sparseg.json").read_text())
    manifest["report"]["splits"] = {"train": {"pixels": [9, *[1] * (len(tiny.NAMES) - 1)]}}
    (counted / "sparseg.json").write_text(json.dumps(manifest))
    first = {}
    for balance in (0.0, 0.5):
        storage = str(tmp_path / f"runs{balance}")
        changes = {"data.root": str(counted), "run.storage": storage, "loss.class_balance": balance}
        settings = tiny.config(folder, changes | {"optim.max_steps": 1, "loss.method": "ce"})
        loop.run(settings)
        first[balance] = json.loads((settings.folder / "metrics.jsonl").read_text().splitlines()[0])["seg"]
    assert first[0.5] != pytest.approx(first[0.0], rel=1e-3)


def test_bf16_runs(folder: Path, tmp_path: Path) -> None:
    config = configure(folder, tmp_path, {"optim.max_steps": 2, "optim.precision": "bf16"})
    plain = configure(folder, tmp_path, {"optim.max_steps": 2, "run.name": "fp32"})
    assert loop.run(config)["steps"] == 2
    loop.run(plain)
    assert lines(config)[0]["total"] == pytest.approx(lines(plain)[0]["total"], rel=0.05)
    assert lines(config)[0]["total"] != lines(plain)[0]["total"]
    assert all(v.dtype != torch.bfloat16 for v in weights(config)[0].values())


@pytest.mark.parametrize("where", ["decoder", "backbone"])
def test_a_loss_that_is_not_finite_ends_the_run(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    build = segmenter.build

    def poisoned(*arguments: Any, **keywords: Any) -> Any:
        network = build(*arguments, **keywords)
        next(getattr(network, where).parameters()).data[0] = float("nan")
        return network

    monkeypatch.setattr(segmenter, "build", poisoned)
    with pytest.raises(
        FloatingPointError, match=r"run tiny: .*at step 1 \(images .*optim\.learning_rate"
    ) as caught:
        loop.run(configure(folder, tmp_path))
    assert "\n" not in str(caught.value)
    assert list(tmp_path.glob("tiny/checkpoint_*")) == []


def poison(monkeypatch: pytest.MonkeyPatch, step: int) -> None:
    """One image of that step's batch becomes NaN inside the network."""
    forward, calls = segmenter.Segmenter.forward, []

    def poisoned(self: Any, image: Tensor) -> Any:
        feature, logits = forward(self, image)
        calls.append(self.training)
        if self.training and sum(calls) == step:
            logits = logits * float("nan")
        return feature, logits

    monkeypatch.setattr(segmenter.Segmenter, "forward", poisoned)


def test_the_step_and_the_images_that_are_not_finite_are_named(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    poison(monkeypatch, 2)
    config = configure(folder, tmp_path, {"run.log_every": 5})
    with pytest.raises(FloatingPointError, match=r"at step 2 \(images") as caught:
        loop.run(config)
    rows = [row for _, row in row_order.rows_of_step(0, 1, 8, 4)]
    assert f"(images {', '.join(f'image_{row:03d}' for row in rows)})" in str(caught.value)


def test_steps_that_are_not_finite_can_be_left_out(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The weights and statistics after a step that was left out are those before it."""
    changes = {"optim.skip_nonfinite": 1, "optim.momentum": 0.0, "run.checkpoint_every": 1, "run.keep": 9}
    changes |= {"loss.method": "agmm-em"}
    config = configure(folder, tmp_path, {**changes, "optim.ema_decay": 0.5, "run.validate_every": 99.0})
    poison(monkeypatch, 3)
    assert loop.run(config)["steps"] == 6
    found = [checkpoint.load_state(path) for path in checkpoint.all_of(config.folder)]
    for name, value in found[1][1]["raw_model"].items():
        assert torch.equal(found[2][1]["raw_model"][name], value), name
    for name, value in found[1][1]["memory"].items():
        assert value.any() and torch.equal(found[2][1]["memory"][name], value), name
    assert_identical(found[2][0], found[1][0])
    before, after = (state["raw_model"] for _, state in found[2:4])
    assert not all(torch.equal(after[name], value) for name, value in before.items())
    assert [state["skipped"] for _, state in found] == [0, 0, 1, 1, 1, 1]
    assert [line["skipped"] for line in lines(config)] == [0, 0, 1, 1, 1, 1]
    assert [line["total"] is None for line in lines(config)] == [False, False, True, False, False, False]


def test_more_steps_left_out_than_allowed_end_the_run(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    forward = segmenter.Segmenter.forward
    monkeypatch.setattr(
        segmenter.Segmenter, "forward", lambda self, image: [v * float("nan") for v in forward(self, image)]
    )
    with pytest.raises(FloatingPointError, match=r"at step 3 .*optim\.skip_nonfinite"):
        loop.run(configure(folder, tmp_path, {"optim.skip_nonfinite": 2}))


def test_clipping_bounds_the_step(folder: Path, tmp_path: Path) -> None:
    """SGD without momentum and decay: the weights move by at most learning rate x clip_norm."""
    plain = {"optim.max_steps": 1, "optim.momentum": 0.0, "optim.weight_decay": 0.0, "optim.clip_norm": 0.01}
    config = configure(folder, tmp_path, plain)
    before = initial_network(config, len(tiny.NAMES), torch.device("cpu"), quiet=True)
    old = {name: p.detach().clone() for name, p in before.named_parameters()}
    loop.run(config)
    moved = sum(float((weights(config)[0][name] - p).square().sum()) for name, p in old.items()) ** 0.5
    assert lines(config)[0]["grad_norm"] > 0.01  # before clipping
    assert moved == pytest.approx(1e-2 * 0.01, rel=1e-2)


# ----------------------------------------------------------------------------------------------------- resume

VARIANTS: dict[str, dict[str, Any]] = {
    "sgd": {},
    "adamw": {"optim.optimizer": "adamw"},
    "ema": {"optim.ema_decay": 0.5},
    "accumulate": {"optim.accumulate": 2},
    "warmup, colour, drop path": {"loss.warmup_epochs": 1.0, "data.colour": True, "optim.warmup_steps": 4},
}


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_resumed_run_equals_the_uninterrupted_one(folder: Path, tmp_path: Path, variant: str) -> None:
    whole = configure(folder, tmp_path / "whole", VARIANTS[variant])
    parts = configure(folder, tmp_path / "parts", VARIANTS[variant])
    expected = loop.run(whole)
    stop = loop.run(parts, should_stop=lambda: stopped_at(parts, 3))
    assert (stop["steps"], stop["total_steps"]) == (3, 6)
    assert checkpoint.all_of(parts.folder)[-1].name == checkpoint.name_of(3)
    torch.manual_seed(1234)
    assert loop.run(parts) == expected
    assert [line["step"] for line in lines(parts)] == [1, 2, 3, 4, 5, 6]
    assert lines(parts) == lines(whole)
    assert lines(parts, "val") == lines(whole, "val")
    for found, wanted in zip(weights(parts), weights(whole), strict=True):
        assert_identical(found, wanted, ignore=("metrics_bytes",))


def test_a_step_draws_from_a_seed_that_never_changes() -> None:
    """A checkpoint of years ago goes on with the draws that the run would have made."""
    frozen = {
        (0, 0, 0): 15793235383387715774,
        (0, 1, 0): 5836529245451711556,
        (7, 1000, 3): 16699736623498512189,
    }
    assert {key: step_seed(*key) for key in frozen} == frozen
    keys = [(seed, step, rank) for seed in range(3) for step in range(40) for rank in range(4)]
    assert len({step_seed(*key) for key in keys}) == len(keys)
    for seed in frozen.values():
        torch.manual_seed(seed)  # all 64 bits are allowed


def test_what_a_backbone_draws_depends_on_the_step_alone(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A dropout of the feature: the same for the same step, whatever was drawn before, and another for
    another step."""
    forward, drawn = segmenter.Segmenter.forward, []

    def dropping(self: Any, image: Tensor) -> Any:
        feature, logits = forward(self, image)
        if self.training:
            drawn.append(torch.rand(3).tolist())
        return feature, logits

    monkeypatch.setattr(segmenter.Segmenter, "forward", dropping)
    for name, unrelated in (("one", 1), ("two", 2)):
        torch.manual_seed(unrelated)
        loop.run(configure(folder, tmp_path, {"run.name": name, "optim.max_steps": 3}))
    assert drawn[:3] == drawn[3:] and len({tuple(values) for values in drawn}) == 3


def test_the_state_in_a_checkpoint_keeps_its_names(folder: Path, tmp_path: Path) -> None:
    """Runs that an earlier version started go on."""
    config = configure(folder, tmp_path, {"optim.max_steps": 1, "loss.method": "agmm-em"})
    loop.run(config)
    _, state = weights(config)
    assert set(state) == {"step", "optimizer", "raw_model", "memory", "best", "metrics_bytes", "skipped"}
    assert set(state["memory"]) == {"centroid_KD", "seen_K"}
    assert (state["step"], state["skipped"], state["raw_model"]) == (1, 0, None)


def stopped_at(config: Config, step: int) -> bool:
    """Whether the run is at `step`: step - 1 lines are written when the question comes."""
    return len(lines(config)) >= step - 1


def assert_identical(found: Any, expected: Any, ignore: tuple[str, ...] = ()) -> None:
    """Nested containers of tensors and plain values, bit for bit."""
    if isinstance(expected, dict):
        assert found.keys() == expected.keys()
        for key in expected.keys() - set(ignore):
            assert_identical(found[key], expected[key])
    elif isinstance(expected, list | tuple):
        assert len(found) == len(expected)
        for one, other in zip(found, expected, strict=True):
            assert_identical(one, other)
    elif isinstance(expected, Tensor):
        assert torch.equal(found, expected)
    else:
        assert found == expected


def test_what_was_logged_after_the_checkpoint_comes_again(folder: Path, tmp_path: Path) -> None:
    """A killed run has lines that no checkpoint knows, the last one cut."""
    config = configure(folder, tmp_path, {"run.checkpoint_every": 2})
    loop.run(config, should_stop=lambda: stopped_at(config, 2))
    with (config.folder / "metrics.jsonl").open("a") as file:
        file.write('{"kind": "train", "step": 3, "total": 123}\n{"kind": "tra')
    loop.run(config)
    assert [line["step"] for line in lines(config)] == [1, 2, 3, 4, 5, 6]
    assert all(line["total"] != 123 for line in lines(config))


def test_a_damaged_checkpoint_costs_its_steps_only(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The run falls back to the one before, says so, and ends as if nothing had been."""
    every = {"run.checkpoint_every": 2, "run.validate_every": 99.0}
    whole, config = (configure(folder, tmp_path / name, every) for name in ("whole", "damaged"))
    expected = loop.run(whole)
    loop.run(config, should_stop=lambda: stopped_at(config, 5))
    newest = checkpoint.all_of(config.folder)[-1]
    assert newest.name == checkpoint.name_of(5)
    data = (newest / "state.pt").read_bytes()
    (newest / "state.pt").write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    assert loop.run(config) == expected
    captured = capsys.readouterr()
    assert "state.pt: was altered" in captured.err and "going on after step 4" in captured.out
    assert lines(config) == lines(whole)
    assert_identical(weights(config)[0], weights(whole)[0])


def test_time_alone_asks_for_a_checkpoint(folder: Path, tmp_path: Path) -> None:
    every = {"run.checkpoint_seconds": 1e-6, "run.validate_every": 99.0, "run.keep": 9, "run.log_every": 2}
    config = configure(folder, tmp_path, every)
    loop.run(config)
    names = [path.name for path in checkpoint.all_of(config.folder)]
    assert names == [checkpoint.name_of(step) for step in (2, 4, 6)]


def test_a_full_disk_ends_the_run_and_names_the_last_good_checkpoint(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(background_save, "WAITS_S", (0.0, 0.0))
    monkeypatch.setattr(background_save.Saver.__init__, "__defaults__", ((0.0, 0.0),))
    write, tries = checkpoint.save, []

    def full(folder: Path, step: int, *arguments: Any, **keywords: Any) -> Path:
        tries.append(step)
        if step > 2:
            raise OSError(28, "No space left on device")
        return write(folder, step, *arguments, **keywords)

    monkeypatch.setattr(checkpoint, "save", full)
    config = configure(folder, tmp_path, {"run.checkpoint_every": 2, "run.validate_every": 99.0})
    with pytest.raises(background_save.SaveError, match=r"step 4 .*No space left.*that of step 2") as caught:
        loop.run(config)
    assert "\n" not in str(caught.value)
    assert tries == [2, 4, 4, 4]
    assert len(lines(config)) < 6  # it did not train on for nothing
    monkeypatch.setattr(checkpoint, "save", write)
    assert loop.run(config)["steps"] == 6


def test_a_run_that_another_process_took_over_writes_nothing_more(folder: Path, tmp_path: Path) -> None:
    """The workers of a killed driver live on for some seconds, while the repeated command trains."""
    config = configure(folder, tmp_path, {"run.checkpoint_every": 1, "run.validate_every": 99.0})

    def taken_over() -> bool:
        if stopped_at(config, 3):
            (config.folder / ".owner").write_text("host 1 other")
        return False

    with pytest.raises(log.SupersededError, match="host 1 other"):
        loop.run(config, should_stop=taken_over)
    assert len(lines(config)) == 2
    assert [path.name for path in checkpoint.all_of(config.folder)][-1] == checkpoint.name_of(2)


@pytest.mark.parametrize("log_every", [1, 10])
def test_on_a_cpu_the_second_step_tells_how_long_all_take_if_the_first_line_is_far(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], log_every: int
) -> None:
    rhythm = {"run.log_every": log_every, "run.validate_every": 99.0}
    settings = configure(folder, tmp_path, {**rhythm, "optim.max_steps": 20, "optim.epochs": 99})
    loop.run(settings, should_stop=lambda: True)
    loop.run(settings)
    told = [line for line in capsys.readouterr().out.splitlines() if " s a step: " in line]
    assert len(told) == (log_every > 1)
    assert all(line.endswith("for the 17 to come") for line in told)  # the first start ended after a step


def test_a_finished_run_is_not_trained_again(folder: Path, tmp_path: Path) -> None:
    config = configure(folder, tmp_path, {"optim.max_steps": 2})
    first = loop.run(config)
    text = (config.folder / "metrics.jsonl").read_text()
    assert loop.run(config) == first
    assert (config.folder / "metrics.jsonl").read_text() == text


def test_checkpoints_between_validations(folder: Path, tmp_path: Path) -> None:
    every = {"run.checkpoint_every": 2, "run.validate_every": 100.0, "run.keep": 9, "run.log_every": 3}
    config = configure(folder, tmp_path, every)
    loop.run(config)
    assert [path.name for path in checkpoint.all_of(config.folder)] == [
        checkpoint.name_of(s) for s in (2, 4, 6)
    ]
    assert len(lines(config, "val")) == 1


# -------------------------------------------------------------------------------------------------- averaging


def test_average_follows_the_weights_and_is_the_model_saved(folder: Path, tmp_path: Path) -> None:
    config = configure(folder, tmp_path, {"optim.ema_decay": 0.5, "optim.max_steps": 2})
    network = initial_network(config, len(tiny.NAMES), torch.device("cpu"), quiet=True)
    expected = {name: p.detach().clone() for name, p in network.named_parameters()}
    loop.run(config, should_stop=lambda: stopped_at(config, 1))
    for _ in range(2):
        averaged, state = weights(config)
        for name in expected:
            expected[name] = 0.5 * expected[name] + 0.5 * state["raw_model"][name]
            torch.testing.assert_close(averaged[name], expected[name], rtol=1e-5, atol=1e-6)
        loop.run(config)


def test_average_is_swapped_in_and_out() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    average = Average(model, 0.9)
    old, new = model[0].weight.detach().clone(), torch.ones(2, 2)
    with torch.no_grad():
        model[0].weight.copy_(new)
        model[1].running_mean.fill_(3.0)
    average.update(model)
    with pytest.raises(RuntimeError, match="inside"), average.swapped_in(model):
        torch.testing.assert_close(model[0].weight, 0.9 * old + 0.1 * new)
        assert model[1].running_mean.tolist() == [3.0, 3.0]
        raise RuntimeError("inside")
    assert torch.equal(model[0].weight, new)


# ----------------------------------------------------------------------------------- accumulation and workers


def one_step(folder: Path, accumulate: int) -> tuple[dict[str, float], list[Tensor]]:
    """Terms and weights after a step of a network whose batch norms are frozen."""
    config = tiny.config(
        folder, {"optim.accumulate": accumulate, "optim.batch_size": 8, "loss.sep_weight": 0.0}
    )
    torch.manual_seed(0)
    model = segmenter.build(config.model, len(tiny.NAMES), quiet=True).eval()
    optimizer = make_optimizer(model, config)
    batches = loader.training_batches(
        shards.open(config.data.root), config, rank=0, world=1, first_step=0, last_step=1
    )
    values = loop.train_step(model, list(batches), optimizer, config, mixture=True)
    return {name: value.item() for name, value in values.items()}, [p.detach() for p in model.parameters()]


def test_accumulation_adds_up_to_the_whole_batch(folder: Path) -> None:
    terms, parameters = one_step(folder, 1)
    for accumulate in (2, 3):
        found, found_parameters = one_step(folder, accumulate)
        for name in (*TERMS, "total", "grad_norm", "labelled_pixels"):
            assert found[name] == pytest.approx(terms[name], rel=1e-4, abs=1e-6), name
        for one, other in zip(found_parameters, parameters, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)


DISTRIBUTED = {"optim.max_steps": 5, "optim.batch_size": 5}


def run_on_ranks(rank: int, world: int, folder: str) -> dict[str, Any]:
    """Five images over two workers: three and two; stop flags of one rank reach both."""
    data = Path(folder)
    config = configure(data, data / f"world{world}", DISTRIBUTED)
    result = loop.run(config, device=torch.device("cpu"))
    stopped = with_overrides(config, {"run.name": "stopped", "run.log_every": 2})
    ended = loop.run(stopped, device=torch.device("cpu"), should_stop=lambda: rank == 1)
    return {"miou": result["miou"], "stopped": ended["steps"]}


@pytest.mark.slow
def test_two_workers_train_what_one_trains(folder: Path) -> None:
    found = tiny.in_groups(run_on_ranks, folder, (2,))[2]
    single = configure(folder, folder / "world1", DISTRIBUTED)
    result = loop.run(single)
    assert found[0] == found[1] and found[0]["stopped"] == 2
    both = dataclasses.replace(single, run=dataclasses.replace(single.run, storage=str(folder / "world2")))
    for one, two in zip(lines(single), lines(both), strict=True):
        for name in (*TERMS, "total"):
            assert two[name] == pytest.approx(one[name], rel=1e-4), (one["step"], name)
    assert lines(both)[0]["grad_norm"] == pytest.approx(lines(single)[0]["grad_norm"], rel=1e-3)
    assert found[0]["miou"] == pytest.approx(result["miou"], abs=0.02)


def test_the_plan_is_that_of_the_run(folder: Path, tmp_path: Path) -> None:
    config = configure(folder, tmp_path, {"optim.max_steps": None, "optim.epochs": 1})
    assert loop.run(config)["total_steps"] == plan(config, 8).total_steps == 2
    assert losses.TERMS == TERMS


# ------------------------------------------------------------------------------- the whole step, in float64


def float64_gradients(rank: int, world: int, folder: str) -> dict[str, Tensor]:
    """Averaged gradients of one step of the whole network with every loss term, in float64."""
    settings = tiny.config(Path(folder))
    data = shards.open(Path(folder) / "data")
    batches = loader.training_batches(data, settings, rank=rank, world=world, first_step=0, last_step=1)
    batch = next(batches)
    torch.manual_seed(0)
    network = segmenter.build(settings.model, len(data.names), quiet=True).double()
    network = batch_norm.with_global_batch_norm(network, torch.device("cpu")).double().train()
    terms = losses.objective(*network(batch.image_B3HW), batch.label_BHW, batch.present_BK, settings.loss)
    terms["total"].backward()
    gradients = {name: parameter.grad for name, parameter in network.named_parameters()}
    for gradient in gradients.values():
        if world > 1:
            dist.all_reduce(gradient)
            gradient /= world
    return gradients


def test_gradients_of_the_network_are_those_of_one_process_in_float64(folder: Path) -> None:
    alone = float64_gradients(0, 1, str(folder))
    scale = max(float(gradient.abs().max()) for gradient in alone.values())
    for world, ranks in tiny.in_groups(float64_gradients, folder, (2, 3)).items():
        for name, gradient in alone.items():
            torch.testing.assert_close(
                ranks[0][name], gradient, rtol=0, atol=1e-11 * scale, msg=f"{name} on {world} ranks"
            )
