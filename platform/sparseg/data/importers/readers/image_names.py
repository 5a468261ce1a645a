"""Which of a dataset's images an annotation file means by the path that it names."""

from __future__ import annotations

import dataclasses
import re
import unicodedata
from collections.abc import Callable, Iterable, Mapping
from urllib.parse import unquote

from sparseg.data.importers.files import some
from sparseg.data.importers.readers.parsing import ELSEWHERE
from sparseg.data.strokes import Annotations

Target = tuple[str, str]
"""Split and id of an image."""

UPLOAD_PREFIX = re.compile(r"[0-9a-f]{8}-(?=.)")
"""What Label Studio puts before the name of every uploaded file."""


def resolve(annotations: Annotations, ids: Mapping[str, Iterable[str]], where: str) -> Annotations:
    """The same by image id, given by the paths that files name (without suffix); ids: split -> its images'.

    An image is called by its id (`x/a`), also behind its split (`train/x/a`).  A path means the image whose
    name it ends in, the longest such name (`images/train/x/a`, or of image `a` any `b/a`); else the one image
    whose id ends in the path (`a`).  A path from elsewhere (`/home/me/b/a`, see `image_id`) means the one
    image with which it shares the longest end.  Where nothing is called so, the same is tried with names
    composed as Unicode's NFC, then without regard to case, and all that with `%20` decoded and without the
    prefix of Label Studio's uploads; so too where several are.  What means none keeps its path; an image of
    another split whose id is also one of train is called `split/id`.

    Raises ValueError for a path that may mean two images, and for two paths that mean one.
    """
    ids = {split: list(own) for split, own in ids.items()}
    spellings = [_Names.of(ids, spelled) for spelled in (str, _composed, _caseless)]
    train = set(ids.get("train", ()))
    strokes, sizes = {}, {}
    paths: dict[str, str] = {}
    for path, own in annotations.strokes.items():
        targets = _meant(path, spellings)
        meant = sorted({name for _, name in targets})
        if len(meant) > 1:
            raise ValueError(
                f"{where}: {path!r} may mean image {meant[0]} or {some(meant[1:])}; write the path below "
                "images/"
            )
        key = path.removeprefix(ELSEWHERE)
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


@dataclasses.dataclass(frozen=True)
class _Names:
    """What the images are called, in one way of spelling."""

    spelled: Callable[[str], str]
    names: dict[str, set[Target]]
    """Name -> the images that are called so."""
    ends: dict[str, set[Target]]
    """End of an id behind one of its slashes, or the id behind images/, where it lies -> whose it is."""

    @classmethod
    def of(cls, ids: Mapping[str, Iterable[str]], spelled: Callable[[str], str]) -> _Names:
        """The names of a dataset's images."""
        names: dict[str, set[Target]] = {}
        ends: dict[str, set[Target]] = {}
        for split, own in ids.items():
            for name in own:
                for called in (name, f"{split}/{name}"):
                    names.setdefault(spelled(called), set()).add((split, name))
                for end in (f"images/{name}", *_ends(name)[1:]):
                    ends.setdefault(spelled(end), set()).add((split, name))
        return cls(spelled, names, ends)

    def meant(self, path: str) -> set[Target]:
        """The images that a path may mean; none if nothing is called so."""
        ends = _ends(self.spelled(path.removeprefix(ELSEWHERE)))
        if not path.startswith(ELSEWHERE):
            return next((self.names[end] for end in ends if end in self.names), self.ends.get(ends[0], set()))
        for end in ends:
            if found := self.names.get(end, set()) | self.ends.get(end, set()):
                return found
        return set()


def _meant(path: str, spellings: list[_Names]) -> set[Target]:
    """The images that a path may mean, in the strictest spelling in which it means one, or else any."""
    several: set[Target] = set()
    folder, slash, last = path.rpartition("/")
    for written in dict.fromkeys((path, f"{folder}{slash}{UPLOAD_PREFIX.sub('', last, count=1)}")):
        for decoded in dict.fromkeys((written, unquote(written))):
            for spelling in spellings:
                targets = spelling.meant(decoded)
                if len({name for _, name in targets}) == 1:
                    return targets
                several = several or targets
    return several


def _composed(name: str) -> str:
    return unicodedata.normalize("NFC", name)


def _caseless(name: str) -> str:
    return _composed(_composed(name).casefold())


def _ends(path: str) -> list[str]:
    """b/x/a -> b/x/a, x/a, a."""
    parts = path.split("/")
    return ["/".join(parts[at:]) for at in range(len(parts))]
