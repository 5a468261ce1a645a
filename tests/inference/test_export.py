"""Exported programs against the network at any size, what files say of themselves, refusals, the Hub."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
import types
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors
import safetensors.torch
import timm
import tiny
import torch
import yaml
from exporting import (
    BACKBONES,
    MIOU,
    NAMES,
    PALETTE,
    STEP,
    TRACED_PX,
    expected,
    has_onnx,
    images,
    largest_difference,
    save,
    settings,
)
from torch import Tensor, nn

from sparseg import config
from sparseg.inference import export, timm_for_export, views
from sparseg.runs import checkpoint

BEST = {"step": STEP, "miou": MIOU, "iou": {"sky": 0.75, "road": 0.5, "a|b": None}}
ENVIRONMENT = {
    "python": "3.11.7",
    "packages": {"torch": "2.15.0", "ray": None},
    "labels": {"images": 4, "pixels": 90},
}
NAMED = {"safetensors": "x.safetensors", "torch-export": "x.pt2", "onnx": "x.onnx", "hub": "x"}


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "tiny"
    checkpoint.mark_best(folder, save(folder, settings()))
    (folder / "iou.json").write_text(json.dumps(BEST))
    (folder / "environment.json").write_text(json.dumps(ENVIRONMENT))
    return folder


def listing(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


# --------------------------------------------------------------------------------------------------- programs


@pytest.fixture
def programs(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What export loads to try it, because loading takes longer than all else."""
    load, loaded = torch.export.load, []
    monkeypatch.setattr(torch.export, "load", lambda file: loaded.append(load(file)) or loaded[-1])
    return loaded


@pytest.mark.parametrize("backbone", BACKBONES)
def test_torch_export_gives_the_networks_probabilities_at_any_size(
    tmp_path: Path, programs: list[Any], backbone: str
) -> None:
    saved = save(tmp_path / "run", settings(**{"model.backbone": backbone}))
    export.export(saved, tmp_path / "x.pt2", to="torch-export", size_px=TRACED_PX)
    program = programs[0].module()
    assert largest_difference(checkpoint.load_model(saved).model, program) < 1e-4
    assert torch.equal(program(images((65, 91), 2)), program(images((65, 91), 2).float()))
    assert not any("device" in node.kwargs for node in programs[0].graph.nodes)  # goes where it is put


