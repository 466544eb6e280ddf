"""One MLflow run a call: what was asked, what it took, what came out. Only the driver logs.

Tracking never costs a run its results: where the server cannot be reached, a line says so and the
run goes on, for all that is logged lies in the output folder too.
"""

from __future__ import annotations

import json
import os
import time
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from tasks.artifacts import (
    ALL_LAYERS,
    EXPLANATIONS,
    SCORE_AGGREGATES,
    TYPE_CONCEPTS,
    TYPE_KAPPA,
    TYPE_RESPONSES,
    TYPE_SHARES,
    read_table,
)
from tasks.artifacts.location import fetched
from tasks.settings import identity
from workflows.progress import say
from workflows.settings import Settings
from workflows.stage import Context
from workflows.store import MANIFEST

if TYPE_CHECKING:
    from mlflow import MlflowClient

_LONGEST_PARAMETER = 500
_METRICS_AT_ONCE = 500
_LONGEST_TABLE = 20_000
"""Rows that MLflow's page still shows; all are in the artifact."""
_EXPLANATION_COLUMNS = (
    "layer",
    "neuron",
    "explainer",
    "type",
    "text",
    "status",
    "reason",
    "model",
    "attempts",
    "tokens_in",
    "tokens_out",
    "cost",
)
_ENVIRONMENT = {
    "MLFLOW_LOGGING_LEVEL": "WARNING",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    # A server that is not there must not hold up a run for the minutes that are the default.
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
}
"""How MLflow is used where the user has not said otherwise."""


class Tracker:
    """One MLflow run, from the first stage to the last."""

    def __init__(self, settings: Settings, out: Path, config: Mapping[str, Any]) -> None:
        self._settings = settings
        self._config = config
        self._uri = os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{out / 'mlflow.db'}"
        self.shown_uri = without_password(self._uri)
        for name, value in _ENVIRONMENT.items():
            os.environ.setdefault(name, value)
        # Making a new database takes seconds, in which the first stage can already run.
        self._worker = ThreadPoolExecutor(max_workers=1, thread_name_prefix="mlflow")
        self._begun: Future[tuple[MlflowClient, str]] = self._worker.submit(self._begin)

    def log_live(self, metrics: Mapping[str, float], step: int) -> None:
        """Log metrics of a stage that is running; it holds up nothing, and may be lost."""
        self._worker.submit(self._log_live, dict(metrics), step)

    def _log_live(self, metrics: Mapping[str, float], step: int) -> None:
        from mlflow.entities import Metric

        client, run_id = self._begun.result()
        now = int(time.time() * 1000)
        told = [Metric(name, value, now, step) for name, value in metrics.items()]
        client.log_batch(run_id, metrics=told)

    def finish(self, context: Context, status: str, error: str = "") -> None:
        """Log what the run came to; status is FINISHED, FAILED or KILLED."""
        try:
            client, run_id = self._worker.submit(self._begun.result).result()
            try:
                self._log(client, run_id, context, error)
            finally:  # Of what cannot be logged in full, at least how it ended is known.
                client.set_terminated(run_id, status)
        except Exception as failure:  # Whatever a tracking server does, the artifacts are there.
            first = str(failure).strip().splitlines()[0] if str(failure).strip() else repr(failure)
            say(f"mlflow     not logged: {first}")
        finally:
            self._worker.shutdown()

    def _begin(self) -> tuple[MlflowClient, str]:
        from mlflow import MlflowClient
        from mlflow.entities import Param

        client = MlflowClient(tracking_uri=self._uri)
        name = self._settings.tracking.experiment
        experiment = client.get_experiment_by_name(name)
        if experiment is None:
            place = _artifact_place(self._uri)
            experiment_id = client.create_experiment(name, artifact_location=place)
        else:
            experiment_id = experiment.experiment_id
        tags = {"mlflow.source.name": "neuron-atlas", "mlflow.source.type": "LOCAL"}
        run = client.create_run(experiment_id, run_name=self._settings.tracking.run_name, tags=tags)
        parameters = [
            Param(key, str(value)[:_LONGEST_PARAMETER])
            for key, value in sorted(_flatten(self._config).items())
        ]
        client.log_batch(run.info.run_id, params=parameters)
        return client, run.info.run_id

    def _log(self, client: MlflowClient, run_id: str, context: Context, error: str) -> None:
        for stage, seconds in context.seconds.items():
            client.log_metric(run_id, f"seconds/{stage}", seconds)
        rows: Counter[str] = Counter()
        for manifest in context.manifests():
            rows.update(manifest.rows)
        for artifact, count in rows.items():
            client.log_metric(run_id, f"rows/{artifact}", count)
        client.set_tag(run_id, "stages_already_done", ", ".join(context.skipped) or "none")
        if error:
            client.set_tag(run_id, "error", error[:5000])
        if "samples" in context.done:
            self._log_dataset(client, run_id, context)
        explained = [*context.paths("explain", "explanations"), *context.unfinished]
        if explained:
            self._log_explanations(client, run_id, explained)
        if "report" in context.done:
            self._log_report(client, run_id, context)

    def _log_dataset(self, client: MlflowClient, run_id: str, context: Context) -> None:
        from mlflow.data.code_dataset_source import CodeDatasetSource
        from mlflow.data.meta_dataset import MetaDataset
        from mlflow.entities import DatasetInput, InputTag

        source = self._settings.data.source
        samples = context.done["samples"]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            dataset = MetaDataset(
                CodeDatasetSource({"source": json.dumps(identity(source))}),
                name=source.title,
                digest=samples.content[:16],
            )._to_mlflow_entity()
        tags = [InputTag(key="samples", value=str(samples.rows["samples"]))]
        client.log_inputs(run_id, [DatasetInput(dataset=dataset, tags=tags)])

    def _log_report(self, client: MlflowClient, run_id: str, context: Context) -> None:
        folder = context.folder("report")
        for name, value in summary_metrics(read_summary(context)).items():
            client.log_metric(run_id, name, value)
        # The site beside the page may have thousands of files: it stays where it is.
        names = context.done["report"].files["report"]
        with fetched(folder, names) as local:
            for name in names:
                into = (Path("report") / name).parent.as_posix()
                client.log_artifact(run_id, str(local / name), into)
        if (context.store.out / MANIFEST).is_file():
            with fetched(context.store.out, [MANIFEST]) as local:
                client.log_artifact(run_id, str(local / MANIFEST))
        self._log_by_layer(client, run_id, context)

    def _log_explanations(self, client: MlflowClient, run_id: str, paths: list[Path]) -> None:
        """The explanations as a table; this is its only writer."""
        table = read_table(paths, EXPLANATIONS, list(_EXPLANATION_COLUMNS))
        table = table.slice(0, _LONGEST_TABLE)
        client.log_table(run_id, table.to_pydict(), "explanations.json")

    def _log_by_layer(self, client: MlflowClient, run_id: str, context: Context) -> None:
        """Aggregates of scores and of the analysis; by layer with the layer as step, so that MLflow
        draws them."""
        from mlflow.entities import Metric

        table = read_table(context.paths("score", "score_aggregates"), SCORE_AGGREGATES)
        now = int(time.time() * 1000)
        found = [*score_metrics(table), *analysis_metrics(context)]
        metrics = [Metric(name, value, now, step) for name, value, step in found]
        for start in range(0, len(metrics), _METRICS_AT_ONCE):
            client.log_batch(run_id, metrics=metrics[start : start + _METRICS_AT_ONCE])


