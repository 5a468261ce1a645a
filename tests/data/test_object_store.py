"""Datasets at a URL: what is fetched, checked, cached and refused; batches as from the local folder."""

from __future__ import annotations

import dataclasses
import json
import shutil
import socket
import subprocess
import sys
import textwrap
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import manifests
import numpy as np
import pytest
import tiny
import torch
from driving import s3_server
from fixtures import row
from fsspec.implementations.memory import MemoryFileSystem

from sparseg import launch
from sparseg.config import Config, with_overrides
from sparseg.data import importers, loader, node_shards, shards
from sparseg.data.shards import cache
from sparseg.launch import dry_run, prepare

SIZES = [(48, 48), (40, 60), (33, 35), (70, 50)] * 5


def write(path: Path, num_shards: int) -> Path:
    splits = {
        "train": lambda: tiny.rows(SIZES, 0, dense=False),
        "val": lambda: tiny.rows([(48, 48)] * 3, 500, dense=True),
    }
    shards.write(path, splits, tiny.NAMES, report={"label": "point"}, num_shards=num_shards)
    return manifests.version_2(path)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Holds one/, four/ and sixteen/: the same rows in so many shards."""
    folder = tmp_path_factory.mktemp("remote")
    for name, num_shards in {"one": 1, "four": 4, "sixteen": 16}.items():
        write(folder / name, num_shards)
    return folder


class Counts(dict[str, int]):
    """Bytes fetched from memory:// by name of the object; a name in `broken` comes wrong that many times."""

    broken: dict[str, int]
    damage: Any


@pytest.fixture
def fetched(monkeypatch: pytest.MonkeyPatch) -> Iterator[Counts]:
    counts = Counts()
    counts.broken, counts.damage = {}, lambda file: file.write_bytes(file.read_bytes()[:-100])
    get_file, cat_file = MemoryFileSystem.get_file, MemoryFileSystem.cat_file

    def get(self: Any, path: str, target: str, **options: Any) -> None:
        get_file(self, path, target, **options)
        name = "/".join(path.split("/")[-2:])
        counts[name] = counts.get(name, 0) + Path(target).stat().st_size
        if counts.broken.get(name, 0) > 0:
            counts.broken[name] -= 1
            counts.damage(Path(target))

    def cat(self: Any, path: str, **options: Any) -> Any:
        content = cat_file(self, path, **options)
        counts[path.split("/")[-1]] = len(content)
        return content

    monkeypatch.setattr(MemoryFileSystem, "get_file", get)
    monkeypatch.setattr(MemoryFileSystem, "cat_file", cat)
    monkeypatch.setattr(cache, "PAUSE_S", 0.0)
    yield counts
    MemoryFileSystem.store.clear()


@pytest.fixture
def url(folder: Path, fetched: Counts) -> str:
    return manifests.upload(folder / "four", "memory://bucket/set")


def shard_sizes(folder: Path, split: str = "") -> dict[str, int]:
    files = manifests.arrow_files(folder)
    return {name: file.stat().st_size for name, file in files.items() if name.startswith(split)}


def batches(dataset: shards.ShardedDataset, config: Config, last: int = 4) -> list[loader.Batch]:
    return list(loader.training_batches(dataset, config, rank=0, world=1, first_step=0, last_step=last))


def assert_equal(found: list[loader.Batch], expected: list[loader.Batch]) -> None:
    assert len(found) == len(expected) > 0
    for one, other in zip(found, expected, strict=True):
        assert (one.rows, one.num_slots) == (other.rows, other.num_slots)
        for name in ("image_B3HW", "label_BHW", "present_BK"):
            assert torch.equal(getattr(one, name), getattr(other, name)), name


# --------------------------------------------------------------------------------------------- what is read


def test_a_description_reads_the_manifest_alone(folder: Path, url: str, fetched: Counts) -> None:
    found = shards.describe(f"{url}/", verify=True)
    assert (found.source, found.names, found.rows) == (url, tiny.NAMES, {"train": 20, "val": 3})
    assert set(fetched) == {"sparseg.json"}
    local = shards.describe(folder / "four")
    assert dataclasses.replace(found, source="") == dataclasses.replace(local, source="")
    assert local.source == str(folder / "four")


