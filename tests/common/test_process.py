"""How a command ends, and how it warns."""

from __future__ import annotations

import sys
import warnings
from pathlib import Path
from typing import Any

import pytest

import sparseg
from sparseg.common import process


def test_a_warning_of_ours_is_one_line_and_that_of_others_stays_pythons(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(warnings, "formatwarning", warnings.formatwarning)  # comes back after the test
    ours = str(Path(sparseg.__file__).parent / "train" / "state.py")

    def warn() -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("always")
            for file in (ours, "/elsewhere/other.py"):
                warnings.showwarning = _to_stderr
                warnings.warn_explicit("random weights", UserWarning, file, 7)

    assert process.guarded(warn) == 0
    first, second = capsys.readouterr().err.splitlines()[:2]
    assert first == "warning: random weights"
    assert second == "/elsewhere/other.py:7: UserWarning: random weights"


def _to_stderr(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: Any = None,
    line: Any = None,
) -> None:
    """Python's own way; pytest has put another in its place."""
    sys.stderr.write(warnings.formatwarning(message, category, filename, lineno, line))
