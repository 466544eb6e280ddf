"""Render a probe as one page, or for a notebook."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterator, Mapping
from difflib import SequenceMatcher
from typing import Any

from markupsafe import Markup

from neuron_atlas.tasks.probe.result import FiringNeuron, Probe
from neuron_atlas.tasks.probe.wording import effect_lines, quantile_text, quantile_words, rank_words
from neuron_atlas.tasks.report.neuron_view import exemplar_data, inline_picture
from neuron_atlas.tasks.report.pages import stylesheet, template_environment, template_text
from neuron_atlas.tasks.report.palette import heat_gradient


def probe_page(probe: Probe) -> str:
    """Return a whole HTML page that needs no network and no other file."""
    script = template_text("atlas.js")
    return (
        template_environment()
        .get_template("probe.html")
        .render(
            **_content(probe),
            style=Markup(stylesheet()),
            heat_gradient=heat_gradient(),
            script=Markup(script),
            script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        )
    )


def probe_html(probe: Probe) -> str:
    """Return the probe as self-contained HTML that does not affect the rest of the document."""
    template = template_environment().get_template("probe_notebook.html")
    return template.render(**_content(probe), style=Markup(stylesheet(".neuron-atlas")))


def changed_words(before: str, after: str) -> Iterator[tuple[str, bool]]:
    """Yield the parts of `after`, in order, with whether each is other than in `before`."""
    old, new = before.split(), after.split()
    for kind, _, _, start, stop in SequenceMatcher(None, old, new, autojunk=False).get_opcodes():
        if stop > start:
            yield " ".join(new[start:stop]), kind != "equal"


def _content(probe: Probe) -> Mapping[str, Any]:
    pictures = [exemplar_data(one.probe, inline_picture(one.probe)) for one in probe.neurons]
    answers: tuple[tuple[str, bool], ...] = ()
    if probe.changed_answer is not None:
        answers = tuple(changed_words(probe.answer or "", probe.changed_answer))
    return {
        "probe": probe,
        "changed": answers,
        "entries": [
            (one, picture, _neighbors(one), quantile_words(one), rank_words(one, probe.n_samples))
            for one, picture in zip(probe.neurons, pictures, strict=True)
        ],
        "effect_lines": effect_lines,
        "quantile_text": quantile_text,
    }


def _neighbors(one: FiringNeuron) -> list[dict[str, Any]]:
    """Return the strongest samples of the dataset, to compare the probe with."""
    return [exemplar_data(other, inline_picture(other)) for other in one.record.exemplars]