def test_torch_export_loads_without_sparseg_says_what_it_is_and_has_no_size_built_in(
    tmp_path: Path, run_folder: Path, programs: list[Any], capfd: pytest.CaptureFixture[str]
) -> None:
    with warnings.catch_warnings(action="error", category=UserWarning):  # torch's, of how weights lie
        out = export.export(run_folder, tmp_path / "x.pt2", to="torch-export", size_px=(40, 40))
    told = capfd.readouterr()
    assert largest_difference(checkpoint.load_model(run_folder).model, programs[0].module()) < 1e-5
    assert told.out == "" and told.err.count("\n") == 1 and "torch-export: probabilities differ" in told.err
    image = images((70, 33), 2)
    torch.save((image, expected(checkpoint.load_model(run_folder).model, image)), tmp_path / "wanted.pt")
    code = """if True:
        import json, sys
        sys.modules.update(sparseg=None, timm=None)
        import torch
        image, wanted = torch.load("wanted.pt")
        extra = {"metadata.json": ""}
        found = torch.export.load("x.pt2", extra_files=extra).module()(image)
        assert not found.requires_grad and (found - wanted).abs().max() < 1e-5
        print(extra["metadata.json"])"""
    run = [sys.executable, "-c", code]
    done = subprocess.run(run, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert config.from_dict(said["config"]) == settings()
    assert (said["classes"], said["palette"]) == (NAMES, [list(colour) for colour in PALETTE])
    assert (said["step"], said["miou"], said["commit"]) == (str(STEP), MIOU, checkpoint.commit())
    assert str(tiny.ROOT).encode() not in out.read_bytes()  # stack traces tell of this machine


@has_onnx
def test_onnx_gives_the_networks_probabilities_and_says_what_it_is(
    tmp_path: Path, run_folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    import onnx
    import onnxruntime

    out = export.export(run_folder, tmp_path / "x.onnx", to="onnx", size_px=TRACED_PX)
    told = capfd.readouterr()
    assert told.out == "" and told.err.count("\n") == 1 and "onnx: probabilities differ" in told.err
    assert os.listdir(tmp_path) == ["x.onnx"]  # weights inside
    session = onnxruntime.InferenceSession(out, providers=["CPUExecutionProvider"])
    (given,), (taken,) = session.get_inputs(), session.get_outputs()
    assert (given.name, given.type, given.shape) == (
        "image",
        "tensor(uint8)",
        ["batch", 3, "height", "width"],
    )
    assert (taken.name, taken.type) == ("probabilities", "tensor(float)")
    assert taken.shape == ["batch", len(NAMES), "height", "width"]
    loaded = checkpoint.load_model(run_folder)

    def run(image: Tensor) -> Tensor:
        return torch.from_numpy(session.run(None, {"image": image.numpy()})[0])

    assert largest_difference(loaded.model, run) < 1e-5
    onnx.checker.check_model(out, full_check=True)
    stored = onnx.load(out)
    assert {entry.key: entry.value for entry in stored.metadata_props} == loaded.metadata
    assert not any(node.metadata_props for node in stored.graph.node)
    assert str(tiny.ROOT).encode() not in out.read_bytes()


@pytest.mark.parametrize("stride", [1, 2, 4])
@pytest.mark.parametrize("kernel", [1, 2, 3, 5])
@pytest.mark.parametrize("dilation", [1, 2])
def test_whole_numbers_pad_as_timm_does(kernel: int, stride: int, dilation: int) -> None:
    for length in range(1, 40):
        wanted = timm.layers.padding.get_same_padding(length, kernel, stride, dilation)
        assert timm_for_export.same_padding(length, kernel, stride, dilation) == wanted


def test_timms_functions_come_back_whatever_happens() -> None:
    padding = timm.layers.padding
    former = padding.get_same_padding
    with pytest.raises(KeyError), timm_for_export.whole_numbers():
        assert padding.get_same_padding is timm_for_export.same_padding
        raise KeyError
    assert padding.get_same_padding is former


def test_a_timm_that_lacks_a_function_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """An export that silently replaces what nobody calls would fail later, or be wrong."""
    monkeypatch.delattr(timm.layers.padding, "get_same_padding")
    words = rf"timm {timm.__version__} has no timm\.layers\.padding\.get_same_padding"
    with pytest.raises(RuntimeError, match=words), timm_for_export.whole_numbers():
        pass
    assert not hasattr(timm.layers.padding, "get_same_padding")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda p_BKHW: p_BKHW + 2e-3, r"differs from the network by 2\.0e-03, 1e-03 is allowed$"),
        (lambda p_BKHW: p_BKHW * torch.nan, "differs from the network by nan, 1e-03 is allowed$"),
        (lambda p_BKHW: p_BKHW.reshape(1), r"fails on an image \(1, 3, 48, 70\): shape .* is invalid"),
    ],
    ids=["other values", "no numbers", "error"],
)
def test_a_program_that_does_otherwise_is_not_left(
    tmp_path: Path, run_folder: Path, monkeypatch: pytest.MonkeyPatch, change: Any, words: str
) -> None:
    whole = export.WholeImage(checkpoint.load_model(run_folder).model)
    program = types.SimpleNamespace(module=lambda: lambda image: change(whole(image)))
    monkeypatch.setattr(export, "_traced", lambda *_: program)
    monkeypatch.setattr(torch.export, "save", lambda program, file, **_: file.write_bytes(b"program"))
    monkeypatch.setattr(torch.export, "load", lambda file: program)
    with pytest.raises(RuntimeError, match=words):
        export.export(run_folder, tmp_path / "x.pt2", to="torch-export", size_px=(48, 70))
    assert os.listdir(tmp_path) == []


