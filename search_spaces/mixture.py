"""How the mixture measures: variance mode, its width, the distance, the batch centroid, when it starts.

The widths are factors (log scale); each is searched only where its variance mode uses it.
"""

from sparseg.sweep import choice, uniform, when

METRIC = "val_miou"
POINTS = [
    {  # the published setting is trial 0, the recipe trial 1
        "loss.variance": "published",
        "loss.sigma": 0.5**0.5,
        "loss.distance": "l1",
        "loss.centroid_reduction": "auto",
        "loss.warmup_epochs": 0.0,
    }
]
SPACE = {
    "loss.variance": choice("published", "adaptive", "unweighted"),
    "loss.bandwidth": when("loss.variance", ("adaptive", "unweighted"), uniform(0.25, 4.0, log=True)),
    "loss.sigma": when("loss.variance", "published", uniform(0.1, 3.0, log=True)),
    "loss.distance": choice("l1", "l2"),
    "loss.centroid_reduction": choice("auto", "sum", "mean"),
    "loss.warmup_epochs": uniform(0.0, 10.0),
}
