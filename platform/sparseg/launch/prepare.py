"""Before a run starts: absolute paths, the imported dataset, and every check that needs no worker."""

from __future__ import annotations

import dataclasses
import functools
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sparseg.common import object_store, plugins
from sparseg.config import Config, ModelConfig, load
from sparseg.data import importers, shards
from sparseg.runs import checkpoint, log, new_round, store
from sparseg.train import schedule


def prepare(
    config: Config, *, imports: Sequence[str] = (), share_images: bool = False
) -> tuple[Config, str | Path]:
    """Absolute paths, the imported dataset, and every check that needs no worker -> (configuration, the
    dataset's folder or URL).

    `imports` are the storages in whose datasets/ an import of raw data is looked for; a new one goes to the
    first (default: the run's storage alone).  share_images: see `importers.prepare`.  Raises ValueError with
    what is wrong and its remedy.
    """
    config = with_plugins(config)
    if not config.data.root:
        raise ValueError(
            "data.root is not set: give --data.root FOLDER (an imported dataset, or a raw layout)"
        )
    if os.environ.get("RAY_JOB_CONFIG_JSON_ENV_VAR") and not Path(config.run.storage).is_absolute():
        raise ValueError(
            f"run.storage={config.run.storage!r} is relative, and the working directory of a Ray job "
            "is temporary; give an absolute folder that the workers reach"
        )
    config = _with_absolute_paths(config)
    store.check(config)
    store.pull(config)
    if not config.run.fresh:
        checkpoint.refuse_other_run(config)
    config = dataclasses.replace(config, model=_with_found_weights(config))
    check_network(new_round.untrained(config.model), config.data.crop_px)
    storage, *older = imports or (str(config.folder.parent),)
    dataset = importers.prepare(config.data, storage, older=older, share_images=share_images)
    found = shards.describe(dataset, cache=config.data.cache)
    for split in (config.data.train_split, *([config.data.val_split] if config.data.validates else [])):
        if found.rows[split] == 0:
            raise ValueError(f"{dataset}: split {split!r} has no images")
    side = found.report.get("long_side_px", config.data.long_side_px)  # recorded: predictions want it, too
    config = dataclasses.replace(config, data=dataclasses.replace(config.data, long_side_px=side))
    _refuse_unlabelled(found, config)
    if config.loss.with_extra:
        from sparseg.losses import extra_terms  # loads torch

        extra_terms.check(config.loss, len(found.names), config.model.feature_channels)
    if not config.run.fresh:
        checkpoint.refuse_other_classes(config.folder, found.names)
        _refuse_or_note_other_data(found, config)
    if config.model.start is not None and (config.run.fresh or not checkpoint.all_of(config.folder)):
        config = _from_a_network(config, config.model.start, found.names)
    if config.loss.class_balance:
        shards.labelled_pixels(found, config.data.train_split)
    return config, dataset


def _with_found_weights(config: Config) -> ModelConfig:
    """The network's configuration with model.weights=auto as what it means here; a run that goes on keeps
    what it began with."""
    if config.model.weights != "auto":
        return config.model
    if config.model.start is not None:
        return new_round.untrained(config.model)
    saved = config.folder / "config.json"
    if not config.run.fresh and checkpoint.all_of(config.folder) and saved.is_file():
        return dataclasses.replace(config.model, weights=load(saved).model.weights)
    from sparseg.network import backbone  # loads torch and timm

    return backbone.found_weights(config.model)


def with_plugins(config: Config) -> Config:
    """Import the modules of run.plugins and loss.extra_terms -> the configuration in which the files of the
    former have absolute paths.

    Raises ValueError naming one that is not there, or that fails.
    """
    plugins.load(config.run.plugins)
    if config.loss.extra_terms is not None:
        from sparseg.losses import extra_terms  # loads torch

        extra_terms.function_of(config.loss.extra_terms)
    run = dataclasses.replace(config.run, plugins=plugins.absolute(config.run.plugins))
    return dataclasses.replace(config, run=run)


def _with_absolute_paths(config: Config) -> Config:
    """The configuration with paths that mean the same in another current folder."""
    data, weights = config.data, config.model.weights
    data = dataclasses.replace(
        data,
        root=_absolute(data.root),
        shards=data.shards and _absolute(data.shards),
        label_path=data.label_path and _label_path(data.label_path),
        # every node has its own home
        cache=data.cache and (data.cache if data.cache.startswith("~") else _absolute(data.cache)),
    )
    return dataclasses.replace(
        config,
        data=data,
        model=dataclasses.replace(
            config.model,
            weights=weights if weights in ("none", "timm", "auto") else _absolute(weights),
            start=config.model.start and _absolute(config.model.start),
        ),
        run=dataclasses.replace(config.run, storage=_absolute(config.run.storage)),
    )