def test_what_torch_cannot_trace_is_one_line(
    tmp_path: Path, run_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def depends_on_values(of: nn.Module, image_B3HW: Tensor) -> Tensor:
        return image_B3HW if image_B3HW.sum() > 5 else -image_B3HW

    monkeypatch.setattr(views, "class_probabilities", depends_on_values)
    with pytest.raises(RuntimeError, match=r"^torch\.export cannot trace test_efficientnet: .+$") as failure:
        export.export(run_folder, tmp_path / "x.pt2", to="torch-export", size_px=(48, 70))
    assert "\n" not in str(failure.value) and os.listdir(tmp_path) == []


# --------------------------------------------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("out", "options", "words"),
    [
        (
            "x",
            {"to": "tflite"},
            r"--to tflite: no such format; allowed: safetensors, torch-export, onnx, hub",
        ),
        ("x.onnx", {}, r"x\.onnx: named as what --to onnx writes, but --to is safetensors; add --to onnx"),
        ("file", {}, r"file exists; give another name"),
        ("folder", {"to": "hub"}, r"folder exists; give another name"),
        ("link", {}, r"link exists; give another name"),
        ("no/x", {}, r"there is no folder .*/no; make it"),
        ("x.bin", {"to": "torch-export"}, r"x\.bin: .* ends in \.pt2"),
        ("x.pt2", {"to": "torch-export", "size_px": (64, 1)}, r"--size .* at least 2 pixels, got \(64, 1\)"),
        ("x.pt2", {"to": "torch-export", "size_px": (64,)}, r"--size needs a height and a width"),
        ("x", {"push_to": "me/net"}, r"--push-to needs --to hub .* got --to safetensors"),
        ("x", {"to": "hub", "push_to": "net"}, r"--push-to needs .* like user/name, got --to hub and 'net'"),
    ],
)
def test_wrong_use_is_refused_before_anything_is_written(
    tmp_path: Path, run_folder: Path, out: str, options: dict[str, Any], words: str
) -> None:
    (tmp_path / "file").write_text("mine")
    (tmp_path / "folder").mkdir()
    (tmp_path / "link").symlink_to("nowhere")
    before = listing(tmp_path)
    with pytest.raises(ValueError, match=words) as refusal:
        export.export(run_folder, tmp_path / out, **options)
    assert "\n" not in str(refusal.value)
    assert listing(tmp_path) == before and (tmp_path / "file").read_text() == "mine"


def test_a_missing_package_is_named_with_the_remedy(
    tmp_path: Path, run_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "onnxscript" else find("json")
    )
    with pytest.raises(ValueError, match=r"needs onnxscript, not installed: pip install 'sparseg\[onnx\]'$"):
        export.export(run_folder, tmp_path / "x.onnx", to="onnx")
    assert os.listdir(tmp_path) == []


def truncate(file: Path) -> None:
    os.truncate(file, 1000)


def alter(file: Path) -> None:
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)


def replace_by_foreign(file: Path) -> None:
    file.with_name("manifest.json").unlink()
    safetensors.torch.save_file({"weight": torch.zeros(2)}, file)


@pytest.mark.parametrize("to", export.FORMATS)
@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (truncate, "model.safetensors: is truncated"),
        (alter, "model.safetensors: was altered"),
        (replace_by_foreign, "not a sparseg checkpoint"),
        (Path.unlink, "neither a checkpoint"),
    ],
    ids=["truncated", "altered", "foreign", "none"],
)
def test_damaged_and_foreign_checkpoints_are_refused(
    tmp_path: Path, run_folder: Path, damage: Callable[[Path], None], words: str, to: str
) -> None:
    if to == "onnx" and has_onnx.args[0]:
        pytest.skip(has_onnx.kwargs["reason"])
    copy = shutil.copytree(checkpoint.resolve(run_folder), tmp_path / "copy")
    damage(copy / "model.safetensors")
    before = listing(tmp_path)
    with pytest.raises(ValueError, match=words) as refusal:
        export.export(copy, tmp_path / NAMED[to], to=to)
    assert "\n" not in str(refusal.value) and listing(tmp_path) == before


