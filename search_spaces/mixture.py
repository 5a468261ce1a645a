"""How the mixture measures: variance mode, its width, the distance, the batch centroid, when it starts.

`bandwidth` acts where the variance is estimated (adaptive, unweighted), `sigma` only with variance=published;
the other one is drawn all the same and changes nothing.  The widths are factors: log scale.
"""

from sparseg.sweep import choice, uniform

METRIC = "val_miou"
SPACE = {
    "loss.variance": choice("published", "adaptive", "unweighted"),
    "loss.bandwidth": uniform(0.25, 4.0, log=True),
    "loss.sigma": uniform(0.1, 3.0, log=True),
    "loss.distance": choice("l1", "l2"),
    "loss.centroid_reduction": choice("auto", "sum", "mean"),
    "loss.warmup_epochs": uniform(0.0, 10.0),
}