def test_shards_are_copied_once(folder: Path, url: str, fetched: Counts, tmp_path: Path) -> None:
    opened = shards.open(url, cache=str(tmp_path))
    assert fetched.pop("sparseg.json") and fetched == shard_sizes(folder / "four")
    assert opened.copied_bytes == sum(shard_sizes(folder / "four").values())
    assert opened.path.is_relative_to(tmp_path / "datasets")
    fetched.clear()
    again = shards.open(url, cache=str(tmp_path), verify=True)
    assert set(fetched) == {"sparseg.json"} and (again.copied_bytes, again.path) == (0, opened.path)
    assert list(opened.path.rglob("*.part")) == []
    local = shards.open(folder / "four")
    assert opened.rows == local.rows and opened.parts == local.parts
    for split in ("train", "val"):
        assert opened.splits[split][:] == local.splits[split][:]


def test_only_the_shards_asked_for_are_copied(
    folder: Path, url: str, fetched: Counts, tmp_path: Path
) -> None:
    opened = shards.open(url, cache=str(tmp_path), only={"train": range(1, 3)})
    names = [*sorted(shard_sizes(folder / "four", "train"))[1:3], *shard_sizes(folder / "four", "val")]
    assert fetched.keys() - {"sparseg.json"} == set(names)
    local = shards.open(folder / "four")
    part = opened.parts["train"]
    assert opened.rows == local.rows and 0 < part.start < part.stop < 20 and len(opened.parts["val"]) == 3
    assert opened.splits["train"]["id"][:] == local.splits["train"]["id"][part.start : part.stop]


def test_another_manifest_at_the_url_has_another_copy(folder: Path, url: str, tmp_path: Path) -> None:
    first = shards.open(url, cache=str(tmp_path))
    manifests.upload(folder / "one", url)
    second = shards.open(url, cache=str(tmp_path))
    assert first.path != second.path and second.copied_bytes == sum(shard_sizes(folder / "one").values())


def test_version_1_is_read_from_a_url(folder: Path, fetched: Counts, tmp_path: Path) -> None:
    shutil.copytree(folder / "four", tmp_path / "old")
    url = manifests.upload(manifests.version_1(tmp_path / "old"), "memory://bucket/old")
    assert shards.describe(url, cache=str(tmp_path)).rows == {"train": 20, "val": 3}
    with pytest.raises(ValueError, match=r"counts the rows of each shard.*--data\.sharding global"):
        shards.open(url, cache=str(tmp_path), only={"train": range(1)})


# -------------------------------------------------------------------------------------------------- batches


def test_batches_are_the_same_from_any_place_and_number_of_shards(
    folder: Path, fetched: Counts, tmp_path: Path
) -> None:
    config = tiny.config(folder, {"optim.batch_size": 7, "data.colour": True})
    expected = batches(shards.open(folder / "one"), config)
    assert {row for batch in expected for row in batch.rows} == set(range(20))
    assert_equal(batches(shards.open(folder / "sixteen"), config), expected)
    url = manifests.upload(folder / "sixteen", "memory://bucket/sixteen")
    assert_equal(batches(shards.open(url, cache=str(tmp_path)), config), expected)


# -------------------------------------------------------------------------------------------- what is refused


def test_a_truncated_object_is_tried_again(url: str, fetched: Counts, tmp_path: Path) -> None:
    fetched.broken = {"train/data-00003-of-00004.arrow": cache.TRIES - 1}
    assert len(shards.open(url, cache=str(tmp_path)).splits["train"]) == 20


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda file: file.write_bytes(file.read_bytes()[:-100]), r"is truncated or changed: \d+ bytes, \d+"),
        (manifests.flip_a_byte, "is altered: its checksum is not the one in sparseg.json"),
    ],
)
def test_a_damaged_object_is_refused_by_name(
    url: str, fetched: Counts, tmp_path: Path, damage: Any, message: str
) -> None:
    name = "train/data-00003-of-00004.arrow"
    fetched.damage, fetched.broken = damage, {name: 99}
    with pytest.raises(ValueError, match=f"^{url}/{name} {message}.*copy the dataset there again$"):
        shards.open(url, cache=str(tmp_path))
    assert 99 - fetched.broken[name] == cache.TRIES
    assert not [file for file in tmp_path.rglob("*00003-of-00004*")]
    fetched.broken = {}
    assert len(shards.open(url, cache=str(tmp_path)).splits["train"]) == 20  # it was not there for good


