"""What surrounds a Ray head that this process starts or looks for: settings, temporary files, a dead head's
note."""

from __future__ import annotations

import atexit
import contextlib
import os
import shutil
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path

RAY_SETTINGS = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_TRAIN_ENABLE_PRINT_PATCH": "0",
    "RAY_DEDUP_LOGS": "0",
    "RAY_TRAIN_METRICS_ENABLED": "0",
}
"""Set unless the user has set them: no usage statistics, and logs that read as they were printed."""


@contextlib.contextmanager
def own_temporary_folder() -> Iterator[None]:
    """Within: what Ray starts puts its temporary files where this process removes them at its end.  Its
    dashboard leaves a socket behind otherwise, with every start."""
    before = os.environ.get("TMPDIR")
    os.environ.setdefault("RAY_TMPDIR", before or "/tmp")  # its sessions stay where they were
    folder = tempfile.mkdtemp(prefix="sparseg-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    os.environ["TMPDIR"] = folder
    try:
        yield
    finally:
        if before is None:
            del os.environ["TMPDIR"]
        else:
            os.environ["TMPDIR"] = before


def forget_dead_head() -> None:
    """A head that was killed leaves a note with its address: `ray.init` would wait for it for minutes, and
    Ray Train's helpers at every end of a run."""
    note = (
        Path(os.environ.get("RAY_TMPDIR") or os.environ.get("TMPDIR") or "/tmp") / "ray/ray_current_cluster"
    )
    if os.environ.get("RAY_ADDRESS") or not note.is_file():
        return
    address = note.read_text().strip()
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host, int(port)), timeout=5).close()
    except OSError:
        print(f"no Ray answers at {address}, where one was started; starting one here", flush=True)
        note.unlink(missing_ok=True)
