"""Measure the memory that a pass may use on this machine."""

from __future__ import annotations

from pathlib import Path

import psutil
import torch

_CGROUP = Path("/sys/fs/cgroup")


def free_device_bytes(device: torch.device) -> int:
    """Return bytes free on a GPU for this process: unallocated memory plus torch's unused cache."""
    free, _ = torch.cuda.mem_get_info(device)
    return free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)


def free_host_bytes(n_processes: int) -> int:
    """Return bytes of free host memory per process, within the limit of the container, if any."""
    free = psutil.virtual_memory().available
    try:
        limit = int((_CGROUP / "memory.max").read_text())
        used = int((_CGROUP / "memory.current").read_text())
        counts = dict(line.split() for line in (_CGROUP / "memory.stat").read_text().splitlines())
        cached = int(counts["inactive_file"])  # Reclaimed on demand.
    except (OSError, ValueError, KeyError):  # No container, or no memory limit ("max").
        return free // n_processes
    return min(free, max(0, limit - used + cached)) // n_processes
