"""How good are the targets of L_mix?  Their class against the dense truth of training images, beside P's own.

PYTHONPATH=platform python experiments/mixture_targets.py RUN DATASET [--images 40]

A target that is no better than the prediction cannot teach it.  For every image: whole, its own clicks, the
network of the run's checkpoint; among the classes annotated in the image the most probable one of
- P;
- G with the image's own class means: sigma fixed, of each class (adaptive), or shared by the classes;
  from the feature resized to image size instead; with a mean of its own for every labelled pixel (as many
  components as a class has labels);
- G with the means over all images (the memory), sigma shared;
- the posterior with that memory, at several bandwidths; of pixels of which it is sure, too, with their share.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from sparseg.config import UNLABELLED
from sparseg.data import shards
from sparseg.evaluation import metrics
from sparseg.losses import mixture
from sparseg.runs import checkpoint

BANDWIDTHS = (0.2, 0.4, 0.8)
SURE = 0.9
BLOCK = 4096  # pixels at a time, where features are resized to image size


def read(data: shards.ShardedDataset, model: torch.nn.Module, count: int) -> list[dict[str, Any]]:
    """Feature, P, slots, the image's own means and the truth of `count` images, spread over the split."""
    split, items = data.splits["train"], []
    for row in range(0, len(split), max(len(split) // count, 1)):
        record = split[row]
        image_HW3, label_HW, mask_HW = (
            torch.from_numpy(array.copy())
            for array in (
                shards.decode_image(record["image"]["bytes"]),
                shards.decode_label(record["label"]["bytes"]),
                shards.decode_label(record["mask"]["bytes"]),
            )
        )
        feature_1Dhw, logits_1Khw = model(image_HW3[None].permute(0, 3, 1, 2))
        p_1KHW = F.interpolate(logits_1Khw, size=label_HW.shape, mode="bilinear").softmax(1)
        slots = mixture.slots_of(mixture.crop_classes(label_HW[None], len(data.names)))
        labelled_1SHW = (label_HW[None, None] == slots.class_BS[:, :, None, None]).float()
        items.append(
            {
                "feature": feature_1Dhw,
                "p": mixture.pick(p_1KHW, slots),
                "slots": slots,
                "own": mixture.class_means(feature_1Dhw, labelled_1SHW),
                "label": label_HW.long(),
                "truth": mask_HW.long(),
            }
        )
    return items


def nearest(feature_DHW: Tensor, centre_ND: Tensor, slot_N: Tensor, num_slots: int) -> Tensor:
    """Minus the squared L1 distance to the nearest centre of each slot -> (1, S, H, W)."""
    blocks = []
    for block_BD in feature_DHW.flatten(1).T.split(BLOCK):
        d_BN = torch.cdist(block_BD, centre_ND, p=1) / centre_ND.shape[1]
        blocks.append(torch.stack([d_BN[:, slot_N == slot].amin(1) for slot in range(num_slots)], 1))
    return -torch.cat(blocks).square().T.unflatten(1, feature_DHW.shape[1:])[None]


def at_image_size(item: dict[str, Any]) -> dict[str, Tensor]:
    """The targets for which the feature itself is resized."""
    size = item["truth"].shape
    feature_DHW = F.interpolate(item["feature"], size=size, mode="bilinear")[0]
    num_slots = item["own"].shape[1]
    y, x = torch.nonzero(item["label"] < UNLABELLED, as_tuple=True)
    slot_of_class = {int(k): s for s, k in enumerate(item["slots"].class_BS[0])}
    slot_N = torch.tensor([slot_of_class[int(k)] for k in item["label"][y, x]])
    return {
        "G, own means, at image size": nearest(
            feature_DHW, item["own"][0], torch.arange(num_slots), num_slots
        ),
        "G, a component for each labelled pixel": nearest(
            feature_DHW, feature_DHW[:, y, x].T, slot_N, num_slots
        ),
    }


def targets(item: dict[str, Any], memory_KD: Tensor) -> dict[str, Tensor]:
    """Name -> (1, S, h, w), of which the largest counts."""
    feature, slots = item["feature"], item["slots"]
    size = feature.shape[2:]
    p_1Shw = F.interpolate(item["p"], size=size, mode="bilinear")
    valid = torch.ones(1, 1, *size)
    found = {"P": item["p"]}
    for name, mean_1SD in (("own means", item["own"]), ("memory", memory_KD[slots.class_BS])):
        d2_1Shw = mixture.squared_distance(feature, mean_1SD, "l1")
        found[f"G, {name}, sigma fixed or shared"] = -d2_1Shw  # one sigma: the nearest mean
        if name == "own means":
            found[f"G, {name}, sigma of each class"] = -d2_1Shw / mixture.variance(d2_1Shw, p_1Shw)
        else:
            for bandwidth in BANDWIDTHS:
                r_1Shw = mixture.posterior(d2_1Shw, p_1Shw, valid, slots, bandwidth)
                found[f"posterior, {name}, bandwidth {bandwidth}"] = r_1Shw
    return found | at_image_size(item)


@torch.inference_mode()
def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("dataset", type=Path)
    parser.add_argument("--images", type=int, default=40)
    options = parser.parse_args()
    loaded, data = checkpoint.load_model(options.run), shards.open(options.dataset)
    items = read(data, loaded.model, options.images)
    num_classes = len(data.names)
    total_KD, count_K = 0, 0
    for item in items:
        everywhere = torch.ones_like(item["slots"].used_BS)
        sum_KD, seen_K = mixture.batch_sums(item["own"], item["slots"], everywhere, num_classes)
        total_KD, count_K = total_KD + sum_KD, count_K + seen_K
    memory_KD = total_KD / count_K.clamp(min=1)[:, None]
    counts: dict[str, Tensor] = {}
    for item in items:
        for name, value in targets(item, memory_KD).items():
            full = F.interpolate(value, size=item["truth"].shape, mode="bilinear")[0]
            predicted = item["slots"].class_BS[0][full.argmax(0)]
            kept = {name: item["truth"]}
            if name.startswith("posterior"):
                sure = full.amax(0) > SURE
                kept[f"{name}, above {SURE}"] = item["truth"].where(sure, num_classes)
            for row, truth in kept.items():
                found = metrics.confusion(predicted, truth, num_classes)
                counts[row] = counts.get(row, 0) + found
    print(f"{len(items)} images | pixel accuracy | mIoU | " + " | ".join(data.names))
    for name, confusion in counts.items():
        result = metrics.scores(confusion, data.names)
        iou = " | ".join("-" if v is None else f"{100 * v:.0f}" for v in result["iou"].values())
        share = result["pixels"] / metrics.scores(counts["P"], data.names)["pixels"]
        part = f" ({100 * share:.0f} % of the pixels)" if share < 1 else ""
        print(f"| {name}{part} | {100 * result['pixel_accuracy']:.1f} | {100 * result['miou']:.1f} | {iou} |")


if __name__ == "__main__":
    main()
