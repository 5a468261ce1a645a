"""What a labelled pixel is worth: labels per image x method x seed, every combination once.

Needs dense training masks and --data.label clicks (camvid's recipe has it).  The seed varies slowest: after a
third of the trials there is a whole curve.  A grid is not pruned, unless --scheduler says so.
`run.seed` changes weights, order and augmentation; `data.label_seed`, the drawn pixels, stays.
"""

from sparseg.sweep import choice

METRIC = "val_miou"
SAMPLER = "grid"
SPACE = {
    "run.seed": choice(0, 1, 2),
    "data.random_pixels": choice(5, 10, 20, 50, 100),
    "loss.method": choice("ce", "agmm"),
}
