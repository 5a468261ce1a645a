"""The public face: what `import sparseg` names, loads and documents."""

from __future__ import annotations

import ast
import doctest
import inspect
import json
import os
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
import torch
from PIL import Image

import sparseg

HEAVY = ("torch", "ray", "numpy", "datasets", "optuna")
FUNCTIONS = [name for name in sparseg.__all__ if name[0].islower()]
COMMAND = "from sparseg import cli; import contextlib\nwith contextlib.suppress(SystemExit): cli.main(%r)"


def loaded_by(code: str, folder: Path | None = None) -> list[str]:
    """Those of HEAVY that Python has loaded after `code`."""
    code += f"\nimport sys, json; print(json.dumps([name for name in {HEAVY!r} if name in sys.modules]))"
    paths = os.pathsep.join([str(tiny.ROOT / "platform"), str(tiny.ROOT / "tests" / "support")])
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code],
        capture_output=True,
        text=True,
        timeout=300,
        cwd=folder,
        env={**os.environ, "PYTHONPATH": paths},
    )
    assert done.returncode == 0, done.stderr
    found: list[str] = json.loads(done.stdout.splitlines()[-1])
    return found


@pytest.mark.parametrize(
    "code",
    [
        "import sparseg; print(sparseg.__all__, dir(sparseg), sparseg.__version__)",
        "import sparseg; sparseg.Config, sparseg.UNLABELLED",
        *(COMMAND % [words] for words in ("--help", "--version", "train")),
    ],
    ids=["import", "config", "--help", "--version", "train"],
)
def test_what_needs_no_torch_loads_none(code: str) -> None:
    assert loaded_by(code) == []


def test_a_run_in_this_process_loads_no_ray(tmp_path: Path) -> None:
    tiny.dataset(tmp_path)
    code = "import sparseg, tiny; from pathlib import Path\n"
    code += "sparseg.fit(tiny.config(Path.cwd(), {'optim.max_steps': 1, 'optim.batch_size': 2}))"
    assert not {"ray", "optuna"} & set(loaded_by(code, tmp_path))


# ----------------------------------------------------------------------------------------------------- names


def test_every_name_has_its_home() -> None:
    assert {*sparseg.__all__} == {*sparseg.HOME_OF, "__version__"}
    assert {*sparseg.__all__} <= {*dir(sparseg)}


@pytest.mark.parametrize("name", sorted(sparseg.HOME_OF))
def test_the_name_is_there(name: str) -> None:
    value = getattr(sparseg, name)
    if inspect.isfunction(value) or inspect.isclass(value):
        assert value.__name__ == name


def test_type_checkers_see_the_same_names() -> None:
    """The imports under TYPE_CHECKING are what __getattr__ does."""
    tree = ast.parse((tiny.ROOT / "platform" / "sparseg" / "__init__.py").read_text())
    blocks = [
        node for node in tree.body if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
    ]
    imports = [node for block in blocks for node in block.body if isinstance(node, ast.ImportFrom)]
    assert {alias.name: node.module for node in imports for alias in node.names} == sparseg.HOME_OF


def test_a_misspelt_name_is_no_attribute_and_packages_still_are() -> None:
    with pytest.raises(AttributeError, match="no attribute 'opendataset'"):
        sparseg.opendataset  # noqa: B018
    with pytest.raises(ImportError):
        from sparseg import opendataset  # noqa: F401
    from sparseg import launch

    assert callable(launch.main)


def test_the_version_has_one_source() -> None:
    project = tomllib.loads((tiny.ROOT / "pyproject.toml").read_text())
    assert "version" not in project["project"] and "version" in project["project"]["dynamic"]
    assert project["tool"]["setuptools"]["dynamic"]["version"] == {"attr": "sparseg.__version__"}
    assert f"\nversion: {sparseg.__version__}\n" in (tiny.ROOT / "CITATION.cff").read_text()


