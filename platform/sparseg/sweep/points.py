"""The points that a sweep is given beside what its sampler draws: POINTS of the space, the recipe, a grid."""

from __future__ import annotations

import difflib
import types
from pathlib import Path
from typing import Any

import optuna
from optuna.distributions import BaseDistribution

from sparseg.config import Config, to_dict
from sparseg.sweep.space import Space, check_point, ends, fill, value_in


def points_of(path: Path, module: types.ModuleType, space: Space, config: Config) -> list[dict[str, Any]]:
    """Return POINTS of a loaded space file, settings to try first, with the values as the space has them.

    Optuna trains 4 where it is given 4.7 for a whole number, writes 4.7 down, and takes values out of range:
    so all is refused here.  Raises ValueError naming the file, the point and the field, and what is allowed.
    """
    points = getattr(module, "POINTS", [])
    if not isinstance(points, list | tuple) or not all(isinstance(point, dict) for point in points):
        raise ValueError(f"{path}: POINTS must be a list of dicts such as [{{'loss.bandwidth': 1.0}}]")
    found = []
    for number, given in enumerate(points):
        where = f"{path}: POINTS[{number}]"
        try:
            point = fill(space, lambda name, values: _value(name, values, given))  # noqa: B023 - called at once
            _refuse_more(given, point, space)
        except ValueError as error:
            raise ValueError(f"{where}: {error}") from None
        check_point(where, point, config)
        found.append(point)
    return found


def _value(name: str, values: BaseDistribution, given: dict[str, Any]) -> Any:
    if name not in given:
        raise ValueError(f"{name} is missing; a point gives every field of SPACE that is searched with it")
    try:
        return value_in(values, given[name])
    except ValueError as error:
        raise ValueError(f"{name} {error}") from None


def _refuse_more(given: dict[str, Any], point: dict[str, Any], space: Space) -> None:
    for name in given:
        if name not in space:
            near = difflib.get_close_matches(str(name), list(space), n=1)
            hint = f"; did you mean {near[0]!r}?" if near else f"; it has {', '.join(space)}"
            raise ValueError(f"{name!r} is no field of SPACE{hint}")
        if name not in point:
            raise ValueError(f"{name} is not searched with the point's other values; leave it out")


def recipe_point(space: Space, config: Config) -> dict[str, Any]:
    """Return the recipe's own values of the fields that are searched.

    Raises ValueError naming the first one that the space does not hold: the study could not record it.
    """
    sections = to_dict(config)

    def own(name: str, values: BaseDistribution) -> Any:
        section, field = name.split(".")
        return _value(name, values, {name: sections[section][field]})

    return fill(space, own)


def lowest_data(space: Space) -> dict[str, Any]:
    """Return the lower end, or the first option, of every field of the data that is searched."""
    point = fill(space, lambda name, values: ends(values)[0])
    return {name: value for name, value in point.items() if name.startswith("data.")}


def enqueue_missing(study: optuna.Study, points: list[dict[str, Any]]) -> None:
    """Let the study begin with those of the points that it does not hold yet, in their order.

    Optuna's own skip_if_exists reads the whole study for every point, and takes numbers that differ by less
    than a hundred thousandth for one.
    """
    known = [
        trial.system_attrs.get("fixed_params", trial.params) for trial in study.get_trials(deepcopy=False)
    ]
    for point in points:
        if point not in known:
            study.enqueue_trial(point)
            known.append(point)
