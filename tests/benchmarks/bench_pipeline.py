"""Images per second of one core: our training sample against the usual one, on the same images and crops.

PYTHONPATH=platform python tests/benchmarks/bench_pipeline.py [--rounds 7]

From encoded bytes to what the batch takes.  The usual pipeline is what most code bases of the field do:
Pillow decodes image and label, resizes both whole, pads, crops, mirrors; torchvision changes the colours;
float tensor, normalised.  Ours gives uint8, which the device normalises; "without" leaves the usual one's
tensors out too, for a ratio of the same work.  One process, one thread, rounds interleaved, CPU seconds,
median of the rounds.
"""

from __future__ import annotations

import argparse
import dataclasses
import io
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import torchvision.transforms.functional as TF
from PIL import Image, ImageFilter, ImageOps

from sparseg.config import IGNORED, UNLABELLED, DataConfig
from sparseg.data import augment, shards
from sparseg.data.augment import Window
from sparseg.data.colour import ColourChange, draw_colour

REAL = Path(__file__).resolve().parents[3] / "shared" / "data" / "voc_subset" / "JPEGImages"
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@dataclasses.dataclass(frozen=True)
class Sample:
    """One image as stored (for us) and as published (for the usual pipeline), its label, its draws."""

    stored: bytes
    published: bytes
    label: bytes
    key: tuple[int, int, int]
    window: Window
    colour: ColourChange | None


# ------------------------------------------------------------------------------------------------ the images


def photo(height: int, width: int, seed: int) -> np.ndarray:
    """Smooth noise whose octaves fall like a photograph's (1 / frequency), sharp edges, grain."""
    rng = np.random.default_rng(seed)
    total = np.zeros((height, width, 3), np.float32)
    for octave in range(1, 9):
        cells = rng.normal(0, 1, (2**octave, 2**octave, 3)) * (1.0, 0.8, 0.9) + rng.normal(
            0, 1, (2**octave,) * 2 + (1,)
        )
        for channel in range(3):
            plane = Image.fromarray(cells[..., channel].astype(np.float32))
            total[..., channel] += (
                np.asarray(plane.resize((width, height), Image.Resampling.BICUBIC)) / octave
            )
    total = np.where(total[..., :1] > 0.4, total, 0.6 * total[:, ::-1])  # outlines of things
    grain = rng.normal(0, 1.2, (height, width, 1))
    return np.clip(118 + 32 * total + grain, 0, 255).astype(np.uint8)


def encoded(image: np.ndarray | Image.Image, kind: str) -> bytes:
    """JPEG of quality 92, or PNG."""
    buffer = io.BytesIO()
    picture = image if isinstance(image, Image.Image) else Image.fromarray(image)
    picture.save(buffer, kind, **({"quality": 92} if kind == "JPEG" else {}))
    return buffer.getvalue()


def clicks(height: int, width: int, rng: np.random.Generator) -> bytes:
    """A label of 20 clicks, as the shards hold it."""
    label_HW = np.full((height, width), UNLABELLED, np.uint8)
    label_HW.ravel()[rng.choice(label_HW.size, 20, replace=False)] = rng.integers(0, 20, 20)
    return shards.encode_label(label_HW)


def samples(
    published: list[bytes], data: DataConfig, *, store: Callable[[np.ndarray], bytes] | None, repeats: int
) -> list[Sample]:
    """Every image with `repeats` draws of window and colour."""
    result = []
    for row, image in enumerate(published):
        pixels = shards.decode_image(image)
        height, width, _ = pixels.shape
        stored = store(pixels) if store else image
        label = clicks(height, width, np.random.default_rng(row))
        for epoch in range(repeats):
            rng = np.random.default_rng((0, epoch, row))
            window = augment.draw_window(height, width, data, rng)
            colour = draw_colour(rng) if data.colour else None
            result.append(Sample(stored, image, label, (0, epoch, row), window, colour))
    return result


# -------------------------------------------------------------------------------------------- the pipelines


def ours(sample: Sample, data: DataConfig) -> tuple[np.ndarray, np.ndarray]:
    """The body of loader.TrainingSamples.__getitem__."""
    label = shards.decode_label(sample.label)
    return augment.augment(sample.stored, label, data, sample.key, dense=False)


