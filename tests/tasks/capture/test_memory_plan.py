import pytest

from neuron_atlas.tasks.capture.memory_plan import (
    Demand,
    MemoryPlan,
    MemoryPlanError,
    Pass,
    plan_memory,
)

GB = 10**9
ONE_DEVICE = dict.fromkeys(range(4), "cuda:0")
DEMAND = Demand(weights=14 * GB, work=2 * GB, ranking=GB // 4, traces=dict.fromkeys(range(4), GB))


def plan(device: float, host: float) -> MemoryPlan:
    free = {"cuda:0": int(device * GB / 0.9)}
    return plan_memory(DEMAND, 16, free, ONE_DEVICE, int(host * GB / 0.9))


def passes(device: float, host: float) -> tuple[Pass, ...]:
    return plan(device, host).passes


def test_all_traces_lie_beside_the_subject_where_they_fit():
    assert passes(device=7.1, host=0) == (Pass((0, 1, 2, 3), ()),)


def test_what_does_not_fit_beside_the_subject_goes_to_host_memory():
    assert passes(device=5.1, host=9) == (Pass((0, 1), (2, 3)),)
    assert passes(device=3.1, host=9) == (Pass((), (0, 1, 2, 3)),)


def test_what_fits_nowhere_is_replayed_by_as_few_passes_as_do():
    assert passes(device=5.1, host=0) == (Pass((0, 1), ()), Pass((2, 3), ()))
    assert passes(device=4.1, host=1.1) == (Pass((0,), (1,)), Pass((2,), (3,)))
    assert passes(device=4.1, host=0) == tuple(Pass((layer,), ()) for layer in range(4))


def test_a_tenth_of_what_is_free_is_left_to_the_allocator():
    assert len(passes(device=7 * 0.9, host=0)) == 2


def test_layers_of_a_subject_that_is_spread_have_the_room_of_their_own_device():
    places = {0: "cuda:0", 1: "cuda:0", 2: "cuda:1", 3: "cuda:1"}
    free = {"cuda:0": int(3.6 * GB / 0.9), "cuda:1": int(9 * GB / 0.9)}
    spread = plan_memory(DEMAND, 16, free, places, 0)
    assert spread.passes == (Pass((0, 2, 3), ()), Pass((1,), ()))
    with pytest.raises(MemoryPlanError, match="free on cuda:1"):
        plan_memory(DEMAND, 16, free | {"cuda:1": GB}, places, 0)


@pytest.mark.parametrize(
    ("device", "said"),
    [
        (2.9, "a batch of 16 needs 2.0 GB and the rankings 1.0 GB.*capture.batch_size"),
        (3.5, "the traces of layer 0 alone need 1.0 GB.*capture.shards"),
    ],
)
def test_a_capture_that_fits_in_no_way_says_what_would(device, said):
    with pytest.raises(MemoryPlanError, match=said):
        passes(device=device, host=0)


@pytest.mark.parametrize(
    ("device", "host", "said"),
    [
        (9, 0, "traces 4.0 GB (layers: 4 on the device); passes: 1"),
        (
            5.1,
            1.1,
            "(layers: 2 on the device, 1 in host memory, 1 replayed); passes: 2",
        ),
        (4.1, 0, "(layers: 1 on the device, 3 replayed); passes: 4"),
    ],
)
def test_the_plan_says_where_the_traces_go(device, host, said):
    words = str(plan(device, host))
    assert said in words
    assert "weights 14.0 GB, batch of 16 2.0 GB" in words
