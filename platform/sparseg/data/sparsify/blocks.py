"""Dense labels of some rectangular blocks, nothing elsewhere."""

from __future__ import annotations

import numpy as np

from sparseg.config import UNLABELLED
from sparseg.data.sparsify.order import blank_like, random_order

GRID = 10


def blocks(mask_HW: np.ndarray, percent: int, *, seed: int, key: str, grid: int = GRID) -> np.ndarray:
    """Full-resolution labels in random blocks that hold `percent` of the annotated pixels.

    Tree energy loss (Liang et al., CVPR 2022) trains on 10, 20 and 50 % of Cityscapes' and ADE20K's labels in
    blocks that its authors made and published as files.  How they cut them was not at hand (their README does
    not say, the paper's section was not read), so ours may differ, and scores do not compare.

    Our rule: the image is cut into `grid` x `grid` equal blocks (1-pixel ones where the image is smaller),
    which are taken in a random order, whole, as long as they fit into the budget; of the first that does not,
    the rows that do are taken from the top, so that the share is met within one row of a block.

    mask_HW (H, W) uint8 with codes -> label (H, W) uint8, codes as `random_pixels`; at least one pixel if any
    is annotated.  A function of (seed, key = row id); 10 % are a subset of 20 %.
    """
    label_HW = blank_like(mask_HW)
    height, width = mask_HW.shape
    row_edges, column_edges = (
        np.arange(min(grid, side) + 1) * side // min(grid, side) for side in (height, width)
    )
    annotated_HW = mask_HW < UNLABELLED
    total = int(annotated_HW.sum())
    wanted, taken = max(min(1, total), (percent * total + 50) // 100), 0
    columns = len(column_edges) - 1
    order = random_order((len(row_edges) - 1) * columns, seed, key, "blocks")
    for block in np.argsort(order, kind="stable").tolist():
        i, j = divmod(block, columns)
        across = slice(column_edges[j], column_edges[j + 1])
        sum_h = np.cumsum(annotated_HW[row_edges[i] : row_edges[i + 1], across].sum(1))
        count = int(np.searchsorted(sum_h, wanted - taken, side="right"))  # rows that fit
        count = max(count, int(taken == 0))  # never nothing
        rows = slice(row_edges[i], row_edges[i] + count)
        label_HW[rows, across] = mask_HW[rows, across]
        taken += int(sum_h[count - 1]) if count else 0
        if count < len(sum_h) or taken >= wanted:
            break
    return label_HW
