"""Raw datasets -> Arrow shards: `prepare` for runs, `import_dataset` and `format_report` for the command."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import time
from collections.abc import Sequence
from pathlib import Path

from sparseg.common import object_store
from sparseg.config import DataConfig, FieldError, ImportConfig, field, flag
from sparseg.data import shards, sparsify
from sparseg.data.importers import layouts
from sparseg.data.importers.build import derive, import_source
from sparseg.data.importers.report import ImportReport
from sparseg.data.importers.reuse import refuse_few_of_tiles, refuse_lost_tiles, refuse_settled, to_derive
from sparseg.data.importers.source import READ_KINDS, Source, attach, fingerprint, recipe_of, tiles_of
from sparseg.data.importers.summary import describe, format_report, inspected, notes_of

DEFAULTS = ImportConfig()
ANNOUNCED_ROWS = 2000  # an import of more takes long enough to be announced
OLD_COLOURS = "has other colours than classes.txt now, those of its import; remove it to import anew"

__all__ = ["ImportReport", "format_report", "import_dataset", "inspected", "prepare", "sparsify_dataset"]


def import_dataset(
    layout: str,
    source: str | Path,
    out: str | Path,
    config: ImportConfig = DEFAULTS,
    *,
    num_shards: int = 1,
    workers: int | None = None,
) -> ImportReport:
    """Import a raw dataset into Arrow shards, as `sparseg import` does.

    An interrupted import goes on when it is repeated, and writes all or nothing.

    Args:
        layout: auto (looks at the folder), camvid, voc, cityscapes, ade20k or folder.
        source: Folder of the raw dataset.
        out: Folder to make, or a URL such as s3://bucket/path.
        config: Which labels, how they are read or drawn, how images are kept.
        num_shards: Arrow files a split.
        workers: Processes: 0 for this one alone, None for as many as pay.

    Returns:
        The report that the dataset keeps: classes, counts of every split, encoding, refused rows, notes.

    Raises:
        ValueError: The input is wrong; one line names the file, what was found and the remedy.  `out` is not
            made then.

    Example:
        >>> report = sparseg.import_dataset("folder", "raw", "imported", sparseg.ImportConfig(), workers=0)
        >>> sparseg.open_dataset("imported").names == list(report.classes)
        True
    """
    root = _root(source)
    listed = _listed(layouts.detect(root) if layout == "auto" else layout, root, config)
    return import_source(listed, config, str(out), num_shards=num_shards, workers=workers)


def prepare(
    data: DataConfig,
    storage: str | Path,
    *,
    older: Sequence[str | Path] = (),
    share_images: bool = False,
) -> str | Path:
    """Find the dataset that a run reads, folder or URL; a raw `data.root` is imported once, then found again.

    Imports go to STORAGE/datasets; an equal one in the same place of an `older` storage is taken as it is.
    The shards' checksums are checked here; those of a URL, of which only the manifest is read, at copying.
    share_images: what draws its clicks from dense masks holds labels alone, and has its images in the import
    with the masks, so that any number of budgets need them once.
    To be called once, before workers start.  Two calls at once wait for each other.  Prints one line, and an
    import's notes.
    Raises ValueError for wrong input, in one line.
    """
    start_s = time.perf_counter()
    root = _url(data) if object_store.is_url(data.root) else _root(data.root)
    layout = _layout_of(root, data)
    given = listed = None
    if layout == "shards" or isinstance(root, str):
        given = _checked(root, data)
        refuse_settled(given, data)
        refuse_few_of_tiles(ImportReport.from_dict(given.report), data)
        if not to_derive(given, data):
            print(f"dataset: {describe(given)}")
            return root
        name = _derived_name(given, recipe_of(data))
    else:
        refuse_few_of_tiles(ImportReport(tiles=tiles_of(data)), data)
        listed = _listed(layout, root, data)
        name = fingerprint(listed, data)
    places = [Path(place) / "datasets" / f"{layout}-{data.label}-{name}" for place in (storage, *older)]
    out = Path(data.shards) if data.shards else next((place for place in places if place.exists()), places[0])
    if not out.exists():
        try:
            if listed is not None:
                _import(listed, data, out, storage, older, share_images=share_images)
            elif given is not None:
                _derive(given, data, out, share_images=share_images)
            imported = _checked(out, data)
            seconds = time.perf_counter() - start_s
            print(f"dataset: imported {describe(imported)} from {root} in {seconds:.1f} s")
            for note in notes_of(ImportReport.from_dict(imported.report)):
                print(f"note: {note}")
            return out.absolute()
        except shards.DatasetExistsError:
            pass  # another process was faster; its result is as good
    earlier = _checked(out, data)
    if earlier.report.get("fingerprint") not in (None, name):
        raise FieldError(
            f"{field('data.shards')}: {out} was imported with other settings or from other files; name "
            "another folder or remove it"
        )
    print(f"dataset: {describe(earlier)}")
    if listed is not None and listed.colours and earlier.palette != layouts.palette_of(listed):
        print(f"note: {out} {OLD_COLOURS}")
    return out.absolute()


def _layout_of(root: str | Path, data: DataConfig) -> str:
    """Name the layout of raw data, or say that these are shards; recipes name theirs, whether or not the data
    were imported before."""
    if isinstance(root, str) or shards.is_dataset(root):
        return "shards"
    return layouts.detect(root) if data.layout == "auto" else data.layout


def _import(
    listed: Source,
    data: DataConfig,
    out: Path,
    storage: str | Path,
    older: Sequence[str | Path],
    *,
    share_images: bool,
) -> None:
    """Import raw data into `out`; with `share_images` clicks are drawn beside an import with the dense masks,
    which has the images.

    Not where tiles are cut, because clicks are then drawn tile by tile, nor where the place is given.
    """
    recipe = recipe_of(data)
    if share_images and recipe is not None and not data.tile_px and data.shards is None:
        dense = dataclasses.replace(
            data,
            label="full",
            label_path=None,
            random_pixels=0,
            clicks_per_class=0,
            label_seed=0,
            keep_labels=1.0,
        )
        home = Path(prepare(dense, storage, older=older))
        name, images = fingerprint(listed, data), _images_of(home, out)
        derive(shards.open(home), recipe, out, train_split="train", name=name, images=images)
        return
    count = sum(len(items) for items in listed.splits.values())
    if count > ANNOUNCED_ROWS:
        print(f"dataset: importing {count} images of {listed.root} into {out}, once", flush=True)
    import_source(listed, data, str(out))


def _derive(given: shards.Description, data: DataConfig, out: Path, *, share_images: bool) -> None:
    """Draw the run's clicks from the masks of an imported dataset into `out`; with `share_images` the images
    stay where they are, unless that is a cache, which may be emptied."""
    recipe, opened = recipe_of(data), shards.open(given.source, cache=data.cache)
    assert recipe is not None
    share_images = share_images and not object_store.is_url(given.source)
    images, name = _images_of(opened.path, out) if share_images else None, _derived_name(given, recipe)
    derive(opened, recipe, out, train_split=data.train_split, name=name, images=images)


def _images_of(home: Path, out: Path) -> shards.ImagesElsewhere | None:
    """Say where a dataset at `out` finds the images of the one at `home`; None if it must have its own."""
    manifest = shards.read_manifest(home)
    if manifest is None or not manifest.upright or manifest.images is not None:
        return None
    beside = home.resolve().parent == out.resolve().parent
    return shards.ImagesElsewhere(f"../{home.name}" if beside else str(home.resolve()), manifest.identity)


def _url(data: DataConfig) -> str:
    """Give data.root, a URL, without its last slash.  Raises ValueError if data.shards is a URL, too."""
    if data.shards and object_store.is_url(data.shards):
        raise FieldError(f"{field('data.shards')} must be a local folder, got {data.shards}")
    return data.root.rstrip("/")


def sparsify_dataset(
    dataset: str | Path, out: str | Path, recipe: sparsify.Recipe, *, train_split: str = "train"
) -> ImportReport:
    """Write an imported dataset into the folder `out` with training labels drawn from its dense masks.

    Raises ValueError, in one line, if it has no such split or no masks, lacks tiles, or if `out` exists; then
    nothing is made.
    """
    given = shards.describe(dataset, verify=True)
    if train_split not in given.rows:
        raise ValueError(f"{dataset}: no split {train_split!r}; it has {', '.join(given.rows)}")
    refuse_lost_tiles(given, train_split, f"labels of kind {recipe.kind}")
    name = _derived_name(given, recipe)
    return derive(shards.open(dataset), recipe, out, train_split=train_split, name=name)


def _root(root: str | Path) -> Path:
    give = f"give the dataset's folder with {flag('data.root')}"
    if not str(root):
        raise FieldError(f"{field('data.root')} is not set; {give}")
    path = Path(root).expanduser()
    if not path.is_dir():
        raise FieldError(f"{field('data.root')}: {path} is not a folder; {give}")
    return path.absolute()


def _checked(path: str | Path, data: DataConfig) -> shards.Description:
    """Describe the dataset at a path.  Raises ValueError if it has not the classes and splits that the run
    expects."""
    dataset = shards.describe(path, cache=data.cache, verify=True)
    if data.num_classes not in (None, len(dataset.names)):
        raise FieldError(
            f"{path}: has {len(dataset.names)} classes but {field('data.num_classes')}={data.num_classes}; "
            f"correct {flag('data.num_classes')} or {flag('data.root')}"
        )
    for name, split in (("data.train_split", data.train_split), ("data.val_split", data.val_split)):
        if name == "data.val_split" and not data.validates:
            continue
        if split not in dataset.rows:
            raise FieldError(
                f"{path}: {field(name)}={split!r} is not among its splits {', '.join(dataset.rows)}"
            )
    return dataset


# ---------------------------------------------------------------------------------------------- raw -> shards


def _listed(layout: str, root: Path, config: ImportConfig) -> Source:
    """List the raw dataset, after all checks that need no decoding."""
    if config.label not in (*READ_KINDS, "full"):
        raise FieldError(
            f"{field('data.label')} must be one of {', '.join((*READ_KINDS, 'full'))}, got {config.label!r}"
        )
    if config.val_group is not None and layout != "folder":
        raise FieldError(
            f"{field('data.val_group')}={config.val_group!r}: layout {layout} has splits of its own; leave "
            f"it out, or import the images as {flag('data.layout')} folder"
        )
    source = layouts.read_layout(layout, root, config)
    if config.label == "full" and config.label_path is not None:
        raise FieldError(
            f"{field('data.label_path')} has no meaning with {field('data.label')}=full, which trains on the "
            "dense masks"
        )
    return attach(source, config)


# ------------------------------------------------------------------------------------------- shards -> shards


def _derived_name(given: shards.Description, recipe: sparsify.Recipe | None) -> str:
    assert recipe is not None
    source = given.source if object_store.is_url(given.source) else str(Path(given.source).resolve())
    facts = [source, shards.VERSION, given.identity, recipe.label, dataclasses.asdict(recipe)]
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:10]
