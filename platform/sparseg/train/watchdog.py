"""A run that stands still says where: the stacks of all threads when no step has come for a while."""

from __future__ import annotations

import sys
import threading
import time
import traceback
from typing import TextIO


class Watchdog:
    """Reports to stderr whenever `silence_s` have passed without `beat`; 0 watches nothing.

    It only tells: what to do about a dead mount or a stuck collective is the user's choice.
    """

    def __init__(self, silence_s: float, who: str, out: TextIO | None = None) -> None:
        self.silence_s, self.who, self.out = silence_s, who, out
        self.last_s = time.monotonic()
        self.ended = threading.Event()
        if silence_s > 0:
            threading.Thread(target=self._watch, name="sparseg-watchdog", daemon=True).start()

    def __enter__(self) -> Watchdog:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def beat(self) -> None:
        """Something went forward."""
        self.last_s = time.monotonic()

    def close(self) -> None:
        """Watch no longer."""
        self.ended.set()

    def _watch(self) -> None:
        reported_s = 0.0
        while not self.ended.wait(min(self.silence_s / 4, 5.0)):
            silent_s = time.monotonic() - max(self.last_s, reported_s)
            if silent_s >= self.silence_s:
                print(self._report(time.monotonic() - self.last_s), file=self.out or sys.stderr, flush=True)
                reported_s = time.monotonic()

    def _report(self, silent_s: float) -> str:
        names = {thread.ident: thread.name for thread in threading.enumerate()}
        parts = [f"{self.who}: no step for {silent_s:.0f} s; this is where its threads stand"]
        for ident, frame in sys._current_frames().items():
            if ident != threading.get_ident():
                parts.append(f"thread {names.get(ident, ident)}")
                parts.append("".join(traceback.format_stack(frame)).rstrip())
        return "\n".join(parts)
