"""The search space: distributions under dotted names of the configuration, checked before anything starts."""

from __future__ import annotations

import dataclasses
import difflib
import json
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
    distribution_to_json,
)

from sparseg import config
from sparseg.config import Config
from sparseg.launch import prepare

FIELDS_OF = {
    ("agmm",): {"variance", "sigma", "target", "centroids"},
    ("agmm-em",): {"em_steps", "em_confidence", "em_trust"},
    ("agmm", "agmm-em"): {
        *("bandwidth", "distance", "centroid_momentum", "centroid_reduction"),
        *("mix_weight", "label_weight", "sep_weight"),
    },
    ("absent", "agmm", "agmm-em"): {"absent_weight", "only_weight"},
    ("tel",): {"tree_weight"},
    ("gated-crf", "dense-pairwise"): {"pairwise_weight"},
    ("agmm", "agmm-em", "tel", "gated-crf", "dense-pairwise"): {"warmup_epochs"},
}
"""Parts of a method -> the fields of `loss` that they alone use."""


@dataclasses.dataclass(frozen=True)
class When:
    """A range that is searched only where an earlier field of the space has one of `options`."""

    field: str
    options: tuple[Any, ...]
    values: BaseDistribution


Space = dict[str, BaseDistribution | When]


def uniform(low: float, high: float, *, log: bool = False) -> FloatDistribution:
    """Real number in [low, high]; log: uniform in its logarithm."""
    return FloatDistribution(low, high, log=log)


def integers(low: int, high: int, *, step: int = 1, log: bool = False) -> IntDistribution:
    """Whole number in low..high, both included."""
    return IntDistribution(low, high, step=step, log=log)


def choice(*options: str | float | bool | None) -> CategoricalDistribution:
    """One of the options."""
    return CategoricalDistribution(options)


def when(field: str, options: Any, values: BaseDistribution) -> When:
    """`values`, but only where the field `field`, which stands before this one in SPACE, is one of `options`
    (one value, or a tuple): elsewhere the recipe's value stays and nothing is drawn."""
    return When(field, options if isinstance(options, tuple) else (options,), values)


def space_of(path: Path, module: types.ModuleType) -> Space:
    """SPACE of a loaded file.  Raises ValueError naming the file and the key."""
    space = getattr(module, "SPACE", None)
    if not isinstance(space, dict) or not space:
        raise ValueError(
            f"{path}: needs SPACE, a dict such as {{'loss.bandwidth': uniform(0.25, 4, log=True)}}"
        )
    for name, entry in space.items():
        values = range_of(entry)
        if not isinstance(values, BaseDistribution):
            raise ValueError(
                f"{path}: SPACE[{name!r}] must be uniform(..), integers(..), choice(..) or when(..), got "
                f"{values!r}"
            )
        if isinstance(entry, When):
            _check_condition(path, name, entry, space)
    return space


