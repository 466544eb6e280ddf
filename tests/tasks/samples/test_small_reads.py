"""Opening some samples of a large dataset decodes their row groups, and no others."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from neuron_atlas.tasks.artifacts import (
    CONCEPTS,
    DESCRIPTIONS,
    SAMPLES,
    OldTableError,
    read_table,
    write_table,
)
from neuron_atlas.tasks.artifacts.samples import ROW_GROUP_OF_SAMPLES
from neuron_atlas.tasks.samples.catalog import Catalog, open_catalog, open_layouts
from tests.tasks.samples.counted_reads import counted_reads

_FILES, _PER_FILE = 5, 4096


@dataclass(frozen=True)
class Tables:
    samples: list[Path]
    descriptions: list[Path]
    concepts: list[Path]

    def open(self, sample_ids: list[int]) -> Catalog:
        return open_catalog(self.samples, self.descriptions, self.concepts, sample_ids=sample_ids)


@pytest.fixture(scope="module")
def tables(tmp_path_factory: pytest.TempPathFactory) -> Tables:
    """20,480 samples, every third of them without a usable text."""
    folder = tmp_path_factory.mktemp("tables")
    written = Tables([], [], [])
    for number in range(_FILES):
        ids = range(number * _PER_FILE, (number + 1) * _PER_FILE)
        common = {"reason": "", "text": "a b"}
        samples = [
            common
            | {"sample_id": one, "source_id": str(one), "images": [f"{one}.png"], "status": "ok"}
            | {"image_sha256": str(one), "width": 8, "height": 8}
            for one in ids
        ]
        described = [
            common
            | {"sample_id": one, "text_source": "given", "tokens": ["a", " b"], "n_visual": 4}
            | {"n_text": 2, "regions": [], "status": "ok" if one % 3 else "empty_text"}
            for one in ids
        ]
        concepts = [
            {"sample_id": one, "concept": name, "kind": "color", "words": [name]}
            | {"mask": np.zeros(576, np.uint8)}
            for one in ids
            if one % 64 < 4  # Most samples have no concept.
            for name in ("red", "blue")
        ]
        for spec, rows, paths in (
            (SAMPLES, samples, written.samples),
            (DESCRIPTIONS, described, written.descriptions),
            (CONCEPTS, concepts, written.concepts),
        ):
            paths.append(folder / f"{spec.name}-{number}.parquet")
            write_table(pa.Table.from_pylist(rows, schema=spec.schema), spec, paths[-1])
    return written


def test_scattered_samples_read_only_the_row_groups_that_hold_them(tables):
    ids = [1, 70, 4097, 4100, 9001, 20_479]
    groups = {one // ROW_GROUP_OF_SAMPLES for one in ids}

    with counted_reads() as rows:
        catalog = tables.open(ids)

    assert sorted(catalog.samples) == [one for one in ids if one % 3]
    assert rows["descriptions"] == len(groups) * ROW_GROUP_OF_SAMPLES
    assert rows["samples"] == rows["descriptions"]
    assert {one for one in ids if catalog.concepts(one)} == {1, 4097}
    assert 0 < rows["concepts"] <= len(groups) * ROW_GROUP_OF_SAMPLES
    assert rows["other"] == 0


def test_consecutive_samples_read_hardly_more_than_themselves(tables):
    ids = list(range(5_000, 5_256))

    with counted_reads() as rows:
        catalog = tables.open(ids)

    assert len(catalog.samples) == sum(1 for one in ids if one % 3)
    for name in ("samples", "descriptions"):
        assert len(ids) <= rows[name] <= len(ids) + 2 * ROW_GROUP_OF_SAMPLES


def test_layouts_and_columns_read_no_more(tables):
    with counted_reads() as rows:
        open_layouts(tables.descriptions, [3, 20_000])
        images = read_table(tables.samples, SAMPLES, ["images"], sample_ids=[3, 20_000])

    assert images.to_pylist() == [{"images": ["3.png"]}, {"images": ["20000.png"]}]
    assert rows == {
        "descriptions": 2 * ROW_GROUP_OF_SAMPLES,
        "samples": 2 * ROW_GROUP_OF_SAMPLES,
    }


def test_no_sample_reads_nothing(tables):
    with counted_reads() as rows:
        assert tables.open([]).samples == {}
        assert len(read_table(tables.samples, SAMPLES, sample_ids=[-5, 10**9])) == 0

    assert not rows


def test_rows_of_files_in_any_order_are_those_asked_for(tables):
    ids = [20_000, 3, 3, 4_096, 4_095]
    paths = tables.samples[::-1]

    found = read_table(paths, SAMPLES, ["sample_id"], sample_ids=ids)["sample_id"].to_pylist()

    assert found == [20_000, 4_096, 3, 4_095]


def test_a_file_that_is_written_again_is_read_again(tmp_path):
    path = tmp_path / "samples.parquet"
    for ids in ([1, 2], [3, 4, 5]):
        rows = [
            {"sample_id": one, "source_id": "", "images": [], "image_sha256": "", "text": ""}
            | {"width": 1, "height": 1, "status": "ok", "reason": ""}
            for one in ids
        ]
        write_table(pa.Table.from_pylist(rows, schema=SAMPLES.schema), SAMPLES, path)
        found = read_table(path, SAMPLES, ["sample_id"], sample_ids=[1, 2, 3, 4])
        assert found["sample_id"].to_pylist() == [one for one in ids if one < 5]


def test_a_table_of_another_version_is_refused(tables, tmp_path):
    path = tmp_path / "samples.parquet"
    pq.write_table(pq.read_table(tables.samples[0]).drop_columns("width"), path)

    with pytest.raises(OldTableError, match="no column width"):
        read_table(path, SAMPLES, sample_ids=[3])
