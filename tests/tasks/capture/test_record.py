from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
import torch

from neuron_atlas.tasks.artifacts import slot_values
from neuron_atlas.tasks.artifacts.histogram import BINS, BLOCKS, bin_edges, block_of
from neuron_atlas.tasks.capture import observe_compiled, observe_torch
from neuron_atlas.tasks.capture.record import empty_record
from neuron_atlas.tasks.capture.record_tables import layer_tables
from neuron_atlas.tasks.subject.batches import (
    PADDING,
    PADDING_STEP,
    Batch,
    batches,
    collate,
    padded_length,
)
from neuron_atlas.tasks.subject.encode import TEMPLATE, TEXT, VISUAL
from tests.tasks.capture.synthetic import CPU, NEURONS, batched, make_sample, ranked, record
from tests.tasks.exemplars import exemplar_table

SAMPLES = [make_sample(sample_id) for sample_id in (40, 3, 17, 8, 25, 2, 31, 12, 60, 5, 33, 48)]
TOP_N = 5


OBSERVERS = {"compiled": observe_compiled.observe, "torch": observe_torch.observe}


def tables(batch_size: int, top_n: int = TOP_N, observer: str = "compiled") -> dict[str, pa.Table]:
    mine = record(SAMPLES, top_n, batch_size, OBSERVERS[observer])
    return {spec.name: table for spec, table in layer_tables(4, mine)}


@pytest.fixture(scope="module", params=["1 compiled", "2 torch", "12 compiled", "12 torch"])
def recorded(request: pytest.FixtureRequest) -> dict[str, pa.Table]:
    batch_size, observer = request.param.split()
    return tables(int(batch_size), observer=observer)


def test_the_exemplars_are_the_samples_that_excite_a_neuron_most(recorded):
    for row in recorded["exemplars"].to_pylist():
        best = ranked(SAMPLES, row["neuron"], TOP_N)
        assert row["sample_id"] == [sample.sample_id for sample in best]
        assert row["peak"] == [sample.peak[row["neuron"]] for sample in best]
        assert row["layer"] == 4


def test_the_peaks_place_is_the_first_token_of_its_role_that_reaches_it(recorded):
    by_id = {sample.sample_id: sample for sample in SAMPLES}
    roles = set()
    for row in recorded["exemplars"].to_pylist():
        places = zip(
            row["sample_id"], row["peak"], row["peak_role"], row["peak_token"], strict=True
        )
        for sample_id, peak, role, token in places:
            values = (by_id[sample_id].visual, by_id[sample_id].text)[role][:, row["neuron"]]
            assert values[token] == peak
            assert token == values.argmax()
            roles.add(role)
    assert roles == {VISUAL, TEXT}


@pytest.mark.parametrize("observer", OBSERVERS)
@pytest.mark.parametrize("top_activations", [1, 3, 8])
def test_a_slot_says_what_all_activations_of_its_sample_do(observer, top_activations):
    """Fewer tokens than top_activations, ties, infinite and NaN activations included."""
    samples = [make_sample(sample_id) for sample_id in range(30)]
    samples += [make_sample(sample_id, silent=True) for sample_id in range(30, 34)]
    rng = np.random.default_rng(3)
    for sample in samples[::2]:
        spoilt = rng.random(sample.activations.shape) < 0.2
        wrong = np.float32([np.nan, np.inf, -np.inf])
        sample.activations[spoilt] = rng.choice(wrong, spoilt.sum())
    mine = record(samples, TOP_N, 3, OBSERVERS[observer], top_activations)
    _, table = layer_tables(4, mine)[0]
    by_id = {sample.sample_id: sample for sample in samples}
    of = {
        neuron: [
            (sample_id, by_id[sample_id].visual[:, neuron], by_id[sample_id].text[:, neuron])
            for sample_id in ids
        ]
        for neuron, ids in enumerate(table["sample_id"].to_pylist())
    }
    expected = exemplar_table(of, 4, top_activations)
    np.testing.assert_equal(table.to_pydict(), expected.to_pydict())
    assert np.isnan(slot_values(table, "text_top")).any()


@pytest.mark.parametrize("observer", OBSERVERS)
def test_a_short_sample_leaves_nothing_of_the_longer_one_that_it_replaces(observer):
    mine = empty_record(1, 1, CPU, top_activations=20)
    for number, (tokens, value) in enumerate(((24, 1.0), (8, 5.0))):
        roles = torch.full((1, tokens), VISUAL, dtype=torch.int8)
        ids = torch.tensor([number])
        batch = Batch((number,), {}, roles, ids, torch.zeros_like(ids))
        OBSERVERS[observer](mine, torch.full((1, tokens, 1), value), batch)
    assert mine.slots.top[VISUAL, 0, 0].tolist() == [5.0] * 8 + [-np.inf] * 12


