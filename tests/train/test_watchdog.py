"""A process that stands still says where; one that goes on says nothing."""

from __future__ import annotations

import io
import threading
import time

from sparseg.train.watchdog import Watchdog


def wait_for(out: io.StringIO, text: str, times: int = 1) -> bool:
    end_s = time.monotonic() + 20
    while time.monotonic() < end_s:
        if out.getvalue().count(text) >= times:
            return True
        time.sleep(0.01)
    return False


def stuck_here(release: threading.Event) -> None:
    release.wait(30)


def test_silence_is_reported_with_the_stacks_of_all_threads_and_again() -> None:
    out, release = io.StringIO(), threading.Event()
    thread = threading.Thread(target=stuck_here, args=(release,), name="stuck")
    thread.start()
    with Watchdog(0.2, "[run] rank 1 on host", out):
        found = wait_for(out, "[run] rank 1 on host: no step for", times=2)
    release.set()
    thread.join()
    assert found
    assert "thread stuck" in out.getvalue() and "in stuck_here" in out.getvalue()
    assert "thread MainThread" in out.getvalue()


def test_steps_keep_it_quiet_and_closing_ends_it() -> None:
    out = io.StringIO()
    with Watchdog(5.0, "x", out) as watchdog:
        watchdog.last_s -= 4.9  # nearly
        watchdog.beat()
        assert time.monotonic() - watchdog.last_s < 1
    before = threading.active_count()
    with Watchdog(0.0, "x", out):
        assert threading.active_count() == before  # off: no thread
    assert out.getvalue() == ""
