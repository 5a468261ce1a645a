"""Images -> label PNGs, overlays and probabilities; and the pictures that predictions are looked at with."""

from __future__ import annotations

import glob
import io
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from sparseg import checkpoint as checkpoints
from sparseg import evaluate, shards
from sparseg.config import UNLABELLED

Array = NDArray[np.uint8]
Colour = tuple[int, int, int]
SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".ppm", ".gif")
"""File names that count as images when a folder is given."""
MANY_DOTS = 40  # on one image; dots get smaller beyond
SMALLEST_PX = 64  # a smaller image is padded by repetition: the deepest map keeps at least two cells

# ------------------------------------------------------------------------------------------------ prediction


def predict_folder(
    checkpoint: str | Path,
    images: str | Path,
    out: str | Path,
    *,
    overlay: bool = False,
    probabilities: bool = False,
    force: bool = False,
    window_px: int | None = None,
    device: str | None = None,
) -> int:
    """Write OUT/STEM.png (palette PNG of class ids) for every image -> the number of images that failed.

    ``images`` is a file, a folder (not its subfolders) or a glob pattern.  ``overlay`` adds STEM_overlay.jpg,
    ``probabilities`` STEM.npz with ``probabilities`` (K, H, W) float16 and ``names``.  ``window_px`` covers
    large images by windows of that size.  An unreadable image is named on stderr, counted and skipped.

    Raises ValueError, before anything is written, if there is no image, if two share a stem, if an output
    exists (allowed with ``force``) or would replace an input, or if the checkpoint cannot be read.
    """
    files, folder = list_images(images), Path(out)
    kinds = [".png", *(["_overlay.jpg"] if overlay else []), *([".npz"] if probabilities else [])]
    _check_outputs(files, folder, kinds, force)
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    loaded = checkpoints.load_model(checkpoint, device)
    folder.mkdir(parents=True, exist_ok=True)
    failures = 0
    for number, file in enumerate(files, 1):
        try:
            image_HW3 = read_image(file)
        except ValueError as error:
            print(f"\r{error}", file=sys.stderr)
            failures += 1
            continue
        p_KHW = predict_image(loaded.model, image_HW3, device, window_px)
        label_HW = p_KHW.argmax(0).astype(np.uint8)
        _write(folder / f"{file.stem}.png", shards.encode_label(label_HW, loaded.palette))
        if overlay:
            picture = _encode(_blend(image_HW3, label_HW, loaded.palette, 0.55), "JPEG")
            _write(folder / f"{file.stem}_overlay.jpg", picture)
        if probabilities:
            buffer = io.BytesIO()
            np.savez_compressed(buffer, probabilities=p_KHW.astype(np.float16), names=np.array(loaded.names))
            _write(folder / f"{file.stem}.npz", buffer.getvalue())
        if sys.stderr.isatty() or number % 50 == 0:
            print(f"\r{number}/{len(files)} images", end="", file=sys.stderr, flush=True)
    refused = f", {failures} could not be read" if failures else ""
    print(f"\r{len(files) - failures} of {len(files)} images -> {folder}{refused}", file=sys.stderr)
    return failures


def predict_image(
    model: torch.nn.Module, image_HW3: Array, device: str = "cpu", window_px: int | None = None
) -> NDArray[np.float32]:
    """Class probabilities (K, H, W) float32 of one image (H, W, 3) uint8 of any size."""
    H, W, _ = image_HW3.shape
    below, right = max(SMALLEST_PX - H, 0), max(SMALLEST_PX - W, 0)
    image_13HW = torch.from_numpy(np.array(image_HW3)).permute(2, 0, 1)[None].to(device)
    if below or right:
        image_13HW = torch.nn.functional.pad(image_13HW.float(), (0, right, 0, below), mode="replicate").to(
            torch.uint8
        )
    with torch.inference_mode():
        p_1KHW = evaluate.probabilities(model, image_13HW, window_px=window_px)
    return np.ascontiguousarray(p_1KHW[0, :, :H, :W].float().cpu().numpy())


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
        with Image.open(file) as image:
            image.load()
            if image.mode[0] in "IF":
                values = np.asarray(image, dtype=np.float64)
                scale = 255 / 65535 if values.max(initial=0) > 255 else 1.0
                return np.repeat(np.clip(values * scale, 0, 255).astype(np.uint8)[..., None], 3, axis=2)
            return np.asarray(image.convert("RGB"))
    except (OSError, ValueError, SyntaxError, EOFError, Image.DecompressionBombError) as error:
        raise ValueError(f"{file}: unreadable or truncated image ({error})".replace("\n", " ")) from error


def _check_outputs(files: list[Path], folder: Path, kinds: list[str], force: bool) -> None:
    """Raises ValueError if results would replace each other, an input, or (without force) earlier ones."""
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"{folder}: is a file; the predictions need a folder")
    sources = {file.resolve() for file in files}
    by_stem: dict[str, Path] = {}
    for file in files:
        if file.stem in by_stem:
            raise ValueError(
                f"{by_stem[file.stem]} and {file} would both be written to {folder / file.stem}.png; "
                "predict them into different folders"
            )
        by_stem[file.stem] = file
        for target in (folder / f"{file.stem}{kind}" for kind in kinds):
            if target.resolve() in sources:
                raise ValueError(f"{target} is one of the images; name another output folder")
            if target.exists() and not force:
                raise ValueError(
                    f"{target} exists already; name another output folder, or overwrite with --force"
                )


def _write(path: Path, data: bytes) -> None:
    temporary = path.with_name(f".{path.name}.tmp-{os.getpid()}")
    temporary.write_bytes(data)
    os.replace(temporary, path)


