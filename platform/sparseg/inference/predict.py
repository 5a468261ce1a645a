"""Images -> label PNGs, overlays, probabilities, and how sure each prediction is."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import io
import json
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import rich.console
import torch
from numpy.typing import NDArray
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

from sparseg.common.files import checksum, write_atomically
from sparseg.common.numbers import percent
from sparseg.data import drawing, shards
from sparseg.data.drawing import Array
from sparseg.data.working_size import resized_image, working_size
from sparseg.inference.full_size import enlarged_strips
from sparseg.inference.images import list_images, read_image
from sparseg.inference.predictions_csv import LIST_FILE, Listing, Row, cover_columns
from sparseg.inference.views import SMALLEST_PX, Spread, check_scene, class_probabilities, probability_strips
from sparseg.runs import checkpoint as checkpoints

UNSURE = 0.5  # pixels whose most probable class has less are counted as unsure
PART_IMAGES = 32  # of a worker's turn, at most


@dataclasses.dataclass(frozen=True)
class Job:
    """What is written of every image, and how it is predicted; plain data, for workers."""

    checkpoint: str
    folder: str
    overlay: bool
    probabilities: bool
    views: Mapping[str, Any]  # of `class_probabilities`
    home: str
    """Folder whose subfolders the outputs mirror."""

    def stem(self, file: Path) -> str:
        """Give the path of an image's outputs below `folder`, without their endings."""
        return (file.parent.relative_to(self.home) / file.stem).as_posix()

    @property
    def kinds(self) -> list[str]:
        """What follows the image's stem in the names of its files."""
        return [
            ".png",
            *(["_overlay.jpg"] if self.overlay else []),
            *([".npz"] if self.probabilities else []),
        ]

    @functools.cached_property
    def weights(self) -> str:
        """Checksum of the network."""
        return checksum(Path(self.checkpoint) / "model.safetensors")

    def settings(self, file: Path) -> str:
        """A short name of all that a mask depends on: network, views, the image as it is now."""
        seen = file.stat()
        told = [self.weights, sorted(self.views.items()), str(file), seen.st_size, seen.st_mtime_ns]
        return hashlib.sha256(json.dumps(told).encode()).hexdigest()[:12]

    def row(self, file: Path, also: str) -> Row:
        """Of a mask that is going to be written."""
        row = {
            "image": str(file),
            "mask": f"{self.stem(file)}.png",
            "also": also,
            "confidence": "",
            "unsure": "",
        }
        return {**row, "settings": self.settings(file)}


@dataclasses.dataclass(frozen=True)
class Predictions:
    """What stands in a folder of predictions after a command: of its images those that have a mask."""

    folder: Path
    rows: list[Row]
    """Of predictions.csv, in the order of the images' names; made now or before."""
    failures: int
    """Images without a mask."""
    names: list[str]
    palette: list[shards.Colour]


def predict_folder(
    checkpoint: str | Path,
    images: str | Path,
    out: str | Path,
    *,
    overlay: bool = False,
    probabilities: bool = False,
    force: bool = False,
    spread: Spread | None = None,
    **views: Any,
) -> Predictions:
    """Write OUT/STEM.png (palette PNG of class ids) for every image.

    ``images`` is a file, a folder (not its subfolders) or a glob pattern, whose folders OUT mirrors: the mask
    of photos/siteA/1.jpg by photos/**/*.jpg is OUT/siteA/1.png.  ``overlay`` adds STEM_overlay.jpg, with a
    legend below, ``probabilities`` STEM.npz with ``probabilities`` (K, H, W) float16 and ``names``.
    OUT/predictions.csv has a row for each image: the mean probability of its pixels' classes, the share of
    pixels below 0.5, and the share of pixels of each class.  What stands there with the same checkpoint and
    settings is not predicted again, unless the image has changed.
    ``spread`` hands the work to workers; ``views`` go to `class_probabilities`.  An unreadable image, or
    one that is too large without window_px, is named on stderr, counted and skipped.

    Raises ValueError, before anything is written, if there is no image, if two share a stem, if an output
    exists (allowed with ``force``) or would replace an input, or if the checkpoint cannot be read.
    """
    home, files = list_images(images)
    folder, checkpoint = Path(out).absolute(), checkpoints.resolve(checkpoint).absolute()
    loaded = checkpoints.load_model(checkpoint, "cpu" if spread is not None else _device())
    job = Job(str(checkpoint), str(folder), overlay, probabilities, views, str(home))
    _check_outputs(files, folder, job)
    listing = Listing(folder, loaded.names)
    columns = ["confidence", *cover_columns(loaded.names)]
    own = {file: listing.own(f"{job.stem(file)}.png", job.settings(file)) for file in files}
    missing = [file for file in files if force or not _complete(own[file], columns, folder, job)]
    if not force:
        _refuse_existing(missing, folder, job, own)
    if len(missing) < len(files):
        print(f"{len(files) - len(missing)} of {len(files)} images are there already", file=sys.stderr)
    also = {file: " ".join(_kinds_of(own[file], job)) for file in missing}
    results = _predicted(job, loaded, missing) if spread is None else _by_workers(job, missing, spread)
    folder.mkdir(parents=True, exist_ok=True)
    failures = 0
    with listing.writing(job.row(file, also[file]) for file in missing) as write:
        for row in _with_progress(results, len(missing)):
            if "error" in row:
                print(row["error"], file=sys.stderr)
                failures += 1
            else:
                write({**row, "also": also[Path(row["image"])]})
    refused = f", {failures} without a mask (why: above)" if failures else ""
    print(f"{len(files) - failures} of {len(files)} images -> {folder}{refused}", file=sys.stderr)
    rows = [listing.rows[f"{job.stem(file)}.png"] for file in files]
    done = [row for row in rows if row["confidence"]]
    return Predictions(folder, done, failures, loaded.names, loaded.palette)


