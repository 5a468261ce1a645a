"""The weights of the mixture's four terms against the cross-entropy, whose weight stays what it is.

Only ratios matter, up to the learning rate: hence one weight fixed.  Log scale, two decades around the
published 1; to see what a term is worth, compare with the same command and `--loss.sep-weight 0`, say.
"""

from sparseg.sweep import uniform

METRIC = "val_miou"
SPACE = {
    "loss.mix_weight": uniform(0.1, 10.0, log=True),
    "loss.label_weight": uniform(0.1, 10.0, log=True),
    "loss.sep_weight": uniform(0.1, 10.0, log=True),
    "loss.absent_weight": uniform(0.1, 10.0, log=True),
}
