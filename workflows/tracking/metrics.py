"""Compute the metrics that a run logs: name, value and step."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

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

if TYPE_CHECKING:
    from neuron_atlas.tasks.models.account.tally import Tally
    from neuron_atlas.workflows.run.context import Context

Value = tuple[str, float, int]
"""A metric's name, value and step; the step is 0 unless stated otherwise."""

BY_LAYER = ("types_by_layer", "score_by_layer")
"""Metric groups whose step is the layer."""

METRICS_NOTE = """\
| metrics | meaning | unit |
|---|---|---|
| `neurons/*`, `neurons_share/*` | FFN neurons of each type: they respond most to visual tokens, \
text tokens, both (multi-modal), or neither clearly (unknown) | neurons; share of all, 0 to 1 |
| `types_by_layer/<rule>/*` | the same shares in one layer; **the step is the layer** | 0 to 1 |
| `score/correlation` | how well explanations predict their neurons on samples that the explainer \
never saw: mean over neurons, 1 is perfect, 0 is chance | correlation, -1 to 1 |
| `score/correlation_of_control` | the same with explanations of *other* neurons: a score is \
only worth its distance from this | correlation |
| `score/margin_over_control` | that distance, mean over neurons | correlation |
| `score/share_that_beat_control` | share of the tested neurons whose explanation beats its \
controls (at the false discovery rate `score.max_q`) | 0 to 1 |
| `score_by_layer/<explainer>/<simulator>/*` | scores and controls in one layer; **the step is the \
layer** | as above |
| `score_detail/<explainer>/<simulator>/<tokens>/*` | every measure over all, visual or text \
tokens; `_low` and `_high` are the 95 % bounds of the mean, `_undefined` counts neurons without \
a value | |
| `responses/*`, `same_concept/*`, `rule_agreement/*` | how neurons of a type respond (medians); \
whether a multi-modal neuron responds to the same concept in image and text; agreement of the two \
typings | |
| `failed_rows/<table>/<status>` | number of failures | rows |
| `seconds/*`, `table_rows/*` | time of each stage, absent if the stage was already done; rows of \
each table | s; rows |
| `explain/*`, `simulate/*` | cost of the model calls over time; **the step is seconds** | USD, \
calls, tokens, s |
| `sweep/*` | jobs of a sweep that finished, failed, or did not start | jobs |
| `system/*` | load of the driver's machine during the run | %, MB |
"""
"""Description of each metric group, for MLflow's pages."""


def read_summary(context: Context) -> dict[str, Any]:
    """Return the summary that the report stage wrote."""
    path = context.folder("report") / "summary.json"
    return json.loads(path.read_text(encoding="utf-8"))


def valid_name(text: str) -> str:
    """Return a name that MLflow accepts, with other characters as spaces.

    Names of models and explainers may contain such characters.
    """
    return re.sub(r"[^-a-zA-Z0-9_./: ]", " ", text)


def summary_metrics(summary: Mapping[str, Any]) -> Iterator[Value]:
    """Yield the metrics of the report's summary, without those that were not measured."""
    neurons = summary["neurons"]
    total = sum(neurons.values())
    tested = summary["n_tested"]
    values: dict[str, float | None] = {
        # First, because MLflow's compare view opens with the first metric.
        "score/correlation": summary["mean_score"],
        "neurons/all": total,
    }
    for name, count in neurons.items():
        values[f"neurons/{name}"] = count
        values[f"neurons_share/{name}"] = count / max(1, total)
    values |= {
        "score/correlation_of_control": summary["mean_control"],
        "score/margin_over_control": summary["mean_margin"],
        "score/neurons_scored": summary["n_scored"],
        "score/neurons_tested": tested,
        "score/neurons_that_beat_control": summary["n_beat_control"],
        "score/share_that_beat_control": summary["n_beat_control"] / tested if tested else None,
    }
    values |= {
        f"failed_rows/{failure['table']}/{failure['status']}": failure["count"]
        for failure in summary["failures"]
    }
    yield from _measured(values)


def stage_metrics(context: Context) -> Iterator[Value]:
    """Yield the seconds of the stages that ran."""
    yield from _measured(
        {f"seconds/{stage}": seconds for stage, seconds in context.stats.seconds.items()}
    )


def row_metrics(context: Context) -> Iterator[Value]:
    """Yield the rows of each table."""
    rows: Counter[str] = Counter()
    for manifest in context.done.values():
        rows.update(manifest.rows)
    yield from _measured({f"table_rows/{name}": count for name, count in rows.items()})


def sweep_metrics(jobs: int, ended: int, finished: int) -> Iterator[Value]:
    """Yield how many jobs of a sweep finished, failed, or did not start."""
    yield from _measured(
        {
            "sweep/jobs_finished": finished,
            "sweep/jobs_failed": ended - finished,
            "sweep/jobs_not_started": jobs - ended,
        }
    )


def spending_metrics(stage: str, tally: Tally) -> dict[str, float]:
    """Return the cost of a stage's calls so far, without values that were not measured."""
    values: dict[str, float | None] = {
        "usd": tally.run_usd,
        "usd_of_all_runs": tally.spent_usd,
        "requests": tally.requests,
        "answered": tally.answered,
        "from_journal": tally.replayed,
        "without_result": tally.lost,
        "tokens_in": tally.tokens_in,
        "tokens_out": tally.tokens_out,
        "latency_p50_s": tally.latency_s(0.5),
        "latency_p90_s": tally.latency_s(0.9),
        "latency_p99_s": tally.latency_s(0.99),
    }
    values |= {f"calls/{name}": count for name, count in tally.outcomes.items()}
    return {f"{stage}/{name}": value for name, value, _ in _measured(values)}


def result_metrics(context: Context) -> Iterator[Value]:
    """Yield the aggregates of the scores and the analysis of a finished run."""
    paths = context.paths("score", "score_aggregates")
    yield from score_metrics(read_table(paths, SCORE_AGGREGATES))
    yield from analysis_metrics(context)


def score_metrics(aggregates: pa.Table) -> Iterator[Value]:
    """Yield the score aggregates over all neurons and by layer.

    Over all neurons: score_detail/<explainer>/<simulator>/<tokens>/<measure>, with its bounds
    (_low, _high) and the number of neurons without a value (_undefined). By layer, with the layer
    as step, over all tokens: score_by_layer/<explainer>/<simulator>/<measure>.
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
    """Yield the metrics of the analysis, without unknown values.

    They are type shares by layer (the step), agreement of the two typings, median responses of
    types, and shares of neurons with the same concept in image and text.
    """
    shares, agreements, responses, concepts = (
        read_table(context.paths("analyse", spec.name), spec).to_pylist()
        for spec in (TYPE_SHARES, TYPE_KAPPA, TYPE_RESPONSES, TYPE_CONCEPTS)
    )
    for row in shares:
        if row["layer"] != ALL_LAYERS:
            yield f"types_by_layer/{row['rule']}/{row['type']}", row["share"], row["layer"]
    for row in agreements:
        for name in ("agreement", "kappa"):
            if row[name] is not None:
                yield f"rule_agreement/{name}", row[name], 0
    for row in responses:
        yield f"responses/{row['rule']}/{row['type']}/{row['measure']}_median", row["p50"], 0
    for row in concepts:
        if row["share"] is not None:
            yield f"same_concept/{row['rule']}/{row['type']}", row["share"], 0


def _measured(values: Mapping[str, float | None]) -> Iterator[Value]:
    for name, value in values.items():
        if value is not None:
            yield name, float(value), 0
