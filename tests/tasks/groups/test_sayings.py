"""What a clamped neuron makes the subject say."""

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from neuron_atlas.tasks.artifacts.histogram import BINS, BLOCKS, bin_edges
from neuron_atlas.tasks.groups.sayings import clamp_values, say_clamped
from neuron_atlas.tasks.samples.scenes import Scenes
from tests.tasks.groups.writers import LAYER, WORD, WRITERS, plant_writers


def test_a_writer_that_is_clamped_says_its_word_and_others_change_nothing(subject_folder):
    """One writer does the work of all: it is clamped four times as high as they fire."""
    writing = plant_writers(subject_folder)
    source = Scenes(count=8, seed=31)
    image = source.open_image("31/0").pixels
    values = {(LAYER, WRITERS[0]): 40.0, (LAYER, 300): 1e-3, (0, 2): 0.0, (0, 1): 3e38}
    rows = say_clamped(writing, values, image, 7, "gate", 12, 2).to_pylist()
    by_key = {(row["layer"], row["neuron"]): row for row in rows}
    assert list(by_key) == sorted(values)
    writer, quiet, silent, overflow = (by_key[key] for key in values)
    assert WORD in writer["neutral_added"]
    assert WORD not in writer["neutral_without"]
    assert "large" in writer["sample_without"]
    assert quiet["neutral_with"] == quiet["neutral_without"]
    assert (quiet["neutral_added"], quiet["neutral_lost"]) == ([], [])
    assert [row["status"] for row in (writer, quiet, silent, overflow)] == [
        *("ok", "ok", "silent", "overflow")
    ]


def histogram(counts: dict[int, int]) -> list[int]:
    bins = np.zeros((BLOCKS, BINS), np.int32)
    for number, count in counts.items():
        bins[number % BLOCKS, number] = count
    return bins.ravel().tolist()


def test_the_percentile_is_over_the_activations_that_are_above_zero():
    edges = bin_edges()
    nothing = histogram({0: 10_000})
    rows = [(0, 0, histogram({0: 10_000, 18: 100}), nothing, 3.0), (0, 1, nothing, nothing, 0.001),
            (0, 2, histogram({18: 100}), histogram({19: 900}), 4.9)]  # fmt: skip
    names = ("layer", "neuron", "visual", "text")
    histograms = pa.table({name: [row[at] for row in rows] for at, name in enumerate(names)})
    moments = pa.table(
        {
            "neuron": [0, 1, 2],
            **{f"n_{role}": [10_000] * 3 for role in ("visual", "text")},
            **{f"max_{role}": [row[4] for row in rows] for role in ("visual", "text")},
        }
    )
    values = clamp_values(histograms, moments)
    first = edges[18] + 0.99 * (edges[19] - edges[18])
    assert values[0, 0] == pytest.approx(min(first, 3.0))
    assert values[0, 1] == 0
    part = (0.99 - 0.1) / 0.9
    assert values[0, 2] == pytest.approx(min(edges[19] + part * (edges[20] - edges[19]), 4.9))


def test_a_gray_image_has_the_size_of_the_sample(subject):
    rows = say_clamped(subject, {}, Image.new("RGB", (90, 60)), 0, "gate", 2, 4)
    assert rows.num_rows == 0
