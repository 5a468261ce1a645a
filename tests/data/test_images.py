"""Which images and labels are taken, what they become; a window equals the same part of the whole; hostile
bytes.
"""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from fixtures import png_header
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from sparseg.config import IGNORED, UNLABELLED
from sparseg.data import shards
from sparseg.data.shards import image_windows, images

GREY = np.arange(0, 240, dtype=np.uint8).reshape(12, 20)


def encoded(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def picture(height: int, width: int, seed: int = 0) -> np.ndarray:
    """Smooth colours with grain, so that JPEG's chroma and TIFF's predictor have work."""
    rng = np.random.default_rng(seed)
    small = Image.fromarray(rng.integers(0, 256, (8, 8, 3)).astype(np.uint8))
    smooth = np.asarray(small.resize((width, height), Image.Resampling.BICUBIC)).astype(int)
    return np.clip(smooth + rng.integers(-6, 7, smooth.shape), 0, 255).astype(np.uint8)


def tiff(height: int, width: int, bands: int, bits: int) -> bytes:
    """An uncompressed TIFF of `bands` channels of `bits` bits, all zero."""
    entries = [(256, 1, width), (257, 1, height), (258, 1, bits), (259, 1, 1), (262, 1, 1)]
    size = height * width * bands * bits // 8
    at = 8 + 2 + 12 * 8 + 4
    entries += [(273, 1, at), (277, 1, bands), (279, 1, size)]
    body = b"".join(struct.pack("<HHII", tag, 4, count, value) for tag, count, value in entries)
    return b"II*\0" + struct.pack("<IH", 8, len(entries)) + body + bytes(4 + size)


# ----------------------------------------------------------------------------------------------------- rules


def test_sixteen_bit_grey_is_divided_by_257_and_rounded() -> None:
    values = np.array([[0, 128, 129, 257, 385, 386, 32896, 65535]], np.uint16)
    for kind in ("PNG", "TIFF"):
        found = shards.decode_image(encoded(Image.fromarray(values), kind))
        np.testing.assert_array_equal(found[0, :, 0], np.round(values[0] / 257))
        assert (found[..., :1] == found).all()
    window = shards.decode_window(encoded(Image.fromarray(values)), (1, 0, 4, 1))
    np.testing.assert_array_equal(window[0, :, 2], [0, 1, 1])


def test_opaque_alpha_and_palettes_are_taken_and_see_through_ones_are_not() -> None:
    colour = np.stack([GREY, GREY[::-1], GREY[:, ::-1]], 2)
    opaque = Image.fromarray(colour).convert("RGBA")
    np.testing.assert_array_equal(shards.decode_image(encoded(opaque)), colour)
    grey_alpha = Image.fromarray(GREY).convert("LA")
    np.testing.assert_array_equal(shards.decode_image(encoded(grey_alpha)), np.stack([GREY] * 3, 2))
    palette = Image.fromarray(GREY).convert("P")
    palette.putpalette([value for k in range(256) for value in (k, 255 - k, 7)])
    expected = np.stack([GREY, 255 - GREY, np.full_like(GREY, 7)], 2)
    np.testing.assert_array_equal(shards.decode_image(encoded(palette)), expected)
    unused = encoded(palette, transparency=250)  # no pixel has it
    np.testing.assert_array_equal(shards.decode_image(unused), expected)
    opaque.putpixel((3, 2), (1, 2, 3, 254))
    grey_alpha.putpixel((3, 2), (1, 254))
    for see_through in (encoded(opaque), encoded(grey_alpha), encoded(palette, transparency=5)):
        with pytest.raises(ValueError, match=r"see-through pixels.*flatten it"):
            shards.decode_image(see_through)
    bits = Image.fromarray((GREY > 100).astype(np.uint8) * 255).convert("1")
    assert set(np.unique(shards.decode_image(encoded(bits)))) == {0, 255}


def test_kinds_that_would_lose_something_are_refused_with_the_remedy() -> None:
    rgb = Image.fromarray(picture(20, 30))
    refused = {
        "mode CMYK .*convert it to 8-bit RGB": encoded(rgb.convert("CMYK"), "JPEG"),
        "mode F .*convert it to 8-bit RGB": encoded(rgb.convert("F"), "TIFF"),
        "mode I .*convert it to 8-bit RGB": encoded(rgb.convert("I"), "TIFF"),
        "TIFF of a kind .*gdal_translate": tiff(4, 4, 7, 16),
    }
    for message, data in refused.items():
        for decode in (shards.decode_image, lambda data: shards.decode_window(data, (0, 0, 2, 2))):
            with pytest.raises(ValueError, match=message) as caught:
                decode(data)
            assert "\n" not in str(caught.value)


def test_the_content_decides_what_a_file_is() -> None:
    np.testing.assert_array_equal(  # whatever its name was
        shards.decode_image(encoded(Image.fromarray(GREY), "BMP")), np.stack([GREY] * 3, 2)
    )
    for text in (
        b"",
        b"no image",
        b"<svg xmlns='http://www.w3.org/2000/svg'/>",
        b"%!PS-Adobe-3.0 EPSF-3.0\n",
    ):
        with pytest.raises(ValueError, match=r"unreadable or truncated image .*none of JPEG, PNG"):
            shards.decode_image(text)
        with pytest.raises(ValueError, match=r"unreadable or truncated label .*none of PNG"):
            shards.decode_label(text)


def test_sixteen_bits_that_hold_fewer_are_refused_where_a_file_is_met_first() -> None:
    """The same fixed scale in training and prediction: a dataset's row is read, a new file is refused."""
    for top, white in ((0, 255), (176, 255), (900, 1023), (2816, 4095), (4095, 4095)):
        values = np.linspace(0, top, 240).astype(np.uint16).reshape(12, 20)
        for kind in ("PNG", "TIFF", "JPEG2000"):
            data = encoded(Image.fromarray(values), kind)
            with pytest.raises(
                ValueError, match=rf"end at {top} of 65535 .*-scale 0 {white} 0 255"
            ) as caught:
                shards.decode_image(data, is_new=True)
            assert "\n" not in str(caught.value)
            np.testing.assert_array_equal(shards.decode_image(data)[..., 1], np.round(values / 257))
    values[0, 0] = 4096
    shards.decode_image(encoded(Image.fromarray(values)), is_new=True)


def wide_rgb_png(values_HW3: np.ndarray) -> bytes:
    """A PNG of 16 bits a channel, which Pillow does not write."""
    height, width, _ = values_HW3.shape
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values_HW3)
    chunks = [
        (b"IHDR", struct.pack(">IIBBBBB", width, height, 16, 2, 0, 0, 0)),
        (b"IDAT", zlib.compress(rows)),
    ]
    packed = [
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        for kind, body in [*chunks, (b"IEND", b"")]
    ]
    return images.PNG_SIGNATURE + b"".join(packed)


