"""Writing checkpoints beside the training: one at a time, in order, tried again when the storage fails."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

from sparseg.common.process import one_line

WAITS_S = (1.0, 4.0, 16.0)
"""Seconds before a failed save is tried again."""


class SaveError(RuntimeError):
    """A checkpoint could not be written, however often it was tried."""


class Saver:
    """Runs one save at a time in a thread of its own; a failure ends the run at its next logged line."""

    def __init__(self, folder: Path, waits_s: tuple[float, ...] = WAITS_S) -> None:
        self.folder, self.waits_s = folder, waits_s
        self.last_good: int | None = None
        self.error: SaveError | None = None
        self.thread: threading.Thread | None = None

    def __enter__(self) -> Saver:
        return self

    def __exit__(self, *_: object) -> None:
        self.wait()

    def submit(self, step: int, write: Callable[[], None]) -> None:
        """Start `write`, once the save before it is done; nothing after a failure."""
        self.wait()
        if self.error is None:
            self.thread = threading.Thread(target=self._run, args=(step, write), name="sparseg-save")
            self.thread.start()

    def wait(self) -> None:
        """Until nothing is being written."""
        if self.thread is not None:
            self.thread.join()
            self.thread = None

    def _run(self, step: int, write: Callable[[], None]) -> None:
        for wait_s in (*self.waits_s, None):
            try:
                write()
                self.last_good = step
                return
            except Exception as error:
                reason = one_line(error)
                if wait_s is None or not isinstance(error, OSError):
                    self.error = SaveError(self._final(step, reason))
                    self.error.__cause__ = error
                    return
                print(
                    f"saving step {step} in {self.folder} failed ({reason}); again in {wait_s:g} s",
                    file=sys.stderr,
                    flush=True,
                )
                time.sleep(wait_s)

    def _final(self, step: int, reason: str) -> str:
        good = "none of this run" if self.last_good is None else f"that of step {self.last_good}"
        return (
            f"{self.folder}: the checkpoint of step {step} could not be written ({reason}); the last good "
            f"one is {good}; make room or mend the storage, then repeat the command"
        )
