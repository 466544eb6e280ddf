"""A finished atlas in Python: `Atlas.open(uri)`."""

from tasks.atlas.atlas import Atlas
from tasks.atlas.neuron import Exemplar, Neuron, NoSuchNeuron
from tasks.atlas.runs import NoSuchRun, Run

__all__ = ["Atlas", "Exemplar", "Neuron", "NoSuchNeuron", "NoSuchRun", "Run"]
