"""The benchmark of effects measures every kind of work."""

from bench.effects import measure


def test_every_kind_of_work_is_measured():
    found = measure("bundled", None, 1, 1)
    assert set(found) == {
        "forward_samples_per_s", "attribution_over_forward", "checkpointed_over_forward",
        "ablation_rows_over_forward", "output_neurons_per_s",
    }  # fmt: skip
    assert all(value > 0 for value in found.values())
