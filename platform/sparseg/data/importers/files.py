"""Names and files on disk, as every layout meets them: lists of ids, image folders, labels found by stem."""

from __future__ import annotations

import difflib
import re
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from sparseg.data.shards import IMAGE_SUFFIXES

PICTURES = (".heic", ".heif", ".avif", ".jxl", ".svg", ".dng", ".cr2", ".cr3", ".nef", ".arw", ".raf", ".psd")
"""Suffixes of pictures, in lower case, that are not decoded."""
PASSED_OVER = "are no images by their suffix"
LABEL_SUFFIXES = ((".png",), (".tif", ".tiff"))
"""Of label maps, in lower case; the first kind that a folder holds is read."""
ID_FORBIDDEN = re.compile(r"[\\:\x00-\x1f]|^/|^~|(^|/)\.{1,2}(/|$)|//|/$|^$")
"""Matches a name that leaves its folder, on any system."""


def some(names: Iterable[Any], limit: int = 3) -> str:
    """List the first names and the number of the others, for a message."""
    names = [str(name) for name in names]
    return ", ".join(names[:limit]) + (f" and {len(names) - limit} more" if len(names) > limit else "")


def existing(path: Path) -> Path | None:
    """Give the path if it is a file."""
    return path if path.is_file() else None


def first_folder(*folders: Path) -> Path | None:
    """Give the first that is a folder."""
    return next((folder for folder in folders if folder.is_dir()), None)


# ------------------------------------------------------------------------------------------------------ lists


def is_void(label: str) -> bool:
    """Say whether a label or a line of a class list names no class: the bare words void, ignore(d) and
    unlabel(l)ed, also as labelme's __ignore__ and with a remark in brackets."""
    return (
        re.fullmatch(r"_*(void|ignored?|unlabell?ed)_*( *\(.*\))?", label.strip(), re.IGNORECASE) is not None
    )


def read_lines(file: Path) -> list[str]:
    """Read the lines of a text file.  Raises ValueError naming the file if it is no UTF-8 text, or
    unreadable."""
    try:
        return file.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{file}: not UTF-8 text (byte {error.start} is 0x{error.object[error.start]:02x}); "
            "save it as UTF-8"
        ) from error
    except OSError as error:
        raise ValueError(f"{file}: unreadable list ({error.strerror})") from error


def checked_id(name: str, where: str) -> str:
    """Give the image id as it is.  Raises ValueError, led by `where`, if as a path it would leave its
    folder."""
    if ID_FORBIDDEN.search(name):
        raise ValueError(
            f"{where}: {name!r} is no image id; an id is a file name without suffix, below its folder"
        )
    return name


def read_ids(file: Path, folder: str = "") -> tuple[list[str], list[str]]:
    """Read a list of images -> (ids in their order, ids that stand there again).

    A line is `ID`, or `ID.jpg ID.png`, or (SBD) `/FOLDER/ID.jpg /MASKS/ID.png`; what follows is not read.
    Raises ValueError naming file and line for an id that leaves the folder or a mask of another id, and
    naming the file if it lists nothing.
    """
    ids: list[str] = []
    for number, line in enumerate(read_lines(file), 1):
        fields, where = line.split(), f"{file}, line {number}"
        if not fields:
            continue
        first = fields[0].removeprefix(f"/{folder}/").removeprefix(f"{folder}/") if folder else fields[0]
        name = _without_suffix(checked_id(first, where))
        if "/" in name:
            raise ValueError(f"{where}: {fields[0]!r} is not in {folder or 'the image folder'}/")
        mask = fields[1] if len(fields) > 1 and fields[1].lower().endswith(".png") else None
        if mask is not None and _without_suffix(mask.rsplit("/", 1)[-1]) != name:
            raise ValueError(f"{where}: image {name} and mask {mask} are not of one name; correct the list")
        ids.append(name)
    if not ids:
        raise ValueError(f"{file}: the list is empty; write one image id a line")
    return list(dict.fromkeys(ids)), [name for name, count in Counter(ids).items() if count > 1]


def _without_suffix(name: str) -> str:
    stem, dot, suffix = name.rpartition(".")
    return stem if f"{dot}{suffix}".lower() in IMAGE_SUFFIXES else name


# ----------------------------------------------------------------------------------------------------- images


