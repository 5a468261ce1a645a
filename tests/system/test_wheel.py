"""The wheel in an environment of its own, far from any checkout: it trains and sweeps there."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
import tempfile
import venv
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import tiny

import sparseg

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(importlib.util.find_spec("pip") is None, reason="needs pip"),
    pytest.mark.skipif(importlib.util.find_spec("setuptools") is None, reason="needs setuptools"),
]
BUILD = "import sys; from setuptools import build_meta; print(build_meta.build_wheel(sys.argv[1]))"
SMALL = ["--optim.max-steps", "2", "--optim.batch-size", "2", "--resources.workers", "0"]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from a copy, because a build leaves folders in its source tree."""
    source, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    for name in ("platform", "trainers", "search_spaces"):
        ignored = shutil.ignore_patterns("__pycache__", "*.egg-info")
        shutil.copytree(tiny.ROOT / name, source / name, ignore=ignored)
    for name in ("pyproject.toml", "setup.py", "MANIFEST.in", "README.md", "LICENSE"):
        shutil.copy(tiny.ROOT / name, source / name)
    done = subprocess.run(
        [sys.executable, "-c", BUILD, str(out)], cwd=source, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    return out / done.stdout.splitlines()[-1]


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """bin/ of an environment that has the wheel, and the dependencies of this one."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, symlinks=True)
    python = folder / "bin" / "python"
    pip = [
        sys.executable,
        "-m",
        "pip",
        "--python",
        str(python),
        "install",
        "--quiet",
        "--no-index",
        "--no-deps",
    ]
    subprocess.run([*pip, str(wheel)], check=True, timeout=300)
    # What a .pth file names is searched last, and its own .pth files (an editable sparseg) are not read.
    places = [path for path in sys.path if Path(path).name in ("site-packages", "dist-packages")]
    [site] = folder.glob("lib/python*/site-packages")
    (site / "dependencies.pth").write_text("\n".join(places))
    return folder / "bin"


@pytest.fixture
def environment() -> Iterator[dict[str, str]]:
    """Without PYTHONPATH, so that nothing but the wheel is sparseg; Ray's sockets need a short path."""
    with tempfile.TemporaryDirectory(prefix="ray-", dir="/tmp", ignore_cleanup_errors=True) as temporary:
        yield {
            **{
                name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "RAY_ADDRESS")
            },
            "RAY_TMPDIR": temporary,
            "OMP_NUM_THREADS": "1",
        }


def run(words: list[str | Path], folder: Path, environment: dict[str, str]) -> str:
    """Run a command in a folder -> what it prints."""
    done = subprocess.run(
        list(map(str, words)), cwd=folder, env=environment, capture_output=True, text=True, timeout=550
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_wheel_holds_the_package_the_recipes_and_the_spaces(wheel: Path) -> None:
    names = {name for name in zipfile.ZipFile(wheel).namelist() if name.startswith("sparseg/")}
    package = tiny.ROOT / "platform" / "sparseg"
    files = [path for path in package.rglob("*") if path.is_file() and "__pycache__" not in path.parts]
    wanted = {f"sparseg/{path.relative_to(package)}" for path in files}
    for part in ("trainers", "search_spaces"):
        wanted |= {f"sparseg/{part}/{path.name}" for path in (tiny.ROOT / part).glob("*.py")}
    assert names == wanted
    assert "sparseg/py.typed" in names and wheel.name.startswith(f"sparseg-{sparseg.__version__}-")


def test_it_trains_and_sweeps(installed: Path, tmp_path: Path, environment: dict[str, str]) -> None:
    command = installed / "sparseg"
    where = run(
        [installed / "python", "-c", "import sparseg; print(sparseg.__file__)"], tmp_path, environment
    )
    assert where.startswith(str(installed.parent))
    assert run([command, "--version"], tmp_path, environment) == f"sparseg {sparseg.__version__}\n"
    assert "PASCAL VOC 2012" in run([command, "train"], tmp_path, environment)
    told = run(
        [command, "train", "demo", "--max-steps", "2", "--methods", "ce", "--workers", "0"],
        tmp_path,
        environment,
    )
    assert "mIoU" in told and (tmp_path / "runs" / "demo" / "report.html").is_file()
    words = ["--trainer", "demo", "--space", "mixture", "--trials", "2", *SMALL]
    told = run([command, "sweep", *words], tmp_path, environment)
    found = json.loads((tmp_path / "runs" / "demo-mixture" / "results.json").read_text())
    assert [trial["state"] for trial in found["trials"]] == ["finished", "finished"]
    assert found["best"]["command"].startswith("sparseg train demo --optim.max-steps 2 ")
