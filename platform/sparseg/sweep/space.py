"""The search space: distributions under dotted names of the configuration, checked before anything starts."""

from __future__ import annotations

import importlib.util
import itertools
import types
from pathlib import Path
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

from sparseg import config
from sparseg.config import Config

Space = dict[str, BaseDistribution]


def uniform(low: float, high: float, *, log: bool = False) -> FloatDistribution:
    """Real number in [low, high]; log: uniform in its logarithm."""
    return FloatDistribution(low, high, log=log)


def integers(low: int, high: int, *, step: int = 1, log: bool = False) -> IntDistribution:
    """Whole number in low..high, both included."""
    return IntDistribution(low, high, step=step, log=log)


def choice(*options: str | float | bool | None) -> CategoricalDistribution:
    """One of the options."""
    return CategoricalDistribution(options)


def load_file(path: Path) -> types.ModuleType:
    """A Python file, loaded by its path."""
    spec = importlib.util.spec_from_file_location(f"sparseg_file_{path.stem}", path)
    try:
        if spec is None or spec.loader is None:
            raise ImportError("not a .py file")
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    except Exception as error:
        raise ValueError(f"{path}: cannot be loaded ({type(error).__name__}: {error})") from error
    return module


def space_of(path: Path, module: types.ModuleType) -> Space:
    """SPACE of a loaded file.  Raises ValueError naming the file and the key."""
    space = getattr(module, "SPACE", None)
    if not isinstance(space, dict) or not space:
        raise ValueError(
            f"{path}: needs SPACE, a dict such as {{'loss.bandwidth': uniform(0.25, 4, log=True)}}"
        )
    for name, values in space.items():
        if not isinstance(values, BaseDistribution):
            raise ValueError(
                f"{path}: SPACE[{name!r}] must be uniform(..), integers(..) or choice(..), got {values!r}"
            )
    return space


def grid_of(path: Path, space: Space) -> list[dict[str, Any]]:
    """Every combination; the first field of SPACE varies slowest."""
    axes = []
    for name, values in space.items():
        if isinstance(values, FloatDistribution):
            raise ValueError(
                f"{path}: SPACE[{name!r}] is continuous; a grid needs choice(..) or integers(..)"
            )
        whole = isinstance(values, IntDistribution)
        axes.append(range(values.low, values.high + 1, values.step) if whole else values.choices)  # type: ignore
    return [dict(zip(space, point, strict=True)) for point in itertools.product(*axes)]


def check_space(path: Path, space: Space, grid: list[dict[str, Any]] | None, base: Config) -> None:
    """Raise ValueError naming the key if the configuration refuses a point of the grid, or a range's end."""
    points = grid if grid else [{name: value} for name, values in space.items() for value in _ends(values)]
    for point in points:
        try:
            config.with_overrides(base, point)
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from None


def _ends(values: Any) -> tuple[Any, ...]:
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
