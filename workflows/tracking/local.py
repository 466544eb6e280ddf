"""Record runs in MLflow's database in their local folder, with or without a server."""

from __future__ import annotations

import fcntl
import re
import sqlite3
from collections.abc import Callable, Mapping
from contextlib import closing, suppress
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from neuron_atlas.workflows.tracking.address import (
    DeletedExperimentError,
    artifact_folder,
    local_uri,
)

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

_LOCK = ".mlflow.lock"
_MOST_RUNS = 50_000
"""Maximum that MLflow returns in one call."""


class LocalRuns:
    """Runs recorded in a folder.

    is_alone: no other running program records in this folder, so an unfinished run belongs to a
    program that was killed. Programs share a lock on the folder while they record.
    """

    def __init__(self, folder: Path) -> None:
        self.uri = local_uri(folder)
        self._database = folder / "mlflow.db"
        self._file = None
        self.is_alone = True
        with suppress(OSError):  # Not writable, or a file system without locks.
            folder.mkdir(parents=True, exist_ok=True)
            self._file = (folder / _LOCK).open("a")
            try:
                fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                self.is_alone = False

    def share(self) -> None:
        """Let other programs record in the folder as well."""
        with suppress(OSError):
            if self._file is not None:
                fcntl.flock(self._file, fcntl.LOCK_SH)

    def close(self) -> None:
        """Release the lock."""
        if self._file is not None:
            self._file.close()

    @cached_property
    def client(self) -> MlflowClient:
        """Client of the database. Its first call creates the database, in about two seconds."""
        from mlflow import MlflowClient

        return MlflowClient(tracking_uri=self.uri)

    def runs(self) -> list[Run]:
        """Return all runs, oldest first."""
        experiments = [found.experiment_id for found in self.client.search_experiments()]
        return list(
            self.client.search_runs(
                experiments, order_by=["attributes.start_time ASC"], max_results=_MOST_RUNS
            )
        )

    def sort_metrics(self, run_id: str, position: Callable[[str], int]) -> None:
        """Sort a run's metrics by position, and otherwise leave their order.

        MLflow's page lists metrics in the order in which each was first logged, so those that are
        logged while the run goes on would come before its results.
        """
        with closing(sqlite3.connect(self._database, timeout=60)) as database, database:
            database.execute("BEGIN IMMEDIATE")
            found = database.execute(
                "SELECT * FROM latest_metrics WHERE run_uuid = ? ORDER BY rowid", [run_id]
            )
            names = [column[0] for column in found.description]
            key = names.index("key")
            rows = sorted(found.fetchall(), key=lambda row: position(row[key]))
            database.execute("DELETE FROM latest_metrics WHERE run_uuid = ?", [run_id])
            marks = ", ".join("?" * len(names))
            database.executemany(
                f"INSERT INTO latest_metrics ({', '.join(names)}) VALUES ({marks})", rows
            )

    def end_killed(self) -> None:
        """End the runs whose program was killed. Call only if `is_alone`."""
        for run in self.runs():
            if run.info.status == "RUNNING":
                run_id = run.info.run_id
                times = [
                    point.timestamp
                    for name in run.data.metrics
                    for point in self.client.get_metric_history(run_id, name)
                ]
                self.client.set_tag(run_id, "error", "its program was killed")
                self.client.set_terminated(
                    run_id, "KILLED", max(times, default=run.info.start_time)
                )


def experiment_id(client: MlflowClient, uri: str, name: str, tags: Mapping[str, str]) -> str:
    """Return the id of an experiment; create it with these tags if it does not exist.

    An experiment that exists gets the tags that it lacks, if the server allows it. Raises
    DeletedExperimentError.
    """
    found = client.get_experiment_by_name(name)
    if found is not None:
        if found.lifecycle_stage == "deleted":
            raise DeletedExperimentError(name, found.experiment_id, uri)
        with suppress(Exception):  # The run matters more than how its experiment looks.
            for key in tags.keys() - found.tags.keys():
                client.set_experiment_tag(found.experiment_id, key, tags[key])
        return str(found.experiment_id)
    return str(
        client.create_experiment(name, artifact_location=artifact_folder(uri), tags=dict(tags))
    )


def log_subject(
    client: MlflowClient, run_id: str, name: str, content: str, params: Mapping[str, str]
) -> None:
    """Log the subject as an external model, one for all runs of an experiment.

    content: hash of the subject's weights.
    """
    from mlflow.entities import LoggedModelInput, LoggedModelStatus

    experiment = client.get_run(run_id).info.experiment_id
    known = client.search_logged_models([experiment], f"tags.content = '{content}'", max_results=1)
    if known:
        model = known[0]
    else:
        model = client.create_logged_model(
            experiment,
            name=re.sub(r"[/:.%\"']", "-", name),  # MLflow refuses these characters.
            tags={"mlflow.model.isExternal": "true", "content": content},
            params=dict(params),
            model_type="subject",
        )
        client.finalize_logged_model(model.model_id, LoggedModelStatus.READY)
    client.log_inputs(run_id, models=[LoggedModelInput(model.model_id)])