@pytest.mark.parametrize(
    "error", [OSError("disk full"), KeyboardInterrupt("stop")], ids=["error", "interrupt"]
)
@pytest.mark.parametrize(
    ("to", "place", "name"),
    [
        ("safetensors", shutil, "copyfile"),
        ("torch-export", torch.export, "save"),
        ("hub", export, "model_card"),
    ],
)
def test_a_failure_in_the_middle_leaves_nothing(
    tmp_path: Path,
    run_folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    to: str,
    place: Any,
    name: str,
    error: BaseException,
) -> None:
    reached = []

    def fail(*arguments: Any, **_: Any) -> None:
        reached.append(listing(tmp_path))
        if name != "model_card":
            Path(arguments[1]).write_bytes(b"half")
        raise error

    monkeypatch.setattr(export, "_traced", lambda *_: None)
    monkeypatch.setattr(place, name, fail)
    with pytest.raises((type(error), RuntimeError), match=str(error)):
        export.export(run_folder, tmp_path / NAMED[to], to=to, size_px=(40, 40))
    assert len(reached) == 1 and len(reached[0]) >= 1  # it had begun to write
    assert listing(tmp_path) == []


# -------------------------------------------------------------------------------------------------- the files


@pytest.mark.parametrize("alone", [False, True], ids=["run", "weights alone"])
def test_safetensors_is_a_copy(tmp_path: Path, run_folder: Path, alone: bool) -> None:
    source = checkpoint.resolve(run_folder) / "model.safetensors"
    given = run_folder
    if alone:
        given = tmp_path / "moved"
        given.mkdir()
        shutil.copy(source, given)
    out = export.export(given, tmp_path / "x.safetensors")
    assert out.read_bytes() == source.read_bytes()


def card_of(folder: Path) -> tuple[dict[str, Any], str]:
    _, front, text = (folder / "README.md").read_text().split("---\n", 2)
    return yaml.safe_load(front), text


def test_hub_folder_predicts_and_its_card_tells_the_run(tmp_path: Path, run_folder: Path) -> None:
    out = export.export(run_folder, tmp_path / "net", to="hub")
    assert listing(out) == ["README.md", "config.json", "model.safetensors"]
    image = images((65, 70), 2)
    wanted = expected(checkpoint.load_model(run_folder).model, image)
    assert torch.equal(expected(checkpoint.load_model(out).model, image), wanted)
    said = json.loads((out / "config.json").read_text())
    classes, palette = said.pop("classes"), said.pop("palette")
    assert (classes, palette) == (NAMES, [list(colour) for colour in PALETTE])
    assert config.from_dict(said) == settings()
    front, text = card_of(out)
    assert (front["library_name"], front["pipeline_tag"]) == ("sparseg", "image-segmentation")
    assert {"image-segmentation", "sparse-annotation", "clicks"} <= set(front["tags"])
    assert "base_model" not in front  # random weights
    for words in (
        "# tiny\n",
        "method: `ce`",
        "labels: `clicks`; 20 pixels drawn in every image, 0.5 of the labels kept, 4 images with 11.25 ",
        "backbone: `test_efficientnet`, output stride 16, started from random weights",
        "training: 7 steps of 64 crops, 321 px a side",
        "mIoU: 62.5 % on split `val`",
        f"made with: commit {checkpoint.commit()}, Python 3.11.7, torch 2.15.0\n",
        "| 0 | sky | #0000ff | 75.0 % |\n| 1 | road | #804000 | 50.0 % |\n| 2 | a/b | #010203 | unknown |\n",
        "sparseg predict FOLDER 'images/*.jpg' out",
        "must not be trusted for",
    ):
        assert words in text


def test_the_hub_folder_can_be_exported_again(tmp_path: Path, run_folder: Path) -> None:
    first = export.export(run_folder, tmp_path / "net", to="hub")
    again = export.export(first, tmp_path / "again", to="hub")
    assert (again / "model.safetensors").read_bytes() == (first / "model.safetensors").read_bytes()
    assert "| sky | #0000ff | unknown |" in card_of(again)[1]  # the run's files are not there


@pytest.mark.parametrize("other", [{"step": STEP + 1}, {"miou": 0.7}])
def test_scores_of_another_checkpoint_are_not_told(tmp_path: Path, other: dict[str, Any]) -> None:
    saved = save(tmp_path / "run", settings())
    (tmp_path / "run" / "iou.json").write_text(json.dumps(BEST | other))
    text = card_of(export.export(saved, tmp_path / "net", to="hub"))[1]
    assert "mIoU: 62.5 %" in text and "| sky | #0000ff | unknown |" in text and "75.0" not in text


