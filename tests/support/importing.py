"""Imports as tests ask for them: the fields of the configuration as keywords."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sparseg.config import ImportConfig
from sparseg.data import importers


def import_dataset(
    layout: str,
    source: Path,
    out: Path | str,
    *,
    num_shards: int = 1,
    workers: int | None = None,
    **fields: Any,
) -> importers.ImportReport:
    """`importers.import_dataset` with these fields of ImportConfig."""
    config = ImportConfig(**fields)
    return importers.import_dataset(layout, source, out, config, num_shards=num_shards, workers=workers)