def test_moments_tell_the_roles_apart_and_leave_padding_out(recorded):
    moments = recorded["moments"]
    tokens = np.concatenate([sample.activations for sample in SAMPLES])
    roles = np.concatenate([sample.encoded.roles.numpy() for sample in SAMPLES])
    for role, name in ((VISUAL, "visual"), (TEXT, "text"), (TEMPLATE, "template")):
        values = tokens[roles == role].astype(np.float64)
        assert set(moments[f"n_{name}"].to_pylist()) == {len(values)}
        np.testing.assert_allclose(moments[f"mean_{name}"], values.mean(0), rtol=1e-5)
        np.testing.assert_allclose(moments[f"m2_{name}"], values.var(0) * len(values), rtol=1e-4)
        np.testing.assert_array_equal(moments[f"max_{name}"], values.max(0))
        np.testing.assert_allclose(moments[f"positive_{name}"], (values > 0).mean(0))


def test_fewer_samples_than_slots_leave_empty_slots():
    recorded = tables(batch_size=4, top_n=20)
    for row in recorded["exemplars"].to_pylist():
        assert row["sample_id"][12:] == [-1] * 8
        assert row["peak_role"][12:] == row["peak_token"][12:] == [-1] * 8
        assert np.isnan(row["peak"][12:]).all()


def test_every_visual_and_text_activation_is_counted_in_its_bin_and_block(recorded):
    for role in ("visual", "text"):
        expected = np.zeros((NEURONS, BLOCKS, BINS), np.int64)
        for sample in SAMPLES:
            (block,) = block_of(np.array([sample.sample_id]))
            bins = np.searchsorted(bin_edges(), getattr(sample, role), side="right") - 1
            for neuron in range(NEURONS):
                expected[neuron, block] += np.bincount(bins[:, neuron], minlength=BINS)
        rows = recorded["histograms"][role].to_pylist()
        np.testing.assert_array_equal(rows, expected.reshape(NEURONS, -1))


@pytest.mark.parametrize("observer", OBSERVERS)
def test_bins_are_told_apart_to_the_last_bit(observer):
    edges = bin_edges()[1:].astype(np.float32)
    values = np.concatenate([edges, np.nextafter(edges, 0, dtype=np.float32), -edges, [0, 3e38]])
    sample = replace(make_sample(8), activations=np.zeros((len(values) + 1, NEURONS), np.float32))
    sample.activations[1:] = values[:, None]
    roles = torch.tensor([TEMPLATE] + [TEXT] * len(values), dtype=torch.int8)
    encoded = replace(
        sample.encoded, input_ids=torch.ones(len(roles), dtype=torch.int64), roles=roles
    )
    mine = empty_record(NEURONS, 1, CPU)
    activations = torch.full((1, padded_length(encoded), NEURONS), 7.0)
    activations[0, : len(roles)] = torch.from_numpy(sample.activations)
    OBSERVERS[observer](mine, activations, collate([8], [encoded]))
    bins = np.searchsorted(bin_edges(), values, side="right") - 1
    (block,) = block_of(np.array([8]))
    counted = mine.statistics.histogram[TEXT, :, 0].reshape(BLOCKS, BINS)[block]
    assert counted.tolist() == np.bincount(bins, minlength=BINS).tolist()


@pytest.mark.parametrize("observer", OBSERVERS)
def test_what_is_no_finite_number_is_left_out_and_counted(observer):
    broken = make_sample(1)
    visual = np.flatnonzero(broken.encoded.roles.numpy() == VISUAL)
    for token, value in zip(visual[:3], (np.nan, np.inf, -np.inf), strict=True):
        broken.activations[token] = value
    left = broken.activations[[*visual[3:], *np.flatnonzero(broken.encoded.roles == TEXT)]]
    mine = record([broken], 1, batch_size=1, take_in=OBSERVERS[observer])
    (_, exemplars), (_, moments), _ = layer_tables(4, mine)
    assert np.ravel(exemplars["peak"].to_pylist()).tolist() == left.max(0).tolist()
    finite = broken.activations[visual[3:]].astype(np.float64)
    assert moments["nonfinite_visual"].to_pylist() == [3] * NEURONS
    assert moments["n_visual"].to_pylist() == [len(finite)] * NEURONS
    np.testing.assert_allclose(moments["mean_visual"], finite.mean(0), rtol=1e-6)
    np.testing.assert_allclose(moments["m2_visual"], finite.var(0) * len(finite), rtol=1e-5)
    np.testing.assert_array_equal(moments["max_visual"], finite.max(0))
    assert mine.statistics.histogram[VISUAL].sum(0).tolist() == [len(finite)] * NEURONS


