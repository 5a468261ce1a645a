"""`sparseg sparsify`: an imported dataset with dense masks -> one with sparse labels that says what it is."""

from __future__ import annotations

from pathlib import Path

import fixtures
import importing
import numpy as np
import pytest
from commands import run
from masks import check_drawn

from sparseg.config import UNLABELLED, DataConfig
from sparseg.data import importers, shards, sparsify


@pytest.fixture(scope="module")
def dense(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """CamVid's layout with four training and two validation images, imported with its dense masks."""
    folder = tmp_path_factory.mktemp("dense")
    importing.import_dataset("camvid", fixtures.camvid(folder / "raw"), folder / "set", label="full")
    return folder / "set"


@pytest.mark.parametrize(
    ("words", "label", "said"),
    [
        ("--kind point --budget 3", "clicks", "3 random pixels an image"),
        ("--kind clicks --budget 1 --seed 4", "clicks", "1 random pixels a class and image"),
        ("--kind instance --budget 0", "point", "one click (1 px) on all components"),
        ("--kind disc --budget 1", "point", "3x3 px at the innermost point of the 1 largest"),
        ("--kind scribble --budget 40 --width 1", "scribble", "scribbles 1 px wide over 40 %"),
        ("--kind block --budget 20", "block", "20 % of the annotated pixels, in blocks of a 10x10 grid"),
    ],
)
def test_every_kind(
    dense: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], words: str, label: str, said: str
) -> None:
    assert run(f"sparsify {dense} {tmp_path}/out {words}") == 0
    printed = capsys.readouterr().out
    assert said in printed and "labelled" in printed and "road" in printed
    source, made = shards.open(dense), shards.open(tmp_path / "out")
    report = made.report
    word = dict(zip(words.split()[::2], words.split()[1::2], strict=True))
    recipe = sparsify.Recipe(
        kind=word["--kind"],
        budget=int(word["--budget"]),
        seed=int(word.get("--seed", 0)),
        width_px=int(word["--width"]) if "--width" in word else None,
    )
    assert report["label"] == label and report["fingerprint"] != source.report["fingerprint"]
    assert report["drawn"] == {
        "kind": recipe.kind,
        "budget": recipe.budget,
        "seed": recipe.seed,
        "width_px": recipe.width,
    }
    pixels = np.zeros(11, np.int64)
    for old, new in zip(source.splits["train"], made.splits["train"], strict=True):
        mask, drawn = (
            shards.decode_label(row[column]["bytes"]) for row, column in ((old, "mask"), (new, "label"))
        )
        wanted, strokes = recipe.draw(mask, old["id"])
        np.testing.assert_array_equal(drawn, wanted)
        check_drawn(drawn, mask)
        assert new["strokes"] == strokes and bool(strokes) == (label == "scribble")
        assert new["image"] == old["image"] and new["mask"]["bytes"] == old["mask"]["bytes"]
        assert new["present"] == np.unique(drawn[drawn < UNLABELLED]).tolist()
        pixels += np.bincount(drawn[drawn < UNLABELLED], minlength=11)
    assert report["splits"]["train"]["pixels"] == pixels.tolist()
    assert made.splits["val"]["label"][:] == source.splits["val"]["label"][:]


def test_what_differs_has_another_fingerprint_and_what_exists_stays(
    dense: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    prints = []
    for n, words in enumerate(("scribble --budget 50", "scribble --budget 60", "block --budget 50")):
        for more in ("", " --seed 1"):
            assert run(f"sparsify {dense} {tmp_path}/{n}{len(more)} --kind {words}{more}") == 0
            prints.append(shards.open(tmp_path / f"{n}{len(more)}").report["fingerprint"])
    assert len(set(prints)) == 6
    capsys.readouterr()
    assert run(f"sparsify {dense} {tmp_path}/00 --kind block --budget 10") == 2
    assert "exists already" in capsys.readouterr().err
    assert shards.open(tmp_path / "00").report["fingerprint"] == prints[0]


def test_a_sparsified_dataset_trains_and_is_sparsified_again(dense: Path, tmp_path: Path) -> None:
    assert run(f"sparsify {dense} {tmp_path}/few --kind scribble --budget 50") == 0
    config = DataConfig(root=str(tmp_path / "few"), label="scribble")
    assert importers.prepare(config, tmp_path / "runs") == tmp_path / "few"
    assert run(f"sparsify {tmp_path}/few {tmp_path}/a --kind block --budget 30") == 0
    assert run(f"sparsify {dense} {tmp_path}/b --kind block --budget 30") == 0
    first, second = (shards.open(tmp_path / name).splits["train"]["label"][:] for name in "ab")
    assert first == second


@pytest.mark.parametrize(
    ("words", "named"),
    [
        ("--kind point --budget 0", "budget of point must be at least 1"),
        ("--kind block --budget 101", "budget of block must be in 1..100"),
        ("--kind scribble --budget 0", "budget of scribble must be in 1..100"),
        ("--kind scribble --budget 1.5", "invalid int value"),
        ("--kind clicks --budget 2 --width 3", "clicks has no width"),
        ("--kind scribble --budget 20 --width 0", "width must be in 1..99"),
        ("--kind lines --budget 2", "'lines'"),
        ("--kind point", "--budget"),
    ],
)
def test_wrong_budgets_are_one_line_and_code_2(
    dense: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], words: str, named: str
) -> None:
    assert run(f"sparsify {dense} {tmp_path}/out {words}") == 2
    error = capsys.readouterr().err.splitlines()
    assert len(error) == 1 and error[0].startswith("error: ") and named in error[0]
    assert list(tmp_path.iterdir()) == []


def test_without_masks_nothing_is_made(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = {split: lambda: iter([fixtures.row("a", fixtures.coded_label())]) for split in ("train", "val")}
    shards.write(tmp_path / "set", rows, ["a", "b", "c"], report={"label": "point"})
    assert run(f"sparsify {tmp_path}/set {tmp_path}/out --kind scribble --budget 50") == 2
    error = capsys.readouterr().err
    assert "row a has no dense mask" in error and len(error.splitlines()) == 1
    assert not (tmp_path / "out").exists()
    other = {split: rows["train"] for split in ("learn", "val")}
    shards.write(tmp_path / "other", other, ["a", "b", "c"], report={"label": "full"})
    assert run(f"sparsify {tmp_path}/other {tmp_path}/out --kind scribble --budget 50") == 2
    assert "no split 'train'; it has learn, val" in capsys.readouterr().err
