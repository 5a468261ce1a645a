"""The report of an import, which its dataset keeps in sparseg.json."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any


@dataclasses.dataclass(frozen=True, kw_only=True)
class ImportReport:
    """Says what an import was given, how it read the annotation, what it counted and what it refused."""

    layout: str = ""
    root: str = ""
    """Folder or URL that was imported."""
    label: str | None = None
    """Annotation of the training images, as data.label; None where nobody said."""
    settings: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    """The fields of ImportConfig that the raw data was imported with."""
    fingerprint: str | None = None
    """Changes with everything that the rows depend on."""
    classes: tuple[str, ...] = ()
    encoding: str = ""
    """How the training labels were found, read or drawn."""
    splits: Mapping[str, dict[str, Any]] = dataclasses.field(default_factory=dict)
    """Split -> its counts (Summary.as_dict)."""
    refused: tuple[dict[str, str], ...] = ()
    """Images that were left out: split, id, reason."""
    notes: tuple[str, ...] = ()
    val_labels: str | None = None
    """Labels of the validation split: dense or sparse (clicks of held-out images); None where nobody said."""
    tiles: Mapping[str, int] | None = None
    """tile_px and tile_overlap_px, if larger images were cut."""
    long_side_px: int | None = None
    """Long side to which larger images were resized, with their annotation; None: they were not."""
    drawn: Mapping[str, Any] | None = None
    """How `sparsify` drew the training labels from the dense masks of another dataset, if it did."""
    others: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    """What else a report of another program says; kept as it is."""

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], **defaults: Any) -> ImportReport:
        """Read what `to_dict` gave, with `defaults` for the fields that it lacks."""
        names = {entry.name for entry in dataclasses.fields(cls)} - {"others"}
        known = {name: value for name, value in values.items() if name in names}
        others = {name: value for name, value in values.items() if name not in names}
        known = {**defaults, **known}
        for name in ("classes", "refused", "notes"):
            known[name] = tuple(known.get(name, ()))
        return cls(**known, others=others)

    def to_dict(self) -> dict[str, Any]:
        """Give the report as JSON; what is None is left out."""
        values = {entry.name: getattr(self, entry.name) for entry in dataclasses.fields(self)}
        others = values.pop("others")
        for name in ("classes", "refused", "notes"):
            values[name] = list(values[name])
        return {**others, **{name: value for name, value in values.items() if value is not None}}

    @property
    def labels_were_drawn(self) -> bool:
        """Says whether the training labels were drawn from dense masks, in every tile."""
        asked = self.settings
        return self.drawn is not None or bool(asked.get("random_pixels") or asked.get("clicks_per_class"))
