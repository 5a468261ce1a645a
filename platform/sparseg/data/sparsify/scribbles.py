"""Scribbles as a person draws them: along the middle of a region, smooth, unsteady, not to the very ends.

All arithmetic on positions is in integers (1/256 px) or in exactly rounded operations, so that a stroke takes
the same pixels on every machine.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from sparseg.data.sparsify.components import MIN_SHARE, Component, components, innermost
from sparseg.data.sparsify.order import blank_like, random_order

MOST = 3  # strokes per class and image
WIDTH_PX = 3
TIP = 0.4  # where the region is narrower than this share of its widest place on the path, the stroke ends
WOBBLE = 0.3  # largest deviation from the middle, as a share of the distance to the boundary
VERTEX_PX = 4  # of the path per vertex kept in `strokes`
UNIT = 256
FREE = 256  # of 256ths: how far a point may go from the skeleton to where smoothing and wobble want it

Stroke = dict[str, Any]


def scribbles(
    mask_HW: np.ndarray,
    percent: int,
    *,
    seed: int,
    key: str,
    width_px: int = WIDTH_PX,
    most: int = MOST,
    min_share: float = MIN_SHARE,
) -> tuple[np.ndarray, list[Stroke]]:
    """One stroke through each of the `most` largest components of every class (0: all), and its vertices.

    The stroke follows the longest path of the component's skeleton, smoothed, with a slow random wobble; it
    never leaves the component and keeps away from its boundary where there is room.  It covers `percent`
    (1..100) of the path's length, around a random place near its middle.  A compact component gets a short
    stroke in a random direction, a tiny one a point; a class never gets nothing.  `min_share` as in
    `components`.

    mask_HW (H, W) uint8 with codes -> label (H, W) uint8 (codes as `random_pixels`) and the strokes
    {class, width, y, x} as `shards` stores them: in pixels, a vertex about every fourth.  The label is the
    exact annotation, for it is clipped to the component.
    A function of (seed, key = row id); 30 % are a subset of 60 %.
    """
    label_HW = blank_like(mask_HW)
    strokes = []
    for component in components(mask_HW, most=most, min_share=min_share):
        purpose = f"scribble/{component.class_id}/{component.first}"
        random_N = random_order(1024, seed, key, purpose) >> np.uint64(40)  # 24 bits each
        path_P2 = _part(_centreline(component, random_N, width_px), percent, int(random_N[0]))
        painted_hw = _painted(component.inside_hw, path_P2, width_px)
        y, x = np.nonzero(painted_hw)
        label_HW[y + component.top, x + component.left] = component.class_id
        vertex_V2 = path_P2[np.r_[0 : len(path_P2) - 1 : VERTEX_PX, len(path_P2) - 1]]
        vertex_V2 = vertex_V2 + np.array([component.top, component.left])
        strokes.append(
            {
                "class": component.class_id,
                "width": float(width_px),
                "y": vertex_V2[:, 0].astype(float).tolist(),
                "x": vertex_V2[:, 1].astype(float).tolist(),
            }
        )
    return label_HW, strokes


def _centreline(component: Component, random_N: np.ndarray, width_px: int) -> np.ndarray:
    """Pixels (P, 2) of the whole stroke in the component's box, each a neighbour of the next."""
    from skimage.morphology import skeletonize

    clearance_hw = component.clearance_hw()
    widest = float(clearance_hw.max())
    home_P2 = _longest_path(skeletonize(component.inside_hw))
    if len(home_P2):
        clear_P = clearance_hw[home_P2[:, 0], home_P2[:, 1]]
        wide = np.flatnonzero(clear_P >= TIP * clear_P.max())
        home_P2 = home_P2[wide[0] : wide[-1] + 1]
    if len(home_P2) < widest:
        home_P2 = _short_stroke(np.array(innermost(clearance_hw)), widest, random_N[1:3])
    clear_P = clearance_hw[home_P2[:, 0], home_P2[:, 1]]
    window = max(3, int(np.median(clear_P)))
    goal_P2 = home_P2 * UNIT
    for _ in range(3):
        goal_P2 = _box_filter(goal_P2, window)
    goal_P2 = goal_P2 + _wobble(clear_P, window, random_N[3:])
    return _inside(home_P2, goal_P2, clearance_hw, width_px, 2 + window // 2)


def _longest_path(skeleton_hw: np.ndarray) -> np.ndarray:
    """Pixels (P, 2) from end to end of a skeleton: the farthest pixel from its first one, and the farthest
    from that (the longest path of a tree; with loops, a long one)."""
    from scipy.sparse import csr_array
    from scipy.sparse.csgraph import dijkstra

    pixel_N2 = np.argwhere(skeleton_hw)
    if len(pixel_N2) < 2:
        return pixel_N2
    index_hw = np.full(skeleton_hw.shape, -1)
    index_hw[skeleton_hw] = np.arange(len(pixel_N2))
    starts, ends, lengths = [], [], []
    for dy, dx, length in ((0, 1, 5), (1, 0, 5), (1, 1, 7), (1, -1, 7)):  # 7/5 for the root of 2
        other_N = index_hw[pixel_N2[:, 0] + dy, pixel_N2[:, 1] + dx]  # the box has an empty border
        linked = np.flatnonzero(other_N >= 0)
        starts.append(linked)
        ends.append(other_N[linked])
        lengths.append(np.full(len(linked), length))
    edges = np.concatenate(lengths), (np.concatenate(starts), np.concatenate(ends))
    graph = csr_array(edges, shape=(len(pixel_N2), len(pixel_N2)))

    def distances(start: int) -> tuple[np.ndarray, np.ndarray]:
        far_N, before_N = dijkstra(graph, directed=False, indices=start, return_predecessors=True)
        return np.where(np.isfinite(far_N), far_N, -1), before_N

    end = int(distances(0)[0].argmax())
    far_N, before_N = distances(end)
    path = [int(far_N.argmax())]
    while path[-1] != end:
        path.append(int(before_N[path[-1]]))
    return pixel_N2[path]


def _short_stroke(centre_2: np.ndarray, radius_px: float, random_2: np.ndarray) -> np.ndarray:
    """Pixels (P, 2) of a straight line through a disc's middle, in a random direction, 1.2 radii long."""
    direction_2 = random_2.astype(np.int64) % 65 - 32
    length = float(np.sqrt((direction_2**2).sum()))
    half = int(0.6 * radius_px)
    if not length or not half:
        return centre_2[None]
    return np.rint(centre_2 + np.arange(-half, half + 1)[:, None] * (direction_2 / length)).astype(int)


def _box_filter(point_P2: np.ndarray, half: int) -> np.ndarray:
    """Means over 2 * half + 1 neighbours along a path (P, 2) of integers; the ends stay where they are."""
    half = min(half, (len(point_P2) - 1) // 2)
    if half < 1:
        return point_P2
    # reflected through the end points, so that the line keeps its length
    before = 2 * point_P2[0] - point_P2[half:0:-1]
    after = 2 * point_P2[-1] - point_P2[-2 : -half - 2 : -1]
    return _mean(np.concatenate([before, point_P2, after]), half)


def _mean(value_P: np.ndarray, half: int) -> np.ndarray:
    """Means over 2 * half + 1 successive integers, rounded down; 2 * half fewer than were given."""
    sum_P = np.cumsum(np.concatenate([np.zeros_like(value_P[:1]), value_P]), axis=0)
    size = 2 * half + 1
    return (sum_P[size:] - sum_P[:-size]) // size


def _wobble(clear_P: np.ndarray, window: int, random_N: np.ndarray) -> np.ndarray:
    """Slow random deviation (P, 2), 1/256 px, at most WOBBLE times the distance to the boundary."""
    spacing = max(6, 2 * window)
    knots = len(clear_P) // spacing + 3
    knot_K2 = np.resize(random_N, (knots, 2)).astype(np.int64) * 2 - (1 << 24)
    position_P = np.arange(len(clear_P)) + int(random_N[-1]) % spacing
    at_P, within_P = np.divmod(position_P, spacing)
    between_P2 = knot_K2[at_P] * (spacing - within_P)[:, None] + knot_K2[at_P + 1] * within_P[:, None]
    smooth_P2 = _box_filter(between_P2 // spacing, spacing // 3)
    reach_P = (clear_P * WOBBLE * UNIT).astype(np.int64)
    return (smooth_P2 * reach_P[:, None]) >> 24


def _inside(
    home_P2: np.ndarray, goal_P2: np.ndarray, clearance_hw: np.ndarray, width_px: int, reach: int
) -> np.ndarray:
    """Pixels (Q, 2) of the line through the goals, drawn back to the skeleton where it nears the boundary.

    A point that is too close gives up half of its freedom, until none is; those up to `reach` points away
    give way gradually, so that no kink is seen.
    """
    from scipy.ndimage import minimum_filter1d

    clear_P = clearance_hw[home_P2[:, 0], home_P2[:, 1]]
    need_P = np.minimum(width_px / 2 + 1, 0.5 * clear_P)
    need_P = np.minimum(need_P, np.append(need_P[1:], need_P[-1]))
    given_P = np.full(len(home_P2), FREE)
    bound = np.array(clearance_hw.shape) - 1
    while True:
        # a mean over minima never exceeds what was given to a point itself
        free_P = _mean(
            np.pad(minimum_filter1d(given_P, 2 * reach + 1, mode="nearest"), reach, mode="edge"), reach
        )
        point_P2 = home_P2 * UNIT + (goal_P2 - home_P2 * UNIT) * free_P[:, None] // FREE
        pixel_P2 = np.clip((point_P2 + UNIT // 2) // UNIT, 0, bound)  # the border has no clearance
        pixel_Q2, owner_Q = _line(pixel_P2)
        close_Q = clearance_hw[pixel_Q2[:, 0], pixel_Q2[:, 1]] < need_P[owner_Q]
        close = np.unique(owner_Q[close_Q])
        if not len(close):
            return pixel_Q2
        given_P[np.unique(np.append(close, np.minimum(close + 1, len(given_P) - 1)))] //= 2


def _line(pixel_P2: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Connected pixels (Q, 2) through those given, and which given one each follows (Q,)."""
    step_S2 = np.diff(pixel_P2, axis=0)
    count_S = np.abs(step_S2).max(1, initial=0)
    owner_Q = np.repeat(np.arange(len(count_S)), count_S)
    within_Q = np.arange(len(owner_Q)) - np.repeat(np.cumsum(count_S) - count_S, count_S)
    whole_Q = count_S[owner_Q]
    moved_Q2 = (2 * step_S2[owner_Q] * within_Q[:, None] + whole_Q[:, None]) // (2 * whole_Q[:, None])
    pixel_Q2 = np.concatenate([pixel_P2[owner_Q] + moved_Q2, pixel_P2[-1:]])
    return pixel_Q2, np.append(owner_Q, len(pixel_P2) - 1)


def _part(pixel_Q2: np.ndarray, percent: int, random: int) -> np.ndarray:
    """The stretch of a path that holds `percent` of its length; a smaller share lies within a larger one."""
    step_S = np.abs(np.diff(pixel_Q2, axis=0)).sum(1)
    along_Q = np.concatenate([[0], np.cumsum(np.where(step_S == 2, 7, 5))])
    anchor = along_Q[-1] * (0.35 + 0.3 * (random / 2**24))
    low = anchor * (1 - percent / 100)
    high = low + along_Q[-1] * (percent / 100)
    inside_Q = (along_Q >= low) & (along_Q <= high)
    inside_Q[np.searchsorted(along_Q, anchor)] = True
    return pixel_Q2[inside_Q]


def _painted(inside_hw: np.ndarray, pixel_Q2: np.ndarray, width_px: int) -> np.ndarray:
    """(h, w) bool: the path grown to its width within the component, so that it stays in one piece."""
    from scipy import ndimage

    painted_hw = np.zeros(inside_hw.shape, bool)
    painted_hw[pixel_Q2[:, 0], pixel_Q2[:, 1]] = True
    square = np.ones((3, 3), bool)
    cross = ndimage.generate_binary_structure(2, 1)
    for number in range((width_px - 1) // 2):  # square and cross by turns: an octagon, nearly a disc
        grown_by = cross if number % 2 else square
        painted_hw = ndimage.binary_dilation(painted_hw, grown_by, mask=inside_hw)
    if width_px % 2 == 0:
        painted_hw = ndimage.binary_dilation(painted_hw, np.ones((2, 2), bool), mask=inside_hw)
    return painted_hw
