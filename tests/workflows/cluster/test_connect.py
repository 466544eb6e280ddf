"""Work spread over Ray, and the subject's actors."""

from __future__ import annotations

import gc
import ipaddress
import os
import signal
import time
from contextlib import suppress

import psutil
import pytest
import ray

from neuron_atlas.tasks.artifacts.full_disk import DiskFullError
from neuron_atlas.workflows.cluster import connect, waiting
from neuron_atlas.workflows.cluster.connect import cluster
from neuron_atlas.workflows.cluster.cpu_tasks import get_result, run_on_cpus
from neuron_atlas.workflows.config.settings import ClusterSettings
from neuron_atlas.workflows.models.server_process import free_port
from neuron_atlas.workflows.run.errors import ConfigError, RunError
from tests.workflows.cluster.ray_work import (
    TheirOwn,
    ask_another,
    die,
    double,
    end_slowly,
    fail,
    fail_once,
    occupy,
)


def test_every_item_is_done_once_and_comes_with_its_result(ray_of_two_cores):
    assert sorted(run_on_cpus(range(20), double.remote)) == [(n, 2 * n) for n in range(20)]


def test_nothing_to_do_is_done_at_once(ray_of_two_cores):
    assert list(run_on_cpus([], double.remote)) == []


def test_only_a_few_items_are_under_way_at_a_time(ray_of_two_cores):
    submitted = []

    def submit(number: int) -> ray.ObjectRef:
        submitted.append(number)
        return double.remote(number)

    for finished, _ in enumerate(run_on_cpus(range(30), submit)):
        assert len(submitted) - finished <= 4  # Twice the cores of the cluster.
    assert submitted == list(range(30))


def test_a_line_for_people_is_told_as_it_is_even_if_the_work_only_passed_it_on(ray_of_two_cores):
    with pytest.raises(DiskFullError) as caught:
        list(run_on_cpus(range(2), ask_another.remote))
    assert str(caught.value) == "the disk is full"


def test_the_exception_of_the_work_itself_is_raised(ray_of_two_cores):
    with pytest.raises(TheirOwn, match="at 3"):
        list(run_on_cpus(range(9), lambda n: fail.remote(n) if n == 3 else double.remote(n)))


def test_waiting_for_a_free_cpu_is_said(ray_of_two_cores, monkeypatch, capsys):
    monkeypatch.setattr(waiting, "FIRST_LINE_S", 0.2)
    others = [occupy.remote(3) for _ in range(2)]
    while ray.available_resources().get("CPU", 0) >= 1:
        time.sleep(0.05)
    assert list(run_on_cpus([1], double.remote)) == [(1, 2)]
    assert "cluster    waiting for a free CPU: all 2 are used" in capsys.readouterr().err
    ray.get(others)


def test_a_failure_leaves_the_rest_undone(ray_of_two_cores):
    submitted = []

    def submit(number: int) -> ray.ObjectRef:
        submitted.append(number)
        return fail.remote(number)

    with pytest.raises(TheirOwn):
        list(run_on_cpus(range(100), submit))
    assert len(submitted) <= 8


def test_work_that_is_stopped_gets_the_time_to_end(ray_of_two_cores, tmp_path):
    def submit(number: int) -> ray.ObjectRef:
        if number == 2:
            return fail_once.remote(str(tmp_path), 2)
        return end_slowly.remote(str(tmp_path), number)

    with pytest.raises(TheirOwn):
        list(run_on_cpus(range(3), submit, ending_s=20))
    assert {path.name for path in tmp_path.iterdir()} >= {"0 ended", "1 ended"}


def test_of_many_failures_only_the_first_is_told(ray_of_two_cores, caplog):
    list(run_on_cpus(range(8), double.remote))  # So that there are processes to fail at once.
    for _ in range(3):
        with suppress(TheirOwn):
            list(run_on_cpus(range(30), fail.remote))
    time.sleep(0.5)  # Until all have failed,
    gc.collect()  # and Ray learns that nobody will ask for their errors.
    time.sleep(0.5)
    assert caplog.messages == []


def test_work_whose_process_dies_is_a_failed_run(ray_of_two_cores):
    with pytest.raises(RunError, match="Ray could not finish the work"):
        get_result(die.remote(1))


