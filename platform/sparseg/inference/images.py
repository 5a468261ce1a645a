"""Images to predict: which files they are, and their pixels."""

from __future__ import annotations

import glob
import re
from pathlib import Path

from sparseg.data import shards
from sparseg.data.drawing import Array
from sparseg.data.shards import IMAGE_SUFFIXES


def list_images(images: str | Path) -> list[Path]:
    """Files named by a path to an image, a folder or a glob pattern, sorted.  Raises ValueError if none.

    The letters behind a pattern's last dot match in any case: '*.jpg' takes a camera's IMG_0001.JPG as well.
    """
    path = Path(images)
    if path.is_file():
        return [path]
    if path.is_dir():
        found = [
            file for file in path.iterdir() if file.suffix.lower() in IMAGE_SUFFIXES and file.name[0] != "."
        ]
    else:
        start, dot, suffix = str(images).rpartition(".")
        suffix = re.sub(
            "[a-z]", lambda letter: f"[{letter[0].lower()}{letter[0].upper()}]", suffix, flags=re.I
        )
        pattern = str(images) if set(suffix) & set("/*?!") or "[" in str(images) else f"{start}{dot}{suffix}"
        found = [file for file in map(Path, glob.glob(pattern, recursive=True)) if file.is_file()]
    if not found:
        reason = (
            f"no image in this folder ({' '.join(IMAGE_SUFFIXES)}); for subfolders give '{images}/*/*.jpg'"
            if path.is_dir()
            else "no such image, folder, or match of a glob pattern"
        )
        raise ValueError(f"{images}: {reason}")
    return sorted(found)


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
