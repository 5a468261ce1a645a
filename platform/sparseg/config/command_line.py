"""The command line of a trainer: every field of the configuration is a flag; errors are one line."""

from __future__ import annotations

import contextlib
import io
import re
import sys

import tyro

from sparseg.config import Config, load
from sparseg.config.short_help import short_help


def parse(
    recipe: Config, args: list[str] | None = None, *, description: str = "", prog: str | None = None
) -> tuple[Config, bool]:
    """Read the command line over a recipe (or over ``--config FILE``) -> (configuration, --dry-run given).

    prog: what the help calls the command (default: the script's name).
    --help shows the flags that most runs need, --help-all every field of the configuration.
    Raises SystemExit(2) after one line on stderr if a flag or a value is wrong.
    """
    arguments = list(sys.argv[1:] if args is None else args)
    try:
        config, dry_run = recipe, False
        rest: list[str] = []
        while arguments:
            flag, _, attached = (word := arguments.pop(0)).partition("=")
            if flag in ("--config", "--run.config"):
                if not attached and not arguments:
                    raise ValueError(f"{flag} needs the path of a config.json")
                config = load(attached or arguments.pop(0))
            elif word == "--dry-run":
                dry_run = True
            else:
                rest.append(word)
        if {"-h", "--help"} & set(rest):
            print(short_help(config, prog or sys.argv[0], description))
            raise SystemExit(0)
        rest = ["--help" if word == "--help-all" else word for word in rest]
        note = (
            "--config FILE starts from a saved config.json instead of the recipe; "
            "--dry-run prints the resolved run and stops."
        )
        stderr = io.StringIO()
        try:
            with contextlib.redirect_stderr(stderr):
                config = tyro.cli(
                    Config, prog=prog, default=config, args=rest, description=f"{description}\n\n{note}"
                )
            return config, dry_run
        except SystemExit as stop:
            if stop.code:
                raise ValueError(_tyro_message(stderr.getvalue())) from None
            raise
    except ValueError as error:
        sys.stderr.write(f"error: {error}\n")
        raise SystemExit(2) from None


def _tyro_message(boxed: str) -> str:
    """The message out of tyro's drawn box, in one line."""
    body = [re.sub(r"\x1b\[[0-9;]*m", "", line).strip("│| \n") for line in boxed.splitlines()[1:]]
    joined = " ".join("\n" if set(line) <= set("─-+╭╮╰╯") else line for line in body if line)
    parts = [re.sub(r"\s+", " ", part).strip() for part in joined.split("\n") if part.strip()]
    hint = re.search(r"(?:Perhaps you meant|Similar)[^:]*:\s*(--[\w.-]+)", " ".join(parts[1:]))
    return parts[0] + (f"; did you mean {hint.group(1)}?" if hint else "")
