"""EXIF orientation: where it is found, pictures taken upright, windows of turned ones, tags set to 1."""

from __future__ import annotations

import io
import json
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import tiny
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from sparseg.data import shards
from sparseg.data.shards import orientation as orientations

KINDS = {
    "JPEG": {"quality": 90, "subsampling": 2},
    "progressive JPEG": {"progressive": True},
    "PNG": {},
    "WEBP": {"lossless": True},
    "TIFF": {},
}
XMP = '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description tiff:Orientation="{}"/></x:xmpmeta>'


def picture(height: int, width: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    small = Image.fromarray(rng.integers(0, 256, (5, 6, 3)).astype(np.uint8))
    return np.asarray(small.resize((width, height)))


def turned(orientation: int, kind: str = "JPEG", size: tuple[int, int] = (40, 64), seed: int = 0) -> bytes:
    """A picture of stored `size` with the tag, and another one before it that must stay."""
    exif = Image.Exif()
    exif[0x010F], exif[0x0112] = "Maker", orientation
    buffer = io.BytesIO()
    image = Image.fromarray(picture(*size, seed))
    image.save(buffer, kind.split()[-1], exif=exif, **KINDS[kind])
    return buffer.getvalue()


def as_a_viewer(data: bytes) -> np.ndarray:
    """As `datasets` decodes it."""
    image = Image.open(io.BytesIO(data))
    image.load()
    return np.asarray(ImageOps.exif_transpose(image).convert("RGB"))


def with_chunk(png: bytes, kind: bytes, body: bytes) -> bytes:
    """The PNG with one more chunk behind its header."""
    chunk = struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
    return png[:33] + chunk + png[33:]


def plain(kind: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(picture(40, 64)).save(buffer, kind, **KINDS[kind])
    return buffer.getvalue()


def elsewhere(orientation: int) -> dict[str, bytes]:
    """Files whose orientation stands in other places than EXIF's own."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    block = exif.tobytes()
    lines = block.hex()
    profile = f"\nexif\n{len(block):8}\n{lines[:70]}\n{lines[70:]}\n".encode()
    xmp, key = XMP.format(orientation).encode(), b"XML:com.adobe.xmp\0"
    jpeg = plain("JPEG")
    segment = b"http://ns.adobe.com/xap/1.0/\0" + xmp
    webp = io.BytesIO()
    Image.fromarray(picture(40, 64)).save(webp, "WEBP", lossless=True, xmp=xmp)
    big = Image.Exif()
    big.endian = ">"
    big[0x0112] = orientation
    buffer = io.BytesIO()
    Image.fromarray(picture(40, 64)).save(buffer, "JPEG", exif=big)
    return {
        "png, packed profile": with_chunk(
            plain(), b"zTXt", b"Raw profile type exif\0\0" + zlib.compress(profile)
        ),
        "png, plain profile": with_chunk(plain(), b"tEXt", b"Raw profile type exif\0" + profile),
        "png, xmp": with_chunk(plain(), b"iTXt", key + b"\0\0\0\0" + xmp),
        "png, packed xmp": with_chunk(plain(), b"iTXt", key + b"\1\0en\0key\0" + zlib.compress(xmp)),
        "jpeg, xmp": jpeg[:2] + b"\xff\xe1" + struct.pack(">H", len(segment) + 2) + segment + jpeg[2:],
        "jpeg, fill bytes": turned(orientation)[:2] + b"\xff\xff" + turned(orientation)[2:],
        "jpeg, big endian": buffer.getvalue(),
        "webp, xmp": webp.getvalue(),
    }


# -------------------------------------------------------------------------------------------------- upright


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_picture_is_taken_as_a_viewer_shows_it(orientation: int, kind: str) -> None:
    data = turned(orientation, kind)
    assert shards.orientation_of(data) == orientation
    found = shards.decode_image(data)
    np.testing.assert_array_equal(found, as_a_viewer(data))
    assert found.shape[:2] == ((64, 40) if orientation >= 5 else (40, 64))
    assert not found.flags.writeable


@pytest.mark.parametrize("orientation", range(2, 9))
def test_the_tag_is_found_where_pillow_finds_it(orientation: int) -> None:
    for name, data in elsewhere(orientation).items():
        assert shards.orientation_of(data) == orientation, name
        np.testing.assert_array_equal(shards.decode_image(data), as_a_viewer(data), err_msg=name)


def test_exif_goes_before_xmp_and_nonsense_is_upright() -> None:
    segment = b"http://ns.adobe.com/xap/1.0/\0" + XMP.format(8).encode()
    jpeg = turned(6)
    both = jpeg[:2] + b"\xff\xe1" + struct.pack(">H", len(segment) + 2) + segment + jpeg[2:]
    assert shards.orientation_of(both) == 6
    np.testing.assert_array_equal(shards.decode_image(both), as_a_viewer(both))
    assert shards.orientation_of(shards.with_orientation_1(both)) == 1
    for nonsense in (0, 9, 6000):
        assert shards.orientation_of(turned(nonsense)) == 1
    for data in (
        b"",
        b"\xff\xd8",
        b"no image",
        plain(),
        shards.encode_fast(picture(200, 300)),
        turned(6)[:30],
    ):
        assert shards.orientation_of(data) == 1


@pytest.mark.parametrize("orientation", range(1, 9))
@settings(max_examples=12, deadline=None)
@given(
    kind=st.sampled_from(sorted(KINDS)),
    size=st.tuples(st.integers(1, 90), st.integers(1, 90)),
    seed=st.integers(0, 99),
)
def test_a_window_equals_that_part_of_the_upright_picture(
    orientation: int, kind: str, size: tuple[int, int], seed: int
) -> None:
    data = turned(orientation, kind, size, seed)
    whole = shards.decode_image(data)
    rng = np.random.default_rng(seed)
    (top, bottom), (left, right) = (
        sorted(rng.choice(length + 1, 2, replace=False).tolist()) for length in whole.shape[:2]
    )
    window = shards.decode_window(data, (left, top, right, bottom), whole.shape[:2])
    np.testing.assert_array_equal(window, whole[top:bottom, left:right])
    assert window.flags.writeable and window.flags.c_contiguous


def test_a_window_of_a_turned_picture_is_checked_against_the_upright_one() -> None:
    for kind in KINDS:
        data = turned(6, kind)
        with pytest.raises(ValueError, match="image is 40x64 pixels but 64x40 are expected"):
            shards.decode_window(data, (0, 0, 4, 4), (40, 64))
        with pytest.raises(ValueError, match="does not lie in the image of 40x64"):
            shards.decode_window(data, (0, 0, 64, 40))


def test_less_is_decoded_of_a_turned_jpeg_too() -> None:
    data = turned(3, size=(600, 500))
    whole, cut = shards.decode_image(data), data[: len(data) // 2]
    np.testing.assert_array_equal(shards.decode_window(cut, (5, 450, 90, 590)), whole[450:590, 5:90])


# ---------------------------------------------------------------------------------------------- set to stored


@pytest.mark.parametrize("orientation", range(2, 9))
def test_the_stored_pixels_are_shown_where_the_tag_says_1(orientation: int) -> None:
    stored = {kind: np.asarray(Image.open(io.BytesIO(turned(1, kind))).convert("RGB")) for kind in KINDS}
    for kind in KINDS:
        data = turned(orientation, kind)
        patched = shards.with_orientation_1(data)
        assert shards.orientation_of(patched) == 1 and len(patched) == len(data)
        np.testing.assert_array_equal(shards.decode_image(patched), stored[kind])
        np.testing.assert_array_equal(as_a_viewer(patched), stored[kind])
        assert Image.open(io.BytesIO(patched)).getexif()[0x010F] == "Maker"
        assert sum(a != b for a, b in zip(data, patched, strict=True)) <= (1 if kind != "PNG" else 5)
    for name, data in elsewhere(orientation).items():
        patched = shards.with_orientation_1(data)
        assert shards.orientation_of(patched) == 1, name
        assert as_a_viewer(patched).shape == (40, 64, 3), name
        np.testing.assert_array_equal(as_a_viewer(patched), shards.decode_image(patched), err_msg=name)


def test_what_is_upright_stays_the_very_bytes() -> None:
    for data in (turned(1), plain(), shards.encode_fast(picture(200, 300)), b"no image"):
        assert shards.with_orientation_1(data) is data


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_box_and_a_size_turn_as_the_picture_does(orientation: int) -> None:
    stored = np.arange(7 * 5).reshape(7, 5)
    whole = orientations.upright(stored, orientation)
    assert whole.shape == orientations.upright_size((7, 5), orientation)
    left, top, right, bottom = orientations.stored_box((1, 2, 4, 5), (7, 5), orientation)
    part = orientations.upright(stored[top:bottom, left:right], orientation)
    np.testing.assert_array_equal(part, whole[2:5, 1:4])


def test_a_label_map_of_the_stored_size_turns_with_its_image() -> None:
    label = np.arange(40 * 64).reshape(40, 64)
    for orientation in (5, 6, 7, 8):
        found = shards.turned_with(label, (64, 40), orientation)
        np.testing.assert_array_equal(found, orientations.upright(label, orientation))
    assert shards.turned_with(label, (40, 64), 6) is label  # made on the upright image
    assert shards.turned_with(label, (40, 64), 3) is label  # its size does not tell
    assert shards.turned_with(label, (64, 40), 1) is label and shards.turned_with(label, (9, 9), 6) is label


def test_label_files_are_taken_upright_too() -> None:
    label = np.arange(40 * 64, dtype=np.uint8).reshape(40, 64)
    exif = Image.Exif()
    exif[0x0112] = 6
    for kind in ("PNG", "TIFF"):
        buffer = io.BytesIO()
        Image.fromarray(label).save(buffer, kind, exif=exif)
        found = shards.decode_label_file(buffer.getvalue())
        np.testing.assert_array_equal(found, np.rot90(label, -1))
        stored = shards.decode_label_file(shards.with_orientation_1(buffer.getvalue()))
        np.testing.assert_array_equal(stored, label)


# ----------------------------------------------------------------------------------------------- old datasets


def written(folder: Path, data: bytes, size: tuple[int, int]) -> Path:
    label = np.zeros(size, np.uint8)
    row = {"id": "a", "image": data, "label": label, "mask": None, "height": size[0], "width": size[1]}
    shards.write(folder, {split: lambda: iter([row]) for split in ("train", "val")}, list(tiny.NAMES))
    return folder


def test_a_new_dataset_is_upright_and_says_so(tmp_path: Path) -> None:
    data = turned(6)
    folder = written(tmp_path / "set", data, (64, 40))
    assert json.loads((folder / "sparseg.json").read_text())["orientation"] == "upright"
    row = shards.open(folder).splits["train"][0]
    assert row["image"]["bytes"] == data
    assert shards.decode_image(row["image"]["bytes"]).shape[:2] == (row["height"], row["width"])


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", [1, 3, 6])
def test_a_dataset_of_before_is_read_as_it_was(tmp_path: Path, kind: str, orientation: int) -> None:
    """Its labels belong to the stored pixels; TIFFs were turned by Pillow then, too."""
    data = turned(orientation, kind)
    size = shards.decode_image(data).shape[:2] if kind == "TIFF" else (40, 64)
    folder = written(tmp_path / "set", data, size)
    manifest = json.loads((folder / "sparseg.json").read_text())
    del manifest["orientation"]
    (folder / "sparseg.json").write_text(json.dumps(manifest))
    split = shards.open(folder).splits["train"]
    row = split[0]
    expected = as_a_viewer(data) if kind == "TIFF" else as_a_viewer(turned(1, kind))
    np.testing.assert_array_equal(shards.decode_image(row["image"]["bytes"]), expected)
    window = shards.decode_window(row["image"]["bytes"], (1, 2, 9, 8), (row["height"], row["width"]))
    np.testing.assert_array_equal(window, expected[2:8, 1:9])
    assert list(split["id"]) == ["a"] and split.select_columns(["height"])[:] == {"height": [size[0]]}
