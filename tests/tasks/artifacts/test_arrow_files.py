"""Tables in Arrow files: written whole, read in part, and read by other programs."""

import polars as pl
import pyarrow as pa
import pytest

from neuron_atlas.tasks.artifacts import (
    EVIDENCE,
    TableSpec,
    arrow_files,
    artifact_of,
    layer_file,
    read_batches,
    read_rows,
    read_table,
    row_count,
    write_table,
    write_table_parts,
)
from neuron_atlas.tasks.artifacts.location import parse_location
from tests.loopback.object_store import BUCKET

SCHEMA = pa.schema(
    [
        ("neuron", pa.int32()),
        ("sample_id", pa.int32()),
        ("purpose", pa.string()),
        ("trace", pa.large_list(pa.float16())),
    ]
)
KEY = ("neuron", "sample_id", "purpose")
ARROW = TableSpec("rows", SCHEMA, KEY, format="arrow")
PARQUET = TableSpec("rows", SCHEMA, KEY)


@pytest.fixture(autouse=True)
def small_batches(monkeypatch):
    monkeypatch.setattr(arrow_files, "BATCH_ROWS", 4)


def rows(*neurons: int) -> pa.Table:
    return pa.Table.from_pylist(
        [
            {"neuron": neuron, "sample_id": 10 * neuron + one, "purpose": purpose}
            | {"trace": [neuron / 2, float(one)]}
            for purpose in ("explainer", "scorer")
            for neuron in neurons
            for one in range(3)
        ],
        schema=SCHEMA,
    )


WHOLE = rows(*range(20))


@pytest.fixture(params=["local", "store"])
def folder(request, tmp_path):
    if request.param == "local":
        return tmp_path
    request.getfixturevalue("store")
    return parse_location(f"s3://{BUCKET}/arrow")


@pytest.fixture
def loaded(monkeypatch) -> list[dict]:
    """Every row that is loaded from an Arrow file."""
    found: list[dict] = []
    load_batch = arrow_files.load_batch

    def counted(reader, number):
        batch = load_batch(reader, number)
        found.extend(batch.to_pylist())
        return batch

    monkeypatch.setattr(arrow_files, "load_batch", counted)
    return found


def test_what_is_written_is_read_back(folder):
    path = folder / "rows.arrow"
    write_table_parts([WHOLE.slice(0, 50), WHOLE.slice(50)], ARROW, path)
    assert read_table(path, ARROW).equals(WHOLE)
    assert row_count(path) == len(WHOLE)
    assert pa.concat_tables(read_batches(path, ARROW)).equals(WHOLE)
    assert max(len(part) for part in read_batches(path, ARROW)) == 4
    assert read_table([path, path], ARROW, ["trace", "neuron"]).column_names == ["trace", "neuron"]


def test_an_empty_table_is_a_file_without_rows(folder):
    path = folder / "rows.arrow"
    write_table(SCHEMA.empty_table(), ARROW, path)
    assert row_count(path) == 0
    assert read_table(path, ARROW).equals(SCHEMA.empty_table())
    assert list(read_batches(path, ARROW)) == []


CHOICES = [
    {"neurons": [7]},
    {"neurons": {3, 17}, "only": [("purpose", "==", "scorer")]},
    {"sample_ids": [0, 199]},
    {"only": [("neuron", ">=", 5), ("neuron", "<", 6), ("purpose", "in", ["explainer"])]},
    {"only": [("sample_id", "<=", 1)]},
    {"only": [("sample_id", ">", 500)]},
    {"neurons": []},
]


@pytest.mark.parametrize("choice", CHOICES, ids=str)
def test_the_same_rows_are_read_from_either_format(folder, choice):
    write_table(WHOLE, ARROW, folder / "rows.arrow")
    write_table(WHOLE, PARQUET, folder / "rows.parquet")
    found = read_table(folder / "rows.arrow", ARROW, ["sample_id", "trace"], **choice)
    assert found.equals(
        read_table(folder / "rows.parquet", PARQUET, ["sample_id", "trace"], **choice)
    )
    assert len(found) < len(WHOLE) / 2


def test_only_batches_that_may_hold_the_rows_and_only_their_columns_are_loaded(tmp_path, loaded):
    write_table(WHOLE, ARROW, tmp_path / "rows.arrow")
    chosen = [("purpose", "==", "scorer")]
    found = read_table(tmp_path / "rows.arrow", ARROW, ["trace"], neurons=[8, 15], only=chosen)
    assert len(found) == 6
    assert len(loaded) <= 16
    assert {row["purpose"] for row in loaded} == {"scorer"}
    assert "sample_id" not in loaded[0]


def test_other_programs_read_the_file(tmp_path):
    write_table(WHOLE, ARROW, tmp_path / "rows.arrow")
    frame = pl.scan_ipc(tmp_path / "rows.arrow").filter(pl.col("neuron") == 7).collect()
    assert frame["sample_id"].to_list() == [70, 71, 72] * 2
    with pa.ipc.open_file(str(tmp_path / "rows.arrow")) as file:
        assert file.read_all().equals(WHOLE)


def test_a_file_of_another_program_is_read_whole(tmp_path):
    with pa.ipc.new_file(str(tmp_path / "rows.arrow"), SCHEMA) as writer:
        writer.write_table(WHOLE)
    assert row_count(tmp_path / "rows.arrow") == len(WHOLE)
    assert read_table(tmp_path / "rows.arrow", ARROW, neurons=[7]).num_rows == 6


def test_a_failed_write_leaves_the_file_that_was_there(tmp_path):
    path = tmp_path / "rows.arrow"
    write_table(rows(1), ARROW, path)

    def tables():
        yield rows(2)
        raise RuntimeError("lost")

    with pytest.raises(RuntimeError, match="lost"):
        write_table_parts(tables(), ARROW, path)
    assert list(tmp_path.iterdir()) == [path]
    assert read_table(path, ARROW).equals(rows(1))


def test_a_parquet_file_that_holds_none_of_the_rows_is_not_read(tmp_path, monkeypatch):
    write_table(WHOLE, PARQUET, tmp_path / "rows.parquet")
    monkeypatch.setattr("neuron_atlas.tasks.artifacts.files.pq.read_table", None)
    assert len(read_table(tmp_path / "rows.parquet", PARQUET, neurons=[20, 99])) == 0


def test_columns_are_read_as_they_are_stored(tmp_path):
    write_table(WHOLE, PARQUET, tmp_path / "rows.parquet")
    found = read_rows(tmp_path / "rows.parquet", ["neuron"], [("sample_id", "==", 71)])
    assert found.to_pydict() == {"neuron": [7, 7]}


def test_names_of_files_say_artifact_layer_and_format():
    assert layer_file(EVIDENCE, 3, "abc") == "evidence-layer-003-abc.arrow"
    assert layer_file(PARQUET, 3) == layer_file("rows", 3) == "rows-layer-003.parquet"
    for name in ("evidence-layer-003-abc.arrow", "replay/evidence.parquet"):
        assert artifact_of(name) == "evidence"
    assert artifact_of("manifest.json") is None
