import pyarrow as pa
import pytest

from neuron_atlas.tasks.capture.settings import CaptureSettings
from neuron_atlas.tasks.capture.shard_plan import ShardPlan, plan_shards

PARAMETERS = 1_500_000


def descriptions(statuses: dict[int, str]) -> pa.Table:
    return pa.table(
        {
            "sample_id": pa.array(list(statuses), pa.int32()),
            "n_visual": [64 if status != "empty_text" else 0 for status in statuses.values()],
            "n_text": [10 + sample_id % 7 for sample_id in statuses],
            "status": list(statuses.values()),
        }
    )


def plans(
    samples: int, shards: int | None = None, parameters: int = PARAMETERS, **settings: int
) -> list[ShardPlan]:
    table = descriptions(dict.fromkeys(range(samples), "ok"))
    return plan_shards(table, [0, 3], CaptureSettings(shards=shards, **settings), parameters)


@pytest.mark.parametrize(("samples", "shards"), [(10, 1), (10, 3), (11, 5), (100, 7), (4, 4)])
def test_shards_hold_every_sample_once_in_order_and_are_of_nearly_equal_size(samples, shards):
    cut = plans(samples, shards)
    assert [i for plan in cut for i in plan.sample_ids] == list(range(samples))
    sizes = [len(plan.sample_ids) for plan in cut]
    assert len(sizes) == shards
    assert max(sizes) - min(sizes) <= 1


def test_there_are_never_more_shards_than_samples():
    assert [plan.sample_ids for plan in plans(2, 50)] == [(0,), (1,)]


@pytest.mark.parametrize(
    ("samples", "shards"), [(1, 1), (399, 1), (400, 2), (800, 4), (1_000, 4), (30_000, 4)]
)
def test_a_small_dataset_has_two_shards_for_each_of_two_actors(samples, shards):
    assert len(plans(samples)) == shards


def test_with_fewer_exemplars_a_shard_may_have_fewer_samples():
    assert len(plans(400, top_n=12)) == 4


@pytest.mark.parametrize(
    ("samples", "parameters", "shards"),
    [
        # 77 tokens a sample: 2e12 tokens times parameters a shard on a CPU, 3e16 on a GPU.
        (4_000, 70_000_000, 11),
        (4_000, 7_000_000_000, 4),
        (200_000, 7_000_000_000, 4),
        (1_000_000, 7_000_000_000, 18),
    ],
)
def test_a_shard_takes_about_five_minutes(samples, parameters, shards):
    assert len(plans(samples, parameters=parameters)) == shards


def test_only_samples_with_a_text_are_captured():
    statuses = {4: "ok", 1: "truncated", 2: "empty_text", 0: "ok"}
    (plan,) = plan_shards(descriptions(statuses), [0], CaptureSettings(), PARAMETERS)
    assert plan.sample_ids == (0, 1, 4)
    assert plan.max_text == 14


def test_without_a_usable_sample_there_is_no_shard():
    assert plan_shards(descriptions({0: "empty_text"}), [0], CaptureSettings(), PARAMETERS) == []


def test_a_shard_has_room_for_its_own_longest_sample():
    first, second = plans(4, 2)
    assert (first.max_visual, first.max_text) == (64, 11)
    assert second.max_text == 13
    assert first.layers == second.layers == (0, 3)


def test_a_shards_name_tells_its_samples():
    names = [plan.name for plan in plans(600, 5)]
    assert len(set(names)) == 5
    assert names[0].startswith("shard-00000000-00000119-")
    without_one = descriptions({i: "ok" for i in range(120) if i != 60})
    (other,) = plan_shards(without_one, [0], CaptureSettings(shards=1), PARAMETERS)
    assert other.name.startswith("shard-00000000-00000119-")
    assert other.name != names[0]
    assert [plan.name for plan in plans(600, 5)] == names


@pytest.mark.parametrize("layers", [(), (0, -1)])
def test_layers_that_cannot_be_are_refused(layers):
    with pytest.raises(ValueError, match=r"^layers: give at least one layer, each 0 or above"):
        CaptureSettings(layers=layers)


def test_a_shard_is_named_by_its_layers_too():
    table = descriptions(dict.fromkeys(range(10), "ok"))
    names = {
        plan_shards(table, layers, CaptureSettings(), PARAMETERS)[0].name
        for layers in ([0], [0, 1], [1])
    }
    assert len(names) == 3
