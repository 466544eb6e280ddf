"""How much memory a capture may use on this machine."""

from __future__ import annotations

from pathlib import Path

import psutil
import torch

_CGROUP = Path("/sys/fs/cgroup")


def device_free(device: torch.device) -> int:
    """Bytes free on a GPU for this process: what nobody has, and what torch keeps unused."""
    free, _ = torch.cuda.mem_get_info(device)
    return free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)


def host_free(sharers: int) -> int:
    """Bytes of host memory for one of `sharers` processes: the machine's, or its container's."""
    free = psutil.virtual_memory().available
    try:
        limit = int((_CGROUP / "memory.max").read_text())
        used = int((_CGROUP / "memory.current").read_text())
        counts = dict(line.split() for line in (_CGROUP / "memory.stat").read_text().splitlines())
        cached = int(counts["inactive_file"])  # Given back when it is needed.
    except (OSError, ValueError, KeyError):  # No container, or one without a limit ("max").
        return free // sharers
    return min(free, max(0, limit - used + cached)) // sharers
