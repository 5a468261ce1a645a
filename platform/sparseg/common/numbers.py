"""Numbers as people read them, in the terminal and on pages; files hold shares of 1 with all their digits."""

from __future__ import annotations

import math

UNKNOWN = "-"
LEAST_SHOWN = 0.0005  # a smaller share would read 0.0 %


def percent(share: float | None) -> str:
    """A share or score of 1 in percent: 45.0 %, <0.1 % for what is hardly there, a dash if not known."""
    if share is None or not math.isfinite(share):
        return UNKNOWN
    return "<0.1 %" if 0 < share < LEAST_SHOWN else f"{100 * share:.1f} %"
