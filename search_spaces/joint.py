"""Mixture, loss weights and learning rate together; wants a few dozen trials at least.

The variance mode stays the recipe's: give --loss.variance to search another one.
"""

from sparseg.sweep import choice, uniform

METRIC = "val_miou"
SPACE = {
    "optim.learning_rate": uniform(3e-4, 3e-2, log=True),
    "optim.decoder_lr_factor": uniform(1.0, 20.0, log=True),
    "loss.bandwidth": uniform(0.25, 4.0, log=True),
    "loss.distance": choice("l1", "l2"),
    "loss.mix_weight": uniform(0.1, 10.0, log=True),
    "loss.label_weight": uniform(0.1, 10.0, log=True),
    "loss.sep_weight": uniform(0.1, 10.0, log=True),
    "loss.absent_weight": uniform(0.1, 10.0, log=True),
}