def test_a_cluster_that_is_running_is_left_running(ray_of_two_cores):
    with cluster(ClusterSettings(cpus=1)):
        assert ray.cluster_resources()["CPU"] == 2
    assert ray.is_initialized()


@pytest.fixture
def no_ray(monkeypatch):
    """As if none had been started in this process."""
    monkeypatch.setattr(connect.ray, "is_initialized", lambda: False)
    started = []
    monkeypatch.setattr(connect.ray, "init", lambda **given: started.append(given))
    monkeypatch.setattr(connect.ray, "shutdown", lambda: started.append("shut down"))
    return started


def test_an_address_where_no_cluster_listens_is_told_at_once(no_ray):
    address = f"127.0.0.1:{free_port('127.0.0.1')}"
    with pytest.raises(ConfigError, match=rf"^cluster.address .*no Ray cluster at '{address}'"):
        cluster(ClusterSettings(address=address)).__enter__()
    assert no_ray == []


def test_the_address_in_the_environment_is_used_where_the_call_names_none(no_ray, monkeypatch):
    monkeypatch.setenv("RAY_ADDRESS", f"127.0.0.1:{free_port('127.0.0.1')}")
    with pytest.raises(ConfigError, match="RAY_ADDRESS"):
        cluster(ClusterSettings()).__enter__()


def test_a_cluster_of_our_own_is_started_beside_any_other_and_ends_with_the_run(no_ray):
    with cluster(ClusterSettings(cpus=2)):
        (given,) = no_ray
    assert given["address"] == "local"
    assert given["include_dashboard"] is False
    assert given["num_cpus"] == 2
    assert no_ray[-1] == "shut down"


def test_a_cluster_of_our_own_is_closed_to_everybody_else(ray_of_two_cores):
    here = psutil.Process()
    ours = {process.pid for process in [here, *here.children(recursive=True)]}
    listening = [
        connection.laddr.ip
        for connection in psutil.net_connections("inet")
        if connection.pid in ours and connection.status == psutil.CONN_LISTEN
    ]
    assert listening
    assert {ipaddress.ip_address(ip.removeprefix("::ffff:")).is_loopback for ip in listening} == {
        True
    }
    assert os.environ["RAY_AUTH_MODE"] == "token"
    assert len(os.environ["RAY_AUTH_TOKEN"]) >= 32


@pytest.mark.parametrize(
    "error", [ConnectionError("no"), ray.exceptions.AuthenticationError("no"), ValueError("no")]
)
def test_a_cluster_that_lets_nobody_in_is_told_with_what_it_may_want(no_ray, monkeypatch, error):
    def init(**_):
        raise error

    monkeypatch.setattr(connect.ray, "init", init)
    said = (
        r"^cluster\.address .* 'auto', or it requires a token: set RAY_AUTH_MODE=token, and RAY_AUT"
    )
    with pytest.raises(ConfigError, match=said):
        cluster(ClusterSettings(address="auto")).__enter__()


def test_ray_does_not_take_sigterm_from_the_program(no_ray, as_if_called, monkeypatch):
    def init(**_):
        signal.signal(signal.SIGTERM, lambda *_: None)

    monkeypatch.setattr(connect.ray, "init", init)
    before = signal.getsignal(signal.SIGTERM)
    with cluster(ClusterSettings()):
        assert signal.getsignal(signal.SIGTERM) is before


def test_a_cluster_that_grows_is_waited_for_until_it_has_its_gpus(no_ray, monkeypatch, capsys):
    gpus = iter([0.0, 1.0, 2.0])
    asked = []
    monkeypatch.setattr(connect, "_SECONDS_BETWEEN_LOOKS", 0.0)
    monkeypatch.setattr(connect, "request_resources", lambda **given: asked.append(given))
    monkeypatch.setattr(connect.ray, "cluster_resources", lambda: {"GPU": next(gpus)})
    with cluster(ClusterSettings(address="auto", autoscale_gpus=2)):
        assert next(gpus, None) is None
    assert asked == [{"bundles": [{"GPU": 1}, {"GPU": 1}]}]
    assert (
        "cluster    0 of 2 GPUs available (cluster.autoscale_gpus); waiting"
        in capsys.readouterr().err
    )
