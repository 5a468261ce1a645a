"""Where windows lie along one side of an image: overlapping ones that cover it, tiles that share no pixel."""

from __future__ import annotations


def window_starts(length: int, window: int, stride: int) -> list[int]:
    """Starts of windows that cover [0, length) at most `stride` apart, the last flush with the end.

    All in pixels; `window` is at most `length`.
    """
    return [*range(0, length - window, stride), length - window]


def tile_starts(length: int, tile: int) -> list[int]:
    """Starts of tiles that hold every pixel of [0, length) once; each ends where the next begins.

    They lie at the multiples of `tile`; a rest of less than half a tile joins the tile before, so that none
    is a sliver without surroundings.
    """
    return [start for start in range(0, length, tile) if start == 0 or 2 * (length - start) >= tile]