def _by_workers(job: Job, files: Sequence[Path], spread: Spread) -> Iterator[Row]:
    size = max(min(len(files) // 16, PART_IMAGES), 1)
    parts = [files[start : start + size] for start in range(0, len(files), size)]
    results = spread(functools.partial(predict_part, job), parts)  # refuses now what it must refuse
    return (row for rows in results for row in rows)


def predict_part(job: Job, files: Sequence[Path]) -> list[Row]:
    """Predict some images and write their files -> their rows; what a worker does."""
    Path(job.folder).mkdir(parents=True, exist_ok=True)
    return list(_predicted(job, checkpoints.load_model(job.checkpoint, _device()), files))


def _device() -> str:
    return "cuda" if torch.cuda.is_available() else "cpu"


def _predicted(job: Job, loaded: checkpoints.Loaded, files: Sequence[Path]) -> Iterator[Row]:
    for file in files:
        try:
            image_HW3 = read_image(file)
            size = working_size(image_HW3.shape[:2], loaded.config.data.long_side_px)
            check_scene(str(file), size, job.views.get("window_px"))
        except ValueError as error:
            yield {"error": str(error)}
            continue
        mask = Path(job.folder) / f"{job.stem(file)}.png"
        mask.parent.mkdir(parents=True, exist_ok=True)
        label_HW = np.empty(image_HW3.shape[:2], np.uint8)
        top, sure, unsure, kept = 0, 0.0, 0, []
        count_K = np.zeros(len(loaded.names), np.int64)
        strips = predict_strips(
            loaded.model, image_HW3, _device(), long_side_px=loaded.config.data.long_side_px, **job.views
        )
        for p_KrW in strips:
            confidence_rW = p_KrW.max(0)
            label_HW[top : top + len(confidence_rW)] = label_rW = p_KrW.argmax(0)
            count_K += np.bincount(label_rW.ravel(), minlength=len(count_K))
            top += len(confidence_rW)
            sure += float(confidence_rW.sum(dtype=np.float64))
            unsure += int((confidence_rW < UNSURE).sum())
            if job.probabilities:
                kept.append(p_KrW.astype(np.float16))
        if job.overlay:
            tinted = drawing.overlay(image_HW3, label_HW, loaded.palette)
            picture = drawing.with_legend(tinted, legend_of(loaded, count_K / label_HW.size))
            write_atomically(mask.with_name(f"{file.stem}_overlay.jpg"), drawing.encode(picture, "JPEG"))
        if job.probabilities:
            buffer = io.BytesIO()
            np.savez_compressed(buffer, probabilities=np.concatenate(kept, 1), names=np.array(loaded.names))
            write_atomically(mask.with_name(f"{file.stem}.npz"), buffer.getvalue())
        write_atomically(mask, shards.encode_label(label_HW, loaded.palette))
        shares = {"confidence": sure / label_HW.size, "unsure": unsure / label_HW.size}
        row = job.row(file, "") | {name: f"{share:.4f}" for name, share in shares.items()}
        # six decimals: 0.0001 of a photograph of 12 megapixels is 1,200 pixels
        covers = (f"{count / label_HW.size:.6f}" for count in count_K)
        yield row | dict(zip(cover_columns(loaded.names), covers, strict=True))


def legend_of(loaded: checkpoints.Loaded, cover_K: NDArray[np.float64]) -> list[tuple[str, drawing.Colour]]:
    """Name and cover, and the colour, of the classes that an image holds, from the largest down."""
    order = [k for k in np.argsort(-cover_K, kind="stable") if cover_K[k] > 0]
    return [(f"{loaded.names[k]} {percent(cover_K[k])}", loaded.palette[k]) for k in order]


@torch.inference_mode()
def predict_image(
    model: torch.nn.Module, image_HW3: Array, device: str = "cpu", *, long_side_px: int = 0, **views: Any
) -> NDArray[np.float32]:
    """Class probabilities (K, H, W) float32 of one image (H, W, 3) uint8 of any size.

    long_side_px: the network's working resolution, to which a larger image is resized; 0 = none.
    """
    H, W, _ = image_HW3.shape
    if working_size((H, W), long_side_px) != (H, W):
        strips = predict_strips(model, image_HW3, device, long_side_px=long_side_px, **views)
        return np.concatenate(list(strips), 1)
    p_1KHW = class_probabilities(model, _padded(image_HW3, device), **views)
    return np.ascontiguousarray(p_1KHW[0, :, :H, :W].float().cpu().numpy())


@torch.inference_mode()
def predict_strips(
    model: torch.nn.Module, image_HW3: Array, device: str = "cpu", *, long_side_px: int = 0, **views: Any
) -> Iterator[NDArray[np.float32]]:
    """`predict_image` from the top down, (K, some rows, W) at a time: see `probability_strips`."""
    H, W, _ = image_HW3.shape
    size = working_size((H, W), long_side_px)
    if size != (H, W):
        p_Khw = torch.from_numpy(predict_image(model, resized_image(image_HW3, size), device, **views))
        yield from (p_KrW.numpy() for p_KrW in enlarged_strips(p_Khw, (H, W)))
        return
    row = 0
    for p_1KrW in probability_strips(model, _padded(image_HW3, device), **views):
        if row < H:
            yield p_1KrW[0, :, : H - row, :W].float().cpu().numpy()
        row += p_1KrW.shape[2]


def _padded(image_HW3: Array, device: str) -> torch.Tensor:
    """(1, 3, H, W) uint8, at least SMALLEST_PX high and wide."""
    image_13HW = torch.from_numpy(np.array(image_HW3)).permute(2, 0, 1)[None].to(device)
    below, right = (max(SMALLEST_PX - length, 0) for length in image_HW3.shape[:2])
    if not (below or right):
        return image_13HW
    return torch.nn.functional.pad(image_13HW.float(), (0, right, 0, below), mode="replicate").byte()


def _with_progress(rows: Iterable[Row], total: int) -> Iterator[Row]:
    """The rows, with a bar on a terminal, or a line now and then elsewhere."""
    console = rich.console.Console(stderr=True)
    if not console.is_terminal:
        for number, row in enumerate(rows, 1):
            yield row
            if number % 50 == 0:
                print(f"{number}/{total} images", file=sys.stderr, flush=True)
        return
    columns = BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    with Progress("images", *columns, console=console, transient=True) as progress:
        yield from progress.track(rows, total=total)


# --------------------------------------------------------------------------------------------------- files


def _kinds_of(row: Row | None, job: Job) -> list[str]:
    """Endings of what is ours besides the mask, with those of the job."""
    before = row["also"].split() if row is not None else []
    return list(dict.fromkeys(before + job.kinds[1:]))


def _complete(row: Row | None, columns: Sequence[str], folder: Path, job: Job) -> bool:
    if row is None or not all(row.get(column) for column in columns):
        return False
    stem, written = row["mask"].removesuffix(".png"), {".png", *row["also"].split()}
    return all(kind in written and (folder / f"{stem}{kind}").is_file() for kind in job.kinds)


def _check_outputs(files: Sequence[Path], folder: Path, job: Job) -> None:
    """Raises ValueError if results would replace each other or an input."""
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"{folder}: is a file; the predictions need a folder")
    sources = {file.resolve() for file in files}
    by_stem: dict[str, Path] = {}
    for file in files:
        stem = job.stem(file)
        if stem in by_stem:
            raise ValueError(
                f"{by_stem[stem]} and {file} would both be written to {folder / stem}.png; "
                "predict them into different folders"
            )
        by_stem[stem] = file
        for target in (folder / f"{stem}{kind}" for kind in job.kinds):
            if target.resolve() in sources:
                raise ValueError(f"{target} is one of the images; name another output folder")


def _refuse_existing(files: Sequence[Path], folder: Path, job: Job, own: Mapping[Path, Row | None]) -> None:
    for file, kind in ((file, kind) for file in files for kind in job.kinds):
        target, row = folder / f"{job.stem(file)}{kind}", own[file]
        if target.exists() and (row is None or kind not in (".png", *row["also"].split())):
            raise ValueError(
                f"{target} exists already, and {LIST_FILE} does not say that it is of this checkpoint with "
                "these settings; name another output folder, or overwrite with --force"
            )
