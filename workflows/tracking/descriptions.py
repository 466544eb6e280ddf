"""Describe a run for MLflow: its name, its tags, its description."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from neuron_atlas.workflows.config.settings import Settings
from neuron_atlas.workflows.tracking.metrics import METRICS_NOTE

EXPERIMENT_NOTE = (
    """\
Each run is an **atlas**: the FFN neurons of a vision-language model (the *subject*), the samples \
that activate them, an explanation of each neuron in words, and a score that measures how far the \
explanation can be trusted. A run with child runs is a **sweep**, and compares them.

Useful columns: `score/correlation` next to `score/correlation_of_control`, \
`neurons_share/visual`, `neurons_share/text`, `neurons_share/multi-modal`, and the tags `layers` \
and `explainer`. Each run's page is among its artifacts: `report/index.html`.

"""
    + METRICS_NOTE
)


def layers_in_words(layers: Sequence[int] | None) -> str:
    """Return layers in words, such as "layers 0-3, 8", "layer 4" or "all layers"."""
    if layers is None:
        return "all layers"
    spans: list[list[int]] = []
    for layer in sorted(layers):
        if spans and layer == spans[-1][-1] + 1:
            spans[-1].append(layer)
        else:
            spans.append([layer])
    words = [f"{span[0]}-{span[-1]}" if len(span) > 1 else str(span[0]) for span in spans]
    return f"layer{'s' if len(layers) > 1 else ''} {', '.join(words)}"


def subject_name(settings: Settings) -> str:
    """Return the subject's short name: its folder name, or the last part of a Hugging Face id."""
    return Path(settings.subject.model).name


def run_name(settings: Settings) -> str:
    """Return a run's default name: subject, layers and explainers."""
    explainers = " + ".join(settings.explain.names)
    return f"{subject_name(settings)}, {layers_in_words(settings.capture.layers)}, {explainers}"


def run_tags(settings: Settings) -> dict[str, str]:
    """Return the tags that distinguish runs; they are columns of MLflow's table."""
    return {
        "subject": subject_name(settings),
        "dataset": settings.data.source.title,
        "layers": layers_in_words(settings.capture.layers)
        .removeprefix("layers ")
        .removeprefix("layer "),
        "hook_point": settings.capture.hook_point,
        "explainer": ", ".join(settings.explain.names),
        "simulator": settings.simulate.simulator.name,
        "out": settings.out,
    }


def run_note(settings: Settings, state: str, summary: Mapping[str, Any] | None) -> str:
    """Return a run's description in Markdown.

    state: a sentence on the run's state. summary: of the report; None before there is one.
    """
    about = (
        f"**{settings.report.title}**: the neurons of {subject_name(settings)} "
        f"({layers_in_words(settings.capture.layers)}, hook point `{settings.capture.hook_point}`) "
        f"over {settings.data.source.title}, explained by {' and '.join(settings.explain.names)} "
        f"and simulated by {settings.simulate.simulator.name}. {state}"
    )
    if summary is None:
        return about
    return "\n\n".join(
        [
            about,
            "**The page**: *Artifacts*, `report/index.html`; its figures are in `report/figures`.",
            _types(summary["neurons"]),
            _scores(summary),
            "**How to read the metrics**",
            METRICS_NOTE,
        ]
    )


def _types(neurons: Mapping[str, int]) -> str:
    total = max(1, sum(neurons.values()))
    rows = [f"| {name} | {count:,} | {count / total:.1%} |" for name, count in neurons.items()]
    return "\n".join(["| type | neurons | share |", "|---|--:|--:|", *rows])


def _scores(summary: Mapping[str, Any]) -> str:
    if not summary["by_explainer"]:
        return "No explanation could be scored."
    head = (
        "| explainer | simulator | neurons | correlation | of control | margin | beat control |\n"
        "|---|---|--:|--:|--:|--:|--:|"
    )
    rows = [
        f"| {row['explainer']} | {row['simulator']} | {row['n']:,} | {_number(row['mean'])} | "
        f"{_number(row['control'])} | {_number(row['margin'])} | {_beaten(row)} |"
        for row in summary["by_explainer"]
    ]
    return "\n".join([head, *rows])


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"


def _beaten(row: Mapping[str, Any]) -> str:
    return f"{row['beat_control']:,} of {row['tested']:,}" if row["tested"] else ""
