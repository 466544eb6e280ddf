from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from neuron_atlas.tasks.analyse.peaks import concentration, read_peaks
from neuron_atlas.tasks.artifacts import TRACES, write_table


def of(*rows: list[float]) -> list[float]:
    values = np.array([value for row in rows for value in row])
    return concentration(values, np.array([len(row) for row in rows])).tolist()


def test_an_even_image_is_not_concentrated_and_a_single_token_is():
    assert of([2.0] * 9, [0, 0, 5.0, 0], [-3.0, 0.5, -2.0]) == pytest.approx([0, 1, 1])


def test_half_of_the_tokens_alike_lie_between():
    # Even over k of n tokens: (1 - k / n) / (1 - 1 / n).
    assert of([1.0] * 5 + [0.0] * 5) == pytest.approx([0.5 / 0.9])
    assert of([7.0, 0, 0, 7.0, -9.0]) == pytest.approx([0.6 / 0.8])


def test_the_scale_of_the_activations_does_not_matter():
    row = np.random.default_rng(1).exponential(1, 30)
    assert of(list(row)) == pytest.approx(of(list(100 * row)))


def test_where_nothing_is_excited_or_there_is_no_image_concentration_is_unknown():
    assert np.isnan(of([], [0.0, -1.0], [3.0])).all()
    assert of([1.0, 0.0], [], [1.0, 1.0])[::2] == pytest.approx([1, 0])


def test_peaks_are_found_in_every_row_whatever_its_length(tmp_path: Path):
    rows = [
        {"neuron": 0, "sample_id": 5, "visual": [1, 3, 2], "text": [0.5]},
        {"neuron": 0, "sample_id": 2, "visual": [], "text": [1, 4, 4, 0]},
        {"neuron": 3, "sample_id": 9, "visual": [-2, -1], "text": []},
        {"neuron": 4, "sample_id": 1, "visual": [], "text": []},
        {"neuron": 4, "sample_id": 0, "visual": [7], "text": [-3, -2, -5]},
    ]
    table = pa.Table.from_pylist(
        [row | {"layer": 0, "rank": rank} for rank, row in enumerate(rows)], schema=TRACES.schema
    )
    write_table(table, TRACES, tmp_path / "traces.parquet")
    peaks = read_peaks(tmp_path / "traces.parquet")
    assert peaks.neuron.tolist() == [0, 0, 3, 4, 4]
    assert peaks.sample_id.tolist() == [5, 2, 9, 1, 0]
    assert peaks.visual.tolist() == [3, -np.inf, -1, -np.inf, 7]
    assert peaks.text.tolist() == [0.5, 4, -np.inf, -np.inf, -2]
    assert peaks.text_token.tolist() == [0, 1, 0, 0, 1]


def test_a_layer_without_traces_has_no_peaks(tmp_path: Path):
    write_table(TRACES.schema.empty_table(), TRACES, tmp_path / "traces.parquet")
    assert len(read_peaks(tmp_path / "traces.parquet").neuron) == 0