def test_a_damaged_copy_is_replaced(folder: Path, url: str, fetched: Counts, tmp_path: Path) -> None:
    copy = shards.open(url, cache=str(tmp_path)).path / "train" / "data-00003-of-00004.arrow"
    original = folder / "four" / "train" / copy.name
    copy.write_bytes(b"short")
    shards.open(url, cache=str(tmp_path))
    assert copy.read_bytes() == original.read_bytes()
    manifests.flip_a_byte(copy)
    opened = shards.open(url, cache=str(tmp_path), verify=True)
    assert copy.read_bytes() == original.read_bytes() and opened.copied_bytes == original.stat().st_size


def test_what_a_killed_copy_left_is_overwritten(url: str, tmp_path: Path) -> None:
    copied = shards.open(url, cache=str(tmp_path)).path / "train" / "data-00003-of-00004.arrow"
    copied.unlink()
    copied.with_name(f".{copied.name}.part").write_bytes(b"x" * 10**6)
    assert len(shards.open(url, cache=str(tmp_path)).splits["train"]) == 20
    assert list(tmp_path.rglob("*.part")) == []


def test_missing_things_are_named(url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match=r"^memory://bucket/nothing has no sparseg.json; .*sparseg import"):
        shards.open("memory://bucket/nothing")
    fsspec.filesystem("memory").rm("/bucket/set/val/data-00001-of-00003.arrow")
    with pytest.raises(ValueError, match=r"set/val/data-00001-of-00003\.arrow is missing; copy"):
        shards.open(url, cache=str(tmp_path))
    with pytest.raises(ValueError, match=r"data\.cache: .*cannot be written to .*name another folder"):
        shards.open(url, cache="/dev/null/cache")
    monkeypatch.setattr(cache.shutil, "disk_usage", lambda folder: shutil._ntuple_diskusage(10, 9, 1))
    with pytest.raises(ValueError, match=r"0.0 GB free.*--data\.sharding node"):
        shards.open(url, cache=str(tmp_path / "other"))


def test_a_missing_driver_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("s3fs", "gcsfs"):
        monkeypatch.setitem(sys.modules, module, None)
    for protocol in ("s3", "gs"):
        sys.modules["fsspec.registry"]._registry.pop(protocol, None)
    for protocol, driver in (("s3", "s3fs"), ("gs", "gcsfs")):
        with pytest.raises(ValueError, match=f"needs the package {driver}.*pip install '{driver}'"):
            shards.describe(f"{protocol}://bucket/set")
    with pytest.raises(ValueError, match=r"nowhere:// is not known"):
        shards.describe("nowhere://bucket/set")


@pytest.mark.parametrize("name", ["../evil.arrow", "train/../../evil.arrow", "/etc/x.arrow", "evil.arrow"])
def test_a_shard_name_that_leaves_the_folder_is_refused(url: str, tmp_path: Path, name: str) -> None:
    filesystem = fsspec.filesystem("memory")
    manifest = json.loads(filesystem.cat_file("/bucket/set/sparseg.json"))
    manifest["shards"][name] = {"bytes": 1, "rows": 1, "xxh3": "0"}
    filesystem.pipe_file("/bucket/set/sparseg.json", json.dumps(manifest).encode())
    with pytest.raises(ValueError, match=r"sparseg\.json is damaged \(shard name"):
        shards.open(url, cache=str(tmp_path))
    assert list(tmp_path.iterdir()) == []


# ------------------------------------------------------------------------------------------------- processes


@pytest.mark.slow
def test_processes_of_a_node_share_one_copy(folder: Path, tmp_path: Path) -> None:
    script = f"""
        import sys
        from sparseg.data import shards
        sys.stdin.readline()
        opened = shards.open("file://{folder / "four"}", cache={str(tmp_path)!r})
        print(opened.copied_bytes, len(opened.splits["train"]))
    """
    command = [sys.executable, "-c", textwrap.dedent(script)]
    pipes = {name: subprocess.PIPE for name in ("stdin", "stdout")}
    processes = [subprocess.Popen(command, text=True, **pipes) for _ in range(2)]
    outs = [process.communicate("go\n", timeout=120)[0].splitlines()[-1] for process in processes]
    copied, lengths = zip(*(out.split() for out in outs), strict=True)
    assert lengths == ("20", "20")
    assert sorted(map(int, copied)) == [0, sum(shard_sizes(folder / "four").values())]


# ------------------------------------------------------------------------------------------ the whole command


