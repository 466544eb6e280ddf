"""Artifacts on an object store, spoken to over real HTTP: whole or absent, found again, fetched."""

from __future__ import annotations

import os
import pickle
import re
from pathlib import Path

import pyarrow as pa
import pytest

from neuron_atlas.tasks.artifacts import DESCRIPTIONS, WORDS, read_table, row_count, write_table
from neuron_atlas.tasks.artifacts.location import (
    atomic_file,
    atomic_folder,
    complete_folders,
    downloaded_files,
    existing_files,
    parse_location,
    read_range,
    scratch_folder,
    uploaded_folder,
)
from tests.loopback.object_store import BUCKET, ObjectStore


@pytest.fixture
def out(store: ObjectStore) -> Path:
    return parse_location(f"s3://{BUCKET}/a run")


def words(count: int) -> pa.Table:
    rows = {name: [None] * count for name in WORDS.schema.names}
    return pa.table(rows, schema=WORDS.schema)


def test_a_table_is_read_as_it_was_written(out):
    path = out / "words.parquet"
    write_table(words(3), WORDS, path)
    assert read_table(path, WORDS).equals(words(3))
    assert read_table([path, path], WORDS, WORDS.schema.names[:1]).num_rows == 6
    assert row_count(path) == 3


def test_a_large_file_is_uploaded_in_parts(out, store):
    content = os.urandom(2**20) * 33
    with atomic_file(out / "large") as path:
        path.write_bytes(content)
    assert read_range(out / "large", 2**25, 5) == content[2**25 : 2**25 + 5]
    with downloaded_files(out, ["large"]) as folder:
        assert (folder / "large").read_bytes() == content
    said = store.log.read_text(encoding="utf-8")
    assert all(f"/large?partNumber={part}&uploadId=" in said for part in (1, 2, 3))


def test_what_failed_half_way_is_not_there_afterwards(out, store):
    unfinished = []

    def write_half() -> None:
        with atomic_file(out / "half") as path:
            unfinished.append(path)
            path.write_bytes(b"half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        write_half()
    with pytest.raises(ValueError, match="unknown"):
        write_table(words(1), DESCRIPTIONS, out / "wrong.parquet")
    assert store.names() == []
    assert not unfinished[0].exists()


def test_a_folder_counts_once_all_of_it_is_there(out):
    names = ["shard-1", "shard-2"]

    def deliver(name: str, *, breaks: bool) -> None:
        with atomic_folder(out / name) as folder:
            with atomic_file(folder / "peaks") as path:
                path.write_bytes(b"1")
            if breaks:
                raise RuntimeError

    deliver("shard-1", breaks=False)
    with pytest.raises(RuntimeError):
        deliver("shard-2", breaks=True)
    assert existing_files(out, ["shard-1/peaks", "shard-2/peaks"]) == {
        "shard-1/peaks",
        "shard-2/peaks",
    }
    assert complete_folders(out, names) == {"shard-1"}
    deliver("shard-2", breaks=False)
    assert complete_folders(out, names) == {"shard-1", "shard-2"}


def test_what_another_machine_wrote_or_removed_since_is_known(out, store):
    elsewhere = store.client
    assert existing_files(out, ["a", "b"]) == set()
    elsewhere.pipe_file(f"{BUCKET}/a run/a", b"1")
    assert existing_files(out, ["a", "b"]) == {"a"}
    assert (out / "a").is_file()
    elsewhere.rm_file(f"{BUCKET}/a run/a")
    assert existing_files(out, ["a", "b"]) == set()
    assert not (out / "a").is_file()


def test_folders_of_any_files_go_there_and_come_back(out, store):
    with uploaded_folder(out / "report") as folder:
        (folder / "figures").mkdir()
        (folder / "figures" / "types.svg").write_text("<svg>")
        (folder / "index.html").write_text("page")
    assert store.names() == ["a run/report/figures/types.svg", "a run/report/index.html"]
    with downloaded_files(out / "report", ["figures/types.svg"]) as folder:
        assert [path.name for path in folder.rglob("*.*")] == ["types.svg"]


def test_scratch_is_gone_afterwards(out, store):
    with scratch_folder(out) as folder:
        (folder / "1.jsonl").write_text("{}")
        assert [path.name for path in folder.glob("*.jsonl")] == ["1.jsonl"]
    assert store.names() == []


def test_a_location_travels_without_keys(out, store):
    pickled = pickle.dumps(out / "artifacts")
    assert pickle.loads(pickled) == out / "artifacts"
    for name, value in store.environment.items():
        if name.startswith("AWS") and "REGION" not in name:
            assert value.encode() not in pickled


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("ssh://host/folder", "ssh:// is not a supported object store (s3, "),
        ("s3://", "'s3://' has no bucket; write s3://BUCKET/PREFIX"),
        ("gs://bucket/x", "gs:// needs a missing package: Please install gcsfs"),
    ],
)
def test_a_place_that_cannot_be_used_is_refused(text, wrong):
    with pytest.raises(ValueError, match=re.escape(wrong)):
        parse_location(text)


def test_a_local_folder_stays_a_path(tmp_path):
    assert parse_location(str(tmp_path)) == tmp_path
    assert parse_location(f"file://{tmp_path}") == tmp_path
    assert type(parse_location("file:///x")) is type(Path("/x"))
