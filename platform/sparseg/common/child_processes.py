"""Child processes that leave the caller's script alone."""

from __future__ import annotations

import contextlib
import pickle
import sys
import threading
from collections.abc import Iterator
from typing import Any

_MAIN_IS_HIDDEN = threading.RLock()  # two threads that hide it would each restore what the other has hidden


@contextlib.contextmanager
def script_kept_out(job: Any = None) -> Iterator[None]:
    """Within: processes that multiprocessing starts do not import the main module of this one.

    A process that starts afresh (spawn, forkserver) runs its parent's script again, for the sake of functions
    that are defined there.  A script without ``if __name__ == "__main__"`` would so begin a second time in
    every child, and one that came through a pipe is not found at all.  multiprocessing learns where the
    script is from the main module's ``__spec__`` and ``__file__``; both are put away meanwhile.

    Args:
        job: What the processes are going to be given.  If it is defined in the script itself, which then has
            to be imported, nothing is changed.
    """
    main = sys.modules["__main__"]
    if b"__main__" in pickle.dumps(job):
        yield
        return
    with _MAIN_IS_HIDDEN:
        hidden: dict[str, Any] = {
            name: vars(main)[name] for name in ("__spec__", "__file__") if name in vars(main)
        }
        vars(main).update(__spec__=None)
        vars(main).pop("__file__", None)
        try:
            yield
        finally:
            vars(main).update(hidden)
