"""Neurons without an explanation are found by the words of their exemplars' texts."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pytest

from bench.synthetic.atlas import SyntheticAtlas, write_synthetic_atlas
from bench.synthetic.sizes import Sizes
from neuron_atlas.tasks.artifacts import (
    NO_SAMPLE,
    RESPONSES,
    WORDS,
    TableSpec,
    exemplars_spec,
    layer_file,
    read_table,
    write_table,
)
from neuron_atlas.tasks.report.inputs import LayerFiles
from neuron_atlas.tasks.report.site.texts import COUNT, NO_WORD
from tests.tasks.report.site.browsing import Visit, chromium
from tests.tasks.report.site.reading import numbers, value, write

SAMPLES, TOP, NEURONS = 12, 4, 8
TEXTS = [
    ["a", "zebra" if one < 4 else "horse", "is", "there", "."]
    + ["by", "lakes"] * (one in (4, 5, 6))
    for one in range(SAMPLES)
]
"""Samples 0 to 3 have a zebra, 4 to 6 lakes. All have a, is and there."""
ZEBRA, LAKES, SILENT, PEAKS = 0, 2, 4, 6
"""Neurons without an explanation; one is silent, and the last one has only its peaks in common."""
EXEMPLARS = {
    ZEBRA: [0, 1, 2, 3],
    LAKES: [4, 5, 6, NO_SAMPLE],
    SILENT: [0, 1, 2, 3],
    PEAKS: [0, 5, 7, 8],
}


@pytest.fixture(scope="module")
def planted(tmp_path_factory) -> tuple[SyntheticAtlas, Path]:
    folder = tmp_path_factory.mktemp("tables")
    sizes = Sizes(layers=(0,), neurons=NEURONS, samples=SAMPLES, unexplained=2, top_n=TOP)
    made = write_synthetic_atlas(folder, sizes, ["gpt4o"], lambda _: "zebra crossings")
    texts = folder / "words.parquet"
    rows = [{"sample_id": one, "n_visual": 4, "words": TEXTS[one]} for one in range(SAMPLES)]
    write_table(pa.Table.from_pylist(rows, WORDS.schema), WORDS, texts)
    (layer,) = made.layers
    slots = [EXEMPLARS.get(neuron, [NO_SAMPLE] * TOP) for neuron in range(NEURONS)]
    peaks = [[float(neuron != SILENT)] * TOP for neuron in range(NEURONS)]
    tops = [["There", ".", "is"] if neuron == PEAKS else [] for neuron in range(NEURONS)]
    shares = [[0.5, 0.3, 0.1] if neuron == PEAKS else [] for neuron in range(NEURONS)]
    spec = exemplars_spec(TOP)
    changed = [
        _changed(folder, layer, spec, {"sample_id": slots, "peak": peaks}),
        _changed(folder, layer, RESPONSES, {"top_words": tops, "top_word_shares": shares}),
    ]
    tables = {**layer.tables, spec.name: (changed[0],), RESPONSES.name: (changed[1],)}
    return replace(made, layers=(replace(layer, tables=tables),)), texts


def _changed(folder: Path, layer: LayerFiles, spec: TableSpec, columns: dict[str, list]) -> Path:
    """Write a table of a layer with some columns replaced. Return the new file."""
    table = read_table(layer[spec.name], spec)
    for name, values in columns.items():
        place = table.schema.get_field_index(name)
        field = spec.schema.field(name)
        table = table.set_column(place, field, pa.array(values, field.type))
    path = folder / f"planted-{layer_file(spec, layer.layer)}"
    write_table(table, spec, path)
    return path


@pytest.fixture(scope="module")
def root(planted, tmp_path_factory) -> Path:
    made, texts = planted
    site = write(made, tmp_path_factory.mktemp("report") / "site", texts=(texts,))
    (site.parent / "index.html").write_text("<!doctype html><title>overview</title>")
    return site.parent


def words_of(root: Path) -> list[list[str]]:
    found = value(root / "site", "texts/0")
    words = found["words"].split("\n")
    codes = numbers(found["codes"], "<u2").reshape(-1, COUNT).tolist()
    return [[words[code] for code in row if code != NO_WORD] for row in codes]


def test_words_are_those_of_the_peaks_and_those_that_the_texts_hold_more_often(root):
    words = words_of(root)
    assert words[ZEBRA] == ["zebra"]
    assert words[LAKES] == ["lakes", "horse"]
    assert words[SILENT] == []
    assert words[PEAKS] == ["There"]


def test_a_site_without_texts_has_none(site):
    assert value(site, "index")["texts"] == 0
    assert not (site / "data" / "texts").exists()


@pytest.mark.browser
def test_the_table_finds_neurons_that_were_not_explained(root):
    with chromium() as browser:
        visit = Visit(browser, f"{root.as_uri()}/").open()
        visit.page.get_by_role("searchbox").fill("lakes horse")
        visit.expect_count("1 of 8 neurons")
        assert visit.cells(3) == ["not explained; its texts: lakes, horse"]
        visit.page.get_by_role("searchbox").fill("zebra")
        explained = value(root / "site", "words/0/0").split("\n").count("zebra crossings")
        assert explained
        visit.expect_count(f"{1 + explained} of 8 neurons")
        visit.page.get_by_label("Status").select_option("not explained")
        visit.expect_count("1 of 8 neurons")
        visit.close()
        assert visit.problems == []
