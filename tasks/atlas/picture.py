"""A neuron as it is shown in a notebook: a piece of HTML that needs nothing else."""

from __future__ import annotations

import base64
import tempfile
from dataclasses import replace
from functools import cache
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined, Template

from neuron_atlas.tasks.atlas.neuron import Neuron
from neuron_atlas.tasks.report import wording
from neuron_atlas.tasks.report.entries import describe_exemplar, describe_neuron
from neuron_atlas.tasks.report.heat import SavedView, save_view
from neuron_atlas.tasks.report.palette import type_colours

_SHOWN = 6


def picture(neuron: Neuron, exemplars: int = _SHOWN) -> str:
    """Its type, explanations, scores and strongest exemplars, with heat maps over the images."""
    shown = neuron.exemplars[:exemplars]
    catalog = shown[0].catalog if shown else None
    with tempfile.TemporaryDirectory() as folder:

        @cache
        def see(sample_id: int) -> SavedView:
            assert catalog is not None
            if catalog.source is None:
                return SavedView(problem="the dataset is not at hand")
            return _inlined(save_view(catalog, sample_id, Path(folder)), Path(folder))

        entry = describe_neuron(
            neuron.row,
            neuron.explanations.fill_nan(None).to_dicts(),
            neuron.scores.fill_nan(None).to_dicts(),
            tuple(describe_exemplar(one.trace, neuron.scale, one.catalog, see) for one in shown),
        )
    return _template().render(entry=entry, colours=type_colours())


def _inlined(view: SavedView, folder: Path) -> SavedView:
    if view.problem:
        return view
    encoded = base64.b64encode((folder / view.path).read_bytes()).decode("ascii")
    return replace(view, path=f"data:image/jpeg;base64,{encoded}")


def _template() -> Template:
    environment = Environment(
        loader=PackageLoader("neuron_atlas.tasks.atlas"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(wording.FILTERS)
    return environment.get_template("neuron.html")
