"""The house rules of the source tree, read from its syntax: imports, sizes, docstrings, label codes."""

from __future__ import annotations

import ast
import graphlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "platform" / "sparseg"

# Module of sparseg -> the modules of sparseg that it may import. Data flows down this list; a package
# (importers) counts as one module. A new module needs its line here.
ALLOWED: dict[str, set[str]] = {
    "__init__": set(),
    "config": set(),
    "exits": set(),
    "flags": {"config"},
    "windows": set(),
    "schedule": {"config", "model"},
    "sparsify": {"config"},
    "shards": {"config"},
    "importers": {"config", "shards", "sparsify", "windows"},
    "scenery": {"config"},
    "synthetic": {"config", "shards", "sparsify", "scenery"},
    "colour": set(),
    "transforms": {"config", "shards", "colour"},
    "nodes": {"config", "shards"},
    "loader": {"config", "sparsify", "shards", "transforms", "nodes"},
    "mixture": {"config"},
    "decoder": {"config", "bilateral"},
    "vit": {"config", "decoder"},
    "model": {"config", "mixture", "decoder", "vit"},
    "pairwise": set(),
    "tree": {"pairwise"},
    "online_em": {"config", "mixture"},
    "agmm": {"config", "mixture", "online_em"},
    "losses": {"config", "mixture", "agmm", "pairwise", "tree"},
    "bilateral": set(),
    "checkpoint": {"config", "shards", "model"},
    "storage": {"config", "shards", "checkpoint"},
    "metrics": {"mixture"},
    "evaluate": {
        *("config", "shards", "transforms", "loader", "mixture", "metrics", "model", "checkpoint", "windows"),
    },
    "runlog": {"config", "mixture", "losses", "checkpoint", "pictures"},
    "saver": set(),
    "watchdog": set(),
    "progress": {
        *("config", "shards", "mixture", "model", "losses", "checkpoint", "storage", "runlog"),
        *("saver", "schedule"),
    },
    "train": {
        *(
            "config",
            "shards",
            "nodes",
            "loader",
            "mixture",
            "losses",
            "metrics",
            "evaluate",
            "runlog",
            "schedule",
        ),
        *("saver", "watchdog", "progress", "storage"),
    },
    "examination": {"shards", "loader", "metrics", "checkpoint", "evaluate"},
    "pictures": {"config"},
    "listing": {"pictures"},
    "predict": {"shards", "pictures", "listing", "checkpoint", "evaluate"},
    "tracing": set(),
    "export": {"config", "model", "checkpoint", "evaluate", "tracing"},
    "charts": set(),
    "records": {"checkpoint"},
    "findings": {"config", "shards", "checkpoint", "pictures", "predict", "charts"},
    "report": {"losses", "runlog", "records", "charts"},
    "contact_sheet": {"config", "shards", "pictures", "charts"},
    "budget": set(),
    "plan": {"budget", "charts", "records"},
    "sweep_page": {"charts", "plan"},
    "preparation": {
        *("config", "importers", "shards", "loader", "model", "checkpoint", "runlog", "storage", "schedule"),
    },
    "launch": {
        *("config", "flags", "exits", "nodes", "checkpoint", "saver", "storage", "train", "preparation"),
        *("head", "capacity"),
    },
    "head": set(),
    "capacity": set(),
    "sweep": {"config", "flags", "exits", "launch", "preparation", "plan", "records"},
    "cli": {
        "config",
        "importers",
        "sparsify",
        "shards",
        "checkpoint",
        "evaluate",
        "examination",
        "findings",
        "predict",
        "export",
        "report",
        "plan",
        "sweep_page",
        "contact_sheet",
        "launch",
        "exits",
    },
}
TRAINERS_MAY_IMPORT = {"config", "launch", "sweep"}
DEMO_MAY_IMPORT = TRAINERS_MAY_IMPORT | {
    "exits",
    "synthetic",
    "shards",
    "checkpoint",
    "evaluate",
    "pictures",
    "predict",
    "report",
}
MAY_IMPORT_RAY = {"launch", "sweep"}
MAY_IMPORT_OPTUNA = {"sweep"}

MAX_FILE_LINES = 300
MAX_CONFIG_LINES = 540  # declarations: a field, its documentation, its check
MAX_FUNCTION_LINES = 60
LABEL_CODES = (254, 255)
TORCH_PROTOCOL = ("forward", "backward")  # what they compute is said by the class or the function around them


def sources(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*.py") if "__pycache__" not in path.parts)


def name_of(path: Path) -> str:
    """platform/sparseg/importers/voc.py -> importers."""
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


@pytest.mark.parametrize("path", sources(PACKAGE), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_run_upward(path: Path) -> None:
    name = name_of(path)
    assert name in ALLOWED, f"{path.name} is new: say in ALLOWED what it may import"
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


@pytest.mark.parametrize("module", ["sparseg", "sparseg.train"])
def test_import_loads_no_ray(module: str) -> None:
    code = f"import sys, {module}; print([name for name in ('ray', 'optuna') if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)
    assert (done.returncode, done.stdout.strip()) == (0, "[]"), done.stderr


# -------------------------------------------------------------------------------------- sizes and docstrings


@each_file
def test_file_can_be_read_in_one_sitting(path: Path) -> None:
    limit = MAX_CONFIG_LINES if path == PACKAGE / "config" / "sections.py" else MAX_FILE_LINES
    assert len(path.read_text().splitlines()) <= limit


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
    if path != PACKAGE / "config" / "sections.py":
        assert label_code_lines(path.read_text()) == []