# ------------------------------------------------------------------------------------------ documentation


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the examples find: my_shards, runs/tiny after two steps, picture.png, raw images."""
    folder = tmp_path_factory.mktemp("examples")
    tiny.dataset(folder).rename(folder / "my_shards")
    overrides: dict[str, Any] = {"data.root": str(folder / "my_shards"), "optim.max_steps": 2}
    sparseg.fit(tiny.config(folder, overrides))
    Image.new("RGB", (48, 48), (200, 40, 40)).save(folder / "picture.png")
    for part in ("images", "labels", "masks"):
        for split in ("train", "val"):
            place = folder / "raw" / part / split
            place.mkdir(parents=True)
            array = np.zeros((48, 48), np.uint8)
            array[:8] = 1
            if part == "labels":
                array[8:] = sparseg.UNLABELLED
            Image.fromarray(array + ord(split[0]) * (part == "images")).save(place / "picture.png")
    (folder / "raw" / "classes.txt").write_text("ground\nsky\n")
    return folder


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_function_says_what_it_takes_gives_and_refuses(name: str) -> None:
    text = inspect.getdoc(getattr(sparseg, name)) or ""
    headings = [line for line in text.splitlines() if line in ("Args:", "Returns:", "Raises:", "Example:")]
    assert headings == ["Args:", "Returns:", "Raises:", "Example:"]
    assert text.splitlines()[0].endswith(".")


@pytest.mark.filterwarnings("ignore:model.weights=none")
@pytest.mark.parametrize("name", [*FUNCTIONS, "SparseLoss"])
def test_the_example_runs(name: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    names = {"sparseg": sparseg, "torch": torch, "np": np}
    finder = doctest.DocTestFinder(recurse=False)
    found = [test for test in finder.find(getattr(sparseg, name), name, globs=names) if test.examples]
    assert found, f"{name} has no example"
    told: list[str] = []
    result = doctest.DocTestRunner(verbose=False).run(found[0], out=told.append)
    assert result.failed == 0, "".join(told)


@pytest.mark.filterwarnings("ignore:model.weights=none")
def test_the_lines_at_the_head_of_the_package_run(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The package's docstring, with a small backbone, an image and labels."""
    monkeypatch.chdir(folder)
    text = inspect.getdoc(sparseg) or ""
    lines = [line.strip() for line in text.splitlines() if line.startswith("    ")]
    assert len(lines) == 6
    small = 'model=sparseg.ModelConfig(backbone="resnet10t", output_stride=16, aspp_dilations=(1,))'
    data = 'data=sparseg.DataConfig(root="my_shards", crop_px=32)'
    rest = (
        "optim=sparseg.OptimConfig(max_steps=1, batch_size=2), resources=sparseg.ResourcesConfig(workers=0)"
    )
    names: dict[str, Any] = {
        "sparseg": sparseg,
        "image": torch.randint(0, 256, (2, 3, 64, 64), dtype=torch.uint8),
        "label": torch.full((2, 64, 64), sparseg.UNLABELLED, dtype=torch.uint8),
        "present": torch.tensor([[True, True, False], [True, False, True]]),
    }
    names["label"][:, :2, :2], names["label"][0, 9, 9], names["label"][1, 9, 9] = 0, 1, 2
    for line in lines:
        line = line.replace("runs/folder", "runs/tiny").replace("resnet50d", "resnet10t")
        line = line.replace("sparseg.Config(...)", f"sparseg.Config({data}, {small}, {rest})")
        line = line.replace(", image)", ', "picture.png")') if "predict" in line else line
        exec(line, names)
    assert torch.isfinite(names["terms"]["total"])
    assert any(weight.grad is not None for weight in names["net"].parameters())
    assert names["mask"].shape == names["confidence"].shape == (48, 48)
    assert names["best"]["steps"] == 1


STRICT = """
import numpy as np
import torch
import sparseg

data = sparseg.open_dataset("my_shards")
report = sparseg.draw_labels(data, "few", kind="clicks", budget=1)
report = sparseg.import_dataset("auto", "raw", "out", sparseg.ImportConfig())
net = sparseg.build_model("resnet50d", num_classes=len(data.names))
loss = sparseg.SparseLoss("agmm", num_classes=len(data.names), feature_channels=256)
image = torch.zeros(1, 3, 64, 64)
label = torch.full((1, 64, 64), sparseg.UNLABELLED).where(image[:, 0] > 0, sparseg.IGNORED)
terms = loss(*net(image), label, torch.ones(1, 3, dtype=torch.bool), image=image)
terms["total"].backward()
mask, confidence = sparseg.predict(sparseg.load_model("runs/folder"), np.zeros((4, 4, 3), np.uint8))
shape: tuple[int, ...] = mask.shape
config = sparseg.Config(
    data=sparseg.DataConfig(root="my_shards"),
    model=sparseg.ModelConfig(),
    loss=sparseg.LossConfig(),
    optim=sparseg.OptimConfig(),
    resources=sparseg.ResourcesConfig(workers=0),
    run=sparseg.RunConfig(),
)
best = sparseg.fit(config)
print(best["miou"], sparseg.evaluate("runs/folder", data)["miou"], sparseg.__version__)
"""


@pytest.mark.slow
def test_a_strictly_typed_program_uses_all_names(tmp_path: Path) -> None:
    pytest.importorskip("mypy", reason="needs mypy")
    assert (tiny.ROOT / "platform" / "sparseg" / "py.typed").is_file()
    assert all(f"sparseg.{name}" in STRICT for name in sparseg.__all__)
    (tmp_path / "program.py").write_text(STRICT)
    (tmp_path / "wrong.py").write_text("import sparseg\nsparseg.opendataset\nsparseg.fit(config=3)\n")
    command = [
        sys.executable,
        "-m",
        "mypy",
        "--strict",
        "--follow-imports=silent",
        "--ignore-missing-imports",
    ]
    # the types of torch, half a minute of reading, are no mistake of ours or of the program's
    (tmp_path / "mypy.ini").write_text(
        "[mypy]\n[mypy-torch.*,timm.*,datasets.*,ray.*,numpy.*,pyarrow.*,PIL.*,optuna.*]\n"
        "follow_imports = skip\n"
    )
    command += ["--config-file=mypy.ini", f"--cache-dir={tiny.ROOT / '.mypy_cache' / 'strict'}"]
    environment = {**os.environ, "MYPYPATH": str(tiny.ROOT / "platform")}
    done = subprocess.run(
        [*command, "program.py", "wrong.py"], capture_output=True, text=True, cwd=tmp_path, env=environment
    )
    errors = [line for line in done.stdout.splitlines() if ": error: " in line]
    assert len(errors) == 2 and all(line.startswith("wrong.py:") for line in errors), (
        done.stdout + done.stderr
    )
    assert 'has no attribute "opendataset"' in errors[0] and "incompatible type" in errors[1]
