"""Copy runs from the local MLflow database to a tracking server; send only what is missing."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from neuron_atlas.workflows.cluster.progress import print_line
from neuron_atlas.workflows.tracking.address import error_code, safe_first_line
from neuron_atlas.workflows.tracking.local import experiment_id, log_subject
from neuron_atlas.workflows.tracking.metrics import MACHINE

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Metric, Run

_LOCAL_RUN = "neuron_atlas_run"
"""Tag on the server's runs with their id in the local database."""
_PARENT = "mlflow.parentRunId"
_NOTE = "mlflow.note.content"
_METRICS_PER_CALL = 500
_REFUSALS = {
    "BAD_REQUEST",
    "ENDPOINT_NOT_FOUND",
    "INVALID_PARAMETER_VALUE",
    "INVALID_STATE",
    "RESOURCE_ALREADY_EXISTS",
}
"""MLflow's error codes for requests that a server refuses permanently."""


@dataclass
class _Copy:
    """Copy of a run on the server. points: name, time (ms), step and value of its metrics."""

    run_id: str
    is_complete: bool = False
    points: set[tuple[str, int, int, str]] = field(default_factory=set)


class Mirror:
    """Copier of runs from one local database to one server."""

    def __init__(self, local: MlflowClient, uri: str) -> None:
        from mlflow import MlflowClient

        self.uri = uri
        self._local = local
        self._server = MlflowClient(tracking_uri=uri)
        self._copies: dict[str, _Copy] = {}

    def copy(self, run_id: str) -> bool:
        """Copy what the server lacks of a run and its parent.

        Returns whether the run has ended and the server has all of it. Raises MLflow's errors if
        the server cannot be reached.
        """
        try:
            return self._copy(run_id)
        except Exception as failure:
            if error_code(failure) != "RESOURCE_DOES_NOT_EXIST" or not self._copies:
                raise
            self._copies.clear()  # The server lost the run: its database was replaced.
            return self._copy(run_id)

    def copy_of(self, run_id: str) -> tuple[str, str] | None:
        """Return the ids of the experiment and of the copy on the server; None without a copy."""
        copy = self._copies.get(run_id)
        if copy is None:
            return None
        return str(self._server.get_run(copy.run_id).info.experiment_id), copy.run_id

    def _copy(self, run_id: str) -> bool:
        run = self._local.get_run(run_id)
        has_ended, is_new = run.info.status != "RUNNING", run_id not in self._copies
        if is_new:
            self._copies[run_id] = self._find(run) or self._create(run)
        copy = self._copies[run_id]
        if copy.is_complete:
            return True
        if is_new or has_ended:
            self._send_texts(run, copy)
        self._send_points(run, copy, has_ended)
        if has_ended:
            self._send_inputs(run, copy)
            self._send_files(run, copy)
            with self._refusable("the end", run):
                self._server.set_terminated(copy.run_id, run.info.status, run.info.end_time)
            copy.is_complete = True
        return copy.is_complete

    def _find(self, run: Run) -> _Copy | None:
        """Return the copy that an earlier program made of the run; None if there is none."""
        from mlflow.entities import ViewType

        name = self._local.get_experiment(run.info.experiment_id).name
        experiment = self._server.get_experiment_by_name(name)
        found = experiment and self._server.search_runs(
            [experiment.experiment_id],
            f"tags.{_LOCAL_RUN} = '{run.info.run_id}'",
            run_view_type=ViewType.ALL,
            max_results=1,
        )
        if not found:
            return None
        (remote,) = found
        # The status is sent last. A run that was deleted on the server stays deleted.
        if remote.info.status != "RUNNING" or remote.info.lifecycle_stage == "deleted":
            return _Copy(remote.info.run_id, is_complete=True)
        return _Copy(remote.info.run_id, points={*map(_point, _history(self._server, remote))})

    def _create(self, run: Run) -> _Copy:
        experiment = self._local.get_experiment(run.info.experiment_id)
        created = self._server.create_run(
            experiment_id(self._server, self.uri, experiment.name, experiment.tags),
            start_time=run.info.start_time,
            tags=self._tags(run),
            run_name=run.info.run_name,
        )
        return _Copy(created.info.run_id)

    def _tags(self, run: Run) -> dict[str, str]:
        tags = dict(run.data.tags) | {_LOCAL_RUN: run.info.run_id}
        if parent := tags.get(_PARENT):
            if parent not in self._copies:
                self._copy(parent)
            tags[_PARENT] = self._copies[parent].run_id
        return tags

    def _send_texts(self, run: Run, copy: _Copy) -> None:
        from mlflow.entities import Param, RunTag

        params = [Param(name, value) for name, value in run.data.params.items()]
        texts = self._tags(run)
        if _NOTE in texts:  # The addresses of its pictures hold the run's id.
            texts[_NOTE] = texts[_NOTE].replace(run.info.run_id, copy.run_id)
        tags = [RunTag(name, value) for name, value in texts.items()]
        with self._refusable("parameters", run):
            self._server.log_batch(copy.run_id, params=params, tags=tags)

    def _send_points(self, run: Run, copy: _Copy, has_ended: bool) -> None:
        """Send metrics; those of the machine last, because the server lists them in that order."""
        missing = [
            metric
            for metric in _history(self._local, run)
            if _point(metric) not in copy.points
            and (has_ended or not metric.key.startswith(MACHINE))
        ]
        for start in range(0, len(missing), _METRICS_PER_CALL):
            part = missing[start : start + _METRICS_PER_CALL]
            with self._refusable("metrics", run):
                self._server.log_batch(copy.run_id, metrics=part)
            copy.points.update(map(_point, part))

    def _send_inputs(self, run: Run, copy: _Copy) -> None:
        with self._refusable("inputs", run):
            if run.inputs.dataset_inputs:
                self._server.log_inputs(copy.run_id, run.inputs.dataset_inputs)
            for model_input in run.inputs.model_inputs:
                model = self._local.get_logged_model(model_input.model_id)
                content = model.tags["content"]
                log_subject(self._server, copy.run_id, model.name, content, model.params)

    def _send_files(self, run: Run, copy: _Copy) -> None:
        sent = dict(_files(self._server, copy.run_id))
        for path, size in _files(self._local, run.info.run_id):
            if path not in sent or sent[path] not in (size, None):
                file = self._local.download_artifacts(run.info.run_id, path)
                folder = str(PurePosixPath(path).parent)
                with self._refusable("files", run):
                    self._server.log_artifact(copy.run_id, file, folder if folder != "." else None)

    @contextmanager
    def _refusable(self, what: str, run: Run) -> Iterator[None]:
        """Continue without what the server refuses, and log that."""
        try:
            yield
        except Exception as failure:
            if error_code(failure) not in _REFUSALS:
                raise
            reason = safe_first_line(failure, self.uri)
            print_line(f"mlflow     the server refuses {what} of {run.info.run_name!r}: {reason}")


def _history(client: MlflowClient, run: Run) -> Iterator[Metric]:
    for name in run.data.metrics:
        yield from client.get_metric_history(run.info.run_id, name)


def _point(metric: Metric) -> tuple[str, int, int, str]:
    return metric.key, metric.timestamp, metric.step, repr(metric.value)


def _files(client: MlflowClient, run_id: str, folder: str = "") -> Iterator[tuple[str, int | None]]:
    """Yield the path and size in bytes of each artifact."""
    for file in client.list_artifacts(run_id, folder):
        if file.is_dir:
            yield from _files(client, run_id, file.path)
        else:
            yield file.path, file.file_size
