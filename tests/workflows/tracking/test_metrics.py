import pytest
from mlflow import MlflowClient
from mlflow.entities import Metric, Param

from neuron_atlas.tasks.models.account.tally import Tally
from neuron_atlas.workflows.tracking.metrics import (
    METRICS_NOTE,
    metric_position,
    spending_metrics,
    valid_name,
)


@pytest.mark.parametrize("stage", ["explain", "simulate"])
def test_what_calls_of_a_stage_cost_is_described(stage):
    groups = {name.split("/")[0] for name in spending_metrics(f"{stage}/gpt4o", Tally())}
    assert [group for group in groups if f"`{group}/" not in METRICS_NOTE] == []


def test_metrics_stand_in_the_order_of_their_description_and_others_last():
    names = ["x/y", "machine/cpu", "explain/gpt4o/usd", "seconds/score", "neurons_share/text"]
    names += ["score/neurons_scored", "score/correlation_of_control", "score/correlation"]
    ordered = sorted(names, key=metric_position)
    assert ordered == [*reversed(names[1:]), "x/y"]


@pytest.mark.parametrize(
    "name", ["simulate.prices.*.date", "explain/a model (old), v=2/usd", "a:b"]
)
def test_mlflow_takes_a_name_with_any_sign_in_it(name, shared_mlflow):
    client = MlflowClient(f"sqlite:///{shared_mlflow / 'mlflow.db'}")
    run = client.create_run("0").info.run_id
    client.log_batch(
        run, metrics=[Metric(valid_name(name), 1.0, 0, 0)], params=[Param(valid_name(name), "x")]
    )
    assert set(client.get_run(run).data.metrics) == {valid_name(name)}


def test_a_name_that_mlflow_takes_stays_as_it_is():
    assert (
        valid_name("score_by_layer/gpt-4o/chat/margin 1.5")
        == "score_by_layer/gpt-4o/chat/margin 1.5"
    )