def list_images(folder: Path, *, nested: bool = False) -> tuple[list[Path], list[str]]:
    """List a folder -> (its image files by name, with its subfolders' if `nested`; notes on what was passed
    over).

    Raises ValueError if two differ in their suffix only.
    """
    entries = sorted(folder.rglob("*") if nested else folder.iterdir())
    visible = [file for file in entries if not any(p[0] == "." for p in file.relative_to(folder).parts)]
    files = [file for file in visible if file.suffix.lower() in IMAGE_SUFFIXES and not file.is_dir()]
    stems: dict[Path, Path] = {}
    for file in files:
        twin = stems.setdefault(file.with_suffix(""), file)
        if twin != file:
            raise ValueError(f"{twin} and {file} have the same stem, so their labels are one; rename one")
    others = [file.name for file in visible if file.suffix.lower() not in IMAGE_SUFFIXES and file.is_file()]
    notes = []
    if others:
        remedy = "; convert to JPEG" if any(name.lower().endswith(PICTURES) for name in others) else ""
        notes.append(f"{len(others)} files of {folder} {PASSED_OVER}: {some(others)}{remedy}")
    folders = [file.name for file in visible if file.is_dir() and (not nested or file.is_symlink())]
    what = "linked subfolders" if nested else "subfolders"
    return files, notes + ([f"{what} of {folder} passed over: {some(folders)}"] if folders else [])


# ----------------------------------------------------------------------------------------------------- labels


def label_files(place: Path, ids: list[str]) -> tuple[dict[str, Path | None], list[str]]:
    """(Label file of every id, or None; notes).  PNGs are read, or TIFFs where there is no PNG.

    Found in the folder, in its train/, or anywhere below it if there but once; under the id's own name, or
    with one and the same ending for all (`_mask`).  Raises ValueError if the folder holds no label, or an id
    has several.
    """
    below: dict[str, list[Path]] = {}
    by_path: dict[str, Path] = {}
    for file in label_paths(place):
        below.setdefault(_label_key(file), []).append(file)
        by_path.setdefault(file.relative_to(place).with_suffix("").as_posix(), file)
    if not below:
        raise ValueError(
            f"{place}: holds no .png label (or .tif); labels are read from files named as the images"
        )
    ending = "" if any(Path(name).name in below for name in ids) else _common_ending(ids, list(below))
    labels: dict[str, Path | None] = {}
    for name in ids:
        exact = by_path.get(f"{name}{ending}") or by_path.get(f"train/{name}{ending}")
        found = below.get(f"{name}{ending}", [])
        if exact is None and len(found) > 1:
            raise ValueError(f"{place}: {len(found)} label files for image {name}: {some(found)}; keep one")
        labels[name] = exact or next(iter(found), None)
    suffix = next(iter(by_path.values())).suffix
    notes = [f"label files of {place} are named IMAGE{ending}{suffix}"] if ending else []
    used = {_label_key(file) for file in labels.values() if file is not None}
    spare = sorted(set(below) - used)
    if spare and used:
        notes.append(
            f"{len(spare)} label files of {place} not used, none of its images is named so: {some(spare)}"
        )
    return labels, notes


def label_paths(place: Path) -> list[Path]:
    """Files below a folder that may be label maps, sorted: all .png, or all .tif where there is no .png.

    Their suffix may be in capitals.  Beside a label PNG a TIFF is an image.
    """
    files = [file for file in sorted(place.rglob("*")) if not file.is_dir()]
    for suffixes in LABEL_SUFFIXES:
        if found := [file for file in files if file.suffix.lower() in suffixes]:
            return found
    return []


def _label_key(file: Path) -> str:
    """Give the image id that a label file belongs to; Cityscapes adds a suffix to city_sequence_frame."""
    match = re.match(r"([A-Za-z-]+_\d{6}_\d{6})_", file.stem)
    return match.group(1) if match else file.stem


def _common_ending(ids: list[str], stems: list[str]) -> str:
    """Find what every label's stem adds to its image's, as `_mask`; empty where there is no one such
    ending."""
    wanted = {Path(name).name for name in ids}
    cuts = [(stem[:at], stem[at:]) for stem in stems for at in range(1, len(stem)) if stem[at] in "_-."]
    endings = Counter(ending for start, ending in cuts if start in wanted)
    return next(iter(endings)) if len(endings) == 1 else ""


def nearest(ids: Iterable[str], stems: Iterable[str]) -> str:
    """Name the label that the first id resembles, for the end of a message; empty if none does."""
    candidates = {Path(stem).name: stem for stem in sorted(stems)}
    for name in list(ids)[:20]:
        close = difflib.get_close_matches(Path(name).name, candidates, n=1, cutoff=0.6)
        if close:
            return f"; the label name nearest to {name} is {candidates[close[0]]!r}"
    return ""
