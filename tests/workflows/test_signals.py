"""What a first and a second signal do, without Ray."""

from __future__ import annotations

import signal

import pytest

from neuron_atlas.workflows.cluster import signals
from neuron_atlas.workflows.cluster.actor_pool import ActorPool, ActorResource
from neuron_atlas.workflows.cluster.signals import defer_signals, stop_on_signals, watch_cluster
from neuron_atlas.workflows.config.settings import ClusterSettings
from neuron_atlas.workflows.run.errors import RunError

SIGNALS = [signal.SIGINT, signal.SIGTERM]


@pytest.fixture(autouse=True)
def handled(as_if_called):
    stop_on_signals()


@pytest.mark.parametrize("number", SIGNALS)
def test_where_nothing_is_under_way_the_first_ends_the_run(number):
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(number)


@pytest.mark.parametrize("number", SIGNALS)
def test_where_something_is_under_way_it_is_let_finish(number, capsys):
    done = []

    def work() -> None:
        with defer_signals() as is_stopping:
            done.append(is_stopping())
            signal.raise_signal(number)
            done.append(is_stopping())

    with pytest.raises(KeyboardInterrupt):
        work()
    assert done == [False, True]
    assert "another signal stops at once" in capsys.readouterr().err


def test_a_second_stops_at_once():
    done = []

    def work() -> None:
        with defer_signals():
            signal.raise_signal(signal.SIGINT)
            done.append(1)
            signal.raise_signal(signal.SIGINT)
            done.append(2)

    with pytest.raises(KeyboardInterrupt):
        work()
    assert done == [1]
    with defer_signals() as is_stopping:
        assert not is_stopping()  # What was asked of another run is forgotten.


def test_an_error_of_the_work_is_not_hidden_by_a_signal():
    def work() -> None:
        with defer_signals():
            signal.raise_signal(signal.SIGINT)
            raise RuntimeError("it broke")

    with pytest.raises(RuntimeError, match="it broke"):
        work()


@pytest.fixture
def gone_cluster():
    watch_cluster(lambda: True)
    yield
    watch_cluster(lambda: False)


def test_a_signal_that_ended_the_cluster_too_ends_the_run_at_once(gone_cluster):
    def work() -> None:
        with defer_signals() as is_stopping:
            signal.raise_signal(signal.SIGTERM)
            is_stopping()
            pytest.fail("nothing can end any more")

    with pytest.raises(KeyboardInterrupt):
        work()


def test_a_cluster_that_ends_by_itself_is_a_failed_run(gone_cluster, monkeypatch):
    monkeypatch.setattr(signals, "_ON_ITS_WAY_S", 0.0)

    def work() -> None:
        with defer_signals() as is_stopping:
            is_stopping()

    with pytest.raises(RunError, match=r"^Ray's processes have ended.*the same command goes on"):
        work()


def test_nothing_is_asked_of_a_cluster_that_is_gone(gone_cluster, monkeypatch):
    pool = ActorPool(ActorResource("subject", str), ClusterSettings())
    pool._actors = [object()]  # Closing it would ask Ray to kill this.
    pool.close()
    assert pool._actors == []
