"""What every reader of annotation files shares: text, JSON and XML in, checked values out, or ValueError."""

from __future__ import annotations

import codecs
import difflib
import json
import math
import re
import unicodedata
from pathlib import Path, PurePosixPath
from typing import Any

from sparseg.common.process import one_line
from sparseg.config import IGNORED, FieldError, flag
from sparseg.data.importers.files import IMAGE_SUFFIXES, is_void, some

MAX_POSITION_PX = 1_000_000.0
"""A position farther out than this is an error of the file, not a click beside the image."""
MAX_MASK_PIXELS = 2**27
"""Of one stored mask; more is a decompression bomb."""


def shown(value: Any, limit: int = 40) -> str:
    """A value from a file for a message: in one line, not too long."""
    try:
        text = ascii(value) if not isinstance(value, str) else repr(value)
    except (ValueError, RecursionError):  # integers of thousands of digits, deep lists
        text = f"a {type(value).__name__}"
    return text if len(text) <= limit else text[: limit - 3] + "..."


# ------------------------------------------------------------------------------------------------ whole files


def _bytes(file: Path) -> bytes:
    try:
        data = file.read_bytes()
    except OSError as error:
        raise ValueError(f"{file}: unreadable ({error.strerror})") from error
    if not data.removeprefix(codecs.BOM_UTF8).strip():
        raise ValueError(f"{file}: is empty; remove it, or export the annotation again")
    return data


def read_text(file: Path) -> str:
    """A file's text, UTF-8 with or without byte order mark.  Raises ValueError naming the file."""
    try:
        return _bytes(file).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{file}: not UTF-8 text (byte {error.start}); save it as UTF-8") from error


def read_json(file: Path) -> Any:
    """A file's JSON.  Raises ValueError for what is none, too deep, or has a name twice in one object."""

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        content = dict(pairs)
        if len(content) < len(pairs):
            names = [name for name, _ in pairs]
            twice = next(name for name in names if names.count(name) > 1)
            raise ValueError(f"{shown(twice)} occurs twice in one object")
        return content

    text = read_text(file)
    try:
        return json.loads(text, object_pairs_hook=unique)
    except RecursionError as error:
        raise ValueError(f"{file}: JSON nested too deep for an annotation file") from error
    except ValueError as error:
        raise ValueError(f"{file}: no valid JSON ({one_line(error)})") from error


def read_xml(file: Path) -> Any:
    """Root element of a file's XML.

    Raises ValueError for what is no XML, and for any document type declaration: entity bombs and external
    entities need one, annotation files do not.
    """
    from xml.etree.ElementTree import ParseError

    import defusedxml
    from defusedxml import ElementTree

    data = _bytes(file)
    try:
        return ElementTree.fromstring(data, forbid_dtd=True)
    except defusedxml.DefusedXmlException as error:
        raise ValueError(
            f"{file}: has a document type declaration or entities ({type(error).__name__}), which can "
            "exhaust memory or read other files; remove the DOCTYPE"
        ) from error
    except (ParseError, LookupError, ValueError, RecursionError) as error:
        raise ValueError(f"{file}: no valid XML ({shown(str(error), 80)})") from error


def json_format(content: Any) -> str | None:
    """The format that a JSON file is of, by its outermost names."""
    if _is_label_studio(content):
        return "label-studio"
    if not isinstance(content, dict):
        return None
    if "shapes" in content:
        return "labelme"
    if "images" in content and "annotations" in content:
        return "coco"
    if all(isinstance(value, list) for value in content.values()):
        return "whats-the-point"
    return None


def _is_label_studio(content: Any) -> bool:
    """Whether it is a task with its data and annotations, a list of such, or of JSON_MIN's records."""
    first = content[0] if isinstance(content, list) and content else content
    if not isinstance(first, dict) or "shapes" in first or "images" in first:
        return False
    has_data = isinstance(first.get("data"), dict)
    is_record = isinstance(content, list) and "annotation_id" in first
    return is_record or (has_data and not first.keys().isdisjoint(("annotations", "completions")))


def xml_format(root: Any) -> str | None:
    """The format that an XML file is of, by its root and what is directly in it."""
    if root.tag == "annotations":
        return "cvat"
    if root.tag == "annotation" and root.find("object") is None:
        return "scribblesup"
    if root.tag == "annotation" and root.find("object/bndbox") is not None:
        return "voc"
    return None


def xml_is_empty(root: Any) -> bool:
    """Whether it is a VOC or ScribbleSup file of an image in which nothing is annotated."""
    return root.tag == "annotation" and root.find("object") is None and root.find("polygon") is None


def expect(file: Path, found: str | None, wanted: str) -> None:
    """Raise ValueError if a file is recognisably of another format than the one it is read as."""
    if found not in (None, wanted):
        raise FieldError(
            f"{file}: read as {wanted}, but it is a {found} file; give {flag('data.label_format')} {found}, "
            "or keep one format only"
        )


# ----------------------------------------------------------------------------------------------------- values


def field(content: Any, name: str, kind: type, where: str) -> Any:
    """content[name], of that type.  Raises ValueError."""
    if not isinstance(content, dict):
        raise ValueError(f"{where}: must be an object with {name!r}, got {shown(content)}")
    if name not in content:
        raise ValueError(f"{where}: lacks {name!r}; it has {some(map(shown, content), 6) or 'nothing'}")
    if not isinstance(content[name], kind):
        raise ValueError(f"{where}: {name!r} must be a {kind.__name__}, got {shown(content[name])}")
    return content[name]


