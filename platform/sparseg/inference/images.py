"""Images to predict: which files they are, and their pixels."""

from __future__ import annotations

import glob
from pathlib import Path

import numpy as np
from PIL import Image

from sparseg.data import shards
from sparseg.data.drawing import Array

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".ppm", ".gif")
"""File names that count as images when a folder is given."""


def list_images(images: str | Path) -> list[Path]:
    """Files named by a path to an image, a folder or a glob pattern, sorted.  Raises ValueError if none."""
    path = Path(images)
    if path.is_file():
        return [path]
    if path.is_dir():
        found = [file for file in path.iterdir() if file.suffix.lower() in SUFFIXES and file.name[0] != "."]
    else:
        found = [file for file in map(Path, glob.glob(str(images), recursive=True)) if file.is_file()]
    if not found:
        reason = (
            f"no image in this folder ({' '.join(SUFFIXES)}); for its subfolders give '{images}/*/*.jpg'"
            if path.is_dir()
            else "no such image, folder, or match of a glob pattern"
        )
        raise ValueError(f"{images}: {reason}")
    return sorted(found)


def read_image(file: Path) -> Array:
    """(H, W, 3) uint8 of any file that Pillow reads; transparency is dropped, 16 bits are scaled to 8.

    Raises ValueError naming the file if it is no image, or truncated.
    """
    try:
        with shards.pillow_takes(shards.MAX_SCENE_PIXELS), Image.open(file) as image:
            image.load()
            if image.mode[0] in "IF":
                values = np.asarray(image, dtype=np.float64)
                values = values / 257 if values.max(initial=0) > 255 else values  # as in training: shards
                return np.repeat(np.clip(np.rint(values), 0, 255).astype(np.uint8)[..., None], 3, axis=2)
            return np.asarray(image.convert("RGB"))
    except (OSError, ValueError, SyntaxError, EOFError, Image.DecompressionBombError) as error:
        raise ValueError(f"{file}: unreadable or truncated image ({error})".replace("\n", " ")) from error
