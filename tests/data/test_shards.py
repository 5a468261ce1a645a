"""Shards: what is written comes back, whole or not at all."""

from __future__ import annotations

import io
import json
import signal
import subprocess
import sys
import textwrap
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import datasets
import fixtures
import manifests
import numpy as np
import pytest
from fixtures import coded_label, row
from PIL import Image

from sparseg.config import IGNORED, UNLABELLED
from sparseg.data import shards

NAMES = ["sky", "road", "car"]


def write(path: Path, train: int = 5, val: int = 2, **options: Any) -> None:
    mask = np.ones((4, 6), np.uint8)
    splits = {
        "train": lambda: (row(f"t{k}", coded_label(), mask) for k in range(train)),
        "val": lambda: (row(f"v{k}", mask) for k in range(val)),
    }
    shards.write(path, splits, NAMES, **options)


def test_what_is_written_comes_back(tmp_path: Path) -> None:
    write(tmp_path / "set", palette=[(1, 2, 3), (4, 5, 6), (7, 8, 9)], report={"label": "point"})
    opened = shards.open(tmp_path / "set")
    assert (opened.names, opened.palette[1], opened.report) == (NAMES, (4, 5, 6), {"label": "point"})
    assert {split: len(data) for split, data in opened.splits.items()} == {"train": 5, "val": 2}
    stored = opened.splits["train"][3]
    assert (stored["id"], stored["height"], stored["width"], stored["strokes"]) == ("t3", 4, 6, [])
    assert stored["present"] == [0, 2]
    np.testing.assert_array_equal(shards.decode_label(stored["label"]["bytes"]), coded_label())
    np.testing.assert_array_equal(shards.decode_label(stored["mask"]["bytes"]), np.ones((4, 6)))
    assert stored["image"]["bytes"] == row("t3", coded_label())["image"]  # not encoded anew
    assert opened.splits["val"][0]["mask"] is None


def test_datasets_opens_it_alone(tmp_path: Path) -> None:
    write(tmp_path / "set")
    data = datasets.load_from_disk(str(tmp_path / "set"))
    assert data["train"].features["present"].feature.names == NAMES
    assert data["train"][0]["image"].size == (6, 4)
    np.testing.assert_array_equal(np.asarray(data["train"][0]["label"]), coded_label())


def test_strokes_survive(tmp_path: Path) -> None:
    stroke = {"class": 2, "width": 3.0, "y": [1.0000000001, 2.5], "x": [0.25, 4.0]}
    rows = {"train": lambda: iter([{**row("a", coded_label()), "strokes": [stroke]}])}
    shards.write(tmp_path / "set", rows, NAMES)
    assert shards.open(tmp_path / "set").splits["train"][0]["strokes"] == [stroke]


def test_classes_without_a_pixel_can_be_present(tmp_path: Path) -> None:
    told = {**row("a", coded_label()), "present": [1, 2]}  # the label's own are 0 and 2
    shards.write(tmp_path / "set", {"train": lambda: iter([told])}, NAMES)
    assert shards.open(tmp_path / "set").splits["train"][0]["present"] == [0, 1, 2]
    with pytest.raises(ValueError, match=r"row a: present must be classes 0..2, got \[3\]"):
        shards.write(tmp_path / "other", {"train": lambda: iter([told | {"present": [3]}])}, NAMES)


@pytest.mark.parametrize(("num_shards", "files"), [(1, 1), (3, 3), (99, 5)])
def test_rows_keep_their_order_in_any_number_of_shards(tmp_path: Path, num_shards: int, files: int) -> None:
    write(tmp_path / "set", num_shards=num_shards)
    names = sorted(file.name for file in (tmp_path / "set" / "train").glob("*.arrow"))
    assert names == [f"data-{k:05d}-of-{files:05d}.arrow" for k in range(files)]
    assert shards.open(tmp_path / "set").splits["train"]["id"][:] == [f"t{k}" for k in range(5)]


def test_rows_are_streamed(tmp_path: Path) -> None:
    alive: list[weakref.ref[np.ndarray]] = []
    most = 0

    def rows() -> Iterator[shards.Row]:
        nonlocal most
        for number in range(60):
            label = coded_label().copy()
            alive.append(weakref.ref(label))
            yield row(str(number), label)
            del label
            most = max(most, sum(reference() is not None for reference in alive))

    shards.write(tmp_path / "set", {"train": rows}, NAMES)
    assert len(alive) == 60 and most < 20