def test_what_is_unknown_is_called_unknown(tmp_path: Path) -> None:
    plain = {"data.random_pixels": 0, "data.keep_labels": 1.0}
    saved = save(tmp_path / "run", settings(**plain), miou=None)
    text = card_of(export.export(saved, tmp_path / "net", to="hub"))[1]
    assert "mIoU: unknown on split" in text and "labels: `clicks`; their number is unknown" in text


def test_a_damaged_file_of_the_run_is_named(tmp_path: Path) -> None:
    saved = save(tmp_path / "run", settings())
    (tmp_path / "run" / "iou.json").write_text('{"miou": 0.6')
    with pytest.raises(ValueError, match=r"run/iou\.json: damaged .*; remove it"):
        export.export(saved, tmp_path / "net", to="hub")
    assert os.listdir(tmp_path) == ["run"]


@pytest.mark.parametrize(
    ("weights", "base_model", "words"),
    [
        ("timm", "timm/test_efficientnet.r160_in1k", "started from timm's weights"),
        (
            "some/test_efficientnet.r160_in1k.pth",
            "timm/test_efficientnet.r160_in1k",
            "`test_efficientnet.r160",
        ),
        ("mine.pth", "timm/test_efficientnet", "started from `mine.pth`"),
    ],
)
def test_the_card_names_what_the_training_started_from(
    run_folder: Path, weights: str, base_model: str, words: str
) -> None:
    loaded = checkpoint.load_model(run_folder)
    started = config.with_overrides(loaded.config, {"model.weights": weights})
    card = export.model_card(checkpoint.dataclasses.replace(loaded, config=started), {}, {})
    assert yaml.safe_load(card.split("---\n")[1])["base_model"] == base_model and words in card


# --------------------------------------------------------------------------------------------- the Hub itself


class Hub:
    """In place of HfApi: notes what is called, fails where it is told to."""

    def __init__(self, out: Path, failing: str = "") -> None:
        self.out, self.failing = out, failing
        self.calls: list[Any] = []

    def note(self, name: str, *arguments: Any) -> None:
        self.calls.append((name, *arguments))
        if name == self.failing:
            raise OSError("401 Unauthorized\nfor url")

    def create_repo(self, repo_id: str, *, exist_ok: bool) -> None:
        self.note("create_repo", repo_id, exist_ok)

    def upload_folder(self, *, repo_id: str, folder_path: Path) -> None:
        assert folder_path == self.out
        self.note("upload_folder", repo_id, listing(folder_path))


def test_only_push_to_uploads_and_only_what_is_whole(
    tmp_path: Path, run_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub = Hub(tmp_path / "net")
    monkeypatch.setattr("huggingface_hub.HfApi", lambda: hub)
    export.export(run_folder, tmp_path / "unsent", to="hub")
    export.export(run_folder, tmp_path / "x.safetensors")
    assert hub.calls == []
    export.export(run_folder, tmp_path / "net", to="hub", push_to="me/net-1.0")
    assert hub.calls == [
        ("create_repo", "me/net-1.0", True),
        ("upload_folder", "me/net-1.0", ["README.md", "config.json", "model.safetensors"]),
    ]


@pytest.mark.parametrize("failing", ["create_repo", "upload_folder"])
def test_after_a_failed_upload_the_folder_is_there_and_the_remedy_is_said(
    tmp_path: Path, run_folder: Path, monkeypatch: pytest.MonkeyPatch, failing: str
) -> None:
    monkeypatch.setattr("huggingface_hub.HfApi", lambda: Hub(tmp_path / "net", failing))
    words = r"^--push-to failed; .*/net is there, `hf upload me/net .*/net` sends it: 401 .* url$"
    with pytest.raises(RuntimeError, match=words):
        export.export(run_folder, tmp_path / "net", to="hub", push_to="me/net")
    assert listing(tmp_path / "net") == ["README.md", "config.json", "model.safetensors"]
