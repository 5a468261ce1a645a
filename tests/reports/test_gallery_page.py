"""The gallery of predictions: which images, in which order, what each says; it needs nothing else."""

from __future__ import annotations

import base64
import io
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sparseg.data import shards
from sparseg.inference.predict import Predictions
from sparseg.reports import gallery_page

NAMES, PALETTE = ["sand & rock", "<b>", "sea"], [(10, 20, 30), (200, 0, 0), (0, 200, 0)]


def predictions(folder: Path, unsure: dict[str, float], size: tuple[int, int] = (30, 40)) -> Predictions:
    """Images of the left half class 0, the right half class 1."""
    rows, label = [], np.zeros(size, np.uint8)
    label[:, size[1] // 2 :] = 1
    for name, share in unsure.items():
        image, mask = folder / "in" / f"{name}.PNG", folder / "out" / f"{name}.png"
        for file in (image, mask):
            file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((*size, 3), 100, np.uint8)).save(image)
        mask.write_bytes(shards.encode_label(label, PALETTE))
        row = {"image": str(image), "mask": f"{name}.png", "also": "", "confidence": "0.9", "settings": "x"}
        cover = {"cover_sand & rock": "0.500000", "cover_<b>": "0.500000", "cover_sea": "0.000000"}
        rows.append(row | cover | {"unsure": f"{share:.4f}"})
    return Predictions(folder / "out", rows, 0, NAMES, PALETTE)


def cards(html: str) -> list[str]:
    return re.findall(r"<figure.*?</figure>", html, re.DOTALL)


def test_the_least_sure_come_first_and_equal_ones_by_name(tmp_path: Path) -> None:
    found = predictions(tmp_path, {"b": 0.1, "site/a": 0.1, "c": 0.75, "d": 0.0001})
    html = gallery_page.html_of(found, 3)
    assert [re.findall('data-name="(.*?)"', card)[0] for card in cards(html)] == [
        "c.PNG",
        "b.PNG",
        "site/a.PNG",
    ]
    assert "the 3 least sure of 4 images" in html and "--gallery-images N shows more" in html
    everything = gallery_page.html_of(found, 4)
    assert "Predictions: 4 images." in everything and "<br>&lt;0.1 % unsure" in cards(everything)[3]


def test_a_card_holds_overlay_name_covers_and_what_the_filter_reads(tmp_path: Path) -> None:
    (card,) = cards(gallery_page.html_of(predictions(tmp_path, {"a": 0.25}, (480, 640)), 9))
    assert 'data-unsure="0.25" data-cover="0:0.5 1:0.5"' in card and "<b>a.PNG</b><br>25.0 % unsure" in card
    assert "#0a141e" in card and "sand &amp; rock 50.0 %" in card and "&lt;b&gt; 50.0 %" in card
    assert "sea" not in card
    picture = Image.open(io.BytesIO(base64.b64decode(re.findall('base64,(.*?)"', card)[0])))
    assert picture.format == "JPEG" and picture.size == (240, 180)
    left, right = picture.getpixel((30, 90)), picture.getpixel((210, 90))
    np.testing.assert_allclose(left, [50, 56, 62], atol=6)  # 45 % of the image, 55 % of the class
    np.testing.assert_allclose(right, [155, 45, 45], atol=6)


def test_the_page_needs_nothing_else_and_says_what_its_words_mean(tmp_path: Path) -> None:
    html = gallery_page.html_of(predictions(tmp_path, {"a": 0.25}), 9)
    assert not re.search(r"https?://|src=\"(?!data:)|@import|url\(", html)
    assert html.count("<script>") == 1
    assert "<b>unsure</b>: share of the image's pixels whose highest probability is below 50 %" in html
    assert "<b>cover</b>: share of the image's pixels that the network gives to the class" in html
    assert "sand &amp; rock</option>" in html and '<option value="1">&lt;b&gt;</option>' in html


@pytest.mark.parametrize("name", ['q"uote', "a<b", "latin\udce9"])
def test_any_file_name(tmp_path: Path, name: str) -> None:
    html = gallery_page.html_of(predictions(tmp_path, {name: 0.25}), 9)
    shown = {'q"uote': "q&quot;uote", "a<b": "a&lt;b", "latin\udce9": "latin?"}[name].replace("?", "\ufffd")
    assert f"<b>{shown}.PNG</b>" in html
    html.encode()


def test_a_mask_that_went_away_or_is_damaged_is_named(tmp_path: Path) -> None:
    found = predictions(tmp_path, {"a": 0.25})
    (tmp_path / "out" / "a.png").write_bytes(b"nothing")
    with pytest.raises(ValueError, match=r"out/a\.png: .*; remove it and predict it again"):
        gallery_page.html_of(found, 9)
    (tmp_path / "out" / "a.png").unlink()
    with pytest.raises(ValueError, match=r"out/a\.png: unreadable mask \(No such file"):
        gallery_page.html_of(found, 9)
