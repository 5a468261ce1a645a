"""CVAT's ellipses, skeletons, cuboids, tracks, and the order that z_order gives."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from test_readers import NAMES, point, save

from sparseg.data.importers.readers import cvat, outlines
from sparseg.data.importers.readers.image_names import resolve
from sparseg.data.strokes import Annotations, Stroke, draw

SHAPE = (40, 50)


def annotations(folder: Path, shapes: str, kind: str = "strokes") -> Annotations:
    image = f'<image id="0" name="a.jpg" width="{SHAPE[1]}" height="{SHAPE[0]}">{shapes}</image>'
    return cvat.read(
        [save(folder, "annotations.xml", f"<annotations>{image}</annotations>")], NAMES, 1.0, kind
    )  # type: ignore[arg-type]


def drawn(folder: Path, shapes: str) -> np.ndarray:
    return draw(annotations(folder, shapes).strokes["a"], SHAPE, Counter())[0]


def inside_ellipse(y: float, x: float, radius_y: float, radius_x: float, degrees: float) -> np.ndarray:
    rows, columns = np.indices(SHAPE) + 0.5
    angle = np.radians(degrees)
    dy, dx = rows - y, columns - x
    along, across = dx * np.cos(angle) + dy * np.sin(angle), dy * np.cos(angle) - dx * np.sin(angle)
    return (along / radius_x) ** 2 + (across / radius_y) ** 2 <= 1


@pytest.mark.parametrize("degrees", [0, 30, 90, 325])
def test_an_ellipse_is_turned_clockwise_about_its_centre(tmp_path: Path, degrees: int) -> None:
    shape = f'<ellipse label="tree" cx="24.3" cy="19.8" rx="15.1" ry="6.2" rotation="{degrees}"/>'
    np.testing.assert_array_equal(drawn(tmp_path, shape) == 1, inside_ellipse(19.8, 24.3, 6.2, 15.1, degrees))


def test_of_a_skeleton_the_points_are_read_that_are_not_outside(tmp_path: Path) -> None:
    found = annotations(
        tmp_path,
        '<skeleton label="tree" z_order="0">'
        '<points label="1" outside="0" points="3.5,2.5"/>'
        '<points label="2" outside="1" points="9,9"/>'
        '<points label="ground" outside="0" points="7,8"/></skeleton>',
    )
    assert found.strokes["a"] == [point(1, 2.5, 3.5), point(0, 8, 7)]  # a point named as a class is of it
    assert found.notes == ["1 points of skeletons are marked outside and were left out"]


def test_a_cuboid_covers_the_hull_of_its_corners(tmp_path: Path) -> None:
    front = {"tl1": (10, 10), "bl1": (10, 20), "tr1": (20, 10), "br1": (20, 20)}
    back = {name.replace("1", "2"): (x + 5, y - 4) for name, (x, y) in front.items()}
    text = " ".join(f'x{name}="{x}" y{name}="{y}"' for name, (x, y) in {**front, **back}.items())
    label = drawn(tmp_path, f'<cuboid label="tree" {text}/>')
    rows, columns = np.indices(SHAPE) + 0.5
    wanted = np.zeros(SHAPE, dtype=bool)
    for share in np.linspace(0, 1, 401):  # the front face, pushed to the back
        left, top = 10 + 5 * share, 10 - 4 * share
        wanted |= (columns > left) & (columns < left + 10) & (rows > top) & (rows < top + 10)
    assert ((label == 1) != wanted).sum() <= 2  # centres on the slanted edges
    assert wanted.sum() > 150


def test_z_order_decides_overlaps(tmp_path: Path) -> None:
    def box(label: str, z: int, side: int) -> str:
        return f'<box label="{label}" xtl="2" ytl="2" xbr="{2 + side}" ybr="{2 + side}" z_order="{z}"/>'

    ground_on_top = box("ground", 2, 4) + box("tree", 1, 9) + box("wall, brick", 1, 6)
    label = drawn(tmp_path, ground_on_top)
    assert (label[3, 3], label[7, 7], label[10, 10]) == (0, 2, 1)
    ellipse = '<ellipse label="tree" cx="4" cy="4" rx="2" ry="2" z_order="-1"/>'
    assert drawn(tmp_path, box("ground", 0, 6) + ellipse)[4, 4] == 0


VIDEO = """<annotations><version>1.1</version>
 <meta><task><original_size><width>50</width><height>40</height></original_size></task></meta>
 <track id="0" label="tree">
  <points frame="0" outside="0" keyframe="1" points="3.5,2.5" z_order="1"/>
  <points frame="1" outside="0" keyframe="0" points="4.5,2.5"/>
  <points frame="2" outside="0" keyframe="1" points="5.5,2.5"/>
  <points frame="3" outside="1" keyframe="1" points="5.5,2.5"/>
 </track>
 <track id="1" label="ground">
  <box frame="0" outside="0" keyframe="1" xtl="0" ytl="0" xbr="9" ybr="9"/>
 </track>
 <track id="2" label="x"><skeleton frame="2" keyframe="1">
  <points label="ground" outside="0" points="1,1"/></skeleton></track>
