"""Read a finished atlas in Python: `Atlas.open(uri)`."""

from neuron_atlas.tasks.artifacts import OldTableError
from neuron_atlas.tasks.atlas.atlas import Atlas
from neuron_atlas.tasks.atlas.neuron import Neuron, NeuronNotFoundError
from neuron_atlas.tasks.atlas.runs import Run, RunNotFoundError
from neuron_atlas.tasks.report.record import Exemplar, TraceNotStoredError

__all__ = [
    "Atlas",
    "Exemplar",
    "Neuron",
    "NeuronNotFoundError",
    "OldTableError",
    "Run",
    "RunNotFoundError",
    "TraceNotStoredError",
]
