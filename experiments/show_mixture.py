"""What G says beside P and the truth, class by class, through training: one picture.

    python trainers/camvid_small.py ... --run.keep 99 --run.checkpoint-every 50
    PYTHONPATH=platform python experiments/show_mixture.py RUN DATASET OUT.png [--images 2 --classes 5]

Rows are training images and their labelled classes, columns the truth and, for the first, a middle and the
last checkpoint, P and G.  Printed are the means of both inside and outside the true pixels of a class.  G is
computed as in a training step: whole image, its own clicks, no augmentation.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch

from sparseg.config import UNLABELLED
from sparseg.data import drawing, shards
from sparseg.losses import LossInputs, agmm, mixture
from sparseg.reports import dataset_page
from sparseg.runs import checkpoint

SCALE = np.array([[12, 8, 38], [84, 22, 108], [180, 54, 84], [244, 132, 40], [252, 250, 190]], float)


def heat(value_HW: np.ndarray) -> np.ndarray:
    """0..1 -> colours from black to pale yellow, (H, W, 3) uint8."""
    at = np.linspace(0, 1, len(SCALE))
    return np.stack([np.interp(value_HW, at, SCALE[:, c]) for c in range(3)], -1).round().astype(np.uint8)


@torch.inference_mode()
def p_and_g(
    loaded: checkpoint.Loaded, image_HW3: np.ndarray, label_HW: np.ndarray
) -> tuple[np.ndarray, dict[int, np.ndarray]]:
    """P (K, H, W) and G (H, W) of every labelled class."""
    label_1HW = torch.from_numpy(label_HW.copy())[None]
    feature_1Dhw, logits_1Khw = loaded.model(torch.from_numpy(image_HW3.copy())[None].permute(0, 3, 1, 2))
    size = label_HW.shape
    logits_1KHW = torch.nn.functional.interpolate(logits_1Khw, size=size, mode="bilinear")
    p_1KHW = logits_1KHW.softmax(1)
    present_1K = mixture.crop_classes(label_1HW, len(loaded.names))
    slots = mixture.slots_of(present_1K)
    labelled_1SHW = (label_1HW[:, None] == slots.class_BS[:, :, None, None]).float()
    mean_1SD = mixture.class_means(feature_1Dhw, labelled_1SHW)
    one = feature_1Dhw.new_ones(())
    inputs = LossInputs(feature_1Dhw, logits_1Khw, label_1HW, present_1K, one, one)
    g_1SHW = agmm.class_similarity(inputs, mean_1SD, p_1KHW, slots, loaded.config.loss)
    classes = slots.class_BS[0].tolist()
    return p_1KHW[0].numpy(), {k: g_1SHW[0, s].numpy() for s, k in enumerate(classes)}


def contrast(data: shards.ShardedDataset, loaded: checkpoint.Loaded, count: int) -> list[float]:
    """Mean P inside and outside the pixels of a class, then of G, over the labelled classes of `count`
    images."""
    split, rows = data.splits["train"], []
    for row in range(0, len(split), max(len(split) // count, 1)):
        record = split[row]
        image_HW3 = shards.decode_image(record["image"]["bytes"])
        label_HW, mask_HW = (shards.decode_label(record[name]["bytes"]) for name in ("label", "mask"))
        p_KHW, g_of = p_and_g(loaded, image_HW3, label_HW)
        for k, g_HW in g_of.items():
            inside, outside = mask_HW == k, (mask_HW != k) & (mask_HW < UNLABELLED)
            if inside.any() and outside.any():
                rows.append([float(v[where].mean()) for v in (p_KHW[k], g_HW) for where in (inside, outside)])
    return np.array(rows).mean(0).tolist()


def main() -> None:
    """Write the picture, print the means."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("dataset", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--images", type=int, default=2)
    parser.add_argument("--classes", type=int, default=5, help="most classes of an image, the largest first")
    parser.add_argument("--means", type=int, default=20, help="images for the printed means")
    options = parser.parse_args()
    found = checkpoint.all_of(options.run)
    chosen = [found[0], found[len(found) // 2], found[-1]]
    data = shards.open(options.dataset)
    rows = dataset_page.choose_rows(data.splits["train"]["present"], options.images)
    columns: dict[str, list[np.ndarray]] = {"image, clicks": [], "truth": []}
    for row in rows:
        record = data.splits["train"][row]
        image_HW3 = shards.decode_image(record["image"]["bytes"])
        label_HW, mask_HW = (shards.decode_label(record[name]["bytes"]) for name in ("label", "mask"))
        labelled = np.unique(label_HW[label_HW < UNLABELLED])
        largest = sorted(labelled, key=lambda k: -int((mask_HW == k).sum()))[: options.classes]
        for k in largest:
            own_HW = np.where(label_HW == k, label_HW, UNLABELLED).astype(np.uint8)
            columns["image, clicks"].append(drawing.draw_clicks(image_HW3, own_HW, data.palette, zoom=2))
            columns["truth"].append(heat((mask_HW == k).astype(float)))
        for path in chosen:
            loaded = checkpoint.load_model(path)
            step = int(path.name.split("_")[1])
            p_KHW, g_of = p_and_g(loaded, image_HW3, label_HW)
            for k in largest:
                columns.setdefault(f"step {step}: P", []).append(heat(p_KHW[k]))
                columns.setdefault(f"step {step}: G", []).append(heat(g_of[k]))
    for path in chosen:
        p_in, p_out, g_in, g_out = contrast(data, checkpoint.load_model(path), options.means)
        print(
            f"{path.name}: P {p_in:.2f} inside, {p_out:.2f} outside; G {g_in:.2f} inside, {g_out:.2f} outside"
        )
    drawing.panels(columns, options.out, cell_px=200)
    print(f"{options.out}: images {[data.splits['train'][row]['id'] for row in rows]}")


if __name__ == "__main__":
    main()
