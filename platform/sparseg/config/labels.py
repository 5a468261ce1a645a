"""Codes of a label map and kinds of label: the only place that knows them."""

from __future__ import annotations

UNLABELLED = 254
"""Pixel inside the image that nobody annotated: no cross-entropy, but the mixture supervises it."""


IGNORED = 255
"""Void border of the ground truth, or padding: no loss, no metric."""


PIXELLESS = ("tag", "box")
"""Values of data.label that name the classes of an image, but say of no pixel that it is an object's."""


MAX_CLASSES = 250
"""Class ids are 0..K-1 with K at most this, so that they never meet a code."""
