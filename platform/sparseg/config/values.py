"""A configuration as plain values: JSON in and out, dotted overrides."""

from __future__ import annotations

import dataclasses
import difflib
import json
import types
import typing
from pathlib import Path
from typing import Any, Literal

from sparseg.config.sections import Config


def to_dict(config: Any) -> dict[str, Any]:
    """Nested plain dict; `from_dict` reads it back."""
    return dataclasses.asdict(config)


def from_dict(values: dict[str, Any], cls: type = Config, *, where: str = "") -> Any:
    """The configuration with these fields, defaults elsewhere.

    Raises ValueError naming an unknown field (and its nearest name) or a value of the wrong type.
    """
    if not isinstance(values, dict):
        found = type(values).__name__
        raise ValueError(f"{where or 'the configuration'} must be an object with sections, got {found}")
    hints = typing.get_type_hints(cls)
    names = [field.name for field in dataclasses.fields(cls)]
    arguments = {}
    for name, value in values.items():
        dotted = f"{where}{name}"
        if name not in names:
            raise ValueError(f"unknown field {dotted!r}{_nearest(name, names)}")
        if dataclasses.is_dataclass(hints[name]):
            if not isinstance(value, dict):
                raise ValueError(f"{dotted} must be a section with fields, got {value!r}")
            arguments[name] = from_dict(value, typing.cast(type, hints[name]), where=f"{dotted}.")
        else:
            arguments[name] = _coerce(value, hints[name], dotted)
    return cls(**arguments)


def with_overrides(config: Config, overrides: dict[str, Any]) -> Config:
    """A copy with dotted fields replaced, e.g. ``{"loss.bandwidth": 0.5}``; all checks run again.

    Raises ValueError naming an unknown field and its nearest one, or a wrong value.
    """
    values = to_dict(config)
    known = [f"{section}.{name}" for section, fields in values.items() for name in fields]
    for dotted, value in overrides.items():
        if dotted not in known:
            raise ValueError(f"unknown field {dotted!r}{_nearest(dotted, known)}")
        section, name = dotted.split(".")
        values[section][name] = value
    return from_dict(values)


def load(path: str | Path) -> Config:
    """The configuration saved in a run's config.json.  Raises ValueError naming the file."""
    try:
        return from_dict(json.loads(Path(path).read_text()))
    except (OSError, json.JSONDecodeError, ValueError) as error:
        raise ValueError(f"--config {path}: {error}") from error


def _nearest(name: str, known: list[str]) -> str:
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return f"; did you mean {close[0]!r}?" if close else f"; known: {', '.join(known)}"


def _coerce(value: Any, hint: Any, dotted: str) -> Any:
    origin, options = typing.get_origin(hint), typing.get_args(hint)
    if origin is Literal:
        if value in options:
            return value
        raise ValueError(f"{dotted} must be one of {', '.join(map(str, options))}; got {value!r}")
    if origin in (types.UnionType, typing.Union):
        return (
            None if value is None else _coerce(value, next(o for o in options if o is not type(None)), dotted)
        )
    if origin is tuple and isinstance(value, list | tuple):
        return tuple(_coerce(item, options[0], dotted) for item in value)
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if hint is int and isinstance(value, float) and value.is_integer():
        return int(value)
    wanted = hint if origin is None else origin
    if not isinstance(value, wanted) or (isinstance(value, bool) and wanted is not bool):
        raise ValueError(f"{dotted} must be of type {getattr(hint, '__name__', hint)}, got {value!r}")
    return value
