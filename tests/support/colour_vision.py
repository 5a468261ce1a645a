"""How far apart colours are, also to eyes without one kind of cone, and the search that found the palette.

OKLab: Ottosson, 2020.  Simulated dichromacy: Machado, Oliveira and Fernandes, IEEE TVCG 15(6), 2009, severity
1.0.  The first eight colours: Okabe and Ito, Color Universal Design, 2008.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Colours = NDArray[np.uint8]  # (N, 3), R G B

OKABE_ITO = [
    *((0, 0, 0), (230, 159, 0), (86, 180, 233), (0, 158, 115)),
    *((240, 228, 66), (0, 114, 178), (213, 94, 0), (204, 121, 167)),
]
LEVELS = (*range(0, 256, 24), 255)
"""Of each channel of a candidate."""
LIGHTNESS = (35.0, 96.0)
"""Of a candidate: a darker one would look like the background, a lighter one like paper."""
NEIGHBOUR_SHARE = 0.25
"""The distance to the colour before counts by this much, so that neighbours come out far apart."""

_LMS = np.array(
    [
        [0.4122214708, 0.5363325363, 0.0514459929],
        [0.2119034982, 0.6806995451, 0.1073969566],
        [0.0883024619, 0.2817188376, 0.6299787005],
    ]
)
_LAB = np.array(
    [
        [0.2104542553, 0.7936177850, -0.0040720468],
        [1.9779984951, -2.4285922050, 0.4505937099],
        [0.0259040371, 0.7827717662, -0.8086757660],
    ]
)
_PROTANOPIA = np.array(
    [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]]
)
_DEUTERANOPIA = np.array(
    [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]]
)
VIEWS = {"normal": np.eye(3), "protanopia": _PROTANOPIA, "deuteranopia": _DEUTERANOPIA}


def oklab(colours_N3: Colours, view: str) -> Floats:
    """Coordinates (N, 3) in OKLab, times 100, of colours as a pair of eyes sees them."""
    share = np.asarray(colours_N3, np.float64) / 255
    linear = np.where(share <= 0.04045, share / 12.92, ((share + 0.055) / 1.055) ** 2.4)
    seen = np.clip(linear @ VIEWS[view].T, 0, 1)
    return 100 * np.cbrt(seen @ _LMS.T) @ _LAB.T


def distances(first_N3: Colours, second_M3: Colours) -> Floats:
    """Smallest distance (N, M) over all views between each pair of colours."""
    of_views = []
    for view in VIEWS:
        a, b = oklab(first_N3, view), oklab(second_M3, view)
        of_views.append(np.linalg.norm(a[:, None] - b[None], axis=-1))
    return np.min(of_views, axis=0)


def search(count: int, reserved: list[tuple[int, int, int]]) -> list[tuple[int, int, int]]:
    """`count` colours: Okabe's and Ito's, then again and again the candidate that is farthest from all.

    Farthest: of the least distance to the colours so far, to those `reserved` and, by NEIGHBOUR_SHARE, to the
    one before it.  Equal ones: the first in order of R, G, B.
    """
    candidates = np.array([(r, g, b) for r in LEVELS for g in LEVELS for b in LEVELS], np.uint8)
    lightness_N = oklab(candidates, "normal")[:, 0]
    candidates = candidates[(lightness_N > LIGHTNESS[0]) & (lightness_N < LIGHTNESS[1])]
    chosen = list(OKABE_ITO)
    nearest = distances(candidates, np.array([*chosen, *reserved], np.uint8)).min(1)
    while len(chosen) < count:
        before = distances(candidates, np.array(chosen[-1:], np.uint8))[:, 0]
        nearest = np.minimum(nearest, before)
        score = np.round(np.minimum(nearest, NEIGHBOUR_SHARE * before), 6)
        red, green, blue = candidates[int(score.argmax())].tolist()
        chosen.append((red, green, blue))
    return chosen[:count]