def test_present_and_codes_are_checked(tmp_path: Path) -> None:
    for label, message in [
        (np.full((4, 6), 3, np.uint8), r"row bad: label has values \[3\]; allowed are 0..2, 254"),
        (np.zeros((4, 6), np.int64), "must be uint8"),
    ]:
        with pytest.raises(ValueError, match=message):
            shards.write(tmp_path / "set", {"train": lambda x=label: iter([row("bad", x)])}, NAMES)
    with pytest.raises(ValueError, match=r"shape \(4, 6\)"):
        wrong = {**row("bad", coded_label()), "mask": np.zeros((4, 5), np.uint8)}
        shards.write(tmp_path / "set", {"train": lambda: iter([wrong])}, NAMES)
    assert list(tmp_path.iterdir()) == [tmp_path / ".set.lock"]


def test_a_taken_destination_is_refused_and_kept(tmp_path: Path) -> None:
    write(tmp_path / "set")
    before = (tmp_path / "set" / "sparseg.json").read_bytes()
    with pytest.raises(ValueError, match="exists already; remove it or name another"):
        write(tmp_path / "set", train=1)
    assert (tmp_path / "set" / "sparseg.json").read_bytes() == before


def test_a_destination_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match=r"file cannot be written to .*name another destination"):
        write(tmp_path / "file" / "set")


def test_a_split_without_rows_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no rows in split 'val'"):
        write(tmp_path / "set", val=0)
    assert not (tmp_path / "set").exists()


def test_nothing_but_the_dataset_is_left(tmp_path: Path) -> None:
    write(tmp_path / "set")
    assert list(tmp_path.iterdir()) == [tmp_path / "set"]
    kept = {str(f.relative_to(tmp_path / "set")) for f in (tmp_path / "set").rglob("*") if f.is_file()}
    files = ("data-00000-of-00001.arrow", "dataset_info.json", "state.json")
    wanted = {f"{split}/{name}" for split in ("train", "val") for name in files}
    assert kept == wanted | {"dataset_dict.json", "sparseg.json"}


def test_a_killed_write_leaves_no_dataset_and_the_next_one_cleans_up(tmp_path: Path) -> None:
    script = f"""
        import sys, time
        sys.path.insert(0, {str(Path(fixtures.__file__).parent)!r})
        from fixtures import coded_label, row
        from sparseg.data import shards
        def rows():
            for number in range(40):
                yield row(str(number), coded_label())
            print("half", flush=True)
            time.sleep(300)
        shards.write({str(tmp_path / "set")!r}, {{"train": rows}}, {NAMES!r})
    """
    process = subprocess.Popen([sys.executable, "-c", textwrap.dedent(script)], stdout=subprocess.PIPE)
    assert process.stdout is not None and process.stdout.readline() == b"half\n"
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    assert [file for file in tmp_path.iterdir() if file.is_dir() and not file.name.startswith(".")] == []
    assert len(list(tmp_path.glob(".set.tmp-*"))) == 1
    write(tmp_path / "set")
    assert list(tmp_path.iterdir()) == [tmp_path / "set"]


def test_a_second_writer_waits_and_then_sees_the_first_ones_result(tmp_path: Path) -> None:
    script = f"""
        import sys, time
        sys.path.insert(0, {str(Path(fixtures.__file__).parent)!r})
        from fixtures import coded_label, row
        from sparseg.data import shards
        def rows():
            print("at work", flush=True)
            sys.stdin.readline()
            yield row("slow", coded_label())
        shards.write({str(tmp_path / "set")!r}, {{"train": rows}}, {NAMES!r})
    """
    command = [sys.executable, "-c", textwrap.dedent(script)]
    pipes = {name: subprocess.PIPE for name in ("stdin", "stdout", "stderr")}
    with subprocess.Popen(command, text=True, **pipes) as first:
        assert first.stdout is not None and first.stdout.readline() == "at work\n"
        with subprocess.Popen(command, text=True, **pipes) as second:
            assert second.stderr is not None
            assert second.stderr.readline() == f"waiting for another process that writes {tmp_path / 'set'}\n"
            first.communicate("go\n")
            _, errors = second.communicate()
    assert (first.returncode, second.returncode) == (0, 1)
    assert "DatasetExistsError" in errors
    assert shards.open(tmp_path / "set").splits["train"]["id"][:] == ["slow"]


# ----------------------------------------------------------------------------------------------------- damage


