"""The same answer however a dataset is cut into shards, batched and ordered."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
import pytest
import torch

from neuron_atlas.tasks.artifacts import (
    HISTOGRAMS,
    MOMENTS,
    ROLES,
    exemplars_spec,
    layer_file,
    read_table,
)
from neuron_atlas.tasks.capture.observe import observe
from neuron_atlas.tasks.capture.settings import CaptureSettings
from neuron_atlas.tasks.capture.shard_plan import plan_shards
from neuron_atlas.tasks.classify.paper import PaperRule
from neuron_atlas.tasks.samples.scenes import Scenes
from neuron_atlas.tasks.samples.source import SampleRecord
from neuron_atlas.tasks.subject.load import Subject
from neuron_atlas.tasks.subject.settings import DescribeSettings, SubjectError
from tests.one_process import Described, capture, capture_one, classify, describe, merge

LAYERS = (0, 3)
TOP_N = 8
SETTINGS = CaptureSettings(top_n=TOP_N, shards=1, batch_size=16)


@dataclass(frozen=True)
class Talkative(Scenes):
    """Scenes whose texts have one to three sentences, so that samples differ much in length."""

    def records(self) -> Iterator[SampleRecord]:
        for number, record in enumerate(super().records()):
            sentences = record.text.split(". ")[: 1 + number % 3]
            yield replace(record, text=". ".join(sentences).rstrip(".") + ".")


@dataclass(frozen=True)
class Captured:
    """All that capture and classify say of the two layers."""

    folder: Path

    def tables(self, layer: int) -> dict[str, pa.Table]:
        specs = (exemplars_spec(TOP_N), HISTOGRAMS)
        tables = {s.name: read_table(self.folder / layer_file(s.name, layer), s) for s in specs}
        return tables | {"types": classify(self.folder, layer, PaperRule())}

    def moments(self, layer: int) -> pa.Table:
        return read_table(self.folder / layer_file("moments", layer), MOMENTS)


def assert_same(first: Captured, second: Captured) -> None:
    """Equal in every bit, but for the moments: those are sums, and sums depend on their order."""
    for layer in LAYERS:
        tables = first.tables(layer)
        for name, table in second.tables(layer).items():
            assert pl.from_arrow(table).equals(pl.from_arrow(tables[name])), f"{name} of {layer}"
        assert_same_moments(first.moments(layer), second.moments(layer))


def assert_same_moments(first: pa.Table, second: pa.Table) -> None:
    """Counts, shares and maxima exactly; a mean within 1e-5 of the root mean square, and a sum of
    squared deviations within 1e-5 of the sum of squares."""
    for role in ROLES:
        a, b = (
            {name: table[f"{name}_{role}"].to_numpy() for name in ("n", "mean", "m2", "max")}
            for table in (first, second)
        )
        positive = [table[f"positive_{role}"].to_numpy() for table in (first, second)]
        np.testing.assert_array_equal(a["n"], b["n"])
        np.testing.assert_array_equal(a["max"], b["max"])
        np.testing.assert_allclose(*positive, rtol=1e-12)
        squares = a["m2"] + a["n"] * a["mean"] ** 2
        assert (np.abs(a["mean"] - b["mean"]) <= 1e-5 * np.sqrt(squares / a["n"])).all()
        assert (np.abs(a["m2"] - b["m2"]) <= 1e-5 * squares).all()


@pytest.fixture(scope="module")
def described(subject: Subject, tmp_path_factory: pytest.TempPathFactory) -> Described:
    folder = tmp_path_factory.mktemp("talkative")
    return describe(
        subject, Talkative(count=45, seed=6), folder, DescribeSettings(text_source="given")
    )


@pytest.fixture(scope="module")
def once(
    subject: Subject, described: Described, tmp_path_factory: pytest.TempPathFactory
) -> Captured:
    folder = tmp_path_factory.mktemp("once")
    return Captured(capture(subject, described, LAYERS, SETTINGS, folder))


@pytest.fixture
def captured(
    subject: Subject, described: Described, tmp_path: Path
) -> Callable[[CaptureSettings], Captured]:
    return lambda settings: Captured(capture(subject, described, LAYERS, settings, tmp_path))


def test_the_record_is_of_neurons_that_differ(once):
    """Else sameness would show nothing."""
    for layer in LAYERS:
        tables = once.tables(layer)
        chosen = {tuple(ids) for ids in tables["exemplars"]["sample_id"].to_pylist()}
        assert len(chosen) > 400
        assert len(set(tables["types"]["type"].to_pylist())) >= 3


@pytest.mark.parametrize("shards", [2, 5])
@pytest.mark.parametrize("batch_size", [1, 16])
def test_shards_and_batches_change_nothing(captured, once, shards, batch_size):
    assert_same(captured(replace(SETTINGS, shards=shards, batch_size=batch_size)), once)


@pytest.mark.parametrize("batch_size", [1, 7])
def test_the_batch_size_alone_changes_nothing(captured, once, batch_size):
    assert_same(captured(replace(SETTINGS, batch_size=batch_size)), once)


def test_the_order_of_the_samples_changes_nothing(subject, described, once, tmp_path):
    (plan,) = plan_shards(described.descriptions, LAYERS, SETTINGS, 512)
    order = np.random.default_rng(3).permutation(plan.sample_ids).tolist()
    halves = [replace(plan, sample_ids=tuple(ids)) for ids in (order[:20], order[20:])]
    shards = [capture_one(subject, described, half, tmp_path / "shards") for half in halves]
    assert_same(Captured(merge(shards, LAYERS, TOP_N, tmp_path)), once)


def test_images_that_are_opened_by_other_threads_change_nothing(captured, once):
    assert_same(captured(replace(SETTINGS, image_threads=3)), once)


def test_a_machine_without_the_compiler_records_the_same(captured, once, monkeypatch):
    monkeypatch.setattr("neuron_atlas.tasks.capture.observe._COMPILED", False)
    assert_same(captured(SETTINGS), once)


def test_running_out_of_memory_halves_the_batch_and_changes_nothing(
    captured, once, monkeypatch, caplog
):
    tried = []

    def observe_at_most_five(record, activations, batch):
        tried.append(len(batch))
        if len(batch) > 5 and len(tried) > 1:  # In the second layer: the first is recorded.
            raise torch.OutOfMemoryError("no room")
        observe(record, activations, batch)

    monkeypatch.setattr("neuron_atlas.tasks.capture.capture.observe", observe_at_most_five)
    assert_same(captured(SETTINGS), once)
    assert tried[0] > 5
    assert max(tried[-20:]) <= 4
    assert "out of memory: capture continues with batches of 8" in caplog.text
    assert "out of memory: capture continues with batches of 4" in caplog.text


def test_a_sample_that_does_not_fit_alone_is_an_error_that_says_what_to_do(captured, monkeypatch):
    def observe_nothing(record, activations, batch):
        raise torch.OutOfMemoryError("no room")

    monkeypatch.setattr("neuron_atlas.tasks.capture.capture.observe", observe_nothing)
    with pytest.raises(SubjectError, match=r"batch of one sample; lower capture\.top_n"):
        captured(SETTINGS)


def test_a_shard_that_is_delivered_twice_changes_nothing(subject, described, once, tmp_path):
    plans = plan_shards(described.descriptions, LAYERS, replace(SETTINGS, shards=2), 512)
    shards = [capture_one(subject, described, plan, tmp_path / "shards") for plan in plans]
    before = {path: path.stat().st_mtime_ns for path in shards[0].iterdir()}
    again = capture_one(subject, described, plans[0], tmp_path / "shards")
    assert {path: path.stat().st_mtime_ns for path in shards[0].iterdir()} == before
    assert sorted(path.name for path in again.parent.iterdir()) == sorted(s.name for s in shards)
    assert_same(Captured(merge([*shards, again], LAYERS, TOP_N, tmp_path / "merged")), once)
