"""The default colours can be told apart, whoever looks; the user's own are kept as they are."""

from __future__ import annotations

import numpy as np
import pytest
from colour_vision import OKABE_ITO, VIEWS, Colours, distances, oklab, search

from sparseg.config import MAX_CLASSES
from sparseg.data import shards
from sparseg.data.importers.layouts.voc import VOC_PALETTE
from sparseg.data.shards import IGNORED_COLOUR, UNLABELLED_COLOUR, default_palette, with_gaps_filled

FIRST = 12
CLEAR, CLEAR_OF_NEIGHBOURS = 7.5, 15.0  # hundredths of OKLab


def between(colours: list[shards.Colour]) -> np.ndarray:
    array = np.array(colours, np.uint8)
    found = distances(array, array)
    np.fill_diagonal(found, np.inf)
    return found


def test_the_table_is_what_the_search_finds() -> None:
    assert default_palette(MAX_CLASSES) == search(MAX_CLASSES, [UNLABELLED_COLOUR, IGNORED_COLOUR])
    assert default_palette(3) == OKABE_ITO[:3] and len(set(default_palette(MAX_CLASSES))) == MAX_CLASSES


def test_the_first_classes_and_neighbours_differ_in_every_view() -> None:
    found = between(default_palette(MAX_CLASSES))
    assert found[:FIRST, :FIRST].min() > CLEAR
    assert np.diag(found, 1)[:39].min() > CLEAR_OF_NEIGHBOURS
    assert np.diag(found, 1).min() > 5
    codes = np.array([UNLABELLED_COLOUR, IGNORED_COLOUR], np.uint8)
    assert distances(codes, np.array(default_palette(FIRST), np.uint8)).min() > CLEAR


def test_the_colours_of_voc_do_not() -> None:
    found = between(VOC_PALETTE)
    assert found[:FIRST, :FIRST].min() < 1
    assert np.diag(found, 1).min() < 2


@pytest.mark.parametrize("view", VIEWS)
def test_lightness_runs_from_black_to_white_in_every_view(view: str) -> None:
    grey: Colours = np.array([[0, 0, 0], [128, 128, 128], [255, 255, 255]], np.uint8)
    lightness, a, b = oklab(grey, view).T
    np.testing.assert_allclose(lightness, [0, 59.98, 100], atol=0.02)
    np.testing.assert_allclose([a, b], 0, atol=0.3)


def test_gaps_take_the_classes_own_colour_unless_the_user_chose_one_like_it() -> None:
    black, orange, sky, green, *_ = default_palette(8)
    near_orange = (orange[0] - 20, orange[1] + 20, orange[2] + 40)
    assert with_gaps_filled([None, None, (1, 2, 250), None]) == [black, orange, (1, 2, 250), green]
    filled = with_gaps_filled([None, None, near_orange, None])
    assert (filled[0], filled[2], filled[3]) == (black, near_orange, green)
    assert filled[1] not in default_palette(4) and filled[1] in default_palette(MAX_CLASSES)
    assert with_gaps_filled([None, sky, None], preferred=[(9, 9, 9), (8, 8, 8), (7, 7, 7)]) == [
        *((9, 9, 9), sky, (7, 7, 7)),
    ]


def test_as_many_classes_as_there_may_be_get_as_many_colours() -> None:
    every = default_palette(MAX_CLASSES)
    own = [every[-1], *([None] * (MAX_CLASSES - 2)), every[0]]
    filled = with_gaps_filled(own)
    assert len(set(filled)) == MAX_CLASSES and (filled[0], filled[-1]) == (every[-1], every[0])
