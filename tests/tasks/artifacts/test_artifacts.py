import re
from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from neuron_atlas.tasks import artifacts
from neuron_atlas.tasks.artifacts import (
    DESCRIPTIONS,
    EVIDENCE,
    MOMENTS,
    SCORES,
    OldTableError,
    TableSpec,
    exemplars_spec,
    layer_file,
    layer_of,
    list_rows,
    read_batches,
    read_table,
    row_count,
    write_table,
    write_table_parts,
)

SPEC = TableSpec(
    "things",
    pa.schema([("sample_id", pa.int32()), ("status", pa.string()), ("size", pa.float32())]),
    key=("sample_id",),
    statuses=("ok", "missing"),
)
EVERY_SPEC = [value for value in vars(artifacts).values() if isinstance(value, TableSpec)]


def things(*sample_ids: int, status: str = "ok") -> pa.Table:
    rows = [{"sample_id": sample_id, "status": status, "size": 0.5} for sample_id in sample_ids]
    return pa.Table.from_pylist(rows, schema=SPEC.schema)


def test_what_is_written_is_read_back(tmp_path):
    write_table(things(3, 1, 2), SPEC, tmp_path / "new" / "things.parquet")
    assert read_table(tmp_path / "new" / "things.parquet", SPEC).equals(things(3, 1, 2))


def test_columns_are_put_in_the_tables_order_and_cast_to_its_units(tmp_path):
    loose = pa.table({"size": [0.5], "status": ["ok"], "sample_id": pa.array([7], pa.int64())})
    write_table(loose, SPEC, tmp_path / "things.parquet")
    assert read_table(tmp_path / "things.parquet", SPEC).schema.equals(SPEC.schema)


def test_files_are_read_as_one_table_in_the_order_given(tmp_path):
    for name, table in (("a", things(1, 2)), ("b", things(0))):
        write_table(table, SPEC, tmp_path / name)
    read = read_table([tmp_path / "b", tmp_path / "a"], SPEC)
    assert read["sample_id"].to_pylist() == [0, 1, 2]
    assert read_table([tmp_path / "a"], SPEC, ["size"]).column_names == ["size"]


def test_a_table_of_another_version_is_refused_with_what_to_do(tmp_path):
    path = tmp_path / "things.parquet"
    pq.write_table(things(1).rename_columns(["sample_id", "state", "size"]), path)
    said = (
        f"{path}: no column status: another version of neuron-atlas wrote this table. "
        "Run the same command again to write it with this version"
    )
    for read in (
        lambda: read_table(path, SPEC),
        lambda: read_table(path, SPEC, ["status"], sample_ids=[1]),
        lambda: list(read_batches(path, SPEC)),
    ):
        with pytest.raises(OldTableError, match=f"^{re.escape(said)}$"):
            read()
    assert read_table(path, SPEC, ["size"]).num_rows == 1


def test_no_files_are_an_empty_table():
    assert read_table([], SPEC).equals(SPEC.schema.empty_table())


@pytest.mark.parametrize(
    ("table", "named"),
    [
        (things(1).drop_columns("size"), "size"),
        (things(1).append_column("colour", pa.array(["red"])), "colour"),
        (things(1, 2, status="lost"), "'lost'; allowed: ok, missing"),
    ],
)
def test_a_table_that_breaks_its_contract_is_refused_and_leaves_no_file(tmp_path, table, named):
    with pytest.raises(ValueError, match=f"table things: .*{named}"):
        write_table(table, SPEC, tmp_path / "things.parquet")
    assert list(tmp_path.iterdir()) == []


def test_a_failed_write_keeps_the_file_that_was_there(tmp_path, monkeypatch):
    path = tmp_path / "things.parquet"
    write_table(things(1), SPEC, path)

    def die(*_: object, **__: object) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr("neuron_atlas.tasks.artifacts.files.pq.ParquetWriter.write_table", die)
    with pytest.raises(OSError, match="no space"):
        write_table(things(2), SPEC, path)
    assert list(tmp_path.iterdir()) == [path]
    assert read_table(path, SPEC).equals(things(1))


def test_tables_written_one_by_one_are_one_file_that_is_read_in_parts(tmp_path, monkeypatch):
    monkeypatch.setattr("neuron_atlas.tasks.artifacts.files.ROW_GROUP", 2)
    path = tmp_path / "things.parquet"
    write_table_parts((things(*ids) for ids in ([1, 2, 3], [4])), SPEC, path)
    assert read_table(path, SPEC).equals(things(1, 2, 3, 4))
    assert row_count(path) == 4
    assert [len(part) for part in read_batches(path, SPEC)] == [2, 1, 1]
    assert pa.concat_tables(read_batches(path, SPEC)).equals(things(1, 2, 3, 4))


def test_a_table_that_cannot_be_made_leaves_no_file_of_those_before_it(tmp_path):
    def tables() -> Iterator[pa.Table]:
        yield things(1)
        raise RuntimeError("lost")

    with pytest.raises(RuntimeError, match="lost"):
        write_table_parts(tables(), SPEC, tmp_path / "things.parquet")
    assert list(tmp_path.iterdir()) == []


def test_list_rows_gives_every_row_of_a_column_even_of_a_part_of_a_table():
    rows = [[1.0], [], [2.0, 3.0], [4.0]]
    table = pa.table({"trace": pa.array(rows, pa.list_(pa.float16()))})
    assert [row.tolist() for row in list_rows(table["trace"])] == rows
    assert [row.tolist() for row in list_rows(table.slice(1, 2)["trace"])] == rows[1:3]
    several = pa.concat_tables([table.slice(2), table.slice(0, 1)])
    assert [row.tolist() for row in list_rows(several["trace"])] == [*rows[2:], rows[0]]
    assert list_rows(table.slice(0, 0)["trace"]) == []
    assert list_rows(table["trace"])[0].dtype == np.float16


@pytest.mark.parametrize("spec", [*EVERY_SPEC, exemplars_spec(50)], ids=lambda spec: spec.name)
def test_every_table_says_what_its_columns_mean_and_what_names_a_row(spec):
    assert all(field.metadata[b"meaning"] for field in spec.schema)
    assert set(spec.key) <= set(spec.schema.names)
    assert ("status" in spec.schema.names) == bool(spec.statuses)
    assert not spec.statuses or "ok" in spec.statuses


def test_activations_and_money_carry_their_units():
    units = {
        (spec.name, field.name): field.metadata.get(b"unit", b"").decode()
        for spec in (MOMENTS, EVIDENCE, DESCRIPTIONS, SCORES, artifacts.EXPLANATIONS)
        for field in spec.schema
    }
    assert units["evidence", "visual"] == units["moments", "max_text"] == "activation"
    assert units["explanations", "cost"] == "USD"
    region = DESCRIPTIONS.schema.field("regions").type.value_type
    assert region.field("left").metadata[b"unit"] == b"px"


@pytest.mark.parametrize(
    ("file", "layer"),
    [
        ("artifacts/classify/ab/types-layer-007.parquet", 7),
        ("evidence-layer-123-000512.arrow", 123),
        ("types.parquet", None),
        ("report/figures/types-layer-003.png", None),
    ],
)
def test_the_layer_of_a_file_is_in_its_name(file, layer):
    assert layer_of(file) == layer


def test_layer_files_sort_by_layer():
    assert layer_file("types", 7) == "types-layer-007.parquet"
    names = [layer_file("types", layer) for layer in range(120)]
    assert sorted(names) == names