</annotations>"""


def test_tracks_are_read_at_key_frames_where_they_are_not_outside(tmp_path: Path) -> None:
    found = cvat.read([save(tmp_path, "annotations.xml", VIDEO)], NAMES)
    box = Stroke(0, "polygon", (0, 0, 9, 9), (0, 9, 9, 0))
    assert found.strokes == {
        "frame_000000": [box, point(1, 2.5, 3.5)],  # by z_order
        "frame_000002": [point(1, 2.5, 5.5), point(0, 1, 1)],
    }
    assert found.sizes == {"frame_000000": (40, 50), "frame_000002": (40, 50)}
    assert found.notes[0] == "1 shapes between key frames, set there by CVAT, were left out"
    assert "export 'CVAT for images 1.1'" in found.notes[1]
    resolved = resolve(found, {"train": ["frame_000000", "frame_000002"]}, "x")
    assert list(resolved.strokes) == ["frame_000000", "frame_000002"]


@pytest.mark.parametrize(
    ("shapes", "message"),
    [
        ('<ellipse label="tree" cx="1" cy="1" rx="1"/>', "shape 1, ry: '' is no number"),
        ('<ellipse label="tree" cx="1" cy="1" rx="1" ry="nan"/>', "shape 1, ry: 'nan' is no number"),
        ('<ellipse label="tree" cx="1" cy="1" rx="1" ry="1e9"/>', "shape 1, ry: position 1000000000.0"),
        ('<cuboid label="tree" xtl1="1" ytl1="1"/>', "shape 1, ybl1: '' is no number"),
        ('<skeleton label="dog"><points label="1" points="1,1"/></skeleton>', "shape 1: unknown class 'dog'"),
        ('<skeleton label="tree"><points label="1"/></skeleton>', "shape 1: <points> lacks points"),
    ],
)
def test_refused(tmp_path: Path, shapes: str, message: str) -> None:
    with pytest.raises(ValueError, match=rf"annotations\.xml, image a, {message}") as caught:
        annotations(tmp_path, shapes)
    assert "\n" not in str(caught.value)


def test_a_track_without_frame(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"track 1, frame '-1': must be a whole number"):
        cvat.read([save(tmp_path, "a.xml", VIDEO.replace('frame="0"', 'frame="-1"'))], NAMES)


@pytest.mark.parametrize("shape", ["ellipse", "cuboid", "skeleton"])
def test_what_is_no_box_is_refused_where_boxes_are_read(tmp_path: Path, shape: str) -> None:
    with pytest.raises(ValueError, match=rf"shape 1: a <{shape}>, but data\.label=box reads boxes only"):
        annotations(tmp_path, f'<{shape} label="tree"/>', "box")


def test_a_hull() -> None:
    square = [(0.0, 0.0), (0.0, 4.0), (4.0, 4.0), (4.0, 0.0)]
    y, x = outlines.hull([*square, (2.0, 2.0), (0.0, 2.0), (0.0, 0.0)])
    assert sorted(zip(y, x, strict=True)) == sorted(square)
    assert outlines.hull([(1.0, 1.0)] * 8) == ((1.0,), (1.0,))
    assert set(zip(*outlines.hull([(1.0, 1.0), (2.0, 2.0), (3.0, 3.0)]), strict=True)) == {
        (1.0, 1.0),
        (3.0, 3.0),
    }