def test_prepare_takes_a_url_and_fetches_nothing(url: str, fetched: Counts, tmp_path: Path) -> None:
    settings = with_overrides(
        tiny.config(tmp_path), {"data.root": f"{url}/", "data.cache": str(tmp_path / "cache")}
    )
    prepared, dataset = prepare.prepare(settings)
    assert dataset == url == prepared.data.root and set(fetched) == {"sparseg.json"}
    assert prepare.finished(prepared, dataset) is None
    dry_run.print_plan(with_overrides(settings, {"data.layout": "voc"}))  # as a recipe may say
    assert set(fetched) == {"sparseg.json"} and not (tmp_path / "cache").exists()
    for wrong, message in [
        ({"data.root": "memory://bucket/raw"}, "has no sparseg.json"),
        ({"data.num_classes": 9}, "has 3 classes but data.num_classes=9"),
        ({"data.val_split": "dev"}, "'dev' is not among its splits train, val"),
        (
            {"data.shards": "s3://x/y", "data.label": "clicks", "data.random_pixels": 2},
            "must be a local folder",
        ),
    ]:
        with pytest.raises(ValueError, match=message):
            importers.prepare(with_overrides(settings, wrong).data, tmp_path / "runs")


def test_labels_are_drawn_anew_from_a_url(folder: Path, url: str, tmp_path: Path) -> None:
    overrides = {"data.label": "clicks", "data.random_pixels": 3, "data.cache": str(tmp_path / "cache")}
    labels = []
    for root in (url, str(folder / "four")):
        data = tiny.config(tmp_path, {**overrides, "data.root": root}).data
        derived = importers.prepare(data, tmp_path / "runs")
        assert derived == importers.prepare(data, tmp_path / "runs")
        stored = shards.open(derived).splits["train"][7]
        labels.append(shards.decode_label(stored["label"]["bytes"]))
    np.testing.assert_array_equal(*labels)
    assert (labels[0] < len(tiny.NAMES)).sum() == 3
    full = dataclasses.replace(data, root=url, label="full", random_pixels=0)
    assert importers.prepare(full, tmp_path / "runs") == url  # its masks are there


def test_full_labels_of_a_url_without_masks_are_refused(fetched: Counts, tmp_path: Path) -> None:
    label = np.zeros((4, 6), np.uint8)
    rows = {split: lambda: iter([row("a", label)]) for split in ("train", "val")}
    shards.write(tmp_path / "set", rows, ["a", "b", "c"], report={"label": "point"})
    url = manifests.upload(manifests.version_2(tmp_path / "set"), "memory://bucket/bare")
    data = tiny.config(tmp_path, {"data.label": "full", "data.root": url, "data.cache": str(tmp_path)}).data
    with pytest.raises(ValueError, match="without dense masks"):
        importers.prepare(data, tmp_path / "runs")


# ----------------------------------------------------------------------------------- an S3 server on loopback


class CountingProxy:
    """Passes connections on to a local port and counts the bytes that come back."""

    def __init__(self, port: int) -> None:
        self.target, self.received = port, 0
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self) -> None:
        while True:
            try:
                client, _ = self.listener.accept()
            except OSError:
                return
            server = socket.create_connection(("127.0.0.1", self.target))
            threading.Thread(target=self.pump, args=(client, server, False), daemon=True).start()
            threading.Thread(target=self.pump, args=(server, client, True), daemon=True).start()

    def pump(self, source: socket.socket, sink: socket.socket, counted: bool) -> None:
        try:
            while data := source.recv(1 << 16):
                self.received += len(data) if counted else 0
                sink.sendall(data)
        except OSError:
            pass
        finally:
            for end in (source, sink):
                end.close()


@pytest.fixture(scope="module")
def server() -> Iterator[int]:
    """Port of an S3 server with the bucket `bucket`."""
    with s3_server() as variables:
        yield int(variables["AWS_ENDPOINT_URL"].rsplit(":", 1)[1])


@pytest.fixture
def s3(server: int, monkeypatch: pytest.MonkeyPatch) -> Iterator[CountingProxy]:
    """AWS's variables point to the server, through a proxy that counts."""
    import s3fs

    proxy = CountingProxy(server)
    for name, value in {
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{proxy.port}",
        "AWS_ACCESS_KEY_ID": "testing",
        "AWS_SECRET_ACCESS_KEY": "testing",
        "AWS_DEFAULT_REGION": "us-east-1",
    }.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(cache, "PAUSE_S", 0.0)
    filesystem = s3fs.S3FileSystem(endpoint_url=f"http://127.0.0.1:{proxy.port}")
    filesystem.mkdirs("bucket", exist_ok=True)
    yield proxy
    s3fs.S3FileSystem.clear_instance_cache()
    proxy.listener.close()


