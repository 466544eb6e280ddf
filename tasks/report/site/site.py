"""Write a whole site in one process, step by step as the report stage spreads it over many."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from neuron_atlas.tasks.report.settings import About, SiteSettings
from neuron_atlas.tasks.report.site.columns import list_accounts, write_columns
from neuron_atlas.tasks.report.site.index import write_index
from neuron_atlas.tasks.report.site.inputs import LayerFiles, SampleFiles, cut_layer
from neuron_atlas.tasks.report.site.neurons import write_neurons
from neuron_atlas.tasks.report.site.samples import cut_samples, write_samples


def write_site(
    site: Path,
    layers: Sequence[LayerFiles],
    samples: SampleFiles,
    aggregates: Sequence[Path],
    settings: SiteSettings,
    about: About,
    title: str,
    top_n: int,
) -> None:
    """Write the site into the folder `site`; no step holds more than a layer's columns or a part's
    traces in memory. The index comes last, so that a site that opens is whole."""
    accounts = list_accounts(
        [path for files in layers for path in files.explanations],
        [path for files in layers for path in files.scores],
        aggregates,
    )
    rows = [write_columns(site, files, accounts) for files in layers]
    shown: set[int] = set()
    for files in layers:
        for part in cut_layer(files):
            shown |= write_neurons(site, part, files, samples, settings, top_n)
    for batch in cut_samples(shown):
        write_samples(site, batch, samples, settings)
    write_index(site, rows, accounts, about, title)
