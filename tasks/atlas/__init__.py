"""A finished atlas in Python: `Atlas.open(uri)`."""

from neuron_atlas.tasks.atlas.atlas import Atlas
from neuron_atlas.tasks.atlas.neuron import Exemplar, Neuron, NoSuchNeuron
from neuron_atlas.tasks.atlas.runs import NoSuchRun, Run

__all__ = ["Atlas", "Exemplar", "Neuron", "NoSuchNeuron", "NoSuchRun", "Run"]
