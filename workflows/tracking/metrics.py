"""Describe the metrics that a run logs, and compute them: name, value and step.

Everything else that a run measures is in its tables: see `workflows.tracking.tables`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from neuron_atlas.tasks.models.account.tally import Tally
    from neuron_atlas.workflows.run.context import Context

Value = tuple[str, float, int]
"""A metric's name, value and step; the step is 0 unless stated otherwise."""

METRICS: tuple[tuple[str, str], ...] = (
    (
        "score/correlation",
        "score of the explanations: how well they predict their neurons on samples that the "
        "explainer never saw, as a mean over neurons. 1 is perfect, 0 is chance",
    ),
    (
        "score/correlation_of_control",
        "the same mean for the strongest control, which the tag `strongest_control` names. A score "
        "is worth only its distance from it",
    ),
    (
        "score/margin_over_control",
        "mean over neurons of the score minus the highest of the neuron's controls, or minus 0 if "
        "all are lower",
    ),
    (
        "score/share_that_beat_control",
        "share of the tested neurons whose explanation beats its controls at the false discovery "
        "rate `score.max_q`",
    ),
    ("score/correlation_of_other_explanation", "control: explanations of other neurons"),
    ("score/correlation_of_empty_explanation", "control: an explanation without words"),
    (
        "score/correlation_without_explanation",
        "control: a prediction from the neuron's mean activation, without an explanation",
    ),
    (
        "score/purity, score/random_purity, score/recall",
        "why a score is low: explanations are too broad (purity, to compare with that of a random "
        "ranking) or too narrow (recall), as means over neurons (0 to 1)",
    ),
    (
        "score/top_random_correlation",
        "the score over as many exemplars as random samples, as other projects report it",
    ),
    (
        "score/neurons_scored, score/neurons_tested, score/neurons_that_beat_control",
        "number of neurons with a score, with a test, and that beat their controls",
    ),
    (
        "neurons/all, neurons/<type>, neurons_share/<type>",
        "neurons of each type, and their share of all neurons (0 to 1). The type is the kind of "
        "tokens that a neuron responds to: visual, text, both (multi-modal), or neither (unknown)",
    ),
    (
        "groups/contrast, groups/contrast_p, groups/contrast_p_random",
        "visual against text neurons, ablated: above 0 if each type matters more for its own "
        "measure (nats), and its p-values over samples and among random neurons",
    ),
    (
        "groups/excess/<type>",
        "effect of ablating a type on its own measure beyond that of matched random neurons (nats)",
    ),
    (
        "neurons/monosemanticity, neurons/meanings",
        "how much a neuron's strong exemplars have in common, 0 (nothing) to 1, and the number of "
        "stable groups that they form, as means over neurons",
    ),
    (
        "search/clarity_visual, search/clarity_text, search/redundancy_visual, "
        "search/redundancy_text",
        "how alike the embeddings at a neuron's peaks are (clarity), and how near its nearest "
        "neuron is (redundancy), in images and in texts, as mean cosines over neurons",
    ),
    (
        "meanings/neurons, meanings/score, meanings/score_of_whole, meanings/gain",
        "explained neurons with several meanings; mean score of the meanings' explanations, of the "
        "whole neurons' on the same samples, and mean gain",
    ),
    (
        "effects/share_with_effect, effects/attribution_correlation, effects/attribution_slope",
        "share of the neurons whose effect on the loss differs from 0, and how exact ablation "
        "follows the attribution (1 if it is right)",
    ),
    (
        "effects/explanations_tested, effects/explanations_faithful, effects/agreement",
        "explanations tested by ablation and those found faithful, and the mean agreement of all "
        "with the tokens that their neurons promote (0.5 is chance)",
    ),
    (
        "cost/usd, cost/requests, cost/tokens_in, cost/tokens_out",
        "cost of the model calls of this run, in US dollars, requests and tokens",
    ),
    ("failed_rows/all", "number of failed rows; the table `failures.json` counts them by status"),
    ("seconds/<stage>", "time of each stage in seconds; absent if the stage was already done"),
    ("sweep/jobs_finished, sweep/jobs_failed, sweep/jobs_not_started", "jobs of a sweep"),
    (
        "explain/*, simulate/*",
        "model calls during the run: `usd`, `requests`, `without_result` (calls), `latency_p50_s`. "
        "The step is seconds",
    ),
    (
        "machine/*",
        "load of the driver's machine every 10 s: CPU and memory (%, MB), disk and network (MB), "
        "GPUs",
    ),
)
"""Names of the metrics that a run logs, with their meaning, in the order of MLflow's page."""