def _refuse_unlabelled(found: shards.Description, config: Config) -> None:
    """Raise ValueError if the dataset says that no training image has a label."""
    split = config.data.train_split
    counts = found.report.get("splits", {}).get(split, {})
    if config.data.label != "full" and counts.get("rows_without_label", -1) == found.rows[split]:
        raise ValueError(
            f"{found.source}: none of the {found.rows[split]} images of split {split!r} has a labelled "
            "pixel, so nothing can be learnt; annotate some, and import the data again"
        )


def _from_a_network(config: Config, start: str, names: Sequence[str]) -> Config:
    """The configuration with model.start as the checkpoint that it means now.  Raises ValueError if its
    network does not fit."""
    from sparseg.network import segmenter

    path = str(new_round.resolve(start))
    network = segmenter.build(new_round.untrained(config.model), len(names), quiet=True)
    new_round.load(network, path, names)
    return dataclasses.replace(config, model=dataclasses.replace(config.model, start=path))


def _refuse_or_note_other_data(found: shards.Description, config: Config) -> None:
    """Raise ValueError if the run in STORAGE/NAME has ended, with other data than these; print a note if it
    has not, and would go on with them."""
    path = config.folder / "environment.json"
    saved = checkpoint.all_of(config.folder)
    if not saved or not path.is_file():
        return
    told = log.read_json(path)
    changes = _changes(found, config, told)
    if not changes:
        return
    images = (told.get("labels", {}).get("images"), found.rows[config.data.train_split])
    length = min(schedule.plan(config, count).total_steps for count in images if count)
    if saved[-1].name >= checkpoint.name_of(length):
        raise ValueError(
            f"{config.folder} holds a finished run, and its data have changed since: {changes}; train anew "
            "with --run.fresh (moves the old run aside), or begin a new round from its network with "
            f"--model.start {config.folder} and another --run.name"
        )
    print(
        f"note: the run goes on with other data than it began with: {changes}; --run.fresh trains anew on "
        "them (moves the old run aside)"
    )


def _changes(found: shards.Description, config: Config, told: dict[str, Any]) -> str:
    """Say how the data differ from those that a run's environment.json tells of; empty if they do not, or
    nobody knows."""
    before, now = told.get("data_fingerprint"), found.report.get("fingerprint")
    if None in (before, now) or before == now:
        return ""
    then, counts = told.get("labels", {}), shards.label_counts(found, config.data.train_split)
    what = {"images": "images", "pixels": "labelled pixels"}
    changed = [
        f"{config.data.train_split} {word} {then[name]:,} -> {counts[name]:,}"
        for name, word in what.items()
        if None not in (then.get(name), counts[name]) and then[name] != counts[name]
    ]
    how = ", ".join(changed) or "as many images and labels, of other files or settings"
    return f"{how} (fingerprint {before} -> {now})"


@functools.cache
def check_network(network: ModelConfig, crop_px: int) -> None:
    """ValueError for a wrong name, a weights file that does not fit, or a crop too small for the network."""
    from sparseg.network import segmenter  # loads torch and timm: seconds, where a run is really checked

    segmenter.check_crop(segmenter.build(network, 2, quiet=True), network, crop_px)


def move_aside(config: Config) -> Config:
    """Rename the earlier run of this name, if any -> configuration that no longer asks for it, and finds a
    model.start that was in it where it is now."""
    aside, model = store.move_aside(config), config.model
    if aside is not None:
        print(f"moved the earlier run to {aside}")
        if model.start is not None and Path(model.start).is_relative_to(config.folder):
            moved = Path(aside) / Path(model.start).relative_to(config.folder)
            model = dataclasses.replace(model, start=str(moved))
    return dataclasses.replace(config, model=model, run=dataclasses.replace(config.run, fresh=False))


def _absolute(path: str) -> str:
    """Workers may have another working directory; a URL is the same everywhere."""
    return path.rstrip("/") if object_store.is_url(path) else str(Path(path).expanduser().absolute())


def _label_path(path: str) -> str:
    """A label path is taken from here if it is there, else left to the importer, which looks under the
    root."""
    return _absolute(path) if Path(path).expanduser().exists() else path


def finished(config: Config, dataset: str | Path) -> dict[str, Any] | None:
    """The best scores of a run that has made all its steps, else None."""
    saved = checkpoint.all_of(config.folder)
    found = shards.describe(dataset, cache=config.data.cache)
    length = schedule.plan(config, found.rows[config.data.train_split])
    if not saved or saved[-1].name != checkpoint.name_of(length.total_steps):
        return None
    best = log.read_json(config.folder / "iou.json")
    return {**best, "steps": length.total_steps, "total_steps": length.total_steps}
