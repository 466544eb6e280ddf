"""Describe a run for MLflow: its name, its tags, its description."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from neuron_atlas.tasks.report.controls import CONTROLS
from neuron_atlas.workflows.config.settings import Settings
from neuron_atlas.workflows.tracking.metrics import METRICS_NOTE, cost_metrics

EXPERIMENT_NOTE = (
    """\
Each run is an **atlas**: the FFN neurons of a vision-language model (the *subject*), the samples \
that activate them, an explanation of each neuron in words, and a score that measures how far the \
explanation can be trusted. A run with child runs is a **sweep**, and compares them.

The view *Results of neuron-atlas* (at *Views*) shows the main columns. Each run's page is among \
its artifacts: `report/index.html`.

The metrics:

"""
    + METRICS_NOTE
)


_READING = "**How to read the metrics**"


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


def run_note(
    settings: Settings,
    state: str,
    summary: Mapping[str, Any] | None,
    spending: Mapping[str, float],
    pictures: Sequence[str] = (),
) -> str:
    """Return a run's description in Markdown: the result first.

    state: a sentence on the run's state. summary: of the report; None before there is one.
    spending: the last `spending_metrics` of each stage with model calls. pictures: in Markdown.
    """
    about = (
        f"**{settings.report.title}**: the neurons of {subject_name(settings)} "
        f"({layers_in_words(settings.capture.layers)}, hook point `{settings.capture.hook_point}`) "
        f"over {settings.data.source.title}, explained by {' and '.join(settings.explain.names)} "
        f"and simulated by {settings.simulate.simulator.name}. {state}"
    ).rstrip()
    if summary is None:
        return about
    results = [_types(summary["neurons"]), *_scores(summary), _cost(spending)]
    page = (
        "**The page**: *Artifacts*, `report/index.html`. Every explanation, the best margin first: "
        "`explanations.json`. All scores, calls, rows and failures: `tables/`."
    )
    parts = ["\n".join(f"- {line}" for line in results), about, " ".join(pictures), page]
    return "\n\n".join(part for part in [*parts, _READING, METRICS_NOTE] if part)


def score_in_words(row: Mapping[str, Any], level: float | None) -> str:
    """Return a score with its strongest control, margin and the share that beat their controls.

    row: of `by_explainer` of the report's summary.
    """
    words = f"{row['mean']:.3f} over {row['n']:,} explanations"
    if row["control"] is None:
        words += "; no control"
    else:
        name = CONTROLS[row["strongest_control"]]
        words += f"; strongest control {row['control']:.3f}, {name}"
    if row["margin"] is not None:
        words += f"; margin {row['margin']:.3f}"
    if row["tested"]:
        share = row["beat_control"] / row["tested"]
        words += (
            f"; {row['beat_control']:,} of {row['tested']:,} tested ({share:.1%}) beat their "
            f"controls at q {level:g}"
        )
    return words


def types_in_words(neurons: Mapping[str, int]) -> str:
    """Return the number and share of neurons of each type."""
    total = sum(neurons.values())
    shares = (f"{count:,} {name} ({count / max(1, total):.1%})" for name, count in neurons.items())
    return f"{total:,} neurons: {', '.join(shares)}"


def _types(neurons: Mapping[str, int]) -> str:
    return f"**Types** of {types_in_words(neurons)}"


def _scores(summary: Mapping[str, Any]) -> list[str]:
    if not summary["by_explainer"]:
        return ["**Score**: no explanation could be scored"]
    return [
        f"**Score** of {row['explainer']}, simulated by {row['simulator']}: "
        f"{score_in_words(row, summary['level'])}"
        for row in summary["by_explainer"]
    ]


def _cost(spending: Mapping[str, float]) -> str:
    cost = {name: value for name, value, _ in cost_metrics(spending)}
    if not cost.get("cost/requests"):
        return "**Cost**: $0; this run called no model of a provider"
    return (
        f"**Cost**: ${cost['cost/usd']:,.2f} for {cost['cost/requests']:,.0f} requests "
        f"({cost['cost/tokens_in']:,.0f} tokens in, {cost['cost/tokens_out']:,.0f} out)"
    )
