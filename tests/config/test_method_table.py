"""The table of the methods, and what follows from it: checks, sweeps, search spaces, documentation."""

from __future__ import annotations

import dataclasses
import typing
from pathlib import Path

import pytest

from sparseg import config
from sparseg.config import METHODS, TERMS, Config, LossConfig, methods
from sparseg.sweep import choice, uniform
from sparseg.sweep.pruning import first_rung
from sparseg.sweep.space import check_effect

ROOT = Path(__file__).resolve().parents[2]
FIELDS = {field.name for field in dataclasses.fields(LossConfig)}


def test_the_configuration_allows_the_methods_of_the_table() -> None:
    assert typing.get_args(typing.get_type_hints(LossConfig)["method"]) == tuple(METHODS)
    with pytest.raises(ValueError, match=r"loss.method must be one of ce, ce\+absent, agmm, .*; got 'crf'"):
        config.from_dict({"method": "crf"}, LossConfig, where="loss.")


def test_every_field_and_term_is_of_a_method() -> None:
    assert set().union(*(method.fields for method in METHODS.values())) == FIELDS
    assert {term for method in METHODS.values() for term in method.terms} == set(TERMS)
    assert tuple(LossConfig().weights) == TERMS


@pytest.mark.parametrize("name", METHODS)
def test_a_method_reads_the_weights_of_its_terms(name: str) -> None:
    method = METHODS[name]
    assert {field for field in method.fields if field.endswith("_weight")} == {
        *(f"{term}_weight" for term in method.terms),
        "extra_weight",  # of terms of one's own, which any method takes
    }
    assert ("warmup_epochs" in method.fields) == method.warms_up
    assert method.summary and "\n" not in method.summary and "|" not in method.summary


def test_weights_are_the_fields_of_their_terms() -> None:
    given = LossConfig(method="agmm+tel", **{f"{term}_weight": n + 2.0 for n, term in enumerate(TERMS)})
    assert given.weights == {term: n + 2.0 for n, term in enumerate(TERMS)}


def test_a_name_is_its_parts() -> None:
    both, agmm, tel = METHODS["agmm+tel"], METHODS["agmm"], METHODS["tel"]
    assert both.fields == agmm.fields | tel.fields and set(both.terms) == {*agmm.terms, *tel.terms}
    assert both.looks_at_image and both.knows_absent and both.warms_up and not both.keeps_memory
    assert LossConfig(method="agmm+tel").parts == {"agmm", "tel"}
    assert METHODS["ce+absent"].terms == ("seg", "absent", "only") and METHODS["ce"].terms == ("seg",)


@pytest.mark.parametrize("name", METHODS)
def test_the_properties_of_the_configuration_follow(name: str) -> None:
    on = LossConfig(method=name)  # type: ignore[arg-type]
    mixture = name.startswith("agmm")
    assert on.has_mixture == mixture
    assert on.knows_absent == on.with_absent == (mixture or name == "ce+absent")
    assert on.keeps_memory == (name == "agmm-em")
    assert dataclasses.replace(on, centroids="memory").keeps_memory
    assert on.with_tree == ("tel" in name)
    assert on.with_pairwise == (name.endswith("gated-crf") or name == "dense-pairwise")
    assert not on.with_only
    off = dataclasses.replace(on, absent_weight=0.0, tree_weight=0.0, pairwise_weight=0.0)
    assert not (off.with_absent or off.with_tree or off.with_pairwise)


def test_a_new_part_is_an_entry(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a method's entry says reaches the checks and the documentation without another line."""
    part = dataclasses.replace(
        methods.PARTS["agmm-em"], summary="as told", fields=frozenset({"em_steps", "warmup_epochs"})
    )
    monkeypatch.setitem(methods.PARTS, "new", part)
    monkeypatch.setitem(METHODS, "new+tel", methods.composed("new+tel"))
    new = LossConfig(method="new+tel")  # type: ignore[arg-type]
    assert new.has_mixture and new.keeps_memory and new.with_tree and new.with_absent
    base = dataclasses.replace(Config(), loss=dataclasses.replace(new, warmup_epochs=5.0))
    assert first_rung({"loss.em_steps": uniform(1, 2)}, base, 1000, 40.0) == 200
    check_effect(Path("space.py"), {"loss.em_steps": choice(1, 2)}, base)
    with pytest.raises(ValueError, match=r"em_trust would change nothing with loss.method=new\+tel; give"):
        check_effect(Path("space.py"), {"loss.em_trust": uniform(0, 1)}, base)
    assert any(row.startswith("| `new+tel` | `new` and `tel` |") for row in config.method_rows())


def test_fields_of_several_methods_are_refused_with_the_method_that_reads_them_all() -> None:
    space = {"loss.bandwidth": uniform(1, 2), "loss.em_steps": choice(1, 2), "loss.seg_weight": uniform(1, 2)}
    with pytest.raises(ValueError, match=r"loss.bandwidth, loss.em_steps would change .* agmm-em$"):
        check_effect(Path("space.py"), space, Config())
    apart = {"loss.variance": choice("published", "adaptive"), "loss.em_steps": choice(1, 2)}
    with pytest.raises(ValueError, match=r"py: loss.variance would change nothing .*--loss.method agmm$"):
        check_effect(Path("space.py"), apart, Config())


def test_the_documentation_shows_the_table() -> None:
    lines = (ROOT / "docs" / "methods.md").read_text().splitlines()
    assert [line for line in lines if line.startswith("|")] == config.method_rows()
