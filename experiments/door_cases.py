"""Does the door hold?  Run every case of a folder of awkward data sets, and show what became of each.

    python experiments/door_cases.py [FOLDER, default ../shared/cases] [--only 03 04b] [--full]

A case is a folder with a `case.md`, whose section `## Command` has one line: a command of sparseg, a trainer
or a script, with the words OUT for a folder to write to and RUN for a finished run.  Both are made in a
temporary folder, RUN once, of a few steps on drawn pictures.  Printed are the case, the exit code, and the
last line of standard error, else of the output; with --full all of both.  Commands run at the
repository's root.
"""

from __future__ import annotations

import argparse
import os
import re
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

ROOT = Path(__file__).resolve().parent.parent
SMALL = (
    "--resources.workers 0 --model.backbone mobilenetv2_035 --model.aspp-dilations 1 2 3 --model.separable "
    "--model.feature-channels 32 --data.crop-px 64 --optim.max-steps 2 --optim.batch-size 2 "
    "--data.loader-processes 0"
)
LIMIT_S = 600


def command_of(case: Path) -> str:
    """The line below `## Command`.  Raises ValueError if there is none."""
    found = re.search(r"^## Command\n+(.+)$", (case / "case.md").read_text(encoding="utf-8"), re.MULTILINE)
    if found is None:
        raise ValueError(f"{case / 'case.md'}: no line below '## Command'")
    return found[1]


def run(command: str, folder: Path, trained: Path) -> tuple[int, str, str]:
    """Run a command -> (exit code, standard output, standard error)."""
    words = shlex.split(command.replace("OUT", str(folder)))
    words = [str(trained) if word == "RUN" else word for word in words]
    programs = {"python": [sys.executable], "sparseg": [str(Path(sys.executable).parent / "sparseg")]}
    words = [*programs.get(words[0], words[:1]), *words[1:]]
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    environment = {**os.environ, "PATH": path, "OUT": str(folder), "PYTHONWARNINGS": "ignore"}
    done = subprocess.run(
        words, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=LIMIT_S, check=False
    )
    return done.returncode, done.stdout, done.stderr


def make_run(folder: Path) -> Path:
    """Train a few steps on drawn pictures -> the folder of the run.  Raises RuntimeError if that fails."""
    raw, rng = folder / "tiny", np.random.default_rng(0)
    for split in ("train", "val"):
        for number in range(2):
            mask_HW = np.zeros((64, 96), np.uint8)
            mask_HW[:, 32:64], mask_HW[:, 64:] = 1, 2
            noise_HW3 = rng.integers(0, 40, (*mask_HW.shape, 3))
            image_HW3 = (noise_HW3 + 90 * mask_HW[..., None]).astype(np.uint8)
            for kind, array in (("images", image_HW3), ("masks", mask_HW)):
                file = raw / kind / split / f"{number}.png"
                file.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(array).save(file)
    (raw / "classes.txt").write_text("ground\nsand\nrock\n")
    command = (
        f"python trainers/folder.py --data.root {raw} --data.label full --run.name tiny --run.storage OUT"
    )
    code, _, errors = run(f"{command} {SMALL}", folder, folder)
    if code:
        raise RuntimeError(f"the run for the cases of RUN was not made: {errors.strip()[-300:]}")
    return folder / "tiny"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", nargs="?", type=Path, default=ROOT / ".." / "shared" / "cases")
    parser.add_argument("--only", nargs="+", default=[""], help="beginnings of the names of cases")
    parser.add_argument("--full", action="store_true", help="print all that the commands print")
    options = parser.parse_args()
    cases = sorted(file.parent for file in options.folder.glob("*/case.md"))
    cases = [case for case in cases if case.name.startswith(tuple(options.only))]
    if not cases:
        print(f"skipped: no cases in {options.folder}")
        return
    place = os.path.relpath(options.folder.resolve(), ROOT)
    with tempfile.TemporaryDirectory() as scratch:
        trained: Path | None = None
        for case in cases:
            command = command_of(case).replace("../shared/cases", place)
            if trained is None and " RUN " in command:
                trained = make_run(Path(scratch))
            code, output, errors = run(command, Path(scratch), trained or Path(scratch))
            lines = (errors.strip() or output.strip()).splitlines() or [""]
            print(f"{case.name:<32} {code:>3}  {lines[-1]}", flush=True)
            if options.full:
                print(f"{output}\n{errors}", flush=True)


if __name__ == "__main__":
    main()