def _encode(image_HW3: Array, format_: str) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(image_HW3).save(buffer, format=format_, quality=92)
    return buffer.getvalue()


# -------------------------------------------------------------------------------------------------- pictures


def overlay(image_HW3: Array, label_HW: Array, palette: Sequence[Colour], alpha: float = 0.55) -> Array:
    """The image with each class tinted in its colour (share ``alpha``, 0..1) -> (H, W, 3) uint8.

    Pixels without a class (codes 254, 255) stay as they are.
    """
    table = np.zeros((256, 3), np.float32)
    table[: len(palette)] = palette
    share_HW1 = np.where(label_HW < len(palette), np.float32(alpha), np.float32(0))[..., None]
    return np.rint(image_HW3 * (1 - share_HW1) + table[label_HW] * share_HW1).astype(np.uint8)


_blend = overlay  # `predict_folder` has a flag of the same name


def draw_clicks(
    image_HW3: Array,
    label_HW: Array,
    palette: Sequence[Colour],
    *,
    zoom: int = 1,
    dense_share: float = 0.01,
) -> Array:
    """The image, enlarged ``zoom`` times, with a ringed dot per labelled pixel -> (zoom H, zoom W, 3) uint8.

    Dots are smaller where there are many; those of a class that touch share their ring, so that a stroke is a
    thick line with a rim.  Labels too dense for dots (over ``dense_share`` of the pixels: blocks, masks) are
    laid over instead.
    """
    H, W = label_HW.shape
    y, x = np.nonzero(label_HW < UNLABELLED)
    size = (W * zoom, H * zoom)
    if len(y) > max(dense_share * H * W, 8):
        dense = Image.fromarray(overlay(image_HW3, label_HW, palette, 0.8))
        return np.asarray(dense.resize(size, Image.Resampling.NEAREST))
    # drawn at twice the size and reduced: round dots without steps
    canvas = Image.fromarray(image_HW3).resize((size[0] * 2, size[1] * 2), Image.Resampling.BICUBIC)
    crowd = min(1.0, max(0.3, (MANY_DOTS / max(len(y), 1)) ** 0.5))
    draw, radius = ImageDraw.Draw(canvas), max(5.0, 0.032 * 2 * zoom * min(H, W) * crowd)
    rings = ((1.0, (0, 0, 0)), (0.86, (255, 255, 255)), (0.66, None))
    for klass in np.unique(label_HW[y, x]):
        own = label_HW[y, x] == klass
        centres = np.stack([x[own], y[own]], axis=1) * 2 * zoom + zoom
        for share, ring in rings:
            r = radius * share
            for centre_x, centre_y in centres:
                box = (centre_x - r, centre_y - r, centre_x + r, centre_y + r)
                draw.ellipse(box, fill=ring or tuple(palette[klass]))
    return np.asarray(canvas.resize(size, Image.Resampling.BOX))


def panels(
    columns: Mapping[str, Sequence[Array]],
    path: str | Path,
    *,
    cell_px: int = 224,
    legend: Mapping[str, Colour] | None = None,
) -> None:
    """Write one PNG: a labelled column per entry, one picture (H, W, 3) uint8 per row, ``cell_px`` wide.

    ``legend`` (class name -> colour) is drawn below.  Raises ValueError if columns are empty or unequal.
    """
    lengths = {name: len(pictures) for name, pictures in columns.items()}
    if not lengths or len(set(lengths.values())) != 1 or 0 in lengths.values():
        raise ValueError(
            f"{path}: panels need columns with equally many pictures, at least one; got {lengths}"
        )
    count, gap, header = next(iter(lengths.values())), 8, 34
    heights = [
        max(round(cell_px * column[row].shape[0] / column[row].shape[1]) for column in columns.values())
        for row in range(count)
    ]
    width, font = len(columns) * (cell_px + gap) + gap, ImageFont.load_default(size=17)
    entries = _legend_layout(legend or {}, width - 2 * gap, font)
    footer = (entries[-1][1] + 30 if entries else 0) + gap
    sheet = Image.new("RGB", (width, header + sum(heights) + gap * (count - 1) + footer), (252, 252, 250))
    draw = ImageDraw.Draw(sheet)
    for number, (name, pictures) in enumerate(columns.items()):
        left, top = gap + number * (cell_px + gap), header
        draw.text((left + cell_px / 2, header / 2), name, fill=(30, 32, 36), font=font, anchor="mm")
        for picture, height in zip(pictures, heights, strict=True):
            own = (cell_px, round(cell_px * picture.shape[0] / picture.shape[1]))
            sheet.paste(Image.fromarray(picture).resize(own, Image.Resampling.BICUBIC), (left, top))
            top += height + gap
    bottom = header + sum(heights) + gap * count
    for (x, y), (name, colour) in zip(entries, (legend or {}).items(), strict=True):
        at = (gap + x, bottom + y + 4, gap + x + 16, bottom + y + 20)
        draw.rounded_rectangle(at, 4, fill=tuple(colour), outline=(90, 90, 90))
        draw.text((at[2] + 7, bottom + y + 12), name, fill=(30, 32, 36), font=font, anchor="lm")
    buffer = io.BytesIO()
    sheet.save(buffer, format="PNG", optimize=True)
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    _write(Path(path), buffer.getvalue())


def _legend_layout(
    legend: Mapping[str, Colour], width: int, font: ImageFont.FreeTypeFont | ImageFont.ImageFont
) -> list[tuple[int, int]]:
    """Where each entry starts (x, y), wrapped at ``width`` pixels."""
    places, x, y = [], 0, 0
    for name in legend:
        needed = round(font.getlength(name)) + 46
        if x and x + needed > width:
            x, y = 0, y + 26
        places.append((x, y))
        x += needed
    return places
