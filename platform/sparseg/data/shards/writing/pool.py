"""Parts made by several processes: started when they pay, stopped without a trace, errors in listed order."""

from __future__ import annotations

import contextlib
import dataclasses
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from sparseg.common.child_processes import script_kept_out
from sparseg.data.shards.writing.parts import Form, Part, Row, write_part

TRIAL_S = 1.0  # this process alone works so long, and then knows how fast it is
POOL_PAYS_S = 4.0  # of work left; a worker takes about a second to start
BAR_AFTER_S = 1.5

Reader = Callable[[str, Sequence[Any], dict[str, Any]], Iterator[Row]]
"""(split, items, facts) -> their rows; facts (JSON) are filled in by the time the last row was given."""


@dataclasses.dataclass(frozen=True)
class Job:
    """How parts are made; goes to worker processes, so all of it can be pickled."""

    open_reader: Callable[[], Reader]
    """Called once a process."""
    folder: Path
    form: Form


class _Stopped(Exception):
    """The import ends: a part in progress is given up."""


def num_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def make_parts(job: Job, parts: Sequence[Part], workers: int | None, done: int = 0) -> None:
    """Make the parts; finished ones stay whatever happens.  A bar shows images where stderr is a terminal.

    `workers` processes; 0 this one alone; None as many as cores, if a second's work here says that they pay.
    `done` counts images that were imported before.  Raises what the first part in listed order raised, or
    KeyboardInterrupt with a sentence.
    """
    if workers is not None and workers < 0:
        raise ValueError(f"the number of workers must be at least 0, got {workers}")
    total = done + sum(len(part.items) for part in parts)
    imported = done
    queue = deque(parts)

    with _bar(total, done) as advance:

        def finished(part: Part) -> None:
            nonlocal imported
            imported += len(part.items)
            advance(len(part.items))

        try:
            if workers is None:
                workers = _trial(job, queue, finished)
            if workers == 0 or not queue:
                _make_here(job, queue, finished)
            else:
                _make_in_pool(job, queue, min(workers, len(queue)), finished)
        except KeyboardInterrupt:
            raise KeyboardInterrupt(
                f"interrupted; {imported} of {total} images are imported, the same command goes on from there"
            ) from None


def _make_here(
    job: Job, queue: deque[Part], finished: Callable[[Part], None], until_s: float = float("inf")
) -> None:
    read = job.open_reader()
    while queue and time.perf_counter() < until_s:
        part, facts = queue[0], dict[str, Any]()
        write_part(job.folder, part, read(part.split, part.items, facts), job.form, facts)
        finished(queue.popleft())


def _trial(job: Job, queue: deque[Part], finished: Callable[[Part], None]) -> int:
    """Work for TRIAL_S -> the number of worker processes for the rest, 0 if they would not pay."""
    if num_cores() == 1 or multiprocessing.current_process().daemon:  # daemons may not have children
        return 0
    start_s, before = time.perf_counter(), len(queue)
    _make_here(job, queue, finished, start_s + TRIAL_S)
    elapsed_s = time.perf_counter() - start_s
    left_s = elapsed_s * len(queue) / max(1, before - len(queue))
    return num_cores() if left_s > POOL_PAYS_S else 0


# -------------------------------------------------------------------------------------------------- processes


def _make_in_pool(job: Job, queue: deque[Part], workers: int, finished: Callable[[Part], None]) -> None:
    from concurrent.futures import Future, ProcessPoolExecutor
    from concurrent.futures.process import BrokenProcessPool

    # Forking a process with threads (those of numpy and pyarrow) may hang, so workers start afresh.
    context = multiprocessing.get_context("spawn")
    stop = context.Event()
    executor = ProcessPoolExecutor(workers, context, _start_worker, (job, stop))
    futures: deque[Future[None]] = deque()

    def submit(part: Part) -> Future[None]:
        future = executor.submit(_make_in_worker, part)
        future.add_done_callback(
            lambda done: None if done.cancelled() or done.exception() else finished(part)
        )
        return future

    try:
        # Workers, started by `submit`, inherit the mask: a Ctrl-C while they import modules must not make
        # them print a traceback.
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
        try:
            with script_kept_out(job):
                futures.extend(submit(part) for part in list(queue))
        finally:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGINT])
        while futures:  # in listed order, so that of several errors always the same one is raised
            futures.popleft().result()
    except BrokenProcessPool as error:
        raise RuntimeError(
            "a worker process of the import died, perhaps for want of memory; the same command goes on; "
            "`sparseg import --workers 1` takes less memory"
        ) from error
    finally:
        stop.set()
        executor.shutdown(wait=True, cancel_futures=True)


_job: Job
_stop: Any
_read: Reader | None = None


def _start_worker(job: Job, stop: Any) -> None:
    global _job, _stop
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent says when to stop
    threading.Thread(target=_end_with_parent, daemon=True).start()
    _job, _stop = job, stop


def _end_with_parent() -> None:
    from multiprocessing.connection import wait

    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])  # a killed parent cannot say so, and its workers would wait for ever
        os._exit(1)


def _make_in_worker(part: Part) -> None:
    global _read
    if _read is None:
        _read = _job.open_reader()
    facts: dict[str, Any] = {}
    rows = _unless_stopped(_read(part.split, part.items, facts))
    write_part(_job.folder, part, rows, _job.form, facts)


def _unless_stopped(rows: Iterator[Row]) -> Iterator[Row]:
    for row in rows:
        if _stop.is_set():
            raise _Stopped
        yield row


# --------------------------------------------------------------------------------------------------- progress


@contextlib.contextmanager
def _bar(total: int, done: int) -> Iterator[Callable[[int], None]]:
    """A progress bar of images -> what advances it; shows after BAR_AFTER_S, on a terminal only."""
    if not sys.stderr.isatty():
        yield lambda count: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        "importing",
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]} images/s, ETA"),
    )
    bar = Progress(*columns, TimeRemainingColumn(), console=Console(stderr=True), transient=True)
    task = bar.add_task("importing", total=total, completed=done, rate="-")
    start_s, count = time.perf_counter(), 0

    def advance(images: int) -> None:
        nonlocal count
        count += images
        elapsed_s = time.perf_counter() - start_s
        bar.update(task, advance=images, rate=f"{count / elapsed_s:.0f}")
        if elapsed_s > BAR_AFTER_S and not bar.live.is_started:
            bar.start()

    try:
        yield advance
    finally:
        bar.stop()
