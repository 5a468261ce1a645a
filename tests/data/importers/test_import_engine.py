"""The import engine: the same dataset from any number of workers, whatever interrupts it."""

from __future__ import annotations

import dataclasses
import errno
import functools
import json
import os
import pickle
import pty
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import datasets
import fixtures
import importing
import numpy as np
import pytest
from counting import NAMES, build_numbers, open_reader
from driving import s3_server

from sparseg.common.object_store import filesystem
from sparseg.config import IGNORED, UNLABELLED, DataConfig, ImportConfig
from sparseg.data import importers, shards
from sparseg.data.importers import layouts
from sparseg.data.importers.annotator import annotator
from sparseg.data.importers.build import import_source
from sparseg.data.importers.source import attach
from sparseg.data.importers.turning import Frame
from sparseg.data.shards.writing import parts, pool, upload

ROOT = Path(__file__).resolve().parents[3]


def contents(folder: Path) -> dict[str, bytes]:
    return {str(f.relative_to(folder)): f.read_bytes() for f in sorted(folder.rglob("*")) if f.is_file()}


def read_rows(log: Path) -> list[str]:
    return log.read_text().splitlines() if log.exists() else []


def running(script: str, *arguments: object, **options: Any) -> subprocess.Popen[str]:
    """A Python process in which `counting` is imported."""
    start = "import sys; from pathlib import Path; from sparseg.common import process\n"
    start += "import counting\n"
    paths = [str(ROOT / "platform"), str(ROOT / "tests" / "support")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
    command = [sys.executable, "-c", start + script, *map(str, arguments)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options}
    return subprocess.Popen(command, text=True, env=environment, **pipes)


def processes_of(group: int) -> list[int]:
    """Processes of a process group, zombies too."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[2]) == group:
            found.append(int(stat.parent.name))
    return found


def wait_until(condition: Any, seconds: float = 120.0) -> None:
    end_s = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end_s, "waited in vain"
        time.sleep(0.02)


# -------------------------------------------------------------------------------------------- equal bytes


def test_workers_do_not_change_a_byte(tmp_path: Path) -> None:
    reports = [
        build_numbers(tmp_path / f"set{w}", tmp_path / "log", workers=w, num_shards=3) for w in (0, 1, 2)
    ]
    assert reports[0]["numbers"] == [*range(300), *range(70)]  # in listed order
    assert contents(tmp_path / "set0") == contents(tmp_path / "set1") == contents(tmp_path / "set2")
    opened = shards.open(tmp_path / "set2")
    assert opened.splits["train"]["id"][:] == [f"train-{k:04d}" for k in range(300)]
    np.testing.assert_array_equal(
        shards.decode_label(opened.splits["val"][68]["label"]["bytes"]), np.full((6, 6), 2)
    )


@pytest.mark.parametrize("num_shards", [1, 2, 7, 64, 1000])
def test_shards_are_cut_as_datasets_cuts_them(tmp_path: Path, num_shards: int) -> None:
    build_numbers(tmp_path / "set", tmp_path / "log", train=150, workers=0, num_shards=num_shards)
    data = datasets.load_from_disk(str(tmp_path / "set"))
    assert data["train"]["id"][:] == [f"train-{k:04d}" for k in range(150)]
    count = min(num_shards, 150)
    manifest = json.loads((tmp_path / "set" / "sparseg.json").read_text())
    sizes = [manifest["shards"][f"train/data-{k:05d}-of-{count:05d}.arrow"]["rows"] for k in range(count)]
    assert sizes == [len(data["train"].shard(count, k, contiguous=True)) for k in range(count)]


def test_shards_and_write_agree(tmp_path: Path) -> None:
    build_numbers(tmp_path / "built", tmp_path / "log", workers=0, num_shards=2)
    read = open_reader(str(tmp_path / "log"))
    splits = {s: functools.partial(read, s, range(n), {}) for s, n in (("train", 300), ("val", 70))}
    shards.write(tmp_path / "written", splits, NAMES, num_shards=2)
    built, written = contents(tmp_path / "built"), contents(tmp_path / "written")
    del built["sparseg.json"], written["sparseg.json"]  # the report differs
    assert built == written


def test_large_rows_share_no_batch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parts, "BATCH_BYTES", 500)
    build_numbers(tmp_path / "set", tmp_path / "log", workers=0, num_shards=2)
    data = datasets.load_from_disk(str(tmp_path / "set"))["train"]
    assert len(data.data.to_batches()) > 100 and data["id"][:] == [f"train-{k:04d}" for k in range(300)]


def test_the_manifest_has_size_rows_and_checksum(tmp_path: Path) -> None:
    import xxhash

    build_numbers(tmp_path / "set", tmp_path / "log", workers=0, num_shards=2)
    manifest = json.loads((tmp_path / "set" / "sparseg.json").read_text())
    assert manifest["version"] == 2
    assert sum(noted["rows"] for noted in manifest["shards"].values()) == 370
    for name, noted in manifest["shards"].items():
        data = (tmp_path / "set" / name).read_bytes()
        assert (noted["bytes"], noted["xxh3"]) == (len(data), xxhash.xxh3_128(data).hexdigest())
    assert {*manifest} == {"version", "orientation", "classes", "palette", "report", "shards"}


@pytest.mark.parametrize("label", ["point", "PNG"])
def test_importers_give_the_same_in_worker_processes(
    tmp_path: Path, label: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parts, "PART_ITEMS", 2)
    root = fixtures.voc(tmp_path / "raw", train=7, val=3)
    options = {} if label == "point" else {"label_path": "PointAnnotations"}
    for number in (2, 5):
        file = root / "JPEGImages" / f"2007_{number:06d}.jpg"
        file.write_bytes(file.read_bytes()[:100])
    reports = [
        importing.import_dataset("voc", root, tmp_path / f"set{w}", workers=w, skip_bad=True, **options)
        for w in (0, 2)
    ]
    assert reports[0] == reports[1]
    assert [row["id"] for row in reports[0].refused] == ["2007_000002", "2007_000005"]
    assert contents(tmp_path / "set0") == contents(tmp_path / "set2")


def test_derived_labels_are_the_same_in_worker_processes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    importing.import_dataset("camvid", fixtures.camvid(tmp_path / "raw"), tmp_path / "set", label="full")
    config = DataConfig(root=str(tmp_path / "set"), label="clicks", clicks_per_class=1)
    alone = importers.prepare(config, tmp_path / "alone")
    monkeypatch.setattr(pool, "TRIAL_S", 0.0)
    monkeypatch.setattr(pool, "POOL_PAYS_S", -1.0)
    monkeypatch.setattr(pool, "num_cores", lambda: 2)
    pooled = importers.prepare(config, tmp_path / "pooled")
    assert contents(alone) == contents(pooled)


def test_the_pool_starts_only_where_it_pays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[int] = []
    monkeypatch.setattr(pool, "_make_in_pool", lambda *given: started.append(given[2]))
    monkeypatch.setattr(pool, "num_cores", lambda: 2)
    monkeypatch.setattr(pool, "POOL_PAYS_S", 1e9)
    build_numbers(tmp_path / "small", tmp_path / "log")
    assert started == []
    monkeypatch.setattr(pool, "TRIAL_S", 0.05)
    monkeypatch.setattr(pool, "POOL_PAYS_S", 0.1)
    with pytest.raises(OSError, match="No such file"):  # the pool of this test makes nothing
        shards.build(
            str(tmp_path / "big"),
            {"train": range(1000)},
            functools.partial(open_reader, str(tmp_path / "log"), 0.002),
            NAMES,
            fingerprint="fp",
            report_of=dict,
        )
    assert started == [2]


# ------------------------------------------------------------------------------------------ interruptions

ARGUMENTS = "sys.argv[1], Path(sys.argv[2]), workers=int(sys.argv[3])"
SLOW = f"counting.build_numbers({ARGUMENTS}, pause_s=0.003, num_shards=2)"


@pytest.mark.parametrize("workers", [0, 2])
def test_a_killed_import_goes_on(tmp_path: Path, workers: int, capsys: pytest.CaptureFixture[str]) -> None:
    out, log = tmp_path / "set", tmp_path / "log"
    process = running(SLOW, out, log, workers, start_new_session=True)
    wait_until(lambda: len(list(tmp_path.glob(".set.parts-fp/train-*.json"))) >= 2)
    process.kill()
    process.communicate()
    wait_until(lambda: not processes_of(process.pid), 20)  # workers end with their parent
    finished = {int(file.stem[-6:]) for file in tmp_path.glob(".set.parts-fp/train-*.json")}
    assert not out.exists() and 2 <= len(finished) < 5
    log.unlink()
    build_numbers(out, log, workers=workers, num_shards=2)
    count = sum(min(64, 300 - 64 * number) for number in finished)
    assert f"going on: {count} of 370 images were imported already" in capsys.readouterr().err
    again = {int(line.split()[1]) // 64 for line in read_rows(log) if line.startswith("train")}
    assert again == set(range(5)) - finished and len(read_rows(log)) == 370 - count
    build_numbers(tmp_path / "straight", log, workers=0, num_shards=2)
    assert contents(out) == contents(tmp_path / "straight")
    assert sorted(file.name for file in tmp_path.iterdir()) == ["log", "set", "straight"]


@pytest.mark.parametrize("workers", [0, 2])
def test_ctrl_c_is_one_line_and_leaves_no_process(tmp_path: Path, workers: int) -> None:
    out, log = tmp_path / "set", tmp_path / "log"
    script = f"raise SystemExit(process.guarded(lambda: {SLOW}))"
    process = running(script, out, log, workers, start_new_session=True)
    wait_until(lambda: list(tmp_path.glob(".set.parts-fp/train-*.json")))
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to the workers too
    stdout, stderr = process.communicate(timeout=60)
    assert process.returncode == 130, stderr
    assert stdout == "" and stderr.startswith("interrupted; ") and stderr.count("\n") == 1
    assert "of 370 images are imported, the same command goes on from there" in stderr
    wait_until(lambda: not processes_of(process.pid), 20)
    kept = list(tmp_path.glob(".set.parts-fp/*.arrow"))
    assert kept and not out.exists() and not list(tmp_path.glob(".set.parts-fp/*.tmp"))


def test_ctrl_c_while_workers_start(tmp_path: Path) -> None:
    script = f"print('started', flush=True)\nraise SystemExit(process.guarded(lambda: {SLOW}))"
    process = running(script, tmp_path / "set", tmp_path / "log", 2, start_new_session=True)
    wait_until(lambda: len(processes_of(process.pid)) >= 4)  # with the resource tracker
    os.killpg(process.pid, signal.SIGINT)
    _, stderr = process.communicate(timeout=60)
    assert (process.returncode, stderr.count("\n")) == (130, 1), stderr
    wait_until(lambda: not processes_of(process.pid), 20)


@pytest.mark.parametrize("workers", [0, 2])
def test_an_error_is_one_line_and_keeps_what_is_finished(tmp_path: Path, workers: int) -> None:
    script = f"raise SystemExit(process.guarded(lambda: counting.build_numbers({ARGUMENTS}, wrong=200)))"
    process = running(script, tmp_path / "set", tmp_path / "log", workers, start_new_session=True)
    stdout, stderr = process.communicate(timeout=120)
    assert (process.returncode, stdout, stderr) == (2, "", "error: file 200.png is wrong\n")
    wait_until(lambda: not processes_of(process.pid), 20)
    assert not (tmp_path / "set").exists()
    kept = {file.name for file in tmp_path.glob(".set.parts-fp/*.json")}
    assert {"train-000000.json", "train-000001.json", "train-000002.json"} <= kept
    assert "train-000003.json" not in kept


def test_of_several_errors_the_first_listed_one_is_raised(tmp_path: Path) -> None:
    for workers in (0, 2):
        with pytest.raises(ValueError, match=r"^file 3\.png is wrong$"):  # in train, and in val
            build_numbers(tmp_path / "set", tmp_path / "log", wrong=3, workers=workers)
    log = read_rows(tmp_path / "log")
    assert "train 2" in log and "train 299" not in log  # the rest was not tried


def test_a_worker_that_dies_is_reported(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match=r"a worker process of the import died.*the same command goes on"):
        shards.build(
            str(tmp_path / "set"),
            {"train": range(100)},
            functools.partial(os._exit, 1),
            NAMES,
            fingerprint="fp",
            report_of=dict,
            workers=1,
        )
    assert not (tmp_path / "set").exists()


def stopped_import(out: Path, log: Path) -> Path:
    """An import that ended with an error after three parts -> the folder of its parts."""
    with pytest.raises(ValueError, match="is wrong"):
        build_numbers(out, log, wrong=200, workers=0)
    log.unlink()
    return out.parent / f".{out.name}.parts-fp"


@pytest.mark.parametrize("damage", ["cut", "changed", "gone", "no summary", "torn summary"])
def test_damaged_parts_are_made_again(tmp_path: Path, damage: str) -> None:
    out, log = tmp_path / "set", tmp_path / "log"
    part = stopped_import(out, log) / "train-000001.arrow"
    content, summary = part.read_bytes(), part.with_suffix(".json")
    match damage:
        case "cut":
            part.write_bytes(content[:-1])
        case "changed":
            part.write_bytes(content[:2000] + bytes([content[2000] ^ 1]) + content[2001:])
        case "gone":
            part.unlink()
        case "no summary":
            summary.unlink()
        case "torn summary":
            summary.write_text(summary.read_text()[:-3])
    build_numbers(out, log, workers=0)
    numbers = [int(line.split()[1]) for line in read_rows(log) if line.startswith("train")]
    assert numbers == [*range(64, 128), *range(192, 300)]
    build_numbers(tmp_path / "straight", log, workers=0)
    assert contents(out) == contents(tmp_path / "straight")


def test_parts_of_another_import_are_removed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out, log = tmp_path / "set", tmp_path / "log"
    stopped_import(out, log)
    with pytest.raises(ValueError, match="is wrong"):
        build_numbers(out, log, name="other", wrong=100, workers=0)
    assert [file.name for file in tmp_path.iterdir() if file.is_dir()] == [".set.parts-other"]
    assert "going on" not in capsys.readouterr().err


def test_a_changed_file_or_setting_starts_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parts, "PART_ITEMS", 2)
    root = fixtures.camvid(tmp_path / "raw", train=6)
    options = {"label": "clicks", "random_pixels": 3, "workers": 0}

    def parts_left() -> str:
        mask = root / "masks" / "val" / "val_001.png"
        whole = mask.read_bytes()
        mask.write_bytes(whole[:50])
        with pytest.raises(ValueError, match=r"val_001\.png: unreadable or truncated"):
            importing.import_dataset("camvid", root, tmp_path / "set", **options)
        mask.write_bytes(whole)
        (folder,) = tmp_path.glob(".set.parts-*")
        assert len(list(folder.glob("*.json"))) == 3
        return folder.name

    first = parts_left()
    options["random_pixels"] = 4
    assert parts_left() != first


def test_a_repeated_import_is_told_of_the_dataset_and_cleans_up(tmp_path: Path) -> None:
    build_numbers(tmp_path / "set", tmp_path / "log", workers=0)
    (tmp_path / ".set.parts-fp").mkdir()  # killed between renaming and removing
    with pytest.raises(shards.DatasetExistsError, match="exists already"):
        build_numbers(tmp_path / "set", tmp_path / "log", workers=0)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["log", "set"]


# ------------------------------------------------------------------------------------------ what is wrong


def test_equal_ids_are_refused_by_name(tmp_path: Path) -> None:
    config = ImportConfig(label="full")
    source = layouts.read_layout("camvid", fixtures.camvid(tmp_path / "raw"), config)
    twice = [*source.splits["train"], source.splits["train"][1]]
    source = dataclasses.replace(source, splits={**source.splits, "train": twice})
    with pytest.raises(
        ValueError, match=r"split 'train': two rows have the id train_001 \(.*ids must differ"
    ):
        import_source(source, config, str(tmp_path / "set"))
    rows = {"train": lambda: (fixtures.row(name, fixtures.coded_label()) for name in ("a", "b", "a"))}
    with pytest.raises(ValueError, match="two rows of split 'train' have the id a; ids must differ"):
        shards.write(tmp_path / "set", rows, NAMES)
    assert not (tmp_path / "set").exists()


def test_a_destination_that_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="number of workers must be at least 0, got -1"):
        build_numbers(tmp_path / "set", tmp_path / "log", workers=-1)
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match=r"file cannot be written to .*name another destination"):
        build_numbers(tmp_path / "file" / "set", tmp_path / "log")


@pytest.mark.parametrize("when", ["a part", "the shards"])
def test_a_full_disk_leaves_no_dataset(tmp_path: Path, when: str, monkeypatch: pytest.MonkeyPatch) -> None:
    plain, calls = parts._HashedFile.write, 0

    def write(file: Any, data: bytes) -> int:
        nonlocal calls
        calls += 1
        limit = {"a part": 10, "the shards": 10**9}[when]
        if calls > limit or (when == "the shards" and "out" in Path(file.file.name).parts):
            raise OSError(errno.ENOSPC, "No space left on device")
        return plain(file, data)

    monkeypatch.setattr(parts._HashedFile, "write", write)
    with pytest.raises(OSError, match=r"set was not written \(No space left on device\).*make room and give"):
        build_numbers(tmp_path / "set", tmp_path / "log", workers=0)
    assert not (tmp_path / "set").exists()
    monkeypatch.undo()
    build_numbers(tmp_path / "set", tmp_path / "log", workers=0)
    assert len(shards.open(tmp_path / "set").splits["train"]) == 300


# ----------------------------------------------------------------------------------------------- progress


def test_a_bar_shows_on_a_terminal_only(tmp_path: Path) -> None:
    script = f"from sparseg.data.shards.writing import pool; pool.BAR_AFTER_S = 0.1; {SLOW}"
    near, far = pty.openpty()
    with running(script, tmp_path / "set", tmp_path / "log", 0, stderr=far) as process:
        os.close(far)
        shown = b""
        while True:
            try:
                chunk = os.read(near, 4096)
            except OSError:  # the other end is closed
                break
            if not chunk:
                break
            shown += chunk
        assert process.wait(60) == 0
    os.close(near)
    assert b"images/s" in shown and b"/370" in shown
    with running(script, tmp_path / "again", tmp_path / "log", 0) as process:
        assert process.communicate() == ("", "")


# ----------------------------------------------------------------------------------------- object storage


@pytest.fixture(scope="module")
def bucket() -> Iterator[str]:
    """URL of an empty bucket of a real S3 server on loopback."""
    import fsspec

    with s3_server() as variables, pytest.MonkeyPatch.context() as patch:
        for name, value in variables.items():
            patch.setenv(name, value)
        fsspec.filesystem("s3", skip_instance_cache=True).mkdir("bucket")
        yield "s3://bucket"


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(upload, "WAITS_S", (0.0, 0.0))
    return tmp_path / "cache"


def downloaded(url: str, folder: Path) -> dict[str, bytes]:
    import fsspec

    fs, root = fsspec.core.url_to_fs(url)
    fs.invalidate_cache()
    fs.get(root, str(folder), recursive=True)
    return contents(folder)


def test_straight_to_object_storage(tmp_path: Path, bucket: str, cache: Path) -> None:
    url, log = f"{bucket}/first/set", tmp_path / "log"
    build_numbers(url, log, workers=0, num_shards=3)
    build_numbers(tmp_path / "local", log, workers=0, num_shards=3)
    assert downloaded(url, tmp_path / "copy") == contents(tmp_path / "local")
    assert shards.open(tmp_path / "copy").splits["train"].num_rows == 300
    assert [file for file in cache.rglob("*") if file.is_file()] == []
    with pytest.raises(shards.DatasetExistsError, match="s3://bucket/first/set exists already"):
        build_numbers(url, log, workers=0)
    with pytest.raises(shards.DatasetExistsError, match="exists already"):
        importing.import_dataset("camvid", fixtures.camvid(tmp_path / "raw"), url, label="full")


def test_a_broken_upload_is_no_dataset_and_goes_on(
    tmp_path: Path, bucket: str, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url, log, sent = f"{bucket}/second", tmp_path / "log", list[str]()
    fs, _ = filesystem(url)  # one object for all who ask
    plain = fs.put_file

    def put_file(local: str, target: str, **options: Any) -> None:
        sent.append(target.removeprefix("bucket/second/"))
        if broken and "00001-of" in target:
            if len(sent) == 2:
                raise ConnectionError("reset by peer")
            with open(local, "r+b") as file:
                file.truncate(100)
        plain(local, target, **options)

    monkeypatch.setattr(fs, "put_file", put_file)
    broken = True
    with pytest.raises(RuntimeError, match=r"train/data-00001-of-00003\.arrow: the upload failed 3 times"):
        build_numbers(url, log, workers=0, num_shards=3)
    assert len(read_rows(log)) == 370
    assert sent == ["train/data-00000-of-00003.arrow", *["train/data-00001-of-00003.arrow"] * 3]
    there = downloaded(url, tmp_path / "half")
    assert "sparseg.json" not in there and "sparseg.unfinished.json" in there
    broken = False
    sent.clear()
    build_numbers(url, log, workers=0, num_shards=3)
    assert len(read_rows(log)) == 370  # nothing was imported again
    assert "train/data-00000-of-00003.arrow" not in sent and sent[-1] == "sparseg.json"
    build_numbers(tmp_path / "local", log, workers=0, num_shards=3)
    assert downloaded(url, tmp_path / "copy") == contents(tmp_path / "local")


def test_storage_that_cannot_be_written(tmp_path: Path, bucket: str, cache: Path) -> None:
    with pytest.raises(ValueError, match=r"s3://missing/set cannot be written to .*check bucket and rights"):
        build_numbers("s3://missing/set", tmp_path / "log", workers=0)
    with pytest.raises(ValueError, match=r"nosuch://a/b: nosuch:// is not known"):
        build_numbers("nosuch://a/b", tmp_path / "log", workers=0)
    assert read_rows(tmp_path / "log") == []


def test_any_file_system_of_fsspec(tmp_path: Path, cache: Path) -> None:
    build_numbers(f"file://{tmp_path}/there", tmp_path / "log", workers=0)
    assert shards.open(tmp_path / "there").splits["train"].num_rows == 300


@pytest.mark.parametrize("fields", [{}, {"label": "scribble"}, {"label": "clicks", "random_pixels": 3}])
def test_an_annotator_goes_to_worker_processes_without_its_files(
    tmp_path: Path, fields: dict[str, Any]
) -> None:
    config = ImportConfig(**fields)
    root = fixtures.voc(tmp_path / "raw", scribbles=255)
    source = attach(layouts.read_layout("voc", root, config), config)
    annotate = annotator(source, config)
    shutil.rmtree(root / "points")
    sent, item = pickle.loads(pickle.dumps(annotate)), source.splits["train"][1]
    mask_HW = fixtures.dense_mask(item.id, 21, IGNORED)
    counts = Counter[str](), Counter[str]()
    (here_HW, strokes), (there_HW, sent_strokes) = (
        call(item, mask_HW, Frame(mask_HW.shape), count)
        for call, count in zip((annotate, sent), counts, strict=True)
    )
    np.testing.assert_array_equal(here_HW, there_HW)
    assert sent == annotate and strokes == sent_strokes and counts[0] == counts[1]
    assert ((here_HW < UNLABELLED).sum() == 3) == (config.label != "scribble")
