"""Which sparse annotation to draw: kind, budget, seed, width. The command's and the importers' entry."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from sparseg.data.sparsify.blocks import GRID, blocks
from sparseg.data.sparsify.components import JITTER, MIN_SHARE, instance_points
from sparseg.data.sparsify.pixels import clicks_per_class, random_pixels
from sparseg.data.sparsify.scribbles import MOST, WIDTH_PX, scribbles
from sparseg.data.sparsify.weak import boxes, tags

BUDGETS = {  # kind -> (least, most or None, what the budget counts)
    "point": (1, None, "pixels an image"),
    "clicks": (1, None, "pixels per class and image"),
    "instance": (0, None, "components per class and image, 0 = all"),
    "disc": (0, None, "components per class and image, 0 = all"),
    "scribble": (1, 100, "percent of each stroke's full length"),
    "block": (1, 100, "percent of the annotated pixels"),
    "tag": (0, 0, "0 = all classes, for one without its tag would be taught to be absent"),
    "box": (0, None, "components per class and image, 0 = all"),
}
WIDTHS = {"instance": 1, "disc": 3, "scribble": WIDTH_PX}  # kinds that have a width -> its default, px
MAX_WIDTH_PX = 99
LABELS = {"point": "clicks", "instance": "point", "disc": "point"}  # kind -> what the config calls it


@dataclasses.dataclass(frozen=True, kw_only=True)
class Recipe:
    """How sparse labels are drawn from dense masks.  Raises ValueError for a budget without meaning."""

    kind: str
    budget: int
    seed: int = 0
    width_px: int | None = None
    """Of a stroke, or the side of a click's block; None: the kind's default."""

    def __post_init__(self) -> None:
        if self.kind not in BUDGETS:
            raise ValueError(f"sparsify: kind must be one of {', '.join(BUDGETS)}, got {self.kind!r}")
        least, most, unit = BUDGETS[self.kind]
        if self.budget < least or (most is not None and self.budget > most):
            allowed = f"at least {least}" if most is None else f"in {least}..{most}"
            raise ValueError(
                f"sparsify: the budget of {self.kind} must be {allowed} ({unit}), got {self.budget}"
            )
        if self.width_px is not None and self.kind not in WIDTHS:
            raise ValueError(
                f"sparsify: {self.kind} has no width, got {self.width_px} px; leave --width out, or choose "
                f"one of {', '.join(WIDTHS)}"
            )
        if not 1 <= (self.width_px or WIDTHS.get(self.kind, 1)) <= MAX_WIDTH_PX or self.width_px == 0:
            raise ValueError(f"sparsify: the width must be in 1..{MAX_WIDTH_PX} px, got {self.width_px}")

    @property
    def width(self) -> int:
        """The width that is drawn, px."""
        return WIDTHS.get(self.kind, 1) if self.width_px is None else self.width_px

    @property
    def label(self) -> str:
        """The kind of annotation in the words of the config (data.label)."""
        return LABELS.get(self.kind, self.kind)

    def draw(self, mask_HW: np.ndarray, key: str) -> tuple[np.ndarray, list[dict[str, Any]]]:
        """Label (H, W) uint8 with codes, and the strokes of scribbles, tags and boxes (other kinds: none).

        mask_HW (H, W) uint8 with codes; key is the row's id.
        """
        seed, budget = self.seed, self.budget
        match self.kind:
            case "point":
                return random_pixels(mask_HW, budget, seed=seed, key=key), []
            case "clicks":
                return clicks_per_class(mask_HW, budget, seed=seed, key=key), []
            case "instance":
                return instance_points(mask_HW, budget, seed=seed, key=key, size_px=self.width), []
            case "disc":
                return instance_points(mask_HW, budget, seed=seed, key=key, size_px=self.width, jitter=0), []
            case "block":
                return blocks(mask_HW, budget, seed=seed, key=key), []
            case "tag":
                return tags(mask_HW)
            case "box":
                return boxes(mask_HW, budget)
            case _:
                return scribbles(mask_HW, budget, seed=seed, key=key, width_px=self.width)

    def describe(self) -> str:
        """What is drawn, for reports."""
        which = f"the {self.budget} largest" if self.budget else "all"
        regions = f"{which} components per class from {MIN_SHARE:.2%} of the image on (the largest always)"
        text = {
            "point": f"{self.budget} random pixels an image",
            "clicks": f"{self.budget} random pixels a class and image",
            "instance": f"one click ({self.width} px) on {regions}, jitter {JITTER} inner radii",
            "disc": f"{self.width}x{self.width} px at the innermost point of {regions}",
            "scribble": f"scribbles {self.width} px wide over {self.budget} % of the middle line of the "
            f"{MOST} largest components per class from {MIN_SHARE:.2%} of the image on (the largest always)",
            "block": f"{self.budget} % of the annotated pixels, in blocks of a {GRID}x{GRID} grid",
            "tag": f"the classes from {MIN_SHARE:.2%} of the image on (the largest always), and no pixel",
            "box": f"the boxes of {regions}; outside of them is class 0, also an object without a box",
        }[self.kind]
        return f"{self.kind}, budget {self.budget}, seed {self.seed}: {text}"
