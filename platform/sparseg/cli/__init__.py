"""The `sparseg` command: import, sparsify, inspect, train, sweep, evaluate, predict, export, report, plan."""

from __future__ import annotations

import argparse
import sys

from sparseg import __version__
from sparseg.cli import data, network, outcome, training
from sparseg.common import process


def main(args: list[str] | None = None) -> None:
    """Run one subcommand.  Exits with 0 done, 1 failed, 2 wrong use, 130 stopped."""
    words = sys.argv[1:] if args is None else args
    match words[:1]:  # their flags are those of the recipe, which the parser below cannot know
        case ["train"]:
            raise SystemExit(process.guarded(lambda: training.train(words[1:])))
        case ["sweep"]:
            raise SystemExit(process.guarded(lambda: training.sweep(words[1:])))
    parser = _OneLineParser(prog="sparseg", description="Sparse labels in, segmentation network out.")
    parser.add_argument("--version", action="version", version=f"sparseg {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND", parser_class=_OneLineParser)
    for group in (data, training, network, outcome):
        group.add_commands(commands)
    options = parser.parse_args(words)
    raise SystemExit(process.guarded(lambda: options.action(options)))


class _OneLineParser(argparse.ArgumentParser):
    def error(self, message: str) -> None:  # type: ignore[override]
        self.exit(2, f"error: {message} (see {self.prog} --help)\n")
