"""The training objective: cross-entropy on labelled pixels and the terms that teach from unlabelled ones."""

from sparseg.losses.terms import TERMS, class_weights, objective, pixel_counts

__all__ = ["TERMS", "class_weights", "objective", "pixel_counts"]
