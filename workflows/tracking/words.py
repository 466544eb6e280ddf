"""What a stranger reads in MLflow: names of runs, their descriptions, and what the metrics mean."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from neuron_atlas.workflows.config.settings import Settings

METRICS_NOTE = """\
| metrics | what they say | unit |
|---|---|---|
| `neurons/*`, `neurons_share/*` | FFN neurons of each type: what excites them most is visual, \
text, both (multi-modal), or neither clearly (unknown) | neurons; share of all, 0 to 1 |
| `types_by_layer/<rule>/*` | the same shares in one layer; **the step is the layer** | 0 to 1 |
| `score/correlation` | how well explanations predict their neurons on samples that the explainer \
never saw: mean over neurons, 1 is perfect, 0 is chance | correlation, -1 to 1 |
| `score/correlation_of_control` | the same for explanations of *other* neurons: what a score is \
worth is its distance from this | correlation |
| `score/margin_over_control` | that distance, mean over neurons | correlation |
| `score/share_that_beat_control` | of the neurons that could be tested, those that beat their \
controls (at the false discovery rate `score.q`) | 0 to 1 |
| `score_by_layer/<explainer>/<simulator>/*` | scores and controls in one layer; **the step is the \
layer** | as above |
| `score_detail/<explainer>/<simulator>/<tokens>/*` | every measure over all, visual or text \
tokens; `_low` and `_high` bound the mean at 95 %, `_undefined` counts neurons without it | |
| `responses/*`, `same_concept/*`, `typings_agree/*` | how neurons of a type respond (medians); \
whether image and text show a multi-modal neuron the same thing; how far the two typings agree | |
| `failed_rows/<table>/<status>` | what failed, counted | rows |
| `seconds/*`, `table_rows/*` | time of each stage, absent where it was already done; rows of each \
table | s; rows |
| `explain/*`, `simulate/*` | what asking a model took, as it ran; steps are seconds | USD, calls, \
tokens, s |
| `sweep/*` | jobs of a sweep that finished, failed, or did not begin | jobs |
| `system/<node>/*` | each machine while the run was on it | %, MB |
"""

EXPERIMENT_NOTE = (
    """\
Each run is an **atlas**: the FFN neurons of a vision-language model (the *subject*), what excites \
them, an explanation of each in words, and a score that says how far the explanation can be \
trusted. A run with others below it is a **sweep**, and compares them.

Columns worth showing: `score/correlation` beside `score/correlation_of_control`, \
`neurons_share/visual`, `neurons_share/text`, `neurons_share/multi-modal`, and the tags `layers` \
and `explainer`. Each run's page is among its artifacts: `report/index.html`.

"""
    + METRICS_NOTE
)


def layers_in_words(layers: Sequence[int] | None) -> str:
    """Such as "layers 0-3, 8", "layer 4" or "all layers"."""
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
    """The subject's short name: the folder's, or the last part of a Hugging Face id."""
    return Path(settings.subject.model).name


def run_name(settings: Settings) -> str:
    """A run's name where the user gave none."""
    explainers = " + ".join(settings.explain.names)
    return f"{subject_name(settings)}, {layers_in_words(settings.capture.layers)}, {explainers}"


def run_tags(settings: Settings) -> dict[str, str]:
    """What tells runs apart, under names that are columns of MLflow's table."""
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
    """A run's description, in Markdown; summary: of the report, once there is one."""
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


def as_name(text: str) -> str:
    """A parameter's or metric's name as MLflow takes it: models and explainers may be named with
    signs that it refuses."""
    return re.sub(r"[^-a-zA-Z0-9_./: ]", " ", text)
