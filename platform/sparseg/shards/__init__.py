"""A dataset as a folder of Arrow shards that Hugging Face `datasets` opens: write, open, decode."""

from sparseg.shards.codec import Colour, decode_image, decode_label, default_palette, encode_label
from sparseg.shards.engine import Facts, build, refuse_taken
from sparseg.shards.parts import Row
from sparseg.shards.pool import Reader
from sparseg.shards.reader import ShardedDataset, is_dataset, open
from sparseg.shards.writer import MANIFEST, VERSION, DatasetExistsError, write

__all__ = [
    "MANIFEST",
    "VERSION",
    "Colour",
    "DatasetExistsError",
    "Facts",
    "Reader",
    "Row",
    "ShardedDataset",
    "build",
    "decode_image",
    "decode_label",
    "default_palette",
    "encode_label",
    "is_dataset",
    "open",
    "refuse_taken",
    "write",
]
