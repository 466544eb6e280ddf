"""Record runs in MLflow: in the local database, and on a tracking server when it answers.

A recording error never stops a run: it is logged in one line, and the run continues.
"""

from __future__ import annotations

import getpass
import os
import sqlite3
import time
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from neuron_atlas.tasks.artifacts.location import downloaded_files
from neuron_atlas.workflows.cluster.progress import print_line
from neuron_atlas.workflows.cluster.waiting import explained_wait
from neuron_atlas.workflows.tracking.address import (
    safe_first_line,
    server_uri,
    set_defaults,
    without_password,
)
from neuron_atlas.workflows.tracking.descriptions import EXPERIMENT_NOTE
from neuron_atlas.workflows.tracking.links import (
    PICTURES,
    VIEW_TAGS,
    local_server,
    picture_address,
    run_link,
    ui_command,
)
from neuron_atlas.workflows.tracking.live_mirror import LiveMirror
from neuron_atlas.workflows.tracking.local import LocalRuns, experiment_id, log_subject
from neuron_atlas.workflows.tracking.metrics import (
    MACHINE,
    Value,
    metric_position,
    valid_name,
)
from neuron_atlas.workflows.tracking.mirror import Mirror

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor

_LONGEST_PARAMETER = 500
_LONGEST_TAG = 8000
_NOTE = "mlflow.note.content"
_EXPERIMENT_TAGS = {
    _NOTE: EXPERIMENT_NOTE,
    # Without this, MLflow's page asks each visitor for the kind of experiment.
    "mlflow.experimentKind": "custom_model_development",
    **VIEW_TAGS,
}


class Recorder:
    """Recorder of the runs of one call: an atlas, or a sweep with all its jobs.

    Runs are created in the background, because a new database takes seconds, in which the first
    stage can already run.
    """

    def __init__(self, folder: Path) -> None:
        set_defaults()
        self._folder = folder
        self.local = LocalRuns(folder)
        self._server = server_uri(folder)
        self.mirror: LiveMirror | None = None
        self._reasons: set[str] = set()
        self.background = ThreadPoolExecutor(1, thread_name_prefix="mlflow")
        self.background.submit(self._open)

    @property
    def display_uri(self) -> str:
        """Address of MLflow for the user: of the server, unless it could not be reached."""
        has_server = self.mirror is not None and not self.mirror.reason
        return without_password(self._server if has_server and self._server else self.local.uri)

    @contextmanager
    def logging(self, what: str) -> Iterator[None]:
        """Continue after an MLflow error, and log each reason once."""
        try:
            yield
        except Exception as failure:
            reason = safe_first_line(failure, self.local.uri)
            if reason not in self._reasons:
                self._reasons.add(reason)
                print_line(f"mlflow     will not log {what}: {reason}")

    def where(self, run: RunRecord) -> str:
        """Return where the user finds a run: its link on the server, or a command with a link.

        For a server without pages, such as a database, its address.
        """
        server = without_password(self._server or "")
        if server and not server.startswith("http"):
            return server
        with suppress(Exception):
            copy = None if self.mirror is None else self.mirror.copy_of(run.run_id)
            if copy is not None:
                return run_link(server, *copy)
        # Without a server, or not sent to it yet.
        command = ui_command(self._folder)
        with suppress(Exception):
            found = self.local.client.get_run(run.run_id).info
            link = run_link(local_server(), str(found.experiment_id), run.run_id)
            return f"{command}  opens {link}"
        return command

    def close(self) -> None:
        """Wait until the server has everything; log if it cannot be reached."""
        where = without_password(self._server or self.local.uri)
        with explained_wait("mlflow", f"{where} to record the run"):
            self.background.shutdown()
            reason = "" if self.mirror is None else self.mirror.close()
        if reason:
            print_line(
                f"mlflow     not sent to the server: {reason}; all is in {self._folder}. The "
                f"next run in this folder sends it, or neuron-atlas-log {self._folder}"
            )
        self.local.close()

    def _open(self) -> None:
        earlier = []
        with self.logging("earlier runs"):
            if self.local.is_alone:
                self.local.end_killed()
                earlier = [run.info.run_id for run in self.local.runs()]
            self.local.share()
            if self._server is not None:
                self.mirror = LiveMirror(Mirror(self.local.client, self._server), earlier)