@pytest.mark.parametrize("observer", OBSERVERS)
@pytest.mark.parametrize("role", [VISUAL, TEXT])
def test_samples_can_be_ranked_by_their_tokens_of_one_role_alone(observer, role):
    mine = empty_record(NEURONS, TOP_N, CPU, peak_roles=(role,))
    for activations, batch in batched(SAMPLES, 4):
        OBSERVERS[observer](mine, activations, batch)
    (_, exemplars), *_ = layer_tables(4, mine)
    for row in exemplars.to_pylist():
        peaks = {
            sample.sample_id: (sample.visual, sample.text)[role][:, row["neuron"]].max()
            for sample in SAMPLES
        }
        best = sorted(peaks, key=lambda sample_id: (-peaks[sample_id], sample_id))[:TOP_N]
        assert row["sample_id"] == best
        assert row["peak"] == [peaks[sample_id] for sample_id in best]
        assert set(row["peak_role"]) == {role}


@pytest.mark.parametrize("observer", OBSERVERS)
def test_a_sample_without_a_token_of_the_roles_is_no_exemplar(observer):
    mute = make_sample(1, silent=True)
    mine = empty_record(NEURONS, TOP_N, CPU, peak_roles=(TEXT,))
    for activations, batch in batched([mute, *SAMPLES[:2]], 3):
        OBSERVERS[observer](mine, activations, batch)
    kept = {sample.sample_id for sample in SAMPLES[:2]}
    assert {*mine.slot_samples().flatten().tolist()} == {*kept, -1}


def test_a_batch_is_padded_on_the_right_and_padding_has_no_role():
    group = [sample.encoded for sample in SAMPLES if padded_length(sample.encoded) == 16][:3]
    batch = collate([7, 8, 9], group)
    assert batch.inputs["input_ids"].shape == (3, 16)
    for row, encoded in enumerate(group):
        length = len(encoded.input_ids)
        assert batch.inputs["input_ids"][row, :length].tolist() == encoded.input_ids.tolist()
        assert batch.roles[row, :length].tolist() == encoded.roles.tolist()
        assert set(batch.roles[row, length:].tolist()) <= {PADDING}
    assert batch.sample_ids.tolist() == [7, 8, 9]
    assert batch.ids == (7, 8, 9)


def test_the_padded_length_is_the_samples_own():
    for sample in SAMPLES:
        padded = padded_length(sample.encoded)
        assert padded % PADDING_STEP == 0
        assert 0 <= padded - len(sample.encoded.input_ids) < PADDING_STEP


@pytest.mark.parametrize("size", [1, 3, 100])
def test_batches_hold_every_sample_once_with_others_of_its_padded_length(size):
    stream = [(sample.sample_id, sample.encoded) for sample in SAMPLES]
    lengths = {sample.sample_id: padded_length(sample.encoded) for sample in SAMPLES}
    seen = list(batches(stream, size))
    ids = [sample_id for batch in seen for sample_id in batch.sample_ids.tolist()]
    assert sorted(ids) == sorted(lengths)
    for batch in seen:
        assert len(batch.sample_ids) <= size
        assert {lengths[sample_id] for sample_id in batch.sample_ids.tolist()} == {
            batch.inputs["input_ids"].shape[1]
        }
    assert len(seen) == sum(
        -(-list(lengths.values()).count(length) // size) for length in set(lengths.values())
    )
    assert len(set(lengths.values())) > 1


def test_samples_of_a_rare_length_do_not_wait_for_the_end():
    encoded = {padded_length(sample.encoded): sample.encoded for sample in SAMPLES}
    short, long = (encoded[length] for length in (min(encoded), max(encoded)))
    lengths = [
        replace(long, input_ids=torch.ones(200 - 8 * i, dtype=torch.int64)) for i in range(9)
    ]
    stream = iter([(number, sample) for number, sample in enumerate([*lengths, short])])
    first = next(batches(stream, 4))
    assert first.ids == (0,)
    assert next(stream)[0] < 9


def test_peaks_and_highest_activations_are_kept_in_full_precision():
    sample = make_sample(9)
    sample.activations[:] = 1 + 2**-20
    (_, exemplars), *_ = layer_tables(4, record([sample], 1, batch_size=1))
    assert exemplars["peak"][0].as_py() == [1 + 2**-20]
    assert exemplars["visual_top"][0].as_py()[0] == 1 + 2**-20