def analysis_metrics(context: Context) -> Iterator[tuple[str, float, int]]:
    """Name, value and step of what the analysis found: shares of types by layer, the layer as
    step; how far the two typings agree; medians of how types respond; what is not known, absent."""
    shares, agreement, responses, concepts = (
        read_table(context.paths("analyse", spec.name), spec).to_pylist()
        for spec in (TYPE_SHARES, TYPE_KAPPA, TYPE_RESPONSES, TYPE_CONCEPTS)
    )
    for row in shares:
        if row["layer"] != ALL_LAYERS:
            yield f"by_layer/share_{row['rule']}/{row['type']}", row["share"], row["layer"]
    for row in agreement:
        for name in ("agreed", "kappa"):
            if row[name] is not None:
                yield f"agreement/{name}", row[name], 0
    for row in responses:
        yield f"responses/{row['rule']}/{row['type']}/{row['measure']}_median", row["p50"], 0
    for row in concepts:
        if row["share"] is not None:
            yield f"same_concept/{row['rule']}/{row['type']}", row["share"], 0


def read_summary(context: Context) -> dict[str, Any]:
    """The closing summary that the report stage wrote."""
    path = context.folder("report") / "summary.json"
    return json.loads(path.read_text(encoding="utf-8"))


def summary_metrics(summary: Mapping[str, Any]) -> dict[str, float]:
    """The summary as MLflow metrics; what was not measured is absent."""
    neurons = summary["neurons"]
    total = max(1, sum(neurons.values()))
    metrics: dict[str, float | None] = {
        f"share/{name}": count / total for name, count in neurons.items()
    }
    metrics |= {
        "score/mean": summary["mean_score"],
        "score/control_mean": summary["mean_control"],
        "score/n": summary["n_scored"],
        "score/margin_mean": summary["mean_margin"],
        "score/tested": summary["n_tested"],
        "score/beat_control": summary["n_beat_control"],
    }
    metrics |= {
        f"failures/{failure['table']}/{failure['status']}": failure["count"]
        for failure in summary["failures"]
    }
    return {name: float(value) for name, value in metrics.items() if value is not None}


def score_metrics(aggregates: pa.Table) -> list[tuple[str, float, int]]:
    """Names, values and steps of the aggregates over all neurons and by layer.

    scores/<explainer>/<simulator>/<tokens>/<measure> with its bounds (_low, _high) and the number
    of neurons for which it is undefined; by_layer/..., over all tokens, has the layer as step.
    """
    metrics = []
    for row in aggregates.to_pylist():
        kind = f"{row['explainer']}/{row['simulator']}"
        if row["by"] == "all":
            name = f"scores/{kind}/{row['tokens']}/{row['measure']}"
            metrics.append((f"{name}_undefined", float(row["undefined"]), 0))
            metrics += [
                (f"{name}{end}", row[column], 0)
                for end, column in (("", "mean"), ("_low", "ci_low"), ("_high", "ci_high"))
                if row[column] is not None
            ]
        elif row["by"] == "layer" and row["tokens"] == "all" and row["mean"] is not None:
            metrics.append((f"by_layer/{kind}/{row['measure']}", row["mean"], int(row["group"])))
    return metrics


def without_password(uri: str) -> str:
    """The address as it may be shown: servers and databases can carry a password in theirs."""
    scheme, slashes, rest = uri.partition("://")
    place, slash, path = rest.partition("/")
    return f"{scheme}{slashes}{place.rpartition('@')[2]}{slash}{path}"


def _artifact_place(uri: str) -> str | None:
    """Beside a database that is a file; a server has its own place."""
    if not uri.startswith("sqlite:///"):
        return None
    return (Path(uri.removeprefix("sqlite:///")).resolve().parent / "mlartifacts").as_uri()


def _flatten(config: Mapping[str, Any], path: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in config.items():
        if isinstance(value, Mapping):
            flat |= _flatten(value, f"{path}{key}.")
        else:
            flat[f"{path}{key}".replace("_target_", "class")] = value
    return flat
