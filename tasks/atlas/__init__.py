"""A finished atlas in Python: `Atlas.open(uri)`."""

from neuron_atlas.tasks.atlas.atlas import Atlas
from neuron_atlas.tasks.atlas.neuron import Neuron, NoSuchNeuron
from neuron_atlas.tasks.atlas.runs import NoSuchRun, Run
from neuron_atlas.tasks.report.record import Exemplar

__all__ = ["Atlas", "Exemplar", "Neuron", "NoSuchNeuron", "NoSuchRun", "Run"]