def test_truncated_and_missing_shards_are_named(tmp_path: Path) -> None:
    write(tmp_path / "set", num_shards=2)
    shard = tmp_path / "set" / "train" / "data-00001-of-00002.arrow"
    content = shard.read_bytes()
    shard.write_bytes(content[:-100])
    with pytest.raises(ValueError, match=r"data-00001-of-00002\.arrow is truncated or changed: \d+ bytes"):
        shards.open(tmp_path / "set")
    shard.unlink()
    with pytest.raises(ValueError, match=r"data-00001-of-00002\.arrow is missing"):
        shards.open(tmp_path / "set")


@pytest.mark.parametrize("upgrade", [manifests.version_1, manifests.version_2])
def test_both_versions_of_the_manifest_are_read(tmp_path: Path, upgrade: Any) -> None:
    write(tmp_path / "set", num_shards=3, report={"label": "point"})
    upgrade(tmp_path / "set")
    opened = shards.open(tmp_path / "set", verify=True, cache=str(tmp_path / "cache"))
    assert opened.rows == {"train": 5, "val": 2} and opened.parts == {"train": range(5), "val": range(2)}
    found = shards.describe(tmp_path / "set")
    assert (found.rows, found.names, found.palette) == (opened.rows, NAMES, opened.palette)
    assert (found.report, found.source) == ({"label": "point"}, str(tmp_path / "set"))
    shard = tmp_path / "set" / "train" / "data-00001-of-00003.arrow"
    shard.write_bytes(shard.read_bytes()[:-100])
    with pytest.raises(ValueError, match=r"data-00001-of-00003\.arrow is truncated or changed: \d+ bytes"):
        shards.open(tmp_path / "set")


def test_an_altered_shard_is_named_when_checksums_are_asked_for(tmp_path: Path) -> None:
    write(tmp_path / "set", num_shards=3)
    manifests.version_2(tmp_path / "set")
    shard, cache = tmp_path / "set" / "train" / "data-00001-of-00003.arrow", str(tmp_path / "cache")
    shards.open(tmp_path / "set", verify=True, cache=cache)
    manifests.flip_a_byte(shard)
    shards.open(tmp_path / "set", cache=cache)  # sizes alone
    for _ in range(2):  # what is wrong is not noted as right
        with pytest.raises(ValueError, match=r"data-00001-of-00003\.arrow is altered.*import it again"):
            shards.describe(tmp_path / "set", verify=True, cache=cache)
    manifests.flip_a_byte(shard)
    shards.open(tmp_path / "set", verify=True, cache=cache)


def test_checksums_are_computed_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from sparseg.data.shards import manifest

    write(tmp_path / "set", num_shards=3)
    manifests.version_2(tmp_path / "set")
    hashed: list[str] = []
    checksum = manifest.checksum
    monkeypatch.setattr(manifest, "checksum", lambda file: hashed.append(file.name) or checksum(file))
    for cache, count in (("a", 5), ("a", 0), ("b", 5), ("/dev/null/c", 5), ("/dev/null/c", 5)):
        hashed.clear()
        shards.open(tmp_path / "set", verify=True, cache=str(tmp_path / cache))
        assert len(hashed) == count
    hashed.clear()
    shard = tmp_path / "set" / "val" / "data-00000-of-00002.arrow"
    shard.write_bytes(shard.read_bytes())  # the same content at another time
    for names in ([shard.name], []):
        shards.open(tmp_path / "set", verify=True, cache=str(tmp_path / "a"))
        assert hashed == names
        hashed.clear()
    (note,) = (tmp_path / "a" / "verified").iterdir()
    note.write_text("damaged")
    shards.open(tmp_path / "set", verify=True, cache=str(tmp_path / "a"))
    assert len(hashed) == 5


def test_neighbouring_shards_can_be_opened_alone(tmp_path: Path) -> None:
    write(tmp_path / "set", num_shards=3)
    manifests.version_2(tmp_path / "set")
    (tmp_path / "set" / "train" / "data-00000-of-00003.arrow").unlink()  # not on this node
    opened = shards.open(tmp_path / "set", only={"train": range(1, 3)})
    part = opened.parts["train"]
    assert opened.splits["train"]["id"][:] == [f"t{k}" for k in part] and part.stop == 5
    assert (len(opened.splits["val"]), opened.rows) == (2, {"train": 5, "val": 2})
    with pytest.raises(ValueError, match="is missing"):
        shards.open(tmp_path / "set")


def test_a_manifest_that_counts_wrong_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "set")
    file = manifests.version_2(tmp_path / "set") / "sparseg.json"
    values = json.loads(file.read_text())
    values["shards"]["train/data-00000-of-00001.arrow"]["rows"] = 6
    file.write_text(json.dumps(values))
    with pytest.raises(ValueError, match=r"'train' has 5 rows, 6 in sparseg\.json"):
        shards.open(tmp_path / "set")


