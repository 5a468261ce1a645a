"""The search space: distributions under dotted names of the configuration, checked before anything starts."""

from __future__ import annotations

import dataclasses
import difflib
import json
import types
from collections.abc import Callable
from numbers import Real
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

from sparseg.config import METHODS, Config, with_overrides
from sparseg.launch import prepare


@dataclasses.dataclass(frozen=True)
class When:
    """A range that is searched only where an earlier field of the space has one of `options`."""

    field: str
    options: tuple[Any, ...]
    values: BaseDistribution


Space = dict[str, BaseDistribution | When]

STEP_TOLERANCE = 1e-8
"""How far a value may lie beside the grid of a stepped real range, in steps; Optuna's own tolerance."""


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
        if isinstance(values, CategoricalDistribution):
            _check_options(path, name, values.choices)
        if isinstance(entry, When):
            _check_condition(path, name, entry, space)
    return space


def _check_options(path: Path, name: str, options: tuple[Any, ...]) -> None:
    for number, option in enumerate(options):
        if not isinstance(option, bool | int | float | str | None):  # a study on disk gives back another one
            raise ValueError(
                f"{path}: SPACE[{name!r}] has the option {option!r}; options are texts, numbers, True, False "
                "or None"
            )
        if option in options[:number]:  # a grid would hold its points twice, and train others in their place
            raise ValueError(f"{path}: SPACE[{name!r}] has the option {option!r} twice; leave one out")


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


def methods_of(space: Space, base: Config) -> tuple[str, ...]:
    """The values that trials may have as loss.method."""
    return ends(space["loss.method"]) if "loss.method" in space else (base.loss.method,)


def check_effect(path: Path, space: Space, base: Config) -> None:
    """Raise ValueError if the space searches what no trial would use, because the method is another."""
    methods = methods_of(space, base)
    read = frozenset().union(*(METHODS[name].fields for name in methods))
    if base.loss.extra_terms is not None:  # which wait for the end of the warm-up
        read |= {"warmup_epochs"}
    searched_fields = [name.removeprefix("loss.") for name in space if name.startswith("loss.")]
    idle = [name for name in searched_fields if name not in read]
    if not idle:
        return
    # the first method of the table that reads them all, or else the first of them
    readers = [name for name, method in METHODS.items() if method.fields.issuperset(idle)]
    readers += [name for name, method in METHODS.items() if idle[0] in method.fields]
    named = [f"loss.{name}" for name in idle if name in METHODS[readers[0]].fields]
    raise ValueError(
        f"{path}: {', '.join(named)} would change nothing with loss.method={' or '.join(methods)}; give "
        f"--loss.method {readers[0]}"
    )


def check_space(path: Path, space: Space, grid: list[dict[str, Any]] | None, config: Config) -> None:
    """Raise ValueError naming the key if the configuration refuses a point of the grid, or a range's end."""
    if grid:
        for point in grid:
            check_point(str(path), point, config)
        return
    for name, entry in space.items():
        for value in ends(entry):
            try:  # of one value the backbone that it goes with is not known, so no network is built
                with_overrides(config, {name: value})
            except ValueError as error:
                raise ValueError(f"{path}: {error}") from None


def check_point(where: str, point: dict[str, Any], config: Config) -> None:
    """Raise ValueError beginning with `where` if a whole point makes a configuration or a network that cannot
    be."""
    try:
        trial = with_overrides(config, point)
        if any(name == "data.crop_px" or name.startswith("model.") for name in point):
            prepare.check_network(trial.model, trial.data.crop_px)
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from None


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


def value_in(values: BaseDistribution, value: Any) -> Any:
    """Return a given value as the search itself would propose it: an option, an int, or a float.

    4.0 is the whole number 4, 1 the real number 1.0, a bool no number.  On a stepped real range a value
    may lie STEP_TOLERANCE of a step beside the grid, as in Optuna.  Raises ValueError saying what is allowed.
    """
    number = isinstance(value, Real) and not isinstance(value, bool)
    match values:
        case CategoricalDistribution():
            for option in values.choices:
                if option == value and isinstance(option, bool) == isinstance(value, bool):
                    return option
        case IntDistribution():
            inside = number and values.low <= value <= values.high
            if inside and value == int(value) and (int(value) - values.low) % values.step == 0:
                return int(value)
        case FloatDistribution():
            if number and values.low <= value <= values.high:
                steps = (value - values.low) / values.step if values.step else 0.0
                if abs(steps - round(steps)) < STEP_TOLERANCE:
                    return float(value)
    raise ValueError(f"must be {allowed(values)}, got {value!r}")


def allowed(values: BaseDistribution) -> str:
    """Say in words which values a range holds."""
    if isinstance(values, CategoricalDistribution):
        return f"one of {', '.join(map(repr, values.choices))}"
    assert isinstance(values, IntDistribution | FloatDistribution)
    kind = "a whole number" if isinstance(values, IntDistribution) else "a real number"
    step = values.step if values.step is not None and values.step != 1 else None
    grid = f" in steps of {step:g} from {values.low:g}" if step else ""
    return f"{kind} in {values.low:g}..{values.high:g}{grid}"


def contains(values: BaseDistribution, value: Any) -> bool:
    """Return whether the search may propose this value."""
    try:
        value_in(values, value)
    except ValueError:
        return False
    return True
