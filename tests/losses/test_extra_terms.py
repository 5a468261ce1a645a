"""Terms of the user's own: in the objective, over ranks, in a run's log and page; what is refused."""

from __future__ import annotations

import dataclasses
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import tiny
import torch
import torch.distributed as dist
from loss_batches import Batch, evaluate, make_batch

from sparseg import launch, losses
from sparseg.common import plugins
from sparseg.config import Config, LossConfig, with_overrides
from sparseg.launch import prepare
from sparseg.losses import extra_terms
from sparseg.reports import run_page

ROOT = Path(__file__).resolve().parents[2]
DOCUMENT = (ROOT / "docs" / "methods.md").read_text()
MODULE, NAME = "my_losses", "my_losses:entropy"
BATCH = make_batch(6, B=4, K=4, D=3, size=(16, 20), cells=(4, 5), empty=(1,))

pytestmark = pytest.mark.filterwarnings("ignore:model.weights=none")


def example(folder: Path) -> None:
    """my_losses.py as docs/methods.md has it."""
    (text,) = re.findall(r"^```python\n(# my_losses\.py\n.*?)^```$", DOCUMENT, re.MULTILINE | re.DOTALL)
    (folder / f"{MODULE}.py").write_text(text)


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A current folder with the document's module."""
    example(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    yield tmp_path
    for name in (MODULE, "wrong"):
        sys.modules.pop(name, None)
    extra_terms.function_of.cache_clear()


def test_the_term_is_added_with_its_weight_after_the_warm_up() -> None:
    config = LossConfig(method="ce+absent", extra_terms=NAME, extra_weight=0.5)
    plain = evaluate(
        losses.objective, BATCH, dataclasses.replace(config, extra_terms=None, extra_weight=1.0)
    )[0]
    found = evaluate(losses.objective, BATCH, config)[0]
    probability = torch.nn.functional.interpolate(BATCH.logits, (16, 20), mode="bilinear").softmax(1)
    entropy = -(probability * probability.log()).sum(1)
    wanted = entropy[BATCH.label == 254].sum() / (BATCH.label != 255).sum()
    torch.testing.assert_close(found["entropy"], wanted)
    torch.testing.assert_close(found["total"], plain["total"] + 0.5 * wanted)
    assert {name: found[name] for name in plain if name != "total"} == {
        name: plain[name] for name in plain if name != "total"
    }
    early = evaluate(losses.objective, BATCH, config, with_mixture=False)[0]
    assert "entropy" not in early and early["total"] == plain["total"]
    off = evaluate(losses.objective, BATCH, dataclasses.replace(config, extra_weight=0.0))[0]
    assert off == plain


def test_the_module_of_the_losses_takes_it_too() -> None:
    loss = losses.SparseLoss(config=LossConfig(extra_terms=NAME), num_classes=4)
    assert loss(BATCH.feature, BATCH.logits, BATCH.label, BATCH.present)["entropy"] > 0


def share(rank: int, world: int, folder: str) -> list[torch.Tensor]:
    """The mean over ranks of term, total and the gradient of all logits, a part of the batch on each."""
    plugins.extend_path([folder])
    size = len(BATCH.label) // world
    part: Batch = BATCH[rank * size : (rank + 1) * size]
    terms, _, gradient = evaluate(losses.objective, part, LossConfig(extra_terms=NAME))
    whole = torch.zeros_like(BATCH.logits)
    whole[rank * size : (rank + 1) * size] = gradient
    values = [terms["entropy"], terms["total"], whole]
    for value in values:
        dist.all_reduce(value)
    return [value / world for value in values]


def test_two_ranks_have_the_value_and_the_gradient_of_one(here: Path) -> None:
    found = tiny.in_groups(share, here, (1, 2))
    for one, two in zip(found[1][0], found[2][0], strict=True):
        torch.testing.assert_close(two, one)


@pytest.fixture
def run(here: Path) -> Config:
    tiny.dataset(here)
    return tiny.config(here, {"loss.method": "ce", "loss.extra_terms": NAME, "loss.warmup_epochs": 1.0})


def test_a_run_shows_the_term_in_line_log_and_page(
    run: Config, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    launch.launch(with_overrides(run, {"optim.max_steps": 3}))
    lines = [json.loads(text) for text in (run.folder / "metrics.jsonl").read_text().splitlines()]
    train = [line for line in lines if line["kind"] == "train"]
    assert ["entropy" in line for line in train] == [False, False, True]  # an epoch is two steps
    assert train[2]["total"] == pytest.approx(train[2]["seg"] + train[2]["entropy"])
    assert f"entropy {train[2]['entropy']:.4f} | lr" in capsys.readouterr().out
    run_page.write_report([run.folder], here / "page.html")
    page = (here / "page.html").read_text()
    assert NAME in page and re.search(r"Loss terms.*>entropy<", page, re.DOTALL)


WRONG = {
    "def f(x):\n    return x.logits_BKhw.sum()\n": r"must return a dict of named .* a torch\.float32 tensor",
    "def f(x):\n    return {}\n": "must return a dict of named terms",
    "def f(x):\n    return {'seg': x.logits_BKhw.sum()}\n": r"a term 'seg'; a name is .* other than seg",
    "def f(x):\n    return {'grad_norm': x.logits_BKhw.sum()}\n": "a term 'grad_norm'",
    "def f(x):\n    return {'my-term': x.logits_BKhw.sum()}\n": "a term 'my-term'",
    "def f(x):\n    return {'mine': x.logits_BKhw}\n": r"'mine' must be a scalar .* shape \(2, 3, 8, 8\)",
    "def f(x):\n    return {'mine': 1.0}\n": "'mine' must be a scalar tensor, is float 1.0",
    "def f(x):\n    return {'mine': x.logits_BKhw.detach().sum()}\n": "mine has no gradient",
    "def f(x):\n    return {'mine': x.logit.sum()}\n": r"AttributeError: .*logit.*wrong\.py, line 2",
    "def g(x):\n    pass\n": r"wrong\.py has no function f; it has g",
    "import no_such_thing\n": "importing wrong fails",
}


@pytest.mark.parametrize("text", WRONG, ids=list(range(len(WRONG))))
def test_what_is_wrong_is_refused_before_the_run_starts(run: Config, here: Path, text: str) -> None:
    (here / "wrong.py").write_text(text)
    with pytest.raises(ValueError, match=WRONG[text]) as told:
        prepare.prepare(with_overrides(run, {"loss.extra_terms": "wrong:f"}))
    assert str(told.value).startswith("loss.extra_terms=wrong:f") and "\n" not in str(told.value)
    assert not run.folder.exists()


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"extra_terms": "my_losses"}, "MODULE:FUNCTION"),
        ({"extra_terms": "my/losses.py:entropy"}, "--run.plugins FILE.py"),
        ({"extra_terms": NAME, "extra_weight": -1.0}, "extra_weight must be >= 0"),
        ({"extra_weight": 2.0}, "no effect without --loss.extra-terms"),
    ],
)
def test_wrong_values_are_refused_by_the_configuration(fields: dict[str, object], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        LossConfig(**fields)  # type: ignore[arg-type]


def test_who_has_own_terms_is_not_told_that_unlabelled_crops_teach_nothing() -> None:
    assert LossConfig().needs_labelled_pixels
    assert not LossConfig(extra_terms=NAME).needs_labelled_pixels
    with_overrides(Config(), {"data.label": "tag", "loss.extra_terms": NAME})
