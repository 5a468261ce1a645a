"""Commands on a trained network: evaluate, predict, export."""

from __future__ import annotations

import argparse
import functools
import json
import shlex
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

GALLERY_IMAGES = 300


def add_commands(commands: Any) -> None:
    """Add them to the parser."""
    add = commands.add_parser("evaluate", help="IoU, boundary IoU, calibration of a checkpoint on a dataset")
    add.add_argument("checkpoint", help="a checkpoint, or a run (its best)")
    add.add_argument("dataset", help="imported shards, whose split has dense masks or clicks")
    add.add_argument("--split", default="val")
    _add_views(add)
    add.add_argument(
        "--json", metavar="FILE", help="all numbers: scores, confusion, calibration, every image"
    )
    add.set_defaults(action=_evaluate)

    add = commands.add_parser("predict", help="images -> palette PNG masks; the same command goes on")
    add.add_argument("checkpoint", help="a checkpoint, or a run (its best)")
    add.add_argument("images", help="an image, a folder (not its subfolders), or a glob pattern")
    add.add_argument("out")
    add.add_argument(
        "--overlay", action="store_true", help="also the image with its classes tinted, and a legend below"
    )
    add.add_argument("--probabilities", action="store_true", help="also all probabilities (npz)")
    _add_views(add)
    add.add_argument("--force", action="store_true", help="overwrite what is there")
    add.add_argument("--html", metavar="FILE", help="also a page of the overlays, least sure first")
    add.add_argument(
        "--gallery-images",
        type=int,
        metavar="N",
        help=f"of --html: only the N least sure, about 20 kB each (default {GALLERY_IMAGES})",
    )
    add.set_defaults(action=_predict)

    add = commands.add_parser("export", help="a checkpoint -> a form for other programs")
    add.add_argument("checkpoint", help="a checkpoint, or a run (its best)")
    add.add_argument("out")
    add.add_argument("--to", choices=["safetensors", "torch-export", "onnx", "hub"], default="safetensors")
    add.add_argument(
        "--size",
        type=int,
        nargs=2,
        default=[256, 320],
        metavar=("H", "W"),
        help="of the trial image of a program, which then takes any size (default: 256 320)",
    )
    add.add_argument(
        "--push-to",
        metavar="USER/NAME",
        help="with --to hub: upload the folder, too; the configuration in it names your local paths",
    )
    add.set_defaults(action=_export)


def _add_views(add: argparse.ArgumentParser) -> None:
    add.add_argument("--scales", type=float, nargs="+", default=[1.0], metavar="S", help="averaged")
    add.add_argument("--flip", action="store_true", help="average with the mirrored image")
    add.add_argument("--window", type=int, metavar="PX", help="cover larger images by windows of this size")
    add.add_argument("--stride", type=int, metavar="PX", help="of windows (default: two thirds of --window)")
    add.add_argument(
        "--workers", type=int, default=0, metavar="N", help="Ray workers (default: this process)"
    )


def _views(options: argparse.Namespace) -> dict[str, Any]:
    from sparseg.inference import views

    views.check_views(options.window, options.stride, options.scales)
    return {
        "scales": tuple(options.scales),
        "flip": options.flip,
        "window_px": options.window,
        "stride_px": options.stride,
    }


def _spread(workers: int) -> Callable[[Callable[[Any], Any], Sequence[Any]], Any] | None:
    """What hands parts of the work to Ray workers; None without."""
    if workers < 0:
        raise ValueError(f"--workers must be at least 0, got {workers}")
    if workers == 0:
        return None
    from sparseg import launch

    return functools.partial(launch.spread, workers=workers)


def _evaluate(options: argparse.Namespace) -> None:
    from sparseg.common import files
    from sparseg.evaluation.evaluate import evaluate, show, training_labels

    taught = training_labels(options.checkpoint)
    found = evaluate(
        options.checkpoint,
        options.dataset,
        options.split,
        spread=_spread(options.workers),
        **_views(options),
    )
    show(found, taught)
    if options.json:
        files.write_atomically(Path(options.json), json.dumps(found, indent=2))


def _predict(options: argparse.Namespace) -> None:
    from sparseg.inference import predict

    if options.html or options.gallery_images is not None:
        _check_gallery(options.html, options.gallery_images)
    done = predict.predict_folder(
        options.checkpoint,
        options.images,
        options.out,
        overlay=options.overlay,
        probabilities=options.probabilities,
        force=options.force,
        spread=_spread(options.workers),
        **_views(options),
    )
    out = Path(options.out)
    shown = f"a page shows them with --html {shlex.quote(str(out / 'index.html'))}"
    if options.html and done.rows:
        from sparseg.common import files
        from sparseg.reports import gallery_page

        count = min(len(done.rows), options.gallery_images or GALLERY_IMAGES)
        files.write_atomically(Path(options.html), gallery_page.html_of(done, count))
        shown = f"{options.html}: {count} of {len(done.rows)} images, least sure first"
    if done.rows:
        told = f"see {out / 'predictions.csv'}: how sure each image is, cover of each class"
        print(f"{told}; {shown}", file=sys.stderr)
    if done.failures:
        raise RuntimeError(f"{done.failures} images have no mask (why: above)")


def _check_gallery(html: str | None, count: int | None) -> None:
    """Raise ValueError, before anything is predicted, for a page that could not be written."""
    if html is None:
        raise ValueError(f"--gallery-images {count} needs --html FILE, the page that shows them")
    if count is not None and count < 1:
        raise ValueError(f"--gallery-images must be at least 1, got {count}")
    file = Path(html).absolute()
    if file.suffix.lower() not in (".html", ".htm") or file.is_dir():
        raise ValueError(f"--html {html}: a page's name ends in .html; give one, as OUT/index.html")
    if not next(folder for folder in file.parents if folder.exists()).is_dir():
        raise ValueError(f"--html {html}: lies below a file; name another place")


def _export(options: argparse.Namespace) -> None:
    from sparseg.inference import export

    out = export.export(
        options.checkpoint, options.out, to=options.to, size_px=tuple(options.size), push_to=options.push_to
    )
    uploaded = f", uploaded to {options.push_to}" if options.push_to else ""
    print(
        f"wrote {out}{uploaded}; it holds configuration, classes, palette, score and commit, too",
        file=sys.stderr,
    )
