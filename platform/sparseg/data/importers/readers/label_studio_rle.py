"""The run lengths of Label Studio's brush: a picture of four channels, of which the last is the stroke.

They are those of https://github.com/thi-ng/umbrella/tree/develop/packages/rle-pack, a stream of bits, the
highest of every byte first: 32 bits, the number of words; 5 bits, the size of a word less one; four times 4
bits, the sizes of a count less one.  Then chunk after chunk: 1 bit, whether one word is repeated; 2 bits,
which of the four sizes its count has; the count less one; the word, or the count's number of words.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from sparseg.data.importers.readers.parsing import MAX_MASK_PIXELS, shown

CHANNELS = 4
WORD_BITS = 8


def decoded(rle: Any, shape: tuple[int, int], where: str) -> np.ndarray:
    """Run lengths, a list of bytes -> (H, W) bool, where the stroke covers at least half of a pixel.

    The editor smooths the border of a stroke; its inside is 255, or less where it was drawn translucent.
    Raises ValueError, before any memory is taken, for another size than the picture's and for one too large,
    and for bytes that end too early, or go beyond the picture.
    """
    if not isinstance(rle, list) or not all(type(byte) is int and 0 <= byte < 256 for byte in rle):
        raise ValueError(f"{where}: rle must be a list of bytes, got {shown(rle)}")
    bits = _Bits(bytes(rle), where)
    words = bits.read(32)
    word_bits = bits.read(5) + 1
    count_bits = [bits.read(4) + 1 for _ in range(4)]
    pixels = shape[0] * shape[1]
    if words != CHANNELS * pixels or word_bits != WORD_BITS:
        raise ValueError(
            f"{where}: rle holds {words} words of {word_bits} bits, but a picture of {shape[1]}x{shape[0]} "
            f"pixels has {CHANNELS * pixels} of {WORD_BITS}"
        )
    if pixels > MAX_MASK_PIXELS:
        raise ValueError(f"{where}: a mask of {pixels} pixels; at most {MAX_MASK_PIXELS} are read")
    alpha = np.zeros(pixels, dtype=np.uint8)
    at = 0
    while at < words:
        is_run = bits.read(1)
        end = at + 1 + bits.read(count_bits[bits.read(2)])
        if end > words:
            raise ValueError(f"{where}: rle goes on to word {end} of {words}")
        # words 3, 7, 11, ... are the last channel's: of words at..end, those of pixels at // 4..end // 4
        if is_run:
            alpha[at // CHANNELS : end // CHANNELS] = bits.read(WORD_BITS)
        else:
            values = bits.words(end - at)
            alpha[at // CHANNELS : end // CHANNELS] = values[CHANNELS - 1 - at % CHANNELS :: CHANNELS]
        at = end
    return (alpha >= max(1, (int(alpha.max()) + 1) // 2)).reshape(shape)


class _Bits:
    """A stream of bits, read from the front."""

    def __init__(self, data: bytes, where: str) -> None:
        self.data = data
        self.where = where
        self.at = 0

    def _take(self, count: int) -> int:
        start, self.at = self.at, self.at + count
        if self.at > 8 * len(self.data):
            raise ValueError(f"{self.where}: rle is cut off after {len(self.data)} bytes")
        return start

    def read(self, count: int) -> int:
        """The number in the next at most 32 bits."""
        start = self._take(count)
        window = int.from_bytes(self.data[start // 8 : start // 8 + 5].ljust(5, b"\0"), "big")
        return window >> (40 - start % 8 - count) & ((1 << count) - 1)

    def words(self, count: int) -> np.ndarray:
        """The next words (N,) uint8."""
        start = self._take(WORD_BITS * count)
        held = np.frombuffer(self.data[start // 8 : start // 8 + count + 1].ljust(count + 1, b"\0"), np.uint8)
        shift = start % 8
        return (((held[:-1].astype(np.uint16) << 8) | held[1:]) >> (8 - shift)).astype(np.uint8)
