"""How busy the nodes are, from what Ray's agents tell."""

from __future__ import annotations

import socket
import time

import pytest

from neuron_atlas.workflows.tracking import nodes
from neuron_atlas.workflows.tracking.nodes import (
    measure_nodes,
    node_names,
    read_gauges,
    watched_nodes,
)

PAGE = """\
# HELP ray_node_cpu_utilization Total CPU usage on a ray node
# TYPE ray_node_cpu_utilization gauge
ray_node_cpu_utilization{ip="10.0.0.2",RayNodeType="head"} 62.5
# TYPE ray_node_mem_used gauge
ray_node_mem_used{ip="10.0.0.2"} 2.0e9
# TYPE ray_node_mem_total gauge
ray_node_mem_total{ip="10.0.0.2"} 8.0e9
# TYPE ray_node_gpus_utilization gauge
ray_node_gpus_utilization{ip="10.0.0.2",GpuIndex="0"} 97.0
ray_node_gpus_utilization{ip="10.0.0.2",GpuIndex="1"} 3.0
# TYPE ray_node_gram_used gauge
ray_node_gram_used{ip="10.0.0.2",GpuIndex="1"} 1000.0
# TYPE ray_tasks gauge
ray_tasks{State="RUNNING"} 3.0
"""


def test_gauges_become_mlflows_names_and_units():
    assert read_gauges(PAGE) == pytest.approx(
        {
            "cpu_utilization_percentage": 62.5,
            "system_memory_usage_megabytes": 2000.0,
            "system_memory_usage_percentage": 25.0,
            "gpu_0_utilization_percentage": 97.0,
            "gpu_1_utilization_percentage": 3.0,
            "gpu_1_memory_usage_megabytes": 1048.576,
        }
    )


def test_an_agent_that_tells_nothing_measures_nothing():
    assert read_gauges("") == {}


def test_nodes_on_one_host_are_told_apart():
    nodes = [
        {"NodeManagerHostname": host, "NodeID": f"{number}23456789"}
        for number, host in enumerate(["one", "two", "two"])
    ]
    assert node_names(nodes) == ["one", "two-123456", "two-223456"]


def test_every_node_of_a_real_cluster_is_measured(ray_of_two_cores, monkeypatch):
    told = []
    monkeypatch.setattr(nodes, "_LOOK_EVERY_S", 0.2)
    deadline = time.monotonic() + 60
    with watched_nodes(lambda metrics, step: told.append(metrics)):
        while not told and time.monotonic() < deadline:
            time.sleep(0.2)
    here = f"system/{socket.gethostname()}"
    assert 0 <= told[0][f"{here}/cpu_utilization_percentage"] <= 100
    assert 0 < told[0][f"{here}/system_memory_usage_percentage"] < 100
    assert measure_nodes().keys() == told[0].keys()
    count = len(told)
    time.sleep(0.5)
    assert len(told) == count


def test_it_can_be_turned_off(ray_of_two_cores, monkeypatch):
    told = []
    monkeypatch.setattr(nodes, "_LOOK_EVERY_S", 0.05)
    monkeypatch.setenv("MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING", "false")
    with watched_nodes(lambda metrics, step: told.append(metrics)):
        time.sleep(0.3)
    assert told == []