METRICS_NOTE = "\n".join(
    f"- {', '.join(f'`{name}`' for name in names.split(', '))}: {meaning}."
    for names, meaning in METRICS
)
"""The same as a Markdown list, for MLflow's pages."""

MACHINE = "machine/"
"""Prefix of the metrics of the driver's machine."""

_CONTROLS = {
    "control_other": "score/correlation_of_other_explanation",
    "control_empty": "score/correlation_of_empty_explanation",
    "control_blind": "score/correlation_without_explanation",
}
_PATTERNS = [re.sub(r"<\w+>|\*", ".+", name) for names, _ in METRICS for name in names.split(", ")]
_LIVE = ("usd", "requests", "without_result", "latency_p50_s")
_COSTS = ("usd", "requests", "tokens_in", "tokens_out")


def metric_position(name: str) -> int:
    """Return the position of a metric in METRICS; after all others if it is none of them."""
    for position, pattern in enumerate(_PATTERNS):
        if re.fullmatch(pattern, name):
            return position
    return len(_PATTERNS)


def _is_described(name: str) -> bool:
    return metric_position(name) < len(_PATTERNS)


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
        "score/correlation_of_control": summary["mean_control"],
        "score/margin_over_control": summary["mean_margin"],
        "score/share_that_beat_control": summary["n_beat_control"] / tested if tested else None,
    }
    values |= {_CONTROLS[name]: mean for name, mean in summary["mean_controls"].items()}
    values |= {
        "score/neurons_scored": summary["n_scored"],
        "score/neurons_tested": tested,
        "score/neurons_that_beat_control": summary["n_beat_control"],
        "neurons/all": total,
    }
    for name, count in neurons.items():
        values[f"neurons/{name}"] = count
        values[f"neurons_share/{name}"] = count / max(1, total)
    values |= {f"neurons/{name}": mean for name, mean in summary["mean_responses"].items()}
    values["failed_rows/all"] = sum(failure["count"] for failure in summary["failures"])
    means = {f"score/{name}": mean for name, mean in summary["mean_of"].items()}
    # The tables hold the means that METRICS does not describe.
    values |= {name: mean for name, mean in means.items() if _is_described(name)}
    for part in ("search", "effects", "meanings"):
        values |= {f"{part}/{name}": value for name, value in summary.get(part, {}).items()}
    yield from _measured(values)


def stage_metrics(context: Context) -> Iterator[Value]:
    """Yield the seconds of the stages that ran."""
    yield from _measured(
        {f"seconds/{stage}": seconds for stage, seconds in context.stats.seconds.items()}
    )


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


def live_metrics(spending: Mapping[str, float]) -> dict[str, float]:
    """Return those of `spending_metrics` that are logged during the run."""
    return {name: value for name, value in spending.items() if name.rpartition("/")[2] in _LIVE}


def cost_metrics(spending: Mapping[str, float]) -> Iterator[Value]:
    """Yield the cost of a run from the last `spending_metrics` of all its stages.

    A run without calls cost nothing, and has no other metric of its cost.
    """
    totals = dict.fromkeys(_COSTS if spending else _COSTS[:1], 0.0)
    for name, value in spending.items():
        if (measure := name.rpartition("/")[2]) in totals:
            totals[measure] += value
    yield from _measured({f"cost/{name}": total for name, total in totals.items()})


def _measured(values: Mapping[str, float | None]) -> Iterator[Value]:
    for name, value in values.items():
        if value is not None:
            yield name, float(value), 0