def test_sixteen_bit_colour_keeps_its_high_byte() -> None:
    values = np.random.default_rng(0).integers(0, 2**16, (7, 9, 3)).astype(np.uint16)
    data = wide_rgb_png(values)
    np.testing.assert_array_equal(shards.decode_image(data, is_new=True), values >> 8)
    np.testing.assert_array_equal(shards.decode_window(data, (1, 2, 5, 6)), (values >> 8)[2:6, 1:5])
    with pytest.raises(ValueError, match=r"end at 4095 .*-scale 0 4095 0 255"):
        shards.decode_image(wide_rgb_png(values >> 4), is_new=True)


def test_a_pgm_is_scaled_by_the_largest_value_it_declares() -> None:
    for largest in (4095, 65535):
        values = np.linspace(0, largest, 60).astype(">u2").reshape(6, 10)
        data = b"P5\n10 6\n%d\n" % largest + values.tobytes()
        found = shards.decode_image(data, is_new=True)
        assert np.abs(found[..., 0] - values.astype(float) * 255 / largest).max() <= 0.51
        np.testing.assert_array_equal(shards.decode_window(data, (2, 1, 7, 4)), found[1:4, 2:7])


def test_a_sixteen_bit_tiff_whose_zero_is_white_is_shown_so() -> None:
    values = np.linspace(0, 65535, 60).astype(np.uint16).reshape(6, 10)
    data = encoded(Image.fromarray(values), "TIFF", tiffinfo={262: 0})
    np.testing.assert_array_equal(shards.decode_image(data)[..., 0], np.round((65535 - values) / 257))
    np.testing.assert_array_equal(
        shards.decode_window(data, (2, 1, 7, 4)), shards.decode_image(data)[1:4, 2:7]
    )


