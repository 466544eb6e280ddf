"""A simulator that writes down each time that its model is loaded, and by which process."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from neuron_atlas.tasks.settings import not_hashed
from neuron_atlas.tasks.simulate.clipseg import ClipSeg
from neuron_atlas.tasks.simulate.simulator import Simulator


@dataclass(frozen=True)
class CountedClipSeg(ClipSeg):
    """log: the file that gets a line for each loading."""

    log: str = not_hashed("")

    def load(self, device: str = "cpu", threads: int | None = None) -> Simulator:
        with Path(self.log).open("a", encoding="utf-8") as log:
            log.write(f"{os.getpid()} {device} {threads}\n")
        return super().load(device, threads)