def position(value: Any, where: str, *, least: float = -MAX_POSITION_PX) -> float:
    """A coordinate in pixels.  Raises ValueError for no number, NaN, infinity, and what is beyond reason."""
    number = value if isinstance(value, int | float) and not isinstance(value, bool) else math.nan
    if not least <= number <= MAX_POSITION_PX:
        raise ValueError(
            f"{where}: position {shown(value)}; positions are finite numbers in {least:.0f}.."
            f"{MAX_POSITION_PX:.0f} pixels"
        )
    return float(number)


def positions(pairs: Any, where: str, least: int, kind: str) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """[[x, y], ...] -> y and x.  Raises ValueError for other shapes and for fewer than `least` pairs."""
    if not isinstance(pairs, list) or len(pairs) < least:
        found = len(pairs) if isinstance(pairs, list) else shown(pairs)
        raise ValueError(f"{where}: a {kind} needs a list of at least {least} [x, y], found {found}")
    for pair in pairs:
        if not (isinstance(pair, list | tuple) and len(pair) == 2):
            raise ValueError(f"{where}: a position must be [x, y], got {shown(pair)}")
    y, x = (tuple(position(pair[axis], where) for pair in pairs) for axis in (1, 0))
    return y, x


def from_text(text: str | None, where: str) -> float:
    """The number that a text states.  Raises ValueError for anything but plain decimal notation."""
    text = (text or "").strip()
    if not set(text) <= set("0123456789+-.eE") or not text:
        raise ValueError(f"{where}: {shown(text)} is no number")
    try:
        return float(text)
    except ValueError as error:
        raise ValueError(f"{where}: {shown(text)} is no number") from error


def whole(value: Any, where: str, least: int, most: int = int(MAX_POSITION_PX)) -> int:
    """A whole number in least..most, as number or as text.  Raises ValueError."""
    number = from_text(value, where) if isinstance(value, str) else value
    good = isinstance(number, int | float) and not isinstance(number, bool) and least <= number <= most
    if not good or number != int(number):
        raise ValueError(f"{where}: must be a whole number in {least}..{most}, got {shown(value)}")
    return int(number)


def size(height: Any, width: Any, where: str) -> tuple[int, int]:
    """An image's stated (height, width).  Raises ValueError."""
    return whole(height, f"{where}, height", 1), whole(width, f"{where}, width", 1)


LOCAL_FILES = "/data/local-files/?d="
"""How Label Studio writes a path below its local storage."""
ELSEWHERE = "/"
"""Begins the id of an image whose path does not start in the folder of the images."""


def image_id(name: Any, where: str) -> str:
    """The path by which a file names an image, without the image's suffix; `resolve` finds the image.

    Paths of Windows, absolute ones, those that go up (..) and URLs are taken, for nothing is opened there:
    what is left of them are their named parts, behind ELSEWHERE.  Raises ValueError for what names nothing,
    and for characters no file name has.
    """
    if not isinstance(name, str) or not name.strip():
        raise ValueError(f"{where}: the image's name must be a text, got {shown(name)}")
    if any(unicodedata.category(letter) in ("Cc", "Cs") for letter in name):
        raise ValueError(f"{where}: image {shown(name)} has control characters in its name")
    path = name.rpartition(LOCAL_FILES)[2]
    scheme = re.match(r"[A-Za-z][\w+.-]+://", path)
    if scheme:
        path = re.split(r"[?#]", path[scheme.end() :])[0]
    path = path.replace("\\", "/")
    given = path.split("/")
    has_drive = re.match(r"[A-Za-z]:", given[0]) is not None
    leaves = path != name.replace("\\", "/") or path.startswith("/") or has_drive or ".." in given
    parts = [given[0][2:] if has_drive else given[0], *given[1:]]
    parts = [part for part in parts if part not in ("", ".", "..")]
    if not parts:
        raise ValueError(f"{where}: image {shown(name)} names no file; write its name, or its path")
    last = parts[-1]
    suffix = PurePosixPath(last).suffix
    stem = last.removesuffix(suffix) if suffix.lower() in IMAGE_SUFFIXES else last
    stem = stem.removesuffix("_leftImg8bit")  # Cityscapes' images are named by what precedes it
    return (ELSEWHERE if leaves else "") + "/".join([*parts[:-1], stem])


def class_id(label: Any, names: list[str], where: str) -> int:
    """Index of a class name; IGNORED for void, ignore(d) and labelme's __ignore__ where no class is named so.

    Raises ValueError listing the valid names, the nearest first.
    """
    if isinstance(label, str):
        label = label.strip()
        if label in names:
            return names.index(label)
        if is_void(label):
            return IGNORED
    near = difflib.get_close_matches(label[:200], names, n=1, cutoff=0.5) if isinstance(label, str) else []
    hint = f"; did you mean {near[0]!r}?" if near else ""
    raise ValueError(
        f"{where}: unknown class {shown(label)}{hint}; the classes are {some(names, 30)} (classes.txt)"
    )


def once(name: str, seen: dict[str, str], where: str) -> None:
    """Note that `where` annotates this image.  Raises ValueError if something else did so before."""
    if name in seen:
        raise ValueError(f"{where}: image {name} is annotated in {seen[name]} already; keep one of the two")
    seen[name] = where
