"""How busy each machine of the cluster is, while a run uses it.

Ray has an agent on every node that measures it and tells Prometheus; this asks the same agents, so
nothing more runs on any node.
"""

from __future__ import annotations

import os
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from typing import Any

import ray

_LOOK_EVERY_S = 10.0
_SECONDS_TO_ANSWER = 3.0
_MB = 1e-6
_MEASURES: Mapping[str, tuple[str, float]] = {
    "ray_node_cpu_utilization": ("cpu_utilization_percentage", 1.0),
    "ray_node_mem_used": ("system_memory_usage_megabytes", _MB),
    "ray_node_mem_total": ("system_memory_megabytes", _MB),
    "ray_node_disk_utilization_percentage": ("disk_usage_percentage", 1.0),
    "ray_node_network_receive_speed": ("network_receive_megabytes_per_second", _MB),
    "ray_node_network_send_speed": ("network_transmit_megabytes_per_second", _MB),
    "ray_node_gpus_utilization": ("gpu_{gpu}_utilization_percentage", 1.0),
    "ray_node_gram_used": ("gpu_{gpu}_memory_usage_megabytes", 2**20 * _MB),  # Given in MiB.
}
"""Ray's gauges, what MLflow calls the same, and the factor to its unit."""


@contextmanager
def watched_nodes(log: Callable[[Mapping[str, float], int], None]) -> Iterator[None]:
    """Log what every node measures, by system/<node>/<measure>, for as long as it is open.

    The step is in seconds. MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING=false turns it off.
    """
    if os.environ.get("MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING", "true").lower() in ("false", "0"):
        yield
        return
    ended = threading.Event()
    begun = time.monotonic()

    def look() -> None:
        with suppress(Exception):  # A node that is gone, an agent that has not begun.
            if measured := measure_nodes():
                log(measured, round(time.monotonic() - begun))

    def keep_looking() -> None:
        while not ended.wait(_LOOK_EVERY_S):
            look()

    watcher = threading.Thread(target=keep_looking, name="nodes", daemon=True)
    watcher.start()
    try:
        yield
    finally:
        ended.set()
        watcher.join()


def measure_nodes() -> dict[str, float]:
    """What the nodes that are alive measured last; those that do not answer are left out."""
    nodes = [node for node in ray.nodes() if node["Alive"] and node["MetricsExportPort"] > 0]
    names = node_names(nodes)
    with ThreadPoolExecutor(max_workers=min(16, len(nodes) or 1)) as asking:
        pages = asking.map(_ask, nodes)
        return {
            f"system/{name}/{measure}": value
            for name, page in zip(names, pages, strict=True)
            for measure, value in read_gauges(page).items()
        }


def node_names(nodes: list[dict[str, Any]]) -> list[str]:
    """Each node's host name, with a part of its id where several are on one host."""
    hosts = [str(node["NodeManagerHostname"]) for node in nodes]
    return [
        host if hosts.count(host) == 1 else f"{host}-{node['NodeID'][:6]}"
        for host, node in zip(hosts, nodes, strict=True)
    ]


def read_gauges(page: str) -> dict[str, float]:
    """What MLflow calls it, from a page in Prometheus' text format."""
    from prometheus_client.parser import text_string_to_metric_families

    found = {}
    for family in text_string_to_metric_families(page):
        if family.name in _MEASURES:
            name, factor = _MEASURES[family.name]
            for sample in family.samples:
                gpu = sample.labels.get("GpuIndex", "0")
                found[name.format(gpu=gpu)] = sample.value * factor
    used, total = (
        found.get("system_memory_usage_megabytes"),
        found.pop("system_memory_megabytes", None),
    )
    if used is not None and total:
        found["system_memory_usage_percentage"] = 100 * used / total
    return found


def _ask(node: Mapping[str, Any]) -> str:
    address = f"http://{node['NodeManagerAddress']}:{node['MetricsExportPort']}/metrics"
    # The nodes are reached as Ray reaches them, whatever proxy the user has for the rest.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(address, timeout=_SECONDS_TO_ANSWER) as answer:
            return str(answer.read().decode())
    except OSError:
        return ""
