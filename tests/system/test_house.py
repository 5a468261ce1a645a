"""The house rules of the source tree, read from its syntax: imports, sizes, docstrings, label codes."""

from __future__ import annotations

import ast
import graphlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "platform" / "sparseg"

# Package of sparseg -> the packages that it may import: upward only.  A new package needs its line here.
ALLOWED: dict[str, set[str]] = {"__init__": set(), "common": set()}
ALLOWED["config"] = {"common"}
ALLOWED["data"] = {"common", "config"}
ALLOWED["network"] = {"common", "config"}
ALLOWED["losses"] = {"common", "config"}
ALLOWED["runs"] = {"common", "config", "data", "network", "losses"}
ALLOWED["inference"] = {"common", "config", "data", "network", "runs"}
ALLOWED["planning"] = {"common", "runs"}
ALLOWED["evaluation"] = {"common", "config", "data", "inference", "runs"}
ALLOWED["reports"] = {"common", "config", "data", "losses", "runs", "inference", "planning", "evaluation"}
ALLOWED["train"] = {"common", "config", "data", "network", "losses", "runs", "evaluation"}
ALLOWED["launch"] = {"common", "config", "data", "network", "losses", "runs", "train"}
ALLOWED["sweep"] = {"common", "config", "data", "runs", "planning", "launch"}
ALLOWED["cli"] = set(ALLOWED) - {"__init__"}
# The public names, when they are first used; nobody asks back for more than the version.
ALLOWED["__init__"] = {"config", "data", "network", "losses", "runs", "inference", "evaluation", "launch"}
TRAINERS_MAY_IMPORT = {"config", "launch", "sweep"}
DEMO_MAY_IMPORT = TRAINERS_MAY_IMPORT | {"common", "data", "inference", "reports", "runs"}
MAY_IMPORT_RAY = {"launch", "sweep"}
MAY_IMPORT_OPTUNA = {"sweep"}
MAX_AT_THE_FIRST_LEVEL = 16

MAX_FUNCTION_LINES = 60
LABEL_CODES = (254, 255)
TORCH_PROTOCOL = ("forward", "backward")  # what they compute is said by the class or the function around them


def sources(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*.py") if "__pycache__" not in path.parts)


def name_of(path: Path) -> str:
    """platform/sparseg/data/importers/rows.py -> data."""
    return path.relative_to(PACKAGE).with_suffix("").parts[0]


def imports(path: Path) -> Iterator[str]:
    """Dotted names that a file imports anywhere, inside functions and under TYPE_CHECKING too."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            module = node.module or ""
            if node.level:  # relative: `from . import x` in sparseg/, in a package of it, ...
                parts = path.relative_to(PACKAGE.parent).parts[: -node.level]
                module = ".".join([*parts, *filter(None, [module])])
            yield from (f"{module}.{alias.name}" for alias in node.names)


def sparseg_imports(path: Path) -> set[str]:
    names = {dotted.split(".")[1] for dotted in imports(path) if dotted.startswith("sparseg.")}
    return {name for name in names if not name.startswith("__")}  # sparseg.__version__ is no module


CHECKED = sources(PACKAGE) + sources(ROOT / "trainers")
each_file = pytest.mark.parametrize("path", CHECKED, ids=lambda path: str(path.relative_to(ROOT)))


# --------------------------------------------------------------------------------------------------- imports


def test_source_root_is_no_package() -> None:
    # With it, `import platform` finds this folder, not the standard library; torch and ray do not start.
    assert not (ROOT / "platform" / "__init__.py").exists()


def test_the_table_of_imports_is_acyclic_and_closed() -> None:
    assert set().union(*ALLOWED.values()) <= set(ALLOWED)
    graphlib.TopologicalSorter(ALLOWED).prepare()


def test_the_first_level_fits_on_a_screen() -> None:
    found = {name_of(path) for path in sources(PACKAGE)}
    assert found == set(ALLOWED) and len(found) <= MAX_AT_THE_FIRST_LEVEL


@pytest.mark.parametrize("path", sources(PACKAGE), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_run_upward(path: Path) -> None:
    name = name_of(path)
    assert name in ALLOWED, f"{name} is new: say in ALLOWED what it may import"
    assert sparseg_imports(path) - {name} <= ALLOWED[name]


def test_only_launch_and_sweep_know_ray() -> None:
    roots = {path: {dotted.split(".")[0] for dotted in imports(path)} for path in CHECKED}
    assert {name_of(path) for path in sources(PACKAGE) if "ray" in roots[path]} <= MAY_IMPORT_RAY
    assert {name_of(path) for path in sources(PACKAGE) if "optuna" in roots[path]} <= MAY_IMPORT_OPTUNA
    assert [path for path in sources(ROOT / "trainers") if roots[path] & {"ray", "optuna"}] == []


def test_trainers_are_recipes_on_top_of_launch() -> None:
    for path in sources(ROOT / "trainers"):
        allowed = DEMO_MAY_IMPORT if path.name == "demo.py" else TRAINERS_MAY_IMPORT
        assert sparseg_imports(path) <= allowed, path.name


def test_the_driver_of_a_run_loads_nothing_that_only_training_needs() -> None:
    """Nor does Ray's controller, which imports the same: seconds of each start would go into torch."""
    code = "import sys, sparseg.cli, sparseg.launch, sparseg.launch.ray_train; "
    code += "print([name for name in ('ray', 'optuna', 'torch', 'timm') if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)
    assert (done.returncode, done.stdout.strip()) == (0, "[]"), done.stderr


# ----------------------------------------------------------------------------------- functions, docstrings


@each_file
def test_functions_are_short(path: Path) -> None:
    functions = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.FunctionDef)]
    long = {
        f.name: f.end_lineno - f.lineno + 1
        for f in functions
        if f.end_lineno - f.lineno >= MAX_FUNCTION_LINES
    }
    assert long == {}


