"""How a command ends: exit codes, one-line errors, interrupts."""

from __future__ import annotations

import math
import os
import select
import signal
import sys
import threading
import time
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

PACKAGE = Path(__file__).resolve().parents[1]
_python_format = warnings.formatwarning


class Interrupted(Exception):
    """The user asked the run to end; it saved and can be resumed."""


def guarded(action: Callable[[], Any]) -> int:
    """Exit code of an action; errors are one line on stderr, with the traceback only if SPARSEG_DEBUG=1."""
    warnings.formatwarning = formatted_warning
    try:
        action()
        return 0
    except (KeyboardInterrupt, Interrupted) as stop:
        print(str(stop) or "interrupted", file=sys.stderr)
        return 130
    except Exception as error:
        if isinstance(error, BrokenPipeError) and _reader_is_gone():
            return 1
        if os.environ.get("SPARSEG_DEBUG") == "1":
            traceback.print_exc()
        print(f"error: {reason(error)}", file=sys.stderr)
        return 2 if isinstance(error, ValueError) else 1


def formatted_warning(
    message: Warning | str, category: type[Warning], filename: str, lineno: int, line: str | None = None
) -> str:
    """Format a warning for people: one of this package without the line of code that gave it."""
    if PACKAGE in Path(filename).parents:
        return f"warning: {message}\n"
    return _python_format(message, category, filename, lineno, line)


def _reader_is_gone() -> bool:
    """Whether nobody reads our output any more (`sparseg inspect DATA | head`); then it goes nowhere."""
    poll = select.poll()
    poll.register(sys.stdout, 0)
    gone = any(event & select.POLLERR for _, event in poll.poll(0))
    if gone:  # what is still in the buffer would raise again at exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return gone


def reason(error: BaseException) -> str:
    """The first cause in one line: Ray wraps what a worker raised."""
    failures = getattr(error, "worker_failures", None)
    if failures:
        error = next(iter(failures.values()))
    cause = getattr(error, "cause", None)
    error = cause if isinstance(cause, BaseException) else error
    lines = [line for line in str(error).splitlines() if line.strip()]
    text = lines[0] if len(lines) <= 1 else lines[-1]
    return text or type(error).__name__


def one_line(error: BaseException) -> str:
    """What the error says, in one line; its type where it says nothing."""
    return " ".join(str(error).split()) or type(error).__name__


class on_interrupt:  # noqa: N801 - reads as a statement
    """Within: the first SIGINT or SIGTERM calls `ask` and the run saves and ends; the second ends the
    process."""

    def __init__(self, ask: Callable[[], Any], what_follows: str) -> None:
        self.ask, self.what_follows, self.count = ask, what_follows, 0

    def __enter__(self) -> None:
        self.before = {}
        if threading.current_thread() is threading.main_thread():
            self.before = {s: signal.signal(s, self.handle) for s in (signal.SIGINT, signal.SIGTERM)}

    def handle(self, number: int, frame: Any) -> None:
        """Of a signal: ask once, then end."""
        self.count += 1
        if self.count > 1:
            raise KeyboardInterrupt
        name = signal.Signals(number).name
        print(f"\n{name}: {self.what_follows}; once more to end at once", file=sys.stderr, flush=True)
        self.ask()

    def __exit__(self, *_: object) -> None:
        for number, handler in self.before.items():
            signal.signal(number, handler)


def seldom(ask: Callable[[], bool], pause_s: float) -> Callable[[], bool]:
    """`ask`, but for `pause_s` after each time that it was asked the answer is no."""
    asked_s = -math.inf

    def answer() -> bool:
        nonlocal asked_s
        if time.monotonic() - asked_s < pause_s:
            return False
        asked_s = time.monotonic()
        return ask()

    return answer


def in_thread(*actions: Callable[[], Any]) -> list[Any]:
    """Run the actions beside the main thread, all at once, and give what they return.

    The main thread stays free for signals (Ray would take SIGINT for itself); the first error is raised here.
    """
    results: list[Any] = [None] * len(actions)
    errors: list[BaseException] = []

    def work(number: int) -> None:
        try:
            results[number] = actions[number]()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(number,), daemon=True) for number in range(len(actions))]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        threads[0].join(0.2)
        threads[-1].join(0.2)
    if errors:
        raise errors[0]
    return results
