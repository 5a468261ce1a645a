"""The training objective: cross-entropy on labelled pixels and the terms that teach from unlabelled ones.

A new method begins with its entry in config/methods.py.
"""

from sparseg.config import TERMS
from sparseg.losses.inputs import LossInputs, pixel_counts
from sparseg.losses.sparse_loss import SparseLoss
from sparseg.losses.terms import class_weights, objective

__all__ = ["TERMS", "LossInputs", "SparseLoss", "class_weights", "objective", "pixel_counts"]