@each_file
def test_public_functions_and_classes_are_documented(path: Path) -> None:
    tree = ast.parse(path.read_text())
    classes = [node for node in tree.body if isinstance(node, ast.ClassDef) and node.name[0] != "_"]
    bodies = [tree.body, *(node.body for node in classes)]
    defined = [n for body in bodies for n in body if isinstance(n, ast.FunctionDef | ast.ClassDef)]
    public = [node for node in defined if not node.name.startswith("_") and node.name not in TORCH_PROTOCOL]
    assert [node.name for node in public if ast.get_docstring(node) is None] == []


# ----------------------------------------------------------------------------------------------- label codes


def label_code_lines(source: str) -> list[int]:
    """Lines with the integer 254 or 255 where it may stand for a label code.

    Other meanings are recognised by their place: a factor or divisor of pixel values (x / 255), a bound of
    clamp or clip, an entry of a colour (three or four numbers), the extremes of a channel (getextrema), what
    no byte exceeds (x > 255), the raw value that a conversion table translates (a dict's key). Everything
    else imports the codes from config.
    """
    tree = ast.parse(source)
    parents = {child: parent for parent in ast.walk(tree) for child in ast.iter_child_nodes(parent)}
    found = []
    for node in ast.walk(tree):
        if not (isinstance(node, ast.Constant) and type(node.value) is int and node.value in LABEL_CODES):
            continue
        parent = parents[node]
        scaled = isinstance(parent, ast.BinOp) and isinstance(parent.op, ast.Mult | ast.Div)
        colour = isinstance(parent, ast.Tuple | ast.List) and len(parent.elts) in (3, 4)
        call = parents.get(parent) if isinstance(parent, ast.keyword) else parent
        function = call.func if isinstance(call, ast.Call) else None
        called = getattr(function, "attr", getattr(function, "id", ""))
        raw = isinstance(parent, ast.Dict) and node in parent.keys
        above = isinstance(parent, ast.Compare) and isinstance(parent.ops[0], ast.Gt) and node.value == 255
        alpha = isinstance(parent, ast.Tuple) and "getextrema" in ast.unparse(parents[parent])
        if not (scaled or colour or raw or above or alpha or called in ("clamp", "clamp_", "clip")):
            found.append(node.lineno)
    return sorted(found)


def test_label_code_rule_tells_codes_from_pixel_values() -> None:
    meant = [
        "y = x / 255",
        "z = (255 * x).clamp(0, 255)",
        "w = x.clamp(min=0, max=255)",
        "red = (255, 0, 0)",
        "255.0",
    ]
    assert label_code_lines("\n".join(meant)) == []
    codes = ["a = label == 255", "label[mask] = 254", "pad(x, 255)", "pad(x, fill=255)", "CODES = (254, 255)"]
    codes += ["table = {0: 255}", "x in (254, 255)", "x > 254 or x >= 255"]
    assert label_code_lines("\n".join(codes)) == [1, 2, 3, 4, 5, 5, 6, 7, 7, 8, 8]


@each_file
def test_label_codes_are_written_in_config_only(path: Path) -> None:
    if path != PACKAGE / "config" / "labels.py":
        assert label_code_lines(path.read_text()) == []
