"""A dataset as a folder of Arrow shards that Hugging Face `datasets` opens: write, open, decode."""

from sparseg.common.files import checksum
from sparseg.common.object_store import filesystem, is_url, make_folder
from sparseg.data.shards.dataset import (
    Description,
    ShardedDataset,
    describe,
    is_dataset,
    label_counts,
    labelled_pixels,
    open,
    read_manifest,
)
from sparseg.data.shards.image_windows import decode_window, encode_fast, encode_raw
from sparseg.data.shards.images import (
    IMAGE_SUFFIXES,
    MAX_PIXELS,
    MAX_SCENE_PIXELS,
    TRAITS,
    UnreadableError,
    decode_image,
    decode_label,
    decode_label_file,
    encode_label,
    pillow_takes,
    traits_of,
)
from sparseg.data.shards.manifest import ImagesElsewhere
from sparseg.data.shards.orientation import orientation_of, turned_with, with_orientation_1
from sparseg.data.shards.palette import (
    IGNORED_COLOUR,
    UNLABELLED_COLOUR,
    Colour,
    default_palette,
    with_gaps_filled,
)
from sparseg.data.shards.writing.build import Facts, build, refuse_taken
from sparseg.data.shards.writing.parts import Row
from sparseg.data.shards.writing.pool import Reader
from sparseg.data.shards.writing.writer import MANIFEST, VERSION, DatasetExistsError, write

__all__ = [
    "IGNORED_COLOUR",
    "IMAGE_SUFFIXES",
    "MANIFEST",
    "MAX_PIXELS",
    "MAX_SCENE_PIXELS",
    "TRAITS",
    "UNLABELLED_COLOUR",
    "VERSION",
    "Colour",
    "DatasetExistsError",
    "Description",
    "Facts",
    "ImagesElsewhere",
    "Reader",
    "Row",
    "ShardedDataset",
    "UnreadableError",
    "build",
    "checksum",
    "decode_image",
    "decode_label",
    "decode_label_file",
    "decode_window",
    "default_palette",
    "describe",
    "encode_fast",
    "encode_label",
    "encode_raw",
    "filesystem",
    "is_dataset",
    "is_url",
    "label_counts",
    "labelled_pixels",
    "make_folder",
    "open",
    "orientation_of",
    "pillow_takes",
    "read_manifest",
    "refuse_taken",
    "traits_of",
    "turned_with",
    "with_gaps_filled",
    "with_orientation_1",
    "write",
]
