"""What a run found, as MLflow metrics: values by name, and by step where the step is a layer."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

import pyarrow as pa

from neuron_atlas.tasks.artifacts import (
    ALL_LAYERS,
    SCORE_AGGREGATES,
    TYPE_CONCEPTS,
    TYPE_KAPPA,
    TYPE_RESPONSES,
    TYPE_SHARES,
    read_table,
)
from neuron_atlas.workflows.run.context import Context

Value = tuple[str, float, int]
"""A metric's name, value and step."""


def read_summary(context: Context) -> dict[str, Any]:
    """The closing summary that the report stage wrote."""
    path = context.folder("report") / "summary.json"
    return json.loads(path.read_text(encoding="utf-8"))


def summary_metrics(summary: Mapping[str, Any]) -> dict[str, float]:
    """The summary as MLflow metrics; what was not measured is absent."""
    neurons = summary["neurons"]
    total = sum(neurons.values())
    tested = summary["n_tested"]
    metrics: dict[str, float | None] = {
        "score/correlation": summary["mean_score"],
        "neurons/all": total,
    }
    for name, count in neurons.items():
        metrics[f"neurons/{name}"] = count
        metrics[f"neurons_share/{name}"] = count / max(1, total)
    metrics |= {
        "score/correlation_of_control": summary["mean_control"],
        "score/margin_over_control": summary["mean_margin"],
        "score/neurons_scored": summary["n_scored"],
        "score/neurons_tested": tested,
        "score/neurons_that_beat_control": summary["n_beat_control"],
        "score/share_that_beat_control": summary["n_beat_control"] / tested if tested else None,
    }
    metrics |= {
        f"failed_rows/{failure['table']}/{failure['status']}": failure["count"]
        for failure in summary["failures"]
    }
    return {name: float(value) for name, value in metrics.items() if value is not None}


def result_metrics(context: Context) -> Iterator[Value]:
    """Aggregates of scores and of the analysis, of a run that is whole."""
    paths = context.paths("score", "score_aggregates")
    yield from score_metrics(read_table(paths, SCORE_AGGREGATES))
    yield from analysis_metrics(context)


def score_metrics(aggregates: pa.Table) -> Iterator[Value]:
    """The aggregates over all neurons and by layer.

    score_detail/<explainer>/<simulator>/<tokens>/<measure> with its bounds (_low, _high) and the
    number of neurons for which it is undefined; score_by_layer/<explainer>/<simulator>/<measure>,
    over all tokens, has the layer as step.
    """
    for row in aggregates.to_pylist():
        kind = f"{row['explainer']}/{row['simulator']}"
        if row["by"] == "all":
            name = f"score_detail/{kind}/{row['tokens']}/{row['measure']}"
            yield f"{name}_undefined", float(row["undefined"]), 0
            for end, column in (("", "mean"), ("_low", "ci_low"), ("_high", "ci_high")):
                if row[column] is not None:
                    yield f"{name}{end}", row[column], 0
        elif row["by"] == "layer" and row["tokens"] == "all" and row["mean"] is not None:
            yield f"score_by_layer/{kind}/{row['measure']}", row["mean"], int(row["group"])


def analysis_metrics(context: Context) -> Iterator[Value]:
    """Shares of types by layer, the layer as step; how far the two typings agree; medians of how
    types respond; what is not known is absent."""
    shares, agreement, responses, concepts = (
        read_table(context.paths("analyse", spec.name), spec).to_pylist()
        for spec in (TYPE_SHARES, TYPE_KAPPA, TYPE_RESPONSES, TYPE_CONCEPTS)
    )
    for row in shares:
        if row["layer"] != ALL_LAYERS:
            yield f"types_by_layer/{row['rule']}/{row['type']}", row["share"], row["layer"]
    for row in agreement:
        for name in ("agreed", "kappa"):
            if row[name] is not None:
                yield f"typings_agree/{name}", row[name], 0
    for row in responses:
        yield f"responses/{row['rule']}/{row['type']}/{row['measure']}_median", row["p50"], 0
    for row in concepts:
        if row["share"] is not None:
            yield f"same_concept/{row['rule']}/{row['type']}", row["share"], 0
