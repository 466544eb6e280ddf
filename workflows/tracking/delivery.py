"""From what a run told to the calls of MLflow that log it."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from neuron_atlas.tasks.artifacts import EXPLANATIONS, read_table
from neuron_atlas.tasks.artifacts.location import fetched, location
from neuron_atlas.workflows.tracking.address import artifact_place
from neuron_atlas.workflows.tracking.spool import Entry, Spool
from neuron_atlas.workflows.tracking.words import EXPERIMENT_NOTE, as_name

if TYPE_CHECKING:
    from mlflow import MlflowClient

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
_REFUSALS = {
    "BAD_REQUEST",
    "ENDPOINT_NOT_FOUND",
    "INVALID_PARAMETER_VALUE",
    "INVALID_STATE",
    "RESOURCE_ALREADY_EXISTS",
}
"""MLflow's words for what will not be logged however often it is tried."""


class Delivery:
    """The connection to one MLflow."""

    def __init__(self, uri: str) -> None:
        self._uri = uri
        self._made: MlflowClient | None = None

    def deliver(self, entry: Entry, spool: Spool) -> None:
        """Log an entry. Raises whatever MLflow raises."""
        try:
            _KINDS[entry.kind](self, entry, spool)
        except Exception as failure:
            if entry.run not in spool.runs or error_code(failure) != "RESOURCE_DOES_NOT_EXIST":
                raise
            # The server has forgotten the run (another database): it begins again there.
            del spool.runs[entry.run]
            self._begin(spool.begun[entry.run], spool)
            _KINDS[entry.kind](self, entry, spool)

    @property
    def _client(self) -> MlflowClient:
        if self._made is None:
            from mlflow import MlflowClient

            self._made = MlflowClient(tracking_uri=self._uri)
        return self._made

    def _begin(self, entry: Entry, spool: Spool) -> None:
        from mlflow.entities import Param

        told = entry.content
        if entry.run not in spool.runs:
            tags = dict(told["tags"])
            if told["parent"] is not None:
                tags["mlflow.parentRunId"] = spool.runs[told["parent"]]
            run = self._client.create_run(
                self._experiment(told["experiment"]),
                start_time=round(entry.time * 1000),
                tags=tags,
                run_name=told["name"],
            )
            spool.runs[entry.run] = run.info.run_id
        params = [Param(as_name(name), value) for name, value in told["parameters"].items()]
        self._client.log_batch(spool.runs[entry.run], params=params)

    def _experiment(self, name: str) -> str:
        found = self._client.get_experiment_by_name(name)
        if found is not None:
            return str(found.experiment_id)
        tags = {
            "mlflow.note.content": EXPERIMENT_NOTE,
            # Or MLflow's page asks each visitor what kind of experiment this is.
            "mlflow.experimentKind": "custom_model_development",
        }
        place = artifact_place(self._uri)
        return str(self._client.create_experiment(name, artifact_location=place, tags=tags))

    def _metrics(self, entry: Entry, spool: Spool) -> None:
        from mlflow.entities import Metric

        when = round(entry.time * 1000)
        metrics = [
            Metric(as_name(name), value, when, step)
            for name, value, step in entry.content["values"]
        ]
        for start in range(0, len(metrics), _METRICS_AT_ONCE):
            part = metrics[start : start + _METRICS_AT_ONCE]
            self._client.log_batch(spool.runs[entry.run], metrics=part)

    def _tags(self, entry: Entry, spool: Spool) -> None:
        from mlflow.entities import RunTag

        tags = [RunTag(name, value) for name, value in entry.content.items()]
        self._client.log_batch(spool.runs[entry.run], tags=tags)

    def _dataset(self, entry: Entry, spool: Spool) -> None:
        from mlflow.entities import Dataset, DatasetInput, InputTag

        told = entry.content
        dataset = Dataset(
            name=told["name"],
            digest=told["digest"],
            source_type="code",
            source=told["source"],
            profile=told["profile"],
        )
        tags = {"mlflow.data.context": "samples", **told["tags"]}
        given = [InputTag(key=name, value=value) for name, value in tags.items()]
        self._client.log_inputs(spool.runs[entry.run], [DatasetInput(dataset, given)])

    def _subject(self, entry: Entry, spool: Spool) -> None:
        """The subject as a model that lies elsewhere: one for all runs of an experiment."""
        from mlflow.entities import LoggedModelInput, LoggedModelStatus

        told = entry.content
        run_id = spool.runs[entry.run]
        experiment_id = self._client.get_run(run_id).info.experiment_id
        known = self._client.search_logged_models(
            [experiment_id], f"tags.content = '{told['content']}'", max_results=1
        )
        if known:
            model_id = known[0].model_id
        else:
            model = self._client.create_logged_model(
                experiment_id,
                # What MLflow allows in a model's name.
                name=re.sub(r"[/:.%\"']", "-", told["name"]),
                tags={"mlflow.model.isExternal": "true", "content": told["content"]},
                params=told["params"],
                model_type="subject",
            )
            model_id = model.model_id
            self._client.finalize_logged_model(model_id, LoggedModelStatus.READY)
        self._client.log_inputs(run_id, models=[LoggedModelInput(model_id)])

    def _files(self, entry: Entry, spool: Spool) -> None:
        run_id, told = spool.runs[entry.run], entry.content
        with fetched(location(told["folder"]), told["names"]) as folder:
            for name in told["names"]:
                if not (folder / name).is_file():
                    raise FileNotFoundError(f"{name} is gone from {told['folder']}")
                into = (Path(told["to"]) / name).parent.as_posix()
                self._client.log_artifact(run_id, str(folder / name), into)

    def _text(self, entry: Entry, spool: Spool) -> None:
        self._client.log_text(spool.runs[entry.run], entry.content["text"], entry.content["to"])

    def _explanations(self, entry: Entry, spool: Spool) -> None:
        paths = [location(path) for path in entry.content["paths"]]
        table = read_table(paths, EXPLANATIONS, list(_EXPLANATION_COLUMNS))
        rows = table.slice(0, _LONGEST_TABLE).to_pydict()
        self._log_table(spool.runs[entry.run], rows, "explanations.json")

    def _table(self, entry: Entry, spool: Spool) -> None:
        self._log_table(spool.runs[entry.run], entry.content["columns"], entry.content["to"])

    def _log_table(self, run_id: str, columns: Mapping[str, Any], name: str) -> None:
        # MLflow adds rows to a table that is there; this is its only writer, here once more.
        if all(file.path != name for file in self._client.list_artifacts(run_id)):
            self._client.log_table(run_id, dict(columns), name)

    def _end(self, entry: Entry, spool: Spool) -> None:
        when = round(entry.time * 1000)
        self._client.set_terminated(spool.runs[entry.run], entry.content["status"], when)


_KINDS: dict[str, Callable[[Delivery, Entry, Spool], None]] = {
    "begin": Delivery._begin,
    "metrics": Delivery._metrics,
    "tags": Delivery._tags,
    "dataset": Delivery._dataset,
    "subject": Delivery._subject,
    "files": Delivery._files,
    "text": Delivery._text,
    "explanations": Delivery._explanations,
    "table": Delivery._table,
    "end": Delivery._end,
}


def is_refused(entry: Entry, failure: Exception) -> bool:
    """Whether an entry will never be logged, so that those after it need not wait for it."""
    if entry.kind == "begin":
        return False
    if isinstance(failure, FileNotFoundError | ValueError | TypeError | KeyError):
        return True
    return error_code(failure) in _REFUSALS


def error_code(failure: Exception) -> str:
    """MLflow's own word for a failure; empty where it has none."""
    return str(getattr(failure, "error_code", ""))
