"""The counts of a whole split: every image once, shared among the ranks.

IoU and boundary IoU are made of them in metrics.py; predictions come from inference/views.py.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from sparseg.common.distributed import world_size
from sparseg.data import loader, row_order
from sparseg.evaluation import metrics
from sparseg.evaluation.metrics import Counts
from sparseg.inference.full_size import probabilities

OnBatch = Callable[[Sequence[int], Tensor, Tensor, Tensor], None]


@torch.inference_mode()
def count_split(
    model: nn.Module,
    split: Any,
    num_classes: int,
    *,
    device: torch.device,
    rank: int = 0,
    batches: Sequence[Sequence[int]] | None = None,
    details: bool = False,
    long_side_px: int = 0,
    autocast: torch.dtype | None = None,
    on_batch: OnBatch = lambda rows, image_B3HW, p_BKHW, truth_BHW: None,
    **views: Any,
) -> Counts:
    """Counts of a split, every image exactly once, summed over the ranks of the process group, on the CPU.

    batches: rows to take instead of this rank's share of `validation_rows`.  Ranks may hold unequal
    numbers of images, or none.  details: boundary and calibration counts, too.  long_side_px: the working
    resolution of the network, to which larger images are resized; counts are at their own.  `views` go to
    `class_probabilities`; `on_batch` hears of every batch: its rows, images, probabilities and truth."""
    model.eval()
    counts = Counts.zeros(num_classes, device)
    if batches is None:
        # rank 0, which shows pictures, takes from the end, where shares that are larger lie
        batches = row_order.share(row_order.validation_rows(split), world_size() - 1 - rank, world_size())
    for rows, image, label in loader.validation_batches(split, batches):
        with torch.autocast(device.type, dtype=autocast, enabled=autocast is not None):
            p_BKHW = probabilities(model, image.to(device, non_blocking=True), long_side_px, **views)
        truth_BHW = label.to(device, non_blocking=True)
        counts += metrics.count(p_BKHW, truth_BHW, details=details)
        on_batch(rows, image, p_BKHW, truth_BHW)
    return counts.over_ranks()