def _check_condition(path: Path, name: str, entry: When, space: Space) -> None:
    before = list(space)[: list(space).index(name)]
    if entry.field not in before:
        near = difflib.get_close_matches(entry.field, before, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else f"; before it stand {', '.join(before) or 'none'}"
        raise ValueError(
            f"{path}: SPACE[{name!r}] depends on {entry.field!r}, which is no field before it{hint}"
        )
    parent = range_of(space[entry.field])
    wrong = [option for option in entry.options if not contains(parent, option)]
    if wrong:
        raise ValueError(
            f"{path}: SPACE[{name!r}] is searched where {entry.field} is {wrong[0]!r}, which it never is"
        )


def grid_of(path: Path, space: Space) -> list[dict[str, Any]]:
    """Every combination; the first field of SPACE varies slowest."""
    points: list[dict[str, Any]] = [{}]
    for name, entry in space.items():
        values = range_of(entry)
        if isinstance(values, FloatDistribution):
            raise ValueError(
                f"{path}: SPACE[{name!r}] is continuous; a grid needs choice(..) or integers(..)"
            )
        whole = isinstance(values, IntDistribution)
        axis = range(values.low, values.high + 1, values.step) if whole else values.choices
        longer = []
        for point in points:
            longer += [{**point, name: value} for value in axis] if searched(entry, point) else [point]
        points = longer
    return points


def range_of(entry: BaseDistribution | When) -> Any:
    """The range itself, whatever it depends on."""
    return entry.values if isinstance(entry, When) else entry


def searched(entry: BaseDistribution | When, point: dict[str, Any]) -> bool:
    """Whether a field is searched, given the fields before it."""
    return not isinstance(entry, When) or point.get(entry.field) in entry.options


def fill(space: Space, value_of: Callable[[str, BaseDistribution], Any]) -> dict[str, Any]:
    """A point of the space: value_of(name, range) of every field that is searched, in order."""
    point: dict[str, Any] = {}
    for name, entry in space.items():
        if searched(entry, point):
            point[name] = value_of(name, range_of(entry))
    return point


def plain(entry: BaseDistribution | When) -> Any:
    """A range as JSON has it."""
    if isinstance(entry, When):
        return {"when": entry.field, "is": list(entry.options), "then": plain(entry.values)}
    return json.loads(distribution_to_json(entry))


def points_of(path: Path, module: types.ModuleType, space: Space) -> list[dict[str, Any]]:
    """POINTS of a loaded file: settings to try first.  Raises ValueError naming what the space lacks."""
    points = getattr(module, "POINTS", [])
    for number, point in enumerate(points):
        wanted = fill(space, lambda name, values: point.get(name))  # noqa: B023 - called at once
        for name in {**point, **wanted}:
            if name not in point or name not in wanted or not contains(range_of(space[name]), point[name]):
                near = difflib.get_close_matches(name, list(space), n=1)
                hint = f"; did you mean {near[0]!r}?" if near and name not in space else ""
                raise ValueError(
                    f"{path}: POINTS[{number}] must give a value inside the space for each of "
                    f"{', '.join(wanted)}; {name!r} is {point.get(name, 'missing')!r}{hint}"
                )
    return points


def methods_of(space: Space, base: Config) -> tuple[str, ...]:
    """All that trials may have as loss.method."""
    return ends(space["loss.method"]) if "loss.method" in space else (base.loss.method,)


def check_effect(path: Path, space: Space, base: Config) -> None:
    """Raise ValueError if the space searches what no trial would use, because the method is another."""
    methods = methods_of(space, base)
    parts = {part for method in methods for part in method.split("+")}
    for users, fields in FIELDS_OF.items():
        idle = [name for name in space if name.startswith("loss.") and name[5:] in fields]
        if idle and parts.isdisjoint(users):
            raise ValueError(
                f"{path}: {', '.join(idle)} would change nothing with loss.method={' or '.join(methods)}; "
                f"give --loss.method {'ce+absent' if users[0] == 'absent' else users[0]}"
            )


def check_space(path: Path, space: Space, grid: list[dict[str, Any]] | None, base: Config) -> None:
    """Raise ValueError naming the key if the configuration refuses a point of the grid, or a range's end."""
    points = grid if grid else [{name: value} for name, entry in space.items() for value in ends(entry)]
    for point in points:
        try:
            trial = config.with_overrides(base, point)
            # a point of a grid is whole; of a range's end the backbone that it goes with is not known
            if grid and any(name == "data.crop_px" or name.startswith("model.") for name in point):
                prepare.check_network(trial.model, trial.data.crop_px)
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from None


def ends(entry: BaseDistribution | When) -> tuple[Any, ...]:
    """The options of a choice, or the two ends of a range."""
    values = range_of(entry)
    return values.choices if isinstance(values, CategoricalDistribution) else (values.low, values.high)


def propose(trial: optuna.Trial, name: str, values: BaseDistribution) -> Any:
    """The trial's value of a field, drawn now or fixed before."""
    match values:
        case FloatDistribution():
            return trial.suggest_float(name, values.low, values.high, step=values.step, log=values.log)
        case IntDistribution():
            return trial.suggest_int(name, values.low, values.high, step=values.step, log=values.log)
        case CategoricalDistribution():
            return trial.suggest_categorical(name, values.choices)
    raise AssertionError(values)


def contains(values: BaseDistribution, value: Any) -> bool:
    """Is the value one that the search may propose?"""
    if isinstance(values, CategoricalDistribution):
        return value in values.choices
    return isinstance(value, int | float) and values.low <= value <= values.high  # type: ignore[attr-defined]
