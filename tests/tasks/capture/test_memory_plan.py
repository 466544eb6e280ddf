import pytest
import torch

from neuron_atlas.tasks.capture.memory_plan import (
    Demand,
    MemoryPlan,
    MemoryPlanError,
    plan_memory,
    record_bytes,
)
from neuron_atlas.tasks.capture.record import empty_record

GB = 10**9
ONE_DEVICE = dict.fromkeys(range(4), "cuda:0")
DEMAND = Demand(weights=14 * GB, work=2 * GB, record=GB // 4, layers=4)


def plan(device: float) -> MemoryPlan:
    return plan_memory(DEMAND, 16, {"cuda:0": int(device * GB / 0.9)}, ONE_DEVICE)


def test_the_records_and_a_batch_lie_beside_the_weights():
    assert plan(3.01).batch_size == 16
    assert str(plan(3.01)) == ("weights 14.0 GB, records of 4 layers 1.0 GB, batch of 16 2.0 GB")


def test_a_tenth_of_what_is_free_is_left_to_the_allocator():
    with pytest.raises(MemoryPlanError):
        plan(3.01 * 0.9)


def test_a_capture_that_does_not_fit_says_what_would():
    expected = "a batch of 16 needs 2.0 GB and the records 1.0 GB.*capture.batch_size"
    with pytest.raises(MemoryPlanError, match=expected):
        plan(2.9)


def test_layers_of_a_subject_that_is_spread_have_the_room_of_their_own_device():
    places = {0: "cuda:0", 1: "cuda:0", 2: "cuda:0", 3: "cuda:1"}
    free = {"cuda:0": int(2.76 * GB / 0.9), "cuda:1": int(2.26 * GB / 0.9)}
    plan_memory(DEMAND, 16, free, places)
    with pytest.raises(MemoryPlanError, match="free on cuda:1"):
        plan_memory(DEMAND, 16, free | {"cuda:1": GB}, places)


def test_the_records_of_a_7b_take_at_most_three_gigabytes():
    """32 layers of 11,008 neurons, the top 50, in half precision: whatever the tokens a sample."""
    layers, neurons = 32, 11_008
    assert layers * record_bytes(neurons, 50, 8, activation_bytes=2) <= 3 * GB
    assert record_bytes(neurons, 50, 8, 4) - record_bytes(neurons, 50, 8, 2) == neurons * 50 * 32


@pytest.mark.parametrize("top_activations", [1, 8])
def test_the_bytes_of_a_record_are_those_of_its_tensors(top_activations):
    record = empty_record(
        20, 5, torch.device("cpu"), top_activations=top_activations, dtype=torch.float16
    )
    parts = [record.keys, record.peak_positions, *vars(record.slots).values()]
    parts += vars(record.statistics).values()
    total = sum(part.nbytes for part in parts) - record.statistics.tokens.nbytes
    assert total == record_bytes(20, 5, top_activations, 2)
