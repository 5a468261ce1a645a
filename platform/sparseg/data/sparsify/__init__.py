"""Dense masks -> a few labelled pixels, tags or boxes. Pure functions of (mask, seed, row id): the same on
every machine.

Nested: a smaller budget is a subset of a larger one, so that a curve over budgets compares like with like.
"""

from __future__ import annotations

from sparseg.data.sparsify.blocks import blocks
from sparseg.data.sparsify.components import instance_points
from sparseg.data.sparsify.keep import keep_labels
from sparseg.data.sparsify.pixels import clicks_per_class, random_pixels
from sparseg.data.sparsify.recipe import BUDGETS, Recipe
from sparseg.data.sparsify.scribbles import scribbles
from sparseg.data.sparsify.weak import boxes, tags

__all__ = [
    "BUDGETS",
    "Recipe",
    "blocks",
    "boxes",
    "clicks_per_class",
    "instance_points",
    "keep_labels",
    "random_pixels",
    "scribbles",
    "tags",
]
