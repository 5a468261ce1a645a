"""Which of a dataset's images an annotation file means by the path that it names."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from sparseg.data.importers.files import some
from sparseg.data.strokes import Annotations

Target = tuple[str, str]
"""Split and id of an image."""


def resolve(annotations: Annotations, ids: Mapping[str, Iterable[str]], where: str) -> Annotations:
    """The same by image id, given by the paths that files name (without suffix); ids: split -> its images'.

    An image is called by its id (`x/a`), also behind its split (`train/x/a`).  A path means the image whose
    name it ends in, the longest such name (`images/train/x/a`, or of image `a` any `b/a`); else the one image
    whose id ends in the path (`a`).  What means none keeps its path; an image of another split whose id is
    also one of train is called `split/id`.

    Raises ValueError for a path that may mean two images, and for two paths that mean one.
    """
    names, ends = _called(ids)
    train = set(ids.get("train", ()))
    strokes, sizes = {}, {}
    paths: dict[str, str] = {}
    for path, own in annotations.strokes.items():
        targets = _meant(path, names, ends)
        meant = sorted({name for _, name in targets})
        if len(meant) > 1:
            raise ValueError(
                f"{where}: {path!r} may mean image {meant[0]} or {some(meant[1:])}; write the path below "
                "images/"
            )
        key = path
        if meant:
            splits = {split for split, _ in targets}
            key = meant[0]
            if "train" not in splits and key in train:
                key = f"{min(splits)}/{key}"
        if key in paths:
            raise ValueError(
                f"{where}: {paths[key]!r} and {path!r} both mean image {key}; write the path below images/, "
                "and each image once"
            )
        paths[key] = path
        strokes[key] = own
        if path in annotations.sizes:
            sizes[key] = annotations.sizes[path]
    return Annotations(strokes, sizes, annotations.notes)


def _called(ids: Mapping[str, Iterable[str]]) -> tuple[dict[str, set[Target]], dict[str, set[Target]]]:
    """Name -> the images that are called so; end of an id behind one of its slashes -> whose it is."""
    names: dict[str, set[Target]] = {}
    ends: dict[str, set[Target]] = {}
    for split, own in ids.items():
        for name in own:
            for called in (name, f"{split}/{name}"):
                names.setdefault(called, set()).add((split, name))
            for end in _ends(name)[1:]:
                ends.setdefault(end, set()).add((split, name))
    return names, ends


def _meant(path: str, names: dict[str, set[Target]], ends: dict[str, set[Target]]) -> set[Target]:
    for end in _ends(path):
        if end in names:
            return names[end]
    return ends.get(path, set())


def _ends(path: str) -> list[str]:
    """b/x/a -> b/x/a, x/a, a."""
    parts = path.split("/")
    return ["/".join(parts[at:]) for at in range(len(parts))]