def usual(sample: Sample, data: DataConfig) -> tuple[Image.Image, Image.Image]:
    """Resize all, then cut: image and label as Pillow images."""
    image = Image.open(io.BytesIO(sample.published)).convert("RGB")
    label = Image.open(io.BytesIO(sample.label))
    window, side = sample.window, data.crop_px
    left, top, right, bottom = window.box
    across, down = window.width / (right - left), window.height / (bottom - top)
    size = max(round(image.width * across), 1), max(round(image.height * down), 1)
    image = image.resize(size, Image.Resampling.BILINEAR)
    label = label.resize(size, Image.Resampling.NEAREST)
    padding = (0, 0, max(side - size[0], 0), max(side - size[1], 0))
    if any(padding):
        image = ImageOps.expand(image, padding, 0)
        label = ImageOps.expand(label, padding, IGNORED)
    x, y = round(left * across), round(top * down)
    x, y = min(x, image.width - side), min(y, image.height - side)
    image, label = image.crop((x, y, x + side, y + side)), label.crop((x, y, x + side, y + side))
    if window.flip:
        image, label = ImageOps.mirror(image), ImageOps.mirror(label)
    if sample.colour is not None:
        image = usual_colour(image, sample.colour)
    return image, label


def usual_colour(image: Image.Image, change: ColourChange) -> Image.Image:
    """torchvision's and Pillow's functions, one after the other."""
    for name, amount in change.steps:
        image = getattr(TF, f"adjust_{name}")(image, amount)
    if change.grey:
        image = TF.to_grayscale(image, num_output_channels=3)
    if change.blur_sigma:
        image = image.filter(ImageFilter.GaussianBlur(change.blur_sigma))
    if change.shift:
        image = image.point(lambda value: min(max(value + change.shift, 0), 255))
    return image


def usual_tensors(sample: Sample, data: DataConfig) -> tuple[torch.Tensor, torch.Tensor]:
    """The usual sample: normalised float image, int64 label."""
    image, label = usual(sample, data)
    tensor = TF.normalize(TF.to_tensor(image), IMAGENET_MEAN, IMAGENET_STD)
    return tensor, torch.from_numpy(np.array(label)).long()


# ------------------------------------------------------------------------------------------------- the table


def rates(subjects: list[Callable[[Sample], object]], chosen: list[Sample], rounds: int) -> list[float]:
    """Images per CPU second of each subject: median of the rounds, which take turns."""
    found: list[list[float]] = [[] for _ in subjects]
    for _ in range(rounds):
        for number, subject in enumerate(subjects):
            start_s = time.process_time()
            for sample in chosen:
                subject(sample)
            found[number].append(len(chosen) / (time.process_time() - start_s))
    return [statistics.median(values) for values in found]


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=7, help="timed rounds of every case")
    rounds = parser.parse_args().rounds
    torch.set_num_threads(1)
    small = [encoded(photo(375, 500, seed), "JPEG") for seed in range(12)]
    large = [encoded(photo(1024, 2048, seed), "PNG") for seed in range(3)]
    print(f"bytes an image: JPEG {len(small[0]):,}, PNG {len(large[0]):,}, stored fast ", end="")
    print(f"{len(shards.encode_fast(shards.decode_image(large[0]))):,}")
    plain, coloured, wide = DataConfig(), DataConfig(colour=True), DataConfig(crop_px=721)
    cases = [
        ("500x375 JPEG, crop 321, geometric", small, plain, None),
        ("500x375 JPEG, crop 321, with colour", small, coloured, None),
        ("500x375 JPEG, geometric, stored raw", small, plain, shards.encode_raw),
        ("500x375 JPEG, colour, stored raw", small, coloured, shards.encode_raw),
        ("2048x1024 PNG, crop 721, kept as PNG", large, wide, None),
        ("2048x1024 PNG, crop 721, stored fast", large, wide, shards.encode_fast),
    ]
    files = sorted(REAL.glob("*.jpg"))[:12]
    if files:
        real = [file.read_bytes() for file in files]
        cases[4:4] = [
            ("real VOC JPEG, crop 321, geometric", real, plain, None),
            ("real VOC JPEG, crop 321, with colour", real, coloured, None),
            ("real VOC JPEG, geometric, stored raw", real, plain, shards.encode_raw),
            ("real VOC JPEG, colour, stored raw", real, coloured, shards.encode_raw),
        ]
    heads = ("usual", "without", "decode", "ours", "ratio", "without")
    print(f"{'images/s of a core':<38} {' '.join(f'{head:>8}' for head in heads)}")
    for name, published, data, store in cases:
        chosen = samples(published, data, store=store, repeats=4)
        found = rates(
            [
                lambda sample, data=data: usual_tensors(sample, data),
                lambda sample, data=data: usual(sample, data),
                lambda sample: shards.decode_image(sample.published),
                lambda sample, data=data: ours(sample, data),
            ],
            chosen,
            rounds,
        )
        line = " ".join(f"{rate:8.1f}" for rate in found)
        print(f"{name:<38} {line} {found[3] / found[0]:7.2f}x {found[3] / found[1]:7.2f}x", flush=True)


if __name__ == "__main__":
    main()
