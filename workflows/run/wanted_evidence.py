"""Select the neurons of a run that need evidence."""

from __future__ import annotations

import pyarrow as pa

from neuron_atlas.tasks.artifacts import EXPLANATIONS, NEURON_TYPES, SCORES, read_table
from neuron_atlas.tasks.evidence.wanted import Ranks, Wanted
from neuron_atlas.tasks.explain.select import select_neurons_to_explain
from neuron_atlas.tasks.report.strongest import select_strongest_neurons
from neuron_atlas.workflows.run.context import Context
from neuron_atlas.workflows.run.errors import ConfigError

ByLayer = dict[int, Wanted]


def wanted_evidence(context: Context) -> ByLayer:
    """Return the neurons of this run by layer: those of all explainers, and the other ones to
    show."""
    types = read_table(context.paths("classify", "types"), NEURON_TYPES)
    explained: set[tuple[int, int]] = set()
    for one in context.settings.explain.each_explainer:
        try:
            chosen = select_neurons_to_explain(types, one.neurons)
        except ValueError as error:
            raise ConfigError(f"explain.neurons.{error}") from error
        explained.update(_keys(chosen))
    explained_in: dict[int, list[int]] = {layer: [] for layer in context.layers()}
    for layer, neuron in sorted(explained):
        explained_in[layer].append(neuron)
    shown_in: dict[int, dict[int, Ranks]] = {layer: {} for layer in context.layers()}
    for (layer, neuron), stop in _shown(context, types, explained).items():
        shown_in[layer][neuron] = (0, stop)
    return {
        layer: Wanted(tuple(neurons), shown_in[layer]) for layer, neurons in explained_in.items()
    }


def _shown(
    context: Context, types: pa.Table, explained: set[tuple[int, int]]
) -> dict[tuple[int, int], int]:
    """Return how many exemplars of each other neuron are shown: a few on the site, more on the
    page, or all of them."""
    settings, report = context.settings.evidence, context.settings.report
    captured = context.capture.top_n
    most = min(settings.exemplars or captured, captured)
    count = report.site.exemplars_of_unexplained if report.site.write else 0
    count = most if settings.traces == "all" else min(count, most)
    is_other = pa.array([key not in explained for key in _keys(types)], pa.bool_())
    others = types.filter(is_other)
    shown = dict.fromkeys(_keys(others), count) if count else {}
    on_page = select_strongest_neurons(
        others,
        EXPLANATIONS.schema.empty_table(),
        SCORES.schema.empty_table(),
        report.neurons_per_type,
    )
    for layer, neuron, _ in on_page:
        shown[layer, neuron] = max(count, min(report.exemplars, most))
    return shown


def _keys(types: pa.Table) -> list[tuple[int, int]]:
    return list(zip(types["layer"].to_pylist(), types["neuron"].to_pylist(), strict=True))
