"""A dataset as a folder of Arrow shards that Hugging Face `datasets` opens: write, open, decode."""

from sparseg.shards.codec import Colour, decode_image, decode_label, default_palette, encode_label
from sparseg.shards.reader import ShardedDataset, is_dataset, open
from sparseg.shards.region import decode_window, encode_fast, encode_raw
from sparseg.shards.writer import MANIFEST, VERSION, DatasetExistsError, Row, write

__all__ = [
    "MANIFEST",
    "VERSION",
    "Colour",
    "DatasetExistsError",
    "Row",
    "ShardedDataset",
    "decode_image",
    "decode_label",
    "decode_window",
    "default_palette",
    "encode_fast",
    "encode_label",
    "encode_raw",
    "is_dataset",
    "open",
    "write",
]
