"""Commands on what runs have left: report, plan."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any


def add_commands(commands: Any) -> None:
    """Add them to the parser."""
    add = commands.add_parser("report", help="runs, or a sweep -> one self-contained HTML page")
    add.add_argument("runs", nargs="+", help="runs, folders of runs, or one sweep")
    add.add_argument("--html", required=True, metavar="FILE")
    add.add_argument(
        "--dataset", help="imported shards: examine each run's best checkpoint, show confusion and images"
    )
    add.add_argument("--split", default="val", help="of --dataset (default: val)")
    add.add_argument("--images", type=int, default=3, metavar="N", help="worst and best shown (default: 3)")
    add.set_defaults(action=_report)

    add = commands.add_parser("plan", help="runs at several budgets -> how many labels a target needs")
    add.add_argument("runs", nargs="+", help="a sweep (search_spaces/label_sparsity.py), or runs")
    add.add_argument("--target-miou", type=float, metavar="SHARE", help="for example 0.65")
    add.add_argument(
        "--seconds-per-label",
        type=float,
        default=2.4,
        metavar="S",
        help="default 2.4, about what Bearman et al. (ECCV 2016) report for a click; a stroke takes about 10",
    )
    add.add_argument("--images", type=int, help="images to annotate (default: those of the runs)")
    add.add_argument("--html", metavar="FILE", help="write the curves as a page")
    add.set_defaults(action=_plan)


def _report(options: argparse.Namespace) -> None:
    from sparseg.common import files
    from sparseg.reports import run_page, sweep_page
    from sparseg.runs.records import runs_in

    if options.images < 0:
        raise ValueError(f"--images must be at least 0, got {options.images}")
    folders = [Path(run) for run in options.runs]
    if len(folders) == 1 and sweep_page.is_sweep(folders[0]):
        if options.dataset:
            raise ValueError(f"--dataset is for runs; {folders[0]} is a sweep, give one of its trials")
        files.write_atomically(Path(options.html), sweep_page.html_of(folders[0]))
    else:
        folders = [run for folder in folders for run in runs_in(folder)]
        found = [_findings(folder, options) for folder in folders] if options.dataset else []
        run_page.write_report(folders, Path(options.html), findings=found)
    print(f"wrote {options.html}")


def _findings(folder: Path, options: argparse.Namespace) -> str:
    from sparseg.evaluation import evaluate
    from sparseg.reports import evaluation_section
    from sparseg.runs import checkpoint

    folder = checkpoint.resolve(folder)
    found = evaluate.evaluate(folder, options.dataset, options.split)
    sheets = evaluation_section.sheets_of(
        folder, options.dataset, found, count=options.images, train_split="train"
    )
    return evaluation_section.html_of(found, sheets, evaluate.training_labels(folder))


def _plan(options: argparse.Namespace) -> None:
    from sparseg.common import files
    from sparseg.planning.annotation_plan import Cost, curves_of, text_of
    from sparseg.reports import plan_page

    target = options.target_miou
    if target is not None and not 0 < target < 1:
        raise ValueError(f"--target-miou must be between 0 and 1, got {target:g}")
    curves, images = curves_of([Path(run) for run in options.runs])
    cost = Cost(images if options.images is None else options.images, options.seconds_per_label)
    print(text_of(curves, target, cost))
    if options.html:
        files.write_atomically(Path(options.html), plan_page.html_of(curves, target, cost))
        print(f"wrote {options.html}", file=sys.stderr)
