import numpy as np
import pyarrow as pa
import pytest
import torch

from tasks.artifacts import TRACES
from tasks.capture.capture import batches
from tasks.capture.recorder import PADDING_STEP, collate, padded_length
from tasks.capture.shard import layer_tables
from tasks.subject.encode import TEMPLATE, TEXT, VISUAL
from tests.tasks.capture.made_up import CPU, NEURONS, counts, make_up, ranked, record

SAMPLES = [make_up(sample_id) for sample_id in (40, 3, 17, 8, 25, 2, 31, 12, 60, 5, 33, 48)]
RANDOM_IDS = [3, 25, 48]
TOP_N = 5


def tables(batch_size: int, top_n: int = TOP_N) -> dict[str, pa.Table]:
    recorder = record(SAMPLES, top_n, RANDOM_IDS, batch_size)
    return {spec.name: table for spec, table in layer_tables(4, recorder, counts(SAMPLES))}


@pytest.fixture(scope="module", params=[1, 2, 12])
def recorded(request: pytest.FixtureRequest) -> dict[str, pa.Table]:
    return tables(request.param)


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


def test_the_traces_are_the_activations_of_every_exemplar_at_its_own_tokens(recorded):
    by_id = {sample.sample_id: sample for sample in SAMPLES}
    rows = recorded["traces"].to_pylist()
    for row in rows:
        sample = by_id[row["sample_id"]]
        assert sample is ranked(SAMPLES, row["neuron"], TOP_N)[row["rank"]]
        assert row["visual"] == sample.visual[:, row["neuron"]].tolist()
        assert row["text"] == sample.text[:, row["neuron"]].tolist()
    keys = [(row["neuron"], row["rank"]) for row in rows]
    assert keys == [(neuron, rank) for neuron in range(NEURONS) for rank in range(TOP_N)]
    assert recorded["traces"].schema.names == TRACES.schema.names


def test_the_random_samples_are_kept_for_every_neuron_whatever_they_excite(recorded):
    by_id = {sample.sample_id: sample for sample in SAMPLES}
    rows = recorded["random_traces"].to_pylist()
    expected = [(neuron, sample_id) for neuron in range(NEURONS) for sample_id in RANDOM_IDS]
    assert [(row["neuron"], row["sample_id"]) for row in rows] == expected
    for row in rows:
        assert row["visual"] == by_id[row["sample_id"]].visual[:, row["neuron"]].tolist()
        assert row["text"] == by_id[row["sample_id"]].text[:, row["neuron"]].tolist()


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


def test_fewer_samples_than_slots_leave_empty_slots_and_no_traces():
    recorded = tables(batch_size=4, top_n=20)
    for row in recorded["exemplars"].to_pylist():
        assert row["sample_id"][12:] == [-1] * 8
        assert row["peak_role"][12:] == row["peak_token"][12:] == [-1] * 8
        assert np.isnan(row["peak"][12:]).all()
    assert len(recorded["traces"]) == NEURONS * 12


def test_a_sample_that_overflows_is_no_exemplar_of_anything():
    broken = make_up(1)
    broken.activations[3] = np.nan
    recorder = record([*SAMPLES, broken], TOP_N, [], batch_size=4)
    (_, exemplars), *_ = layer_tables(4, recorder, counts([*SAMPLES, broken]))
    assert exemplars["sample_id"].to_pylist() == [
        [sample.sample_id for sample in ranked(SAMPLES, neuron, TOP_N)] for neuron in range(NEURONS)
    ]


def test_a_batch_is_padded_on_the_right_and_padding_has_no_role():
    group = [sample.encoded for sample in SAMPLES if padded_length(sample.encoded) == 16][:3]
    batch = collate([7, 8, 9], group, CPU)
    assert batch.inputs["input_ids"].shape == (3, 16)
    for row, encoded in enumerate(group):
        length = len(encoded.input_ids)
        assert batch.inputs["input_ids"][row, :length].tolist() == encoded.input_ids.tolist()
        member = batch.membership.reshape(3, 3, 16)[:, row]
        assert member[:, :length].argmax(0).tolist() == encoded.roles.tolist()
        assert member.sum(0).tolist() == [1] * length + [0] * (16 - length)
    assert batch.sample_ids.tolist() == [7, 8, 9]


def test_the_padded_length_is_the_samples_own():
    for sample in SAMPLES:
        padded = padded_length(sample.encoded)
        assert padded % PADDING_STEP == 0
        assert 0 <= padded - len(sample.encoded.input_ids) < PADDING_STEP


@pytest.mark.parametrize("size", [1, 3, 100])
def test_batches_hold_every_sample_once_with_others_of_its_padded_length(size):
    stream = [(sample.sample_id, sample.encoded) for sample in SAMPLES]
    lengths = {sample.sample_id: padded_length(sample.encoded) for sample in SAMPLES}
    seen = list(batches(stream, size, CPU))
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


def test_traces_are_kept_in_half_precision_and_peaks_in_full():
    sample = make_up(9)
    sample.activations[:] = 1 + 2**-20
    recorder = record([sample], 1, [], batch_size=1)
    assert recorder.traces.dtype == torch.float16
    (_, exemplars), (_, traces), *_ = layer_tables(4, recorder, counts([sample]))
    assert exemplars["peak"][0].as_py() == [1 + 2**-20]
    assert traces["visual"][0].as_py()[0] == 1