def upload_s3(folder: Path, url: str) -> str:
    import os

    import s3fs

    filesystem = s3fs.S3FileSystem(endpoint_url=os.environ["AWS_ENDPOINT_URL"])
    for file in folder.rglob("*"):
        if file.is_file():
            filesystem.pipe_file(f"{url}/{file.relative_to(folder).as_posix()}", file.read_bytes())
    return url


@pytest.mark.slow
def test_a_run_from_s3_is_the_run_from_the_folder(folder: Path, s3: CountingProxy, tmp_path: Path) -> None:
    url = upload_s3(folder / "sixteen", "s3://bucket/sets/run")
    outcomes = {}
    for name, root in (("local", str(folder / "one")), ("s3", url)):
        overrides = {"data.root": root, "data.cache": str(tmp_path / "cache"), "run.name": name}
        settings = tiny.config(tmp_path, {**overrides, "optim.max_steps": 2})
        launch.launch(settings)
        lines = [json.loads(line) for line in (settings.folder / "metrics.jsonl").read_text().splitlines()]
        outcomes[name] = [
            {k: v for k, v in line.items() if "per_s" not in k and "_s" not in k} for line in lines
        ]
    assert outcomes["s3"] == outcomes["local"] and len(outcomes["s3"]) >= 3
    assert json.loads((tmp_path / "runs" / "s3" / "config.json").read_text())["data"]["root"] == url
    config = tiny.config(folder, {"optim.batch_size": 7})
    opened = shards.open(url, cache=str(tmp_path / "cache"))
    assert opened.copied_bytes == 0
    assert_equal(batches(opened, config), batches(shards.open(folder / "one"), config))


def test_damage_in_s3_is_refused_by_name(folder: Path, s3: CountingProxy, tmp_path: Path) -> None:
    shutil.copytree(folder / "four", tmp_path / "set")
    shard = tmp_path / "set" / "train" / "data-00003-of-00004.arrow"
    content = shard.read_bytes()
    shard.write_bytes(content[:-7])
    url = upload_s3(tmp_path / "set", "s3://bucket/sets/damaged")
    with pytest.raises(ValueError, match=rf"^{url}/train/{shard.name} is truncated or changed.*copy"):
        shards.open(url, cache=str(tmp_path / "cache"))
    shard.write_bytes(content)
    manifests.flip_a_byte(shard)
    upload_s3(tmp_path / "set", url)
    with pytest.raises(ValueError, match=rf"^{url}/train/{shard.name} is altered"):
        shards.open(url, cache=str(tmp_path / "cache"))
    with pytest.raises(ValueError, match=r"^s3://bucket/sets/nothing has no sparseg\.json"):
        shards.open("s3://bucket/sets/nothing")


def test_each_of_two_nodes_reads_its_own_bytes_of_s3(
    s3: CountingProxy, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Counted on the wire."""
    splits = {
        "train": lambda: tiny.rows([(200, 200)] * 16, 0, dense=False),
        "val": lambda: tiny.rows([(48, 48)], 500, dense=True),
    }
    shards.write(tmp_path / "set", splits, tiny.NAMES, num_shards=8)
    manifests.version_2(tmp_path / "set")
    url = upload_s3(tmp_path / "set", "s3://bucket/sets/nodes")
    sizes = shard_sizes(tmp_path / "set", "train")
    others = sum(shard_sizes(tmp_path / "set", "val").values())
    config = tiny.config(tmp_path, {"data.sharding": "node"})
    seen: set[str] = set()
    for rank in range(2):
        data = dataclasses.replace(config.data, cache=str(tmp_path / f"node{rank}"))
        before = s3.received
        node = node_shards.Node(rank, 2, 0, 1, rank)
        opened = node_shards.open_part(dataclasses.replace(config, data=data), url, node, torch.device("cpu"))
        own = {f"train/{file.name}" for file in (tmp_path / f"node{rank}").rglob("train/*.arrow")}
        expected = sum(sizes[name] for name in own) + others
        assert opened.copied_bytes == expected
        assert expected <= s3.received - before < expected + 40_000  # headers and the manifest
        assert not own & seen and len(own) == 4
        seen |= own
        assert (
            f"node {rank} of 2: shards {4 * rank}..{4 * rank + 3} of 8, 8 of 16 rows"
            in capsys.readouterr().out
        )
    assert seen == set(sizes) and sum(sizes.values()) > 800_000
