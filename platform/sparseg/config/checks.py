"""How a value is refused: in one line, in terms of the flag that the user really has."""

from __future__ import annotations

import re
from collections.abc import Mapping

MARK = "\0"
"""Encloses a field in the message of a FieldError.  No path, argument or environment variable can hold it."""


def field(name: str) -> str:
    """A field of the configuration (`data.label`) as a message names it, alone or before `=` and its value.

    A trainer's user reads `data.label=tag`, one of `sparseg import` reads `--label=tag`.
    """
    return f"{MARK}{name}{MARK}"


def flag(name: str) -> str:
    """The flag of a field (`data.label_path`) as a message advises it, alone or before a space and a value.

    A trainer's user reads `--data.label-path`, one of `sparseg import` reads `--labels`.
    """
    return f"{MARK}--{name}{MARK}"


class FieldError(ValueError):
    """A wrong value, with a message that names fields of the configuration by `field` and `flag`.

    Its text speaks of a trainer's flags; a command whose flags are called otherwise prints what `told` gives.
    """

    def __init__(self, message: str) -> None:
        super().__init__(_as_a_trainer_calls_them(message))
        self.message = message
        """As it was given, to be part of another one."""

    def told(self, flags: Mapping[str, str]) -> str:
        """The message in the words of a command: `flags` has its flag or argument for each field's name.

        A field that the command has no flag for is called by its name in the configuration.
        """
        return _MARKED.sub(lambda found: flags.get(found[2], found[2]), self.message)


def _as_a_trainer_calls_them(message: str) -> str:
    return _MARKED.sub(lambda found: f"--{found[2].replace('_', '-')}" if found[1] else found[2], message)


_MARKED = re.compile(rf"{MARK}(--)?([a-z_.]+){MARK}")


def require(condition: bool, message: str) -> None:
    """Raise FieldError with the message, in which `field` and `flag` may name fields, unless it holds."""
    if not condition:
        raise FieldError(message)
