"""Which method at which budget: method x labels per image x seed, every combination once.

Needs dense training masks and --data.label clicks (camvid's recipe has it).  The seed varies slowest:
after a third of the trials every method has a whole curve.  Fields of a method that are searched, too
(another space), go beside it with `when("loss.method", ("agmm", "agmm+tel"), ..)`.
"""

from sparseg.config import METHODS
from sparseg.sweep import choice

METRIC = "val_miou"
SAMPLER = "grid"
SPACE = {
    "run.seed": choice(0, 1, 2),
    "data.random_pixels": choice(5, 20, 100),
    "loss.method": choice(*METHODS),
}
