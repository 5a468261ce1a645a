"""An imported dataset from Python: open it, draw other labels for it."""

from __future__ import annotations

from pathlib import Path

from sparseg.data import importers, shards, sparsify


def open_dataset(
    path: str | Path, *, cache: str | None = None, verify: bool = False
) -> shards.ShardedDataset:
    """Open an imported dataset, memory-mapped, after checking its files against its manifest.

    Args:
        path: Its folder, or a URL such as s3://bucket/path, whose shards are copied to `cache` first.
        cache: Folder for copies of remote shards (default: the user's cache).
        verify: Read all shards and compare their checksums, not their sizes alone.

    Returns:
        The dataset: class `names`, `palette`, and `splits`, a dict of Hugging Face datasets with the columns
        id, image, label, mask, present, height, width.  Images and labels come encoded, as {"bytes": ...}.

    Raises:
        ValueError: There is no dataset, or a file of it is missing, truncated, altered or of another kind.

    Example:
        >>> data = sparseg.open_dataset("my_shards")
        >>> data.names, data.rows["train"]
        (['ground', 'red', 'green'], 8)
    """
    return shards.open(path, cache=cache, verify=verify)


def draw_labels(
    dataset: str | Path | shards.ShardedDataset,
    out: str | Path,
    *,
    kind: str,
    budget: int,
    seed: int = 0,
    width_px: int | None = None,
    train_split: str = "train",
) -> importers.ImportReport:
    """Draw sparse training labels from a dataset's dense masks, as `sparseg sparsify` does.

    The draws are a function of (mask, seed, row id) alone, and a smaller budget is a subset of a larger one.

    Args:
        dataset: An imported dataset whose training split has masks: opened, its folder or its URL.
        out: Folder to make; it shares no file with `dataset`.
        kind: point, clicks, instance, disc, scribble, block, tag or box.
        budget: Of point: pixels an image; of clicks: pixels a class; of instance, disc and box: components a
            class (0 = all); of scribble: percent of a stroke's length; of block: percent of the annotated
            pixels; of tag: 0.
        seed: Seed of the draws.
        width_px: Width of scribbles, discs and instance clicks (default: the kind's).
        train_split: The split that gets other labels; the others stay as they are.

    Returns:
        The report that the new dataset keeps: what was drawn, pixels per class, the share that is labelled.

    Raises:
        ValueError: The budget has no meaning for this kind, the dataset has no masks or no such split, or
            `out` exists.  Nothing is made then.

    Example:
        >>> report = sparseg.draw_labels("my_shards", "one_click", kind="clicks", budget=1)
        >>> sparseg.open_dataset("one_click").rows == sparseg.open_dataset("my_shards").rows
        True
    """
    folder = dataset.path if isinstance(dataset, shards.ShardedDataset) else dataset
    recipe = sparsify.Recipe(kind=kind, budget=budget, seed=seed, width_px=width_px)
    return importers.sparsify_dataset(folder, out, recipe, train_split=train_split)
