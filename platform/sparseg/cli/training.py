"""Commands that train: a recipe, or many runs of one that differ in a few fields.

They are the files of trainers/ and search_spaces/.  In a source checkout these lie beside platform/, in an
installed package inside of it (setup.py).
"""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Any

TRAIN_HELP = "a recipe (voc, demo, ..., or FILE.py) with any flags of its own; alone: which there are"
SWEEP_HELP = "many runs of a recipe, chosen by Optuna: --trainer NAME|FILE.py --space NAME|FILE.py"
USAGE = """usage: sparseg train RECIPE|FILE.py [flags of the recipe]

RECIPE is one of these; sparseg train RECIPE --help shows its flags.  FILE.py defines recipe(), which
returns a sparseg.Config.
"""
SWEEP_DESCRIPTION = """Many runs of a trainer that differ in a few fields, chosen by Optuna, run by Ray Tune.

    sparseg sweep --trainer camvid --space mixture --trials 40 --concurrent 2 --data.root CAMVID

The first trials are the space's POINTS and the recipe itself.  Every trial is an ordinary run in
STORAGE/SWEEP/trial_0000, ...; STORAGE/SWEEP/study.db is the Optuna study, results.json the outcome.  The same
command again goes on: finished trials are not repeated.
"""


def add_commands(commands: Any) -> None:
    """Add them to the parser, which only lists them: `train` and `sweep` read their words themselves."""
    commands.add_parser("train", help=TRAIN_HELP, add_help=False)
    commands.add_parser("sweep", help=SWEEP_HELP, add_help=False)


def trainers_folder() -> Path:
    """The folder of the recipes; the search spaces lie beside it."""
    package = Path(__file__).resolve().parents[1]
    shipped = package / "trainers"
    return shipped if shipped.is_dir() else package.parents[1] / "trainers"


def recipes() -> dict[str, str]:
    """Name -> first line of every recipe, read without running it."""
    files = sorted(path for path in trainers_folder().glob("*.py") if path.stem != "sweep")
    documented = {path.stem: ast.get_docstring(ast.parse(path.read_text())) or "" for path in files}
    return {name: text.partition("\n")[0] for name, text in documented.items()}


def train(words: list[str]) -> None:
    """`sparseg train WORDS`.  Raises ValueError if there is no such recipe."""
    if not words or words[0] in ("-h", "--help"):
        known = recipes()
        width = max(map(len, known), default=0)
        print(USAGE, *(f"  {name:<{width}}  {line}" for name, line in known.items()), sep="\n")
        return
    name, flags = words[0], words[1:]
    path = _recipe_file(name)
    from sparseg import launch
    from sparseg.config import trainer_file

    module = trainer_file.load_file(path)
    recipe, prog = trainer_file.recipe_of(path, module), f"sparseg train {name}"
    if hasattr(module, "command"):  # the demo's comparison
        module.command(flags, prog)
    description = (module.__doc__ or "").replace(f"python trainers/{path.name}", prog)
    launch.main(recipe, description=description, args=flags, prog=prog)


def _recipe_file(name: str) -> Path:
    path = Path(name) if name.endswith(".py") else trainers_folder() / f"{name}.py"
    if name.startswith("-"):
        raise ValueError(f"{name}: the recipe comes first: sparseg train RECIPE|FILE.py [flags]")
    if not path.is_file() or (path.stem == "sweep" and path.parent == trainers_folder()):
        missing = "no such file" if name.endswith(".py") else "no such recipe"
        raise ValueError(f"{name}: {missing}; give one of {', '.join(recipes())}, or a file's path (FILE.py)")
    return path


def sweep(words: list[str]) -> None:
    """`sparseg sweep WORDS`."""
    from sparseg.sweep import command

    command.main(trainers_folder(), words, description=SWEEP_DESCRIPTION, prog="sparseg sweep")