def test_of_several_frames_the_first_is_taken() -> None:
    frames = [Image.fromarray(np.full((5, 6), value, np.uint8)) for value in (40, 200)]
    for kind in ("GIF", "PNG", "TIFF", "WEBP"):
        options = {"lossless": True} if kind == "WEBP" else {}
        data = encoded(frames[0], kind, save_all=True, append_images=frames[1:], **options)
        assert (shards.decode_image(data) == 40).all()
        assert shards.traits_of(data) == ["frames"]


def test_what_an_import_tells_of_an_image() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    rgb = picture(20, 30)
    assert shards.traits_of(encoded(Image.fromarray(rgb), "JPEG", exif=exif)) == ["turned"]
    assert shards.traits_of(encoded(Image.fromarray(rgb), "TIFF", exif=exif)) == ["turned"]
    assert shards.traits_of(encoded(Image.fromarray(GREY.astype(np.uint16)))) == ["wide"]
    assert shards.traits_of(wide_rgb_png(rgb.astype(np.uint16))) == ["wide"]
    assert shards.traits_of(encoded(Image.fromarray(rgb), "JPEG")) == []
    assert shards.traits_of(shards.encode_fast(rgb)) == []
    assert list(shards.TRAITS) == ["turned", "wide", "frames"]


def test_every_suffix_of_an_image_is_of_a_format_that_is_read() -> None:
    Image.init()
    formats = {Image.EXTENSION[suffix] for suffix in shards.IMAGE_SUFFIXES}
    assert formats <= set(images.IMAGE_FORMATS)


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize("side", [8200, 9600, 50000])
def test_decompression_bombs_are_refused_with_the_limit(side: int) -> None:
    for what, decode, colour_type in (
        ("image", shards.decode_image, 2),
        ("label", shards.decode_label, 0),
        ("image", lambda data: shards.decode_window(data, (0, 0, 9, side)), 2),
    ):
        with pytest.raises(ValueError, match=rf"{what} is taken for a decompression bomb.*8192x8192.*tiles"):
            decode(png_header(side, side, colour_type=colour_type))


def test_empty_images_are_refused() -> None:
    for data in (png_header(0, 5), b"P6\n0 4\n255\n", png_header(5, 0)):
        with pytest.raises(ValueError, match=r"unreadable or truncated|is empty"):
            shards.decode_image(data)


# ----------------------------------------------------------------------------------------------------- labels


@settings(max_examples=40, deadline=None)
@given(
    size=st.tuples(st.integers(1, 40), st.integers(1, 40)), seed=st.integers(0, 99), options=st.integers(0, 3)
)
def test_labels_of_any_writer_keep_their_values(size: tuple[int, int], seed: int, options: int) -> None:
    rng = np.random.default_rng(seed)
    label = rng.choice([0, 1, 7, UNLABELLED, IGNORED], size).astype(np.uint8)
    grey = Image.fromarray(label)
    data = [
        shards.encode_label(label),
        encoded(grey),  # Pillow filters the rows of grey images, not of palettes
        encoded(grey, "TIFF"),
        encoded(grey, compress_level=0),
    ][options]
    np.testing.assert_array_equal(shards.decode_label(data), label)


