"""A run at a working resolution predicts and is scored at the images' full size."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tiny
import torch
import torch.nn.functional as F
from PIL import Image

import sparseg
from sparseg import launch
from sparseg.config import with_overrides
from sparseg.data import shards
from sparseg.data.working_size import resized_image
from sparseg.evaluation.evaluate import evaluate
from sparseg.inference import full_size
from sparseg.inference.predict import predict_folder, predict_image
from sparseg.runs import checkpoint

pytestmark = pytest.mark.filterwarnings("ignore:model.weights=none")


@pytest.mark.parametrize(("height", "width"), [(96, 131), (700, 65), (64, 64)])
def test_strips_are_the_bilinear_enlargement(
    height: int, width: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    p_Khw = torch.rand(3, 40, 64, generator=torch.Generator().manual_seed(0))
    whole = F.interpolate(p_Khw[None], size=(height, width), mode="bilinear", align_corners=False)[0]
    for rows in (1, 17, 256):
        monkeypatch.setattr(full_size, "STRIP_ROWS", rows)
        found = torch.cat(list(full_size.enlarged_strips(p_Khw, (height, width))), 1)
        torch.testing.assert_close(found, whole, rtol=0, atol=1e-5)  # torch: float32 positions


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a run at a long side of 64 px, on images of 96 x 128, beside their dataset at full size."""
    folder = tmp_path_factory.mktemp("full_size")
    raw = folder / "raw"
    for number in range(4):
        image, label_HW, mask_HW = tiny.picture(number, (96, 128))
        split = "val" if number == 0 else "train"
        for name in ("images", "labels", "masks"):
            (raw / name / split).mkdir(parents=True, exist_ok=True)
        (raw / "images" / split / f"{number}.png").write_bytes(image)
        Image.fromarray(label_HW).save(raw / "labels" / split / f"{number}.png")
        Image.fromarray(mask_HW).save(raw / "masks" / split / f"{number}.png")
    (raw / "classes.txt").write_text("\n".join(tiny.NAMES))
    config = tiny.config(folder, {"data.root": str(raw), "data.long_side_px": 64, "optim.max_steps": 2})
    launch.launch(with_overrides(config, {"data.val_split": "val"}))
    sparseg.import_dataset("folder", raw, folder / "full", sparseg.ImportConfig(), workers=0)
    return config.folder


def test_masks_come_at_full_size_from_the_working_resolution(run: Path, tmp_path: Path) -> None:
    loaded = checkpoint.load_model(run)
    assert loaded.config.data.long_side_px == 64
    image_HW3 = np.asarray(Image.open(run.parents[1] / "raw" / "images" / "val" / "0.png"))
    small_hw3 = resized_image(image_HW3, (48, 64))
    p_Khw = torch.from_numpy(predict_image(loaded.model, small_hw3))
    expected = F.interpolate(p_Khw[None], size=(96, 128), mode="bilinear", align_corners=False)[0].numpy()
    found = predict_image(loaded.model, image_HW3, long_side_px=64)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)
    mask_HW, confidence_HW = sparseg.predict(loaded, image_HW3)
    assert np.array_equal(mask_HW, found.argmax(0)) and np.array_equal(confidence_HW, found.max(0))
    exif = Image.Exif()
    exif[0x0112] = 6  # stored lying on its side
    Image.fromarray(np.rot90(image_HW3)).save(tmp_path / "photo.png", exif=exif)
    predict_folder(run, tmp_path / "photo.png", tmp_path / "masks", probabilities=True)
    assert np.array_equal(np.asarray(Image.open(tmp_path / "masks" / "photo.png")), mask_HW)
    assert np.load(tmp_path / "masks" / "photo.npz")["probabilities"].shape == (3, 96, 128)


def test_scores_are_of_the_full_size(run: Path) -> None:
    loaded = checkpoint.load_model(run)
    full = run.parents[1] / "full"
    row = shards.open(full).splits["val"][0]
    truth_HW = shards.decode_label(row["label"]["bytes"])
    mask_HW, _ = sparseg.predict(loaded, shards.decode_image(row["image"]["bytes"]))
    valid = truth_HW < 3
    found = evaluate(run, full)
    assert np.array_equal(
        np.array(found["confusion"]),
        np.bincount(3 * truth_HW[valid].astype(int) + mask_HW[valid], minlength=9).reshape(3, 3),
    )
    (own,) = (run.parents[1] / "runs" / "datasets").iterdir()
    assert np.sum(evaluate(run, own)["confusion"]) < valid.sum() / 3


def test_a_run_on_the_imported_dataset_records_the_resolution(run: Path) -> None:
    (own,) = (run.parents[1] / "runs" / "datasets").iterdir()
    config = tiny.config(run.parents[1], {"data.root": str(own), "run.name": "again", "optim.max_steps": 1})
    launch.launch(config)
    assert checkpoint.load_model(config.folder).config.data.long_side_px == 64
    launch.launch(config)  # the same command, which names no resolution, is the same run
