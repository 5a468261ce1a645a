"""The `sparseg` command: import, sparsify, inspect, evaluate, predict, export, report, plan."""

from __future__ import annotations

import argparse

from sparseg.cli import data, network, outcome
from sparseg.common import process


def main(args: list[str] | None = None) -> None:
    """Run one subcommand.  Exits with 0 done, 1 failed, 2 wrong use."""
    parser = _OneLineParser(prog="sparseg", description="Sparse labels in, segmentation network out.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND", parser_class=_OneLineParser)
    for group in (data, network, outcome):
        group.add_commands(commands)
    options = parser.parse_args(args)
    raise SystemExit(process.guarded(lambda: options.action(options)))


class _OneLineParser(argparse.ArgumentParser):
    def error(self, message: str) -> None:  # type: ignore[override]
        self.exit(2, f"error: {message} (see {self.prog} --help)\n")