@pytest.mark.parametrize(
    "wrong",
    [
        {"shards": {}},
        {"shards": []},
        {"shards": {"train/a.arrow": {"bytes": 1}}},
        {"shards": {"train/a.arrow": {"bytes": "many", "rows": 1, "xxh3": ""}}},
        {"shards": {"../a.arrow": 5}},
        {"classes": 3},
        {"palette": [[1, 2]]},
        {"report": 7},
    ],
)
def test_manifests_of_the_wrong_kind_are_refused(tmp_path: Path, wrong: dict[str, Any]) -> None:
    write(tmp_path / "set")
    file = tmp_path / "set" / "sparseg.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **wrong}))
    with pytest.raises(ValueError, match=r"sparseg\.json is damaged .*import it again"):
        shards.open(tmp_path / "set")


def test_damaged_manifests_are_named(tmp_path: Path) -> None:
    write(tmp_path / "set")
    manifest = tmp_path / "set" / "sparseg.json"
    good = json.loads(manifest.read_text())
    manifest.write_text("{")
    with pytest.raises(ValueError, match=r"sparseg\.json is damaged"):
        shards.open(tmp_path / "set")
    manifest.write_text(json.dumps({**good, "version": 99}))
    with pytest.raises(ValueError, match="version 99 is not known"):
        shards.open(tmp_path / "set")


def test_no_dataset_at_all(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no such dataset folder"):
        shards.open(tmp_path / "missing")
    with pytest.raises(ValueError, match=r"is not an imported dataset .* sparseg import LAYOUT /"):
        shards.open(tmp_path)
    (tmp_path / "dataset_dict.json").write_text("{torn")
    with pytest.raises(ValueError, match="does not open as a dataset"):
        shards.open(tmp_path)


def test_a_plain_datasets_folder_opens_if_its_columns_are_right(tmp_path: Path) -> None:
    write(tmp_path / "set")
    data = datasets.load_from_disk(str(tmp_path / "set"))
    data.save_to_disk(str(tmp_path / "plain"))
    opened = shards.open(tmp_path / "plain")
    assert opened.names == NAMES and opened.palette == shards.default_palette(3)
    np.testing.assert_array_equal(
        shards.decode_label(opened.splits["train"][0]["label"]["bytes"]), coded_label()
    )
    data.remove_columns(["present", "height"]).save_to_disk(str(tmp_path / "poor"))
    with pytest.raises(ValueError, match=r"columns \['present', 'height'\] are missing"):
        shards.open(tmp_path / "poor")
    data["train"].save_to_disk(str(tmp_path / "single"))
    with pytest.raises(ValueError, match="one split only"):
        shards.open(tmp_path / "single")


# ---------------------------------------------------------------------------------------------- codec


def test_labels_survive_encoding_and_have_colours() -> None:
    label = np.array([[0, 1, 2], [UNLABELLED, IGNORED, 249]], np.uint8)
    data = shards.encode_label(label, [(10, 20, 30), (40, 50, 60), (70, 80, 90)])
    np.testing.assert_array_equal(shards.decode_label(data), label)
    assert Image.open(io.BytesIO(data)).convert("RGB").getpixel((1, 0)) == (40, 50, 60)


def encoded(image: Image.Image, kind: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind)
    return buffer.getvalue()


def test_images_of_other_modes() -> None:
    grey = np.arange(12, dtype=np.uint8).reshape(3, 4)
    for image in (Image.fromarray(grey), Image.fromarray(grey).convert("P")):
        np.testing.assert_array_equal(shards.decode_image(encoded(image)), np.stack([grey] * 3, 2))
    opaque = Image.fromarray(np.stack([grey] * 3, 2)).convert("RGBA")
    np.testing.assert_array_equal(shards.decode_image(encoded(opaque))[..., 1], grey)
    opaque.putalpha(9)
    with pytest.raises(ValueError, match=r"mode RGBA .*convert it to 8-bit RGB"):
        shards.decode_image(encoded(opaque))
    with pytest.raises(ValueError, match="mode RGB"):
        shards.decode_label(encoded(Image.new("RGB", (2, 2))))


def test_truncated_images_are_found() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3)).astype(np.uint8)
    data = encoded(Image.fromarray(noise), "JPEG")
    for broken in (data[: len(data) // 2], b"", b"no image"):
        with pytest.raises(ValueError, match="unreadable or truncated image"):
            shards.decode_image(broken)
