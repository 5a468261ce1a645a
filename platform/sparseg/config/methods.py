"""Methods of `loss.method`: what each of them minimises, reads and needs, in one table.

A method's name is its parts, joined by `+`; every method has the cross-entropy of `ce`, said or not.  The
configuration, the sweeps' checks, the reports and the table in docs/methods.md follow from here.

A term of one's own needs no entry here: `loss.extra_terms` adds it to any method (losses/extra_terms.py).

A new combination of parts is one more name in `MethodName`.  A new part is

1. its mathematics in a module of `sparseg.losses`, called in `sparseg.losses.terms`, which is where the terms
   of a step meet (a term that no method has yet stands in `TERMS`, its weight in `LossConfig`);
2. an entry of `PARTS`, and a name in `MethodName`;
3. its tests.  tests/losses/test_methods.py finds out by trial whether the entry is true.
"""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Iterable
from typing import Literal

MethodName = Literal[
    "ce",
    "ce+absent",
    "agmm",
    "agmm-em",
    "tel",
    "gated-crf",
    "dense-pairwise",
    "agmm+tel",
    "agmm+gated-crf",
]
"""Values of `loss.method`."""

TERMS = ("seg", "mix", "label", "sep", "absent", "only", "tree", "pairwise")
"""Terms of the objective, in the order in which they are summed and logged."""

NOT_TERMS = (
    *("kind", "step", "epoch", "total", "grad_norm", "learning_rate", "images_per_s"),
    *("skipped", "labelled_pixels"),
)
"""Names that a line of metrics.jsonl, or a step, has for other things than terms."""


def term_names(names: Iterable[str]) -> list[str]:
    """Give those names of a training line that are terms: of `TERMS` first, then of loss.extra_terms."""
    found = [name for name in names if name not in NOT_TERMS]
    return [term for term in TERMS if term in found] + [name for name in found if name not in TERMS]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Method:
    """One method of `loss.method`, or a part of one: what it minimises, reads and needs."""

    summary: str
    """One line for a table of the methods."""
    terms: tuple[str, ...]
    """Those of `TERMS` that it can have; one whose weight is 0 is not computed."""
    fields: frozenset[str]
    """Fields of `LossConfig` that change something."""
    keeps_memory: bool = False
    """Whether it keeps running class means in every configuration (others do with loss.centroids=memory)."""
    looks_at_image: bool = False
    """Whether a term compares the colours of the image."""
    knows_absent: bool = False
    """Whether it takes a class that is not annotated anywhere in an image to be absent from it."""
    warms_up: bool = False
    """Whether it has terms that wait for loss.warmup_epochs."""


ABSENT_FIELDS = frozenset({"absent_weight", "only_weight"})
MIXTURE_FIELDS = ABSENT_FIELDS | {
    *("bandwidth", "distance", "centroid_momentum", "centroid_reduction"),
    *("mix_weight", "label_weight", "sep_weight", "warmup_epochs"),
}
MIXTURE_TERMS = ("mix", "label", "sep")

PARTS: dict[str, Method] = {
    "ce": Method(
        summary="cross-entropy on the labelled pixels, which all others have, too",
        terms=("seg",),
        fields=frozenset({"method", "class_balance", "seg_weight", "extra_terms", "extra_weight"}),
    ),
    "absent": Method(
        summary="classes that are not annotated in an image are improbable there; with `--loss.only-weight` "
        "(DBFNet, TIP 2022) an image with one annotated class is all that class",
        terms=("absent", "only"),
        fields=ABSENT_FIELDS,
        knows_absent=True,
    ),
    "agmm": Method(
        summary="a Gaussian mixture for every image, around class means of labelled pixels; prediction and "
        "similarity teach each other (Wu et al., CVPR 2023); and the absent-class term",
        terms=(*MIXTURE_TERMS, "absent", "only"),
        fields=MIXTURE_FIELDS | {"variance", "sigma", "target", "centroids"},
        knows_absent=True,
        warms_up=True,
    ),
    "agmm-em": Method(
        summary="the same terms with one mixture over the data set, fitted by online EM; our formulation",
        terms=(*MIXTURE_TERMS, "absent", "only"),
        fields=MIXTURE_FIELDS | {"em_steps", "em_confidence", "em_trust"},
        keeps_memory=True,
        knows_absent=True,
        warms_up=True,
    ),
    "tel": Method(
        summary="the prediction follows itself, filtered along the minimum spanning trees of colour, then of "
        "feature (tree energy, Liang et al., CVPR 2022)",
        terms=("tree",),
        fields=frozenset({"tree_weight", "warmup_epochs"}),
        looks_at_image=True,
        warms_up=True,
    ),
    "gated-crf": Method(
        summary="near cells of like colour are predicted alike (gated CRF, Obukhov et al., 2019)",
        terms=("pairwise",),
        fields=frozenset({"pairwise_weight", "warmup_epochs"}),
        looks_at_image=True,
        warms_up=True,
    ),
    "dense-pairwise": Method(
        summary="all pairs of cells, weighted by nearness and like colour, are predicted alike (Tang et al., "
        "ECCV 2018)",
        terms=("pairwise",),
        fields=frozenset({"pairwise_weight", "warmup_epochs"}),
        looks_at_image=True,
        warms_up=True,
    ),
}
"""What methods are made of."""


def parts_of(name: str) -> frozenset[str]:
    """The parts that a method's name is made of: `agmm+tel` -> agmm, tel."""
    return frozenset(name.split("+"))


def composed(name: str) -> Method:
    """The method of this name, put together from its parts and the cross-entropy."""
    names = [part for part in name.split("+") if part != "ce"]
    parts = [PARTS["ce"], *(PARTS[part] for part in names)]
    summary = " and ".join(f"`{part}`" for part in names) if len(names) > 1 else parts[-1].summary
    return Method(
        summary=summary,
        terms=tuple(term for term in TERMS if any(term in part.terms for part in parts)),
        fields=frozenset().union(*(part.fields for part in parts)),
        keeps_memory=any(part.keeps_memory for part in parts),
        looks_at_image=any(part.looks_at_image for part in parts),
        knows_absent=any(part.knows_absent for part in parts),
        warms_up=any(part.warms_up for part in parts),
    )


METHODS: dict[str, Method] = {name: composed(name) for name in typing.get_args(MethodName)}
"""The methods, in the order in which tables show them."""


def method_rows() -> list[str]:
    """Render `METHODS` as the lines of a Markdown table, its head first."""
    rows = [
        "| `--loss.method` | adds to the cross-entropy | terms | fields of its own | needs |",
        "|---|---|---|---|---|",
    ]
    for name, method in METHODS.items():
        terms = " ".join(f"`{term}`" for term in method.terms)
        fields = " ".join(f"`{field}`" for field in sorted(method.fields - PARTS["ce"].fields))
        if len(parts_of(name) - {"ce"}) > 1:
            fields = "those of its parts"
        needs = [("the image", method.looks_at_image), ("a memory of class means", method.keeps_memory)]
        needed = ", ".join(what for what, holds in needs if holds)
        rows.append(f"| `{name}` | {method.summary} | {terms} | {fields or '-'} | {needed or '-'} |")
    return rows
