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

from neuron_atlas.tasks.artifacts.full_disk import DiskFull
from neuron_atlas.tasks.serve.process import free_port
from neuron_atlas.tasks.subject.settings import SubjectSettings
from neuron_atlas.workflows.cluster import connect, subject_pool
from neuron_atlas.workflows.cluster.connect import cluster
from neuron_atlas.workflows.cluster.nodes_used import take_nodes
from neuron_atlas.workflows.cluster.spread import actor_count, result, spread
from neuron_atlas.workflows.cluster.subject_pool import SubjectPool
from neuron_atlas.workflows.config.settings import ClusterSettings
from neuron_atlas.workflows.run.errors import RunFailed, WrongCall
from tests.workflows.cluster.ray_work import (
    Item,
    TheirOwn,
    Worker,
    ask_another,
    die,
    double,
    end_slowly,
    fail,
    fail_once,
    occupy,
    on_a_node,
)


def test_every_item_is_done_once_and_comes_with_its_result(ray_of_two_cores):
    assert sorted(spread(range(20), double.remote)) == [(n, 2 * n) for n in range(20)]


def test_nothing_to_do_is_done_at_once(ray_of_two_cores):
    assert list(spread([], double.remote)) == []


def test_only_a_few_items_are_under_way_at_a_time(ray_of_two_cores):
    submitted = []

    def submit(number: int) -> ray.ObjectRef:
        submitted.append(number)
        return double.remote(number)

    for finished, _ in enumerate(spread(range(30), submit)):
        assert len(submitted) - finished <= 4  # Twice the cores of the cluster.
    assert submitted == list(range(30))


def test_a_line_for_people_is_told_as_it_is_even_if_the_work_only_passed_it_on(ray_of_two_cores):
    with pytest.raises(DiskFull) as caught:
        list(spread(range(2), ask_another.remote))
    assert str(caught.value) == "the disk is full"


def test_the_exception_of_the_work_itself_is_raised(ray_of_two_cores):
    with pytest.raises(TheirOwn, match="at 3"):
        list(spread(range(9), lambda n: fail.remote(n) if n == 3 else double.remote(n)))


def test_a_failure_leaves_the_rest_undone(ray_of_two_cores):
    submitted = []

    def submit(number: int) -> ray.ObjectRef:
        submitted.append(number)
        return fail.remote(number)

    with pytest.raises(TheirOwn):
        list(spread(range(100), submit))
    assert len(submitted) <= 8


def test_work_that_is_stopped_gets_the_time_to_end(ray_of_two_cores, tmp_path):
    def submit(number: int) -> ray.ObjectRef:
        if number == 2:
            return fail_once.remote(str(tmp_path), 2)
        return end_slowly.remote(str(tmp_path), number)

    with pytest.raises(TheirOwn):
        list(spread(range(3), submit, ending_s=20))
    assert {path.name for path in tmp_path.iterdir()} >= {"0 ended", "1 ended"}


def test_of_many_failures_only_the_first_is_told(ray_of_two_cores, caplog):
    list(spread(range(8), double.remote))  # So that there are processes to fail at once.
    for _ in range(3):
        with suppress(TheirOwn):
            list(spread(range(30), fail.remote))
    time.sleep(0.5)  # Until all have failed,
    gc.collect()  # and Ray learns that nobody will ask for their errors.
    time.sleep(0.5)
    assert caplog.messages == []


def test_work_whose_process_dies_is_a_failed_run(ray_of_two_cores):
    with pytest.raises(RunFailed, match="Ray could not finish the work"):
        result(die.remote(1))


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
    with pytest.raises(WrongCall, match=rf"^cluster.address .*no Ray cluster at '{address}'"):
        cluster(ClusterSettings(address=address)).__enter__()
    assert no_ray == []


def test_the_address_in_the_environment_is_used_where_the_call_names_none(no_ray, monkeypatch):
    monkeypatch.setenv("RAY_ADDRESS", f"127.0.0.1:{free_port('127.0.0.1')}")
    with pytest.raises(WrongCall, match="RAY_ADDRESS"):
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
    said = r"^cluster\.address .* 'auto', or it wants a token: set RAY_AUTH_MODE=token, and RAY_AUT"
    with pytest.raises(WrongCall, match=said):
        cluster(ClusterSettings(address="auto")).__enter__()


def test_ray_does_not_take_sigterm_from_the_program(no_ray, as_if_called, monkeypatch):
    def init(**_):
        signal.signal(signal.SIGTERM, lambda *_: None)

    monkeypatch.setattr(connect.ray, "init", init)
    before = signal.getsignal(signal.SIGTERM)
    with cluster(ClusterSettings()):
        assert signal.getsignal(signal.SIGTERM) is before


@pytest.mark.parametrize(
    ("resources", "settings", "expected"),
    [
        ({"CPU": 8.0}, ClusterSettings(), (8, {"num_cpus": 1})),
        ({"CPU": 8.0}, ClusterSettings(threads=3), (2, {"num_cpus": 3})),
        ({"CPU": 2.0}, ClusterSettings(threads=4), (1, {"num_cpus": 2})),
        ({"CPU": 8.0}, ClusterSettings(actors=3), (3, {"num_cpus": 1})),
        ({"CPU": 8.0, "GPU": 2.0}, ClusterSettings(), (2, {"num_gpus": 1, "num_cpus": 1})),
        ({"CPU": 8.0, "GPU": 2.0}, ClusterSettings(actors=1), (1, {"num_gpus": 1, "num_cpus": 1})),
    ],
)
def test_there_is_a_subject_on_each_gpu_or_else_on_each_core(
    monkeypatch, resources, settings, expected
):
    monkeypatch.setattr(connect.ray, "cluster_resources", lambda: resources)
    assert actor_count(settings) == expected


