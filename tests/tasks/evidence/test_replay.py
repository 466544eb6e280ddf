"""Replayed traces are those of a forward pass, however the samples are cut, batched and ordered."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import numpy as np
import pyarrow as pa
import pytest
import torch

from neuron_atlas.tasks.artifacts import CHOSEN, EVIDENCE, read_table
from neuron_atlas.tasks.capture.settings import CaptureSettings
from neuron_atlas.tasks.evidence.replay import ORDER, replay
from neuron_atlas.tasks.evidence.wanted import Wanted
from neuron_atlas.tasks.samples.catalog import Catalog
from neuron_atlas.tasks.samples.scenes import Scenes
from neuron_atlas.tasks.samples.source import OpenedImage, SampleRecord
from neuron_atlas.tasks.subject.batch import forward_body
from neuron_atlas.tasks.subject.batches import collate
from neuron_atlas.tasks.subject.encode import TEXT, VISUAL, encode
from neuron_atlas.tasks.subject.hook_points import decoder_layers, observing
from neuron_atlas.tasks.subject.load import Subject
from neuron_atlas.tasks.subject.settings import DescribeSettings, SubjectError
from tests.one_process import capture, describe, replay_evidence

LAYERS = (0, 2)
NEURONS = 512


@dataclass(frozen=True)
class Captions(Scenes):
    """Scenes with two texts each, of different lengths; counts how often each image is opened."""

    opened: Counter = field(default_factory=Counter, compare=False)

    def records(self) -> Iterator[SampleRecord]:
        for number, record in enumerate(super().records()):
            sentences = record.text.split(". ")
            for part in (sentences[: 1 + number % 3], sentences[-1:]):
                text = ". ".join(part).rstrip(".") + "."
                yield replace(record, source_id=f"{record.source_id} {len(part)}", text=text)

    def open_image(self, image: str) -> OpenedImage:
        self.opened[image] += 1
        return super().open_image(image)


@pytest.fixture(scope="module")
def source() -> Captions:
    return Captions(count=20, seed=6)


@pytest.fixture(scope="module")
def catalog(subject: Subject, source: Captions, tmp_path_factory) -> Catalog:
    folder = tmp_path_factory.mktemp("captions")
    return describe(subject, source, folder, DescribeSettings(text_source="given")).catalog()


@pytest.fixture(scope="module")
def chosen(catalog: Catalog) -> pa.Table:
    """Rows of some neurons at some samples, in any order; not every sample in every layer."""
    rng = np.random.default_rng(4)
    rows = []
    for layer in LAYERS:
        for neuron in rng.choice(NEURONS, 30, replace=False).tolist():
            for rank, sample_id in enumerate(rng.choice(sorted(catalog.samples), 7, replace=False)):
                rows.append(
                    {"layer": layer, "neuron": neuron, "sample_id": int(sample_id), "rank": rank}
                    | {"purpose": "scorer", "stratum": "exemplar", "weight": 1.0}
                )
    order = rng.permutation(len(rows))
    return pa.Table.from_pylist([rows[place] for place in order], schema=CHOSEN.schema)


@pytest.fixture(scope="module")
def replayed(subject: Subject, chosen: pa.Table, catalog: Catalog) -> pa.Table:
    return replay(subject, chosen, catalog, "gate", 16)


def activations(subject, inputs, hook_point) -> dict[int, torch.Tensor]:
    seen: dict[int, torch.Tensor] = {}
    with (
        torch.inference_mode(),
        observing(subject, LAYERS, hook_point, lambda layer, one: seen.update({layer: one})),
    ):
        forward_body(subject, inputs)
    return seen


@pytest.mark.parametrize("hook_point", ["gate", "gate_up"])
def test_a_trace_is_what_the_neuron_gives_in_a_forward_pass(subject, chosen, catalog, hook_point):
    rows = replay(subject, chosen, catalog, hook_point, 16).to_pylist()
    assert len(rows) == len(chosen)
    by_sample: dict[int, list[dict]] = {}
    for row in rows:
        by_sample.setdefault(row["sample_id"], []).append(row)
    for sample_id, mine in by_sample.items():
        encoded = encode(subject, catalog.open_images(sample_id), catalog[sample_id].text)
        seen = activations(subject, collate([sample_id], [encoded]).inputs, hook_point)
        for row in mine:
            trace = seen[row["layer"]][0, : len(encoded.roles), row["neuron"]].half().numpy()
            np.testing.assert_array_equal(row["visual"], trace[encoded.roles == VISUAL])
            np.testing.assert_array_equal(row["text"], trace[encoded.roles == TEXT])
            assert len(row["visual"]) == catalog[sample_id].n_visual > 0


def test_rows_are_sorted_and_keep_what_was_chosen(replayed, chosen):
    order = [(name, "ascending") for name in ORDER]
    assert replayed.schema.equals(EVIDENCE.schema)
    assert replayed.select(CHOSEN.schema.names).equals(chosen.sort_by(order))
    assert len({tuple(trace) for trace in replayed["text"].to_pylist()}) > len(chosen) / 2


@pytest.mark.parametrize("batch_size", [1, 5])
def test_the_batch_size_changes_nothing(subject, chosen, catalog, replayed, batch_size):
    assert replay(subject, chosen, catalog, "gate", batch_size).equals(replayed)


def test_images_that_are_opened_by_other_threads_change_nothing(subject, chosen, catalog, replayed):
    assert replay(subject, chosen, catalog, "gate", 4, threads=3).equals(replayed)


def test_shards_and_the_order_of_rows_change_nothing(subject, chosen, catalog, replayed):
    ids = np.random.default_rng(9).permutation(sorted(catalog.samples))
    parts = []
    for some in np.array_split(ids, 3):
        is_mine = np.isin(chosen["sample_id"].to_numpy(), some)
        mine = chosen.filter(pa.array(is_mine))
        parts.append(
            replay(subject, mine.take(pa.array(np.arange(len(mine))[::-1])), catalog, "gate", 4)
        )
    together = pa.concat_tables(parts).sort_by([(name, "ascending") for name in ORDER])
    assert together.equals(replayed)


@pytest.mark.parametrize("threads", [0, 3])
def test_every_image_is_opened_once_and_every_sample_run_once(
    subject, chosen, catalog, source, threads
):
    source.opened.clear()
    counted: list[int] = []
    replay(subject, chosen, catalog, "gate", 4, threads, counted.append)
    samples = set(chosen["sample_id"].to_pylist())
    assert sum(counted) == len(samples)
    images = {name for one in samples for name in catalog[one].images}
    assert len(images) < len(samples)
    assert source.opened == dict.fromkeys(images, 1)


def test_layers_above_the_last_wanted_one_do_not_run(subject, chosen, catalog):
    ran: Counter = Counter()
    layers = list(decoder_layers(subject))
    handles = [
        layer.register_forward_hook(lambda *_, number=number: ran.update([number]))
        for number, layer in enumerate(layers)
    ]
    replay(subject, chosen, catalog, "gate", 16)
    for handle in handles:
        handle.remove()
    assert set(ran) == {0, 1, 2}
    assert list(decoder_layers(subject)) == layers


def test_nothing_chosen_is_nothing_replayed(subject, catalog):
    assert len(replay(subject, CHOSEN.schema.empty_table(), catalog, "gate", 4)) == 0


def test_running_out_of_memory_halves_the_batch_and_changes_nothing(
    subject, chosen, catalog, replayed, monkeypatch, caplog
):
    counted: list[int] = []

    def at_most_two(subject, inputs):
        if len(inputs["input_ids"]) > 2:
            raise torch.OutOfMemoryError("no room")
        forward_body(subject, inputs)

    monkeypatch.setattr("neuron_atlas.tasks.evidence.replay.forward_body", at_most_two)
    assert replay(subject, chosen, catalog, "gate", 8, None, counted.append).equals(replayed)
    assert sum(counted) == len(set(chosen["sample_id"].to_pylist()))
    assert "out of memory: evidence continues with batches of 2" in caplog.text
    monkeypatch.setattr(
        "neuron_atlas.tasks.evidence.replay.forward_body",
        lambda *_: (_ for _ in ()).throw(torch.OutOfMemoryError("no room")),
    )
    with pytest.raises(SubjectError, match=r"batch of one sample; explain fewer neurons"):
        replay(subject, chosen, catalog, "gate", 8)
    assert len(decoder_layers(subject)) == 4


def test_a_sample_with_other_tokens_than_when_it_was_described_is_an_error(
    subject, chosen, catalog
):
    other = {
        one: replace(sample, tokens=(*sample.tokens, "more"))
        for one, sample in catalog.samples.items()
    }
    with pytest.raises(SubjectError, match="when it was described: its image has changed"):
        replay(subject, chosen, replace(catalog, samples=other), "gate", 4)


def test_activations_beyond_float16_are_clipped(subject, chosen, catalog):
    gate = decoder_layers(subject)[0].mlp.gate_proj.weight
    before = gate.detach().clone()
    with torch.no_grad():
        gate.mul_(1e7)
    try:
        table = replay(subject, chosen, catalog, "gate", 16)
    finally:
        with torch.no_grad():
            gate.copy_(before)
    values = np.concatenate(table["visual"].combine_chunks().flatten().to_numpy()[None])
    assert values.max() == np.finfo(np.float16).max
    assert np.isfinite(values).all()


def test_evidence_is_the_same_for_any_shards_and_neurons(subject, tmp_path):
    """From capture to the gathered file, whatever else is replayed with a neuron."""
    described = describe(
        subject, Scenes(count=40, seed=8), tmp_path, DescribeSettings(text_source="given")
    )
    settings = CaptureSettings(top_n=8, shards=1)
    folder, everything = capture(subject, described, [1], settings, tmp_path), described.catalog()
    wanted = Wanted((3, 8, 100), {5: (0, 2)})
    once = read_table(replay_evidence(subject, everything, folder, 1, wanted), EVIDENCE)
    ids = sorted(everything.samples)
    other = replay_evidence(
        subject, everything, folder, 1, wanted, batch_size=3, shards=[ids[1::2], ids[::2]]
    )
    assert read_table(other, EVIDENCE).equals(once)
    for alone in (Wanted((8,)), Wanted((), {5: (0, 2)})):
        path = replay_evidence(subject, everything, folder, 1, alone)
        (neuron,) = alone.neurons
        assert read_table(path, EVIDENCE).equals(read_table(other, EVIDENCE, neurons=[neuron]))
