"""Images to predict: which files they are, and their pixels."""

from __future__ import annotations

import glob
import itertools
import re
from collections import Counter
from pathlib import Path

from sparseg.data import shards
from sparseg.data.drawing import Array
from sparseg.data.shards import IMAGE_SUFFIXES


def list_images(images: str | Path) -> tuple[Path, list[Path]]:
    """Files named by a path to an image, a folder or a glob pattern, sorted, and the folder that holds all.

    That is the folder itself, or the part of the pattern before the first of its letters * ? [.  The letters
    behind a pattern's last dot match in any case: '*.jpg' takes a camera's IMG_0001.JPG as well.
    Raises ValueError if there is none.
    """
    path = Path(images).absolute()
    if path.is_file():
        return path.parent, [path]
    if path.is_dir():
        if found := [file for file in path.iterdir() if _is_image(file)]:
            return path, sorted(found)
        raise ValueError(
            f"{images}: no image in this folder ({' '.join(IMAGE_SUFFIXES)}){_in_subfolders(images)}"
        )
    start, dot, suffix = str(images).rpartition(".")
    suffix = re.sub("[a-z]", lambda letter: f"[{letter[0].lower()}{letter[0].upper()}]", suffix, flags=re.I)
    pattern = str(images) if set(suffix) & set("/*?!") or "[" in str(images) else f"{start}{dot}{suffix}"
    found = [file.absolute() for file in map(Path, glob.glob(pattern, recursive=True)) if file.is_file()]
    if not found:
        raise ValueError(f"{images}: no such image, folder, or match of a glob pattern")
    fixed = itertools.takewhile(lambda part: not glob.has_magic(part), Path(images).parts)
    return Path(*fixed).absolute(), sorted(found)


def _is_image(file: Path) -> bool:
    return file.suffix.lower() in IMAGE_SUFFIXES and file.name[0] != "." and file.is_file()


def _in_subfolders(folder: str | Path) -> str:
    """Say how the images below the folder are named, if there are any."""
    below = [file for file in Path(folder).rglob("*") if _is_image(file)]
    if not below:
        return " nor in its subfolders"
    suffixes = Counter(file.suffix.lower() for file in below)
    patterns = [f"'{Path(folder)}/**/*{suffix}'" for suffix, _ in suffixes.most_common()]
    return f", but {len(below)} in its subfolders: give {' or '.join(patterns)}"


def read_image(file: Path) -> Array:
    """(H, W, 3) uint8 RGB of an image file, upright, by the rules of training (data/shards/images.py).

    Raises ValueError naming the file if it is no image, truncated, or of a kind that an import refuses.
    """
    try:
        return shards.decode_image(file.read_bytes(), shards.MAX_SCENE_PIXELS, is_new=True)
    except OSError as error:
        raise ValueError(f"{file}: unreadable image ({error.strerror})") from error
    except ValueError as error:
        raise ValueError(f"{file}: {error}") from error