def test_our_labels_take_the_short_way_and_damaged_ones_are_found_in_it() -> None:
    label = np.full((60, 80), UNLABELLED, np.uint8)
    label[3, 4] = 9
    data = shards.encode_label(label)
    assert images._plain_png(data) is not None
    for at in range(8, len(data) - 12, 7):
        if not data[37:].startswith(b"PLTE") or 41 <= at < 41 + 768:
            continue  # a changed colour changes no value
        broken = data[:at] + bytes([data[at] ^ 0x41]) + data[at + 1 :]
        assert images._plain_png(broken) is None, at
    with pytest.raises(ValueError, match="unreadable or truncated label"):
        shards.decode_label(data[: len(data) // 2])
    with pytest.raises(ValueError, match="8-bit palette or grey PNG, got mode RGB"):
        shards.decode_label(encoded(Image.new("RGB", (2, 2))))


# ----------------------------------------------------------------------------------------------------- window


KINDS = {
    "jpeg 4:2:0": lambda a: encoded(Image.fromarray(a), "JPEG", quality=92),
    "jpeg 4:4:4": lambda a: encoded(Image.fromarray(a), "JPEG", quality=80, subsampling=0),
    "jpeg 4:2:2": lambda a: encoded(Image.fromarray(a), "JPEG", quality=60, subsampling=1),
    "jpeg progressive": lambda a: encoded(Image.fromarray(a), "JPEG", progressive=True),
    "jpeg restarts": lambda a: encoded(Image.fromarray(a), "JPEG", restart_marker_rows=1),
    "jpeg grey": lambda a: encoded(Image.fromarray(a[..., 0]), "JPEG"),
    "png": lambda a: encoded(Image.fromarray(a)),
    "png grey": lambda a: encoded(Image.fromarray(a[..., 0])),
    "png palette": lambda a: encoded(Image.fromarray(a).convert("P")),
    "webp": lambda a: encoded(Image.fromarray(a), "WEBP", lossless=True, method=0),
    "tiff": lambda a: encoded(Image.fromarray(a), "TIFF", compression="tiff_lzw"),
    "fast": shards.encode_fast,
    "raw": shards.encode_raw,
}


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=15, deadline=None)
@given(size=st.tuples(st.integers(1, 300), st.integers(1, 300)), seed=st.integers(0, 999))
def test_a_window_equals_that_part_of_the_whole(kind: str, size: tuple[int, int], seed: int) -> None:
    rng = np.random.default_rng(seed)
    data = KINDS[kind](picture(*size, seed))
    whole = shards.decode_image(data)
    for _ in range(2):
        (top, bottom), (left, right) = (
            sorted(rng.choice(length + 1, 2, replace=False).tolist()) for length in size
        )
        window = shards.decode_window(data, (left, top, right, bottom), size)
        np.testing.assert_array_equal(window, whole[top:bottom, left:right])
        assert window.flags.writeable


@pytest.mark.shared
def test_windows_of_real_photographs(shared_data: Path) -> None:
    for file in sorted((shared_data / "voc_subset" / "JPEGImages").glob("*.jpg"))[:10]:
        data = file.read_bytes()
        whole = shards.decode_image(data)
        for bottom in (9, 100, 160, whole.shape[0]):
            window = shards.decode_window(data, (20, bottom // 2, 200, bottom))
            np.testing.assert_array_equal(window, whole[bottom // 2 : bottom, 20:200])


def test_less_is_decoded_where_the_format_lets_one() -> None:
    """JPEG's rows below the window and the fast form's tiles beside it may be missing or damaged."""
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 256, (600, 500, 3)).astype(np.uint8)
    cut = KINDS["jpeg 4:2:0"](noise)
    whole, cut = shards.decode_image(cut), cut[: len(cut) // 2]
    np.testing.assert_array_equal(shards.decode_window(cut, (5, 10, 90, 200)), whole[10:200, 5:90])
    with pytest.raises(ValueError, match="unreadable or truncated"):
        shards.decode_window(cut, (5, 10, 90, 500))
    part, _, size = image_windows._shortened(KINDS["png"](noise), (5, 10, 90, 200))
    assert images.load(part).size == (500, 200) and size == (600, 500)
    data = shards.encode_fast(noise)
    damaged = bytearray(data)
    damaged[-1000:] = bytes(1000)  # the last tile
    np.testing.assert_array_equal(
        shards.decode_window(bytes(damaged), (5, 10, 384, 512)), noise[10:512, 5:384]
    )
    with pytest.raises(ValueError, match="unreadable or truncated"):
        shards.decode_window(bytes(damaged), (400, 520, 500, 600))


@pytest.mark.parametrize("encode", [shards.encode_fast, shards.encode_raw])
def test_the_stored_forms_are_lossless_and_open_as_any_image(encode: Callable[[np.ndarray], bytes]) -> None:
    for size in ((1, 1), (128, 128), (128, 129), (129, 1), (300, 517)):
        image = picture(*size)
        data = encode(image)
        opened = Image.open(io.BytesIO(data))
        assert opened.size == size[::-1] and opened.mode == "RGB"
        np.testing.assert_array_equal(np.asarray(opened), image)
        np.testing.assert_array_equal(shards.decode_image(data), image)


def test_a_box_or_shape_that_is_not_the_images_is_refused() -> None:
    for kind in ("jpeg 4:2:0", "png", "webp", "fast", "raw"):
        data = KINDS[kind](picture(150, 140))
        for box in ((0, 0, 141, 5), (-1, 0, 5, 5), (3, 3, 3, 9), (0, 5, 9, 151), (0, 9, 4, 4)):
            with pytest.raises(ValueError, match="does not lie in the image of 140x150"):
                shards.decode_window(data, box)
        with pytest.raises(ValueError, match="image is 140x150 pixels but 150x140 are expected"):
            shards.decode_window(data, (0, 0, 5, 5), (140, 150))


# ------------------------------------------------------------------------------------- label files of others


def packed_rows(values_HW: np.ndarray, bits: int) -> np.ndarray:
    """Several values of 1, 2, 4 or 8 bits in a byte; every row begins a new one."""
    height, width = values_HW.shape
    per_byte = 8 // bits
    padded = np.pad(values_HW, ((0, 0), (0, -width % per_byte))).reshape(height, -1, per_byte)
    return (padded << np.arange(8 - bits, -1, -bits)).sum(2).astype(np.uint8)


def grey_png(values_HW: np.ndarray, bits: int) -> bytes:
    """A grey PNG of 1, 2 or 4 bits a pixel."""
    height, width = values_HW.shape
    rows = b"".join(b"\0" + row.tobytes() for row in packed_rows(values_HW, bits))
    header = struct.pack(">IIBBBBB", width, height, bits, 0, 0, 0, 0)
    return images.PNG_SIGNATURE + b"".join(
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        for kind, body in ((b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b""))
    )


def grey_tiff(values_HW: np.ndarray, bits: int, *, zero_is_white: bool = False) -> bytes:
    """The values as they are, packed, in an uncompressed TIFF that may call 0 white."""
    empty = tiff(*values_HW.shape, 1, bits)
    if zero_is_white:
        empty = empty.replace(struct.pack("<HHII", 262, 4, 1, 1), struct.pack("<HHII", 262, 4, 1, 0))
    packed = packed_rows(values_HW, bits).tobytes()
    strip = struct.pack("<HHII", 279, 4, 1, values_HW.size * bits // 8)
    return empty[: 8 + 2 + 12 * 8 + 4].replace(strip, strip[:8] + struct.pack("<I", len(packed))) + packed


@pytest.mark.parametrize("bits", [1, 2, 4])
def test_few_bit_grey_labels_keep_their_true_values(bits: int) -> None:
    label = np.arange(63, dtype=np.uint8).reshape(7, 9) % 2**bits
    np.testing.assert_array_equal(shards.decode_label_file(grey_png(label, bits)), label)
    for white in (False, True):
        found = shards.decode_label_file(grey_tiff(label, bits, zero_is_white=white))
        np.testing.assert_array_equal(found, label)


def test_label_files_of_any_writer_keep_their_ids() -> None:
    ids = np.array([[0, 1, 2], [7, UNLABELLED, IGNORED]], np.uint8)
    equal = np.stack([ids] * 3, 2)
    opaque = np.concatenate([equal, np.full((2, 3, 1), 255, np.uint8)], 2)
    saved = {
        "palette": shards.encode_label(ids),
        "grey": encoded(Image.fromarray(ids)),
        "grey tiff": encoded(Image.fromarray(ids), "TIFF", compression="tiff_lzw"),
        "tiff whose 0 is white": grey_tiff(ids, 8, zero_is_white=True),
        "16 bits": encoded(Image.fromarray(ids.astype(np.uint16))),
        "16-bit tiff": encoded(Image.fromarray(ids.astype(np.uint16)), "TIFF"),
        "32-bit tiff": encoded(Image.fromarray(ids.astype(np.int32)), "TIFF"),
        "float tiff": encoded(Image.fromarray(ids.astype(np.float32)), "TIFF"),
        "equal channels": encoded(Image.fromarray(equal)),
        "equal channels, tiff": encoded(Image.fromarray(equal), "TIFF"),
        "equal channels, opaque": encoded(Image.fromarray(opaque)),
        "grey, opaque": encoded(Image.fromarray(ids).convert("LA")),
        "bmp": encoded(Image.fromarray(ids), "BMP"),
    }
    for name, data in saved.items():
        found = shards.decode_label_file(data)
        assert found.dtype == np.uint8
        np.testing.assert_array_equal(found, ids, err_msg=name)


def test_what_is_no_map_of_ids_is_refused() -> None:
    ids = np.array([[0, 1, 2], [7, 3, 4]])
    see_through = Image.fromarray(ids.astype(np.uint8)).convert("LA")
    see_through.putpixel((0, 0), (1, 0))
    refused = {
        "one channel, this one is RGB with channels that differ": encoded(Image.fromarray(picture(4, 5))),
        "one channel, this one is LA": encoded(see_through),
        r"label values -7\.*0*\.\.0": encoded(Image.fromarray(-ids.astype(np.int32)), "TIFF"),
        "label values 0..700 ": encoded(Image.fromarray(100 * ids.astype(np.uint16))),
        "label values 0.0..3.5 are no whole": encoded(Image.fromarray(ids.astype(np.float32) / 2), "TIFF"),
        "label values 0.0..nan|label values nan": encoded(
            Image.fromarray(np.where(ids, np.nan, 0).astype(np.float32)), "TIFF"
        ),
        "one channel, this one is CMYK": encoded(Image.new("CMYK", (3, 4)), "TIFF"),
    }
    for message, data in refused.items():
        with pytest.raises(ValueError, match=message) as caught:
            shards.decode_label_file(data)
        assert not isinstance(caught.value, shards.UnreadableError)
    for data in (
        b"",
        encoded(Image.fromarray(picture(4, 5)), "JPEG"),
        encoded(Image.fromarray(picture(40, 50)).convert("L"))[:900],
    ):
        with pytest.raises(shards.UnreadableError, match="unreadable or truncated label"):
            shards.decode_label_file(data)


# --------------------------------------------------------------------------------------------------- hostile


TURNED = Image.Exif()
TURNED[0x0112] = 6
SEEDS = [make(picture(40, 140)) for make in KINDS.values()]
SEEDS += [shards.encode_label(GREY), tiff(4, 4, 1, 16), encoded(Image.fromarray(GREY), "GIF")]
SEEDS += [
    *(
        encoded(Image.fromarray(picture(20, 30)), kind, exif=TURNED)
        for kind in ("JPEG", "PNG", "WEBP", "TIFF")
    ),
    encoded(Image.fromarray(GREY), "JPEG2000"),
    encoded(Image.fromarray(GREY), "BMP"),
    b"P6\n3 2\n255\n",
]


@st.composite
def hostile(draw: st.DrawFn) -> bytes:
    """Random bytes, or a real file with bytes changed, cut out, repeated or cut off."""
    if draw(st.integers(0, 9)) == 0:
        return draw(
            st.sampled_from([b"", b"\xff\xd8\xff", images.PNG_SIGNATURE, b"II*\0", b"GIF89a"])
        ) + draw(st.binary(max_size=200))
    data = bytearray(draw(st.sampled_from(SEEDS)))
    for _ in range(draw(st.integers(1, 6))):
        # headers decide most: half of the changes lie in the first 200 bytes
        at = draw(st.integers(0, min(200, len(data)) if draw(st.booleans()) else len(data)))
        match draw(st.sampled_from(["set", "cut", "insert", "end"])):
            case "set":
                data[at : at + 1] = draw(st.binary(min_size=1, max_size=4))
            case "cut":
                del data[at : at + draw(st.integers(1, 40))]
            case "insert":
                data[at:at] = draw(st.binary(min_size=1, max_size=8))
            case "end":
                del data[max(at, 4) :]
    return bytes(data)


@pytest.mark.filterwarnings("ignore")
@settings(max_examples=200, deadline=None)
@given(data=hostile(), corner=st.integers(1, 60))
def test_hostile_bytes_raise_value_error_only(data: bytes, corner: int) -> None:
    for decode in (
        shards.decode_image,
        shards.decode_label,
        shards.decode_label_file,
        lambda data: shards.decode_window(data, (0, 0, corner, corner)),
        lambda data: shards.decode_image(shards.with_orientation_1(data)),
    ):
        try:
            found = decode(data)
        except ValueError as error:
            assert "\n" not in str(error)
        else:
            assert found.dtype == np.uint8 and found.size > 0


def test_a_header_of_the_fast_form_that_lies_is_refused() -> None:
    data = bytearray(shards.encode_fast(picture(200, 300)))
    head = len(image_windows._tiff_head(200, 300))
    for at in (head, head + 4, head + 4 * 6):  # places and sizes of tiles
        lying = data.copy()
        lying[at : at + 4] = b"\xff\xff\xff\x7f"
        with pytest.raises(ValueError, match="unreadable or truncated"):
            shards.decode_window(bytes(lying), (0, 0, 300, 200))