@pytest.fixture
def pool_of(ray_of_two_cores, monkeypatch):
    remote = ray.remote(max_restarts=-1, max_task_retries=3, max_concurrency=2)(Worker)
    monkeypatch.setattr(subject_pool, "_RemoteSubject", remote)
    opened = []

    def open_pool(actors: int) -> SubjectPool:
        opened.append(SubjectPool(SubjectSettings(), ClusterSettings(actors=actors)))
        return opened[-1]

    yield open_pool
    for pool in opened:
        pool.close()


def work(pool: SubjectPool, items: list[Item], folder: object, method: str = "work") -> int:
    """Have the items done; how many samples progress was told of."""
    told = []
    pool.each(
        items,
        lambda actor, item: getattr(actor, method).remote(item, str(folder)),
        lambda item: item.samples,
        told.append,
    )
    assert min(told, default=0) >= 0
    return sum(told)


def numbers(folder) -> list[int]:
    return sorted({int(path.name.split("-")[0]) for path in folder.iterdir()})


def test_actors_pull_items_until_there_are_none(pool_of, tmp_path):
    items = [Item(number) for number in range(9)]
    assert work(pool_of(2), items, tmp_path) == 36
    assert numbers(tmp_path) == list(range(9))


def test_all_actors_work(pool_of, tmp_path):
    work(pool_of(2), [Item(number, seconds=0.3) for number in range(12)], tmp_path)
    assert len({path.name.split("-")[1] for path in tmp_path.iterdir()}) == 2


def test_what_actors_have_to_say_is_said_by_the_program(pool_of, tmp_path, capsys):
    work(pool_of(1), [Item(4), Item(5)], tmp_path, method="tell")
    said = capsys.readouterr().err
    assert "something of 4\n" in said
    assert "something of 5\n" in said


def test_without_items_no_actor_is_started(pool_of, tmp_path, monkeypatch):
    monkeypatch.setattr(subject_pool, "_RemoteSubject", None)
    assert work(pool_of(2), [], tmp_path) == 0


def test_an_actor_for_which_there_is_no_room_holds_up_nothing(pool_of, tmp_path):
    items = [Item(number) for number in range(6)]
    assert work(pool_of(5), items, tmp_path) == 24
    assert numbers(tmp_path) == list(range(6))


def test_a_run_that_waits_for_a_place_in_the_cluster_says_so(pool_of, capsys, monkeypatch):
    monkeypatch.setattr(subject_pool, "_SECONDS_BEFORE_SAYING", 0.2)
    others = [occupy.remote(3) for _ in range(2)]
    while ray.available_resources().get("CPU", 0) >= 1:
        time.sleep(0.05)
    assert pool_of(1).check((0, 2)).layers == (0, 2)
    assert "subject    waits for a GPU or CPU of the cluster" in capsys.readouterr().err
    ray.get(others)


def test_an_actor_that_dies_is_replaced_and_its_item_done_again(pool_of, tmp_path):
    items = [Item(number) for number in range(5)]
    assert work(pool_of(1), items, tmp_path, "die_once") == 20
    assert numbers(tmp_path) == list(range(5))
    assert len({path.name.split("-")[1] for path in tmp_path.iterdir()}) == 2


def test_an_exception_in_an_actor_is_raised_as_it_is(pool_of, tmp_path):
    with pytest.raises(TheirOwn, match="at 0"):
        work(pool_of(1), [Item(0)], tmp_path, "fail")


def test_the_item_of_an_actor_that_is_not_heard_of_is_done_by_another(
    pool_of, tmp_path, monkeypatch
):
    monkeypatch.setattr(subject_pool, "_SECONDS_UNHEARD", 0.5)
    items = [Item(number) for number in range(4)]
    assert work(pool_of(2), items, tmp_path, "freeze_once") == 16
    done = {path.name for path in tmp_path.iterdir() if "frozen" not in path.name}
    assert sorted({int(name.split("-")[0]) for name in done}) == [0, 1, 2, 3]


def test_a_cluster_that_grows_is_waited_for_until_it_has_its_gpus(no_ray, monkeypatch, capsys):
    gpus = iter([0.0, 1.0, 2.0])
    asked = []
    monkeypatch.setattr(connect, "_SECONDS_BETWEEN_LOOKS", 0.0)
    monkeypatch.setattr(connect, "request_resources", lambda **given: asked.append(given))
    monkeypatch.setattr(connect.ray, "cluster_resources", lambda: {"GPU": next(gpus)})
    with cluster(ClusterSettings(address="auto", gpus=2)):
        assert next(gpus, None) is None
    assert asked == [{"bundles": [{"GPU": 1}, {"GPU": 1}]}]
    assert "cluster    0 of 2 GPUs are there (cluster.gpus); waits" in capsys.readouterr().err


def test_the_nodes_that_worked_are_remembered_until_they_are_asked_for(ray_of_two_cores):
    take_nodes()
    assert [result(on_a_node.remote(number)) for number in range(3)] == [0, 1, 4]
    assert take_nodes() == {ray.get_runtime_context().get_node_id()}
    assert take_nodes() == frozenset()
