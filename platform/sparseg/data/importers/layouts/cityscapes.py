"""Cityscapes on disk: the official folders, with clicks and blocks as the AGMM and TEL releases keep them.

AGMM reads `ROOT/100clicks/CITY_SEQ_FRAME_gtFine_labelTrainIds.png` (flat; `random_50clicks` too, and
`..._leftImg8bit.png` for blocks), 19 = unlabelled.  TEL reads `train/sparse_label/block10|20|50/`, whose
values are the 34 original ids (its configuration maps them to the 19), everything else unlabelled.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from sparseg.config import IGNORED, UNLABELLED, FieldError, ImportConfig, field, flag
from sparseg.data.importers.files import existing, some
from sparseg.data.importers.source import Item, Source, identity

CITYSCAPES_NAMES = [
    *("road", "sidewalk", "building", "wall", "fence", "pole", "traffic light", "traffic sign", "vegetation"),
    *("terrain", "sky", "person", "rider", "car", "truck", "bus", "train", "motorcycle", "bicycle"),
]
CITYSCAPES_IDS = (7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33)
NUM_IDS = 34
CITYSCAPES_PALETTE = [
    *((128, 64, 128), (244, 35, 232), (70, 70, 70), (102, 102, 156), (190, 153, 153), (153, 153, 153)),
    *((250, 170, 30), (220, 220, 0), (107, 142, 35), (152, 251, 152), (70, 130, 180), (220, 20, 60)),
    *((255, 0, 0), (0, 0, 142), (0, 0, 70), (0, 60, 100), (0, 80, 100), (0, 0, 230), (119, 11, 32)),
]
PARENTS = ("", "clicks", "points", "block", "blocks", "sparse_label", "train/sparse_label")
CLICKS = tuple(f"{lead}{count}clicks" for lead in ("", "random_") for count in (20, 50, 100))
BLOCKS = tuple(f"block{gap}{share}" for gap in ("", "_") for share in (10, 20, 50))


def cityscapes(root: Path, config: ImportConfig) -> Source:
    """leftImg8bit/ and gtFine/, labelTrainIds or labelIds mapped to the 19 training classes.

    Raises ValueError for an absent split, or if several click or block folders are there and none is chosen.
    """
    by_kind: dict[str, dict[str, list[Item]]] = {"labelTrainIds": {}, "labelIds": {}}
    for split in ("train", "val"):
        images = sorted((root / "leftImg8bit" / split).glob("*/*_leftImg8bit.png"))
        if not images:
            raise ValueError(
                f"{root}: split {split!r} is absent: no leftImg8bit/{split}/CITY/*_leftImg8bit.png; unpack "
                "it there (training needs both train and val)"
            )
        for kind, splits in by_kind.items():
            splits[split] = []
            for file in images:
                name = file.name.removesuffix("_leftImg8bit.png")
                mask = root / "gtFine" / split / file.parent.name / f"{name}_gtFine_{kind}.png"
                splits[split].append(Item(name, file, existing(mask)))
    # one kind for all, whichever is more complete: a mixture of the two could not be told apart by value
    counts = {
        kind: sum(i.mask is not None for items in s.values() for i in items) for kind, s in by_kind.items()
    }
    kind = max(counts, key=counts.__getitem__)
    return Source(
        layout="cityscapes",
        root=root,
        names=CITYSCAPES_NAMES,
        splits=by_kind[kind],
        dense_table=identity(len(CITYSCAPES_NAMES)) if kind == "labelTrainIds" else ids_table(),
        places=_places(root, config),
        notes=(f"dense masks: gtFine {kind}",),
        sparse_rule=sparse_rule,
        mask_place=root / "gtFine",
    )


def ids_table() -> dict[int, int]:
    """The 34 original ids -> training classes, the 15 others and 255 ignored."""
    table = dict.fromkeys([*range(NUM_IDS), IGNORED], IGNORED)
    return table | {value: k for k, value in enumerate(CITYSCAPES_IDS)}


def _places(root: Path, config: ImportConfig) -> dict[str, tuple[Path, ...]]:
    places: dict[str, tuple[Path, ...]] = {}
    read = config.label_path is None and not config.draws_clicks
    for kinds, names, whole in (
        (("clicks", "point"), CLICKS, ("clicks", "points")),
        (("block",), BLOCKS, ("block",)),
    ):
        sets = [root / parent / name for parent in PARENTS for name in names]
        sets = [path for path in sets if path.is_dir()]
        if read and config.label in kinds and len(sets) > 1:
            shown = [path.relative_to(root) for path in sets]
            raise FieldError(
                f"{root}: {len(sets)} folders of {config.label} labels ({some(shown, 9)}); choose one, as "
                f"{flag('data.label_path')} {shown[0]}"
            )
        # the sets first, for the folder that holds them is there too
        places |= dict.fromkeys(kinds, (*sets, *(root / name for name in (*names, *whole))))
    return places


def sparse_rule(count_256: np.ndarray, declared: int | None, where: str) -> tuple[dict[int, int], str] | None:
    """Sparse PNGs with the 34 original ids, which the general rule (training ids) does not read; else None.

    Found by an id that is neither a training id nor a code (20..33).  Unlabelled is the declared code, else
    255 where it occurs, else 0, Cityscapes' own "unlabeled".  The other ids outside the 19 classes are void.
    Raises ValueError if the declared code is one of the 19.
    """
    beyond = [v for v in range(len(CITYSCAPES_NAMES) + 1, NUM_IDS) if count_256[v]]
    if not beyond or count_256[UNLABELLED]:
        return None
    code = declared if declared is not None else IGNORED if count_256[IGNORED] else 0
    if code in CITYSCAPES_IDS:
        raise FieldError(
            f"{where}: the values are original ids ({some(beyond)} occur), where "
            f"{field('data.unlabelled_code')}={code} is "
            f"{CITYSCAPES_NAMES[CITYSCAPES_IDS.index(code)]!r}; correct {flag('data.unlabelled_code')}"
        )
    how = "declared" if declared is not None else "found"
    return ids_table() | {
        code: UNLABELLED
    }, f"{how}: original ids (0..33), {code} = unlabelled, other ids void"
