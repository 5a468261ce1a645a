"""Which images and labels are taken, what they become; a window equals the same part of the whole; hostile
bytes.
"""

from __future__ import annotations

import io
import struct
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


def test_an_exif_rotation_is_not_applied() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    data = encoded(Image.fromarray(picture(20, 30)), "JPEG", exif=exif)
    assert shards.decode_image(data).shape == (20, 30, 3)
    assert shards.decode_window(data, (0, 0, 30, 20)).shape == (20, 30, 3)


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


# --------------------------------------------------------------------------------------------------- hostile


SEEDS = [make(picture(40, 140)) for make in KINDS.values()]
SEEDS += [shards.encode_label(GREY), tiff(4, 4, 1, 16), encoded(Image.fromarray(GREY), "GIF")]
SEEDS += [
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
        lambda data: shards.decode_window(data, (0, 0, corner, corner)),
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