class RunRecord:
    """Record of one run in MLflow.

    note: the first description. parent: the run of the sweep that this run is a job of.
    """

    def __init__(
        self,
        recorder: Recorder,
        experiment: str,
        name: str,
        note: str,
        tags: Mapping[str, str],
        parameters: Mapping[str, str],
        parent: RunRecord | None = None,
    ) -> None:
        self.recorder = recorder
        self._monitor: SystemMetricsMonitor | None = None
        now = _now_ms()

        def create() -> str:
            from mlflow.entities import Param

            uri = recorder.local.uri
            parent_tag = {} if parent is None else {"mlflow.parentRunId": parent.run_id}
            run = self._client.create_run(
                experiment_id(self._client, uri, experiment, _EXPERIMENT_TAGS),
                start_time=now,
                tags=_cut({**_program_tags(), **tags, **parent_tag, _NOTE: note}, _LONGEST_TAG),
                run_name=name,
            )
            run_id = str(run.info.run_id)
            params = _cut(parameters, _LONGEST_PARAMETER).items()
            self._client.log_batch(
                run_id, params=[Param(valid_name(key), value) for key, value in params]
            )
            if parent is None:
                self._monitor = _monitor(run_id, uri)
            if recorder.mirror is not None:
                recorder.mirror.add(run_id)
            return run_id

        self._created = recorder.background.submit(create)

    @property
    def _client(self) -> MlflowClient:
        return self.recorder.local.client

    @property
    def run_id(self) -> str:
        """The run's id in the local database. Waits for its creation; raises MLflow's errors."""
        return self._created.result()

    @property
    def display_uri(self) -> str:
        """Address of MLflow for the user, or that the run is not recorded."""
        is_recorded = self._created.exception() is None
        return self.recorder.display_uri if is_recorded else "this run is not recorded (see above)"

    def metrics(self, values: Iterable[Value]) -> None:
        """Log metrics by name, value and step."""
        with self.recorder.logging("metrics"):
            run_id, now = self.run_id, _now_ms()
            from mlflow.entities import Metric

            metrics = [Metric(valid_name(name), value, now, step) for name, value, step in values]
            self._client.log_batch(run_id, metrics=metrics)

    def tags(self, tags: Mapping[str, str]) -> None:
        """Set tags."""
        with self.recorder.logging("tags"):
            for name, value in _cut(tags, _LONGEST_TAG).items():
                self._client.set_tag(self.run_id, name, value)

    def note(self, markdown: str) -> None:
        """Set the description."""
        self.tags({_NOTE: markdown})

    def dataset(
        self, name: str, digest: str, source: str, profile: str, tags: Mapping[str, str]
    ) -> None:
        """Log the dataset as an input. digest: hash of its content; source, profile: JSON."""
        with self.recorder.logging("the dataset"):
            run_id = self.run_id
            from mlflow.entities import Dataset, DatasetInput, InputTag

            dataset = Dataset(name, digest, source_type="code", source=source, profile=profile)
            all_tags = {"mlflow.data.context": "samples", **tags}
            input_tags = [InputTag(key, value) for key, value in all_tags.items()]
            self._client.log_inputs(run_id, [DatasetInput(dataset, input_tags)])

    def subject(self, name: str, content: str, params: Mapping[str, str]) -> None:
        """Log the subject as an input. content: hash of its weights."""
        with self.recorder.logging("the subject"):
            log_subject(self._client, self.run_id, name, content, params)

    def files(self, folder: Path, names: Iterable[str], into: str) -> None:
        """Log files of a folder as artifacts below `into`. names: relative to the folder."""
        names = list(names)
        with self.recorder.logging("files"), downloaded_files(folder, names) as local:
            for name in names:
                artifact_folder = (Path(into) / name).parent.as_posix()
                self._client.log_artifact(self.run_id, str(local / name), artifact_folder)

    def text(self, text: str, name: str) -> None:
        """Log a text as an artifact."""
        with self.recorder.logging("a text"):
            self._client.log_text(self.run_id, text, name)

    def table(self, columns: Mapping[str, list[Any]], name: str) -> None:
        """Log a table, which MLflow's page shows."""
        with self.recorder.logging("a table"):
            self._client.log_table(self.run_id, dict(columns), name)

    def picture(self, path: Path, title: str) -> str:
        """Log a PNG file at half its size; return it in Markdown, for the description.

        Empty if it cannot be logged.
        """
        folder = downloaded_files(path.parent, [path.name])
        with self.recorder.logging("a picture"), folder as local:
            from PIL import Image

            with Image.open(local / path.name) as image:
                small = image.convert("RGB").reduce(2)
            self._client.log_image(self.run_id, small, f"{PICTURES}/{path.name}")
            return f"![{title}]({picture_address(self.run_id, path.name)})"
        return ""

    def end(self, status: str) -> None:
        """End the run. status: FINISHED, FAILED or KILLED."""
        with self.recorder.logging("the end"):
            if self._monitor is not None:
                self._monitor.finish()
            with suppress(sqlite3.Error):
                self.recorder.local.sort_metrics(self.run_id, metric_position)
            self._client.set_terminated(self.run_id, status)


def _monitor(run_id: str, uri: str) -> SystemMetricsMonitor | None:
    """Start MLflow's monitor of this machine's load; None if the environment turns it off."""
    if os.environ.get("MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING", "true").lower() in ("false", "0"):
        return None
    from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor

    monitor = SystemMetricsMonitor(run_id, tracking_uri=uri)
    # MLflow's page lists metrics with its own prefix, system/, before all others.
    monitor._metrics_prefix = MACHINE
    monitor.start()
    return monitor


def _program_tags() -> dict[str, str]:
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # A container's user may have no name.
        user = "unknown"
    return {
        "mlflow.source.name": "neuron-atlas",
        "mlflow.source.type": "LOCAL",
        "mlflow.user": user,
        "neuron_atlas_version": version("neuron-atlas"),
    }


def _cut(texts: Mapping[str, str], length: int) -> dict[str, str]:
    return {name: value[:length] for name, value in texts.items()}


def _now_ms() -> int:
    return round(time.time() * 1000)
