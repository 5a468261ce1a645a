"""The `sparseg` command in this process."""

from __future__ import annotations

import pytest

from sparseg import cli


def run(words: str) -> int:
    """Exit code of `sparseg WORDS`."""
    with pytest.raises(SystemExit) as stop:
        cli.main(words.split())
    assert isinstance(stop.value.code, int)
    return stop.value.code
