"""`neuron-atlas-log`: send runs in an output folder to a tracking server that lacks them."""

from __future__ import annotations

import argparse
import sys
from contextlib import closing
from pathlib import Path
from typing import NoReturn

from neuron_atlas.tasks.artifacts.location import is_uri
from neuron_atlas.workflows.cluster.progress import print_line
from neuron_atlas.workflows.run.errors import ConfigError
from neuron_atlas.workflows.run.store import local_folder
from neuron_atlas.workflows.tracking.address import (
    check_server,
    safe_first_line,
    server_uri,
    set_defaults,
    without_password,
)
from neuron_atlas.workflows.tracking.local import LocalRuns
from neuron_atlas.workflows.tracking.mirror import Mirror


def main() -> None:
    """Run the console script. Exit status 1 if the server cannot be reached, 2 for a wrong call."""
    parser = argparse.ArgumentParser(
        prog="neuron-atlas-log",
        description="Send the runs in an output folder to the MLflow server at "
        "MLFLOW_TRACKING_URI. Only what the server lacks is sent.",
    )
    parser.add_argument("out", help="output folder (out=... of the runs)")
    parser.add_argument(
        "--local-dir", help="local folder of the runs, if they were started with local_dir=..."
    )
    options = parser.parse_args()
    out = options.out if is_uri(options.out) else str(Path(options.out).expanduser().resolve())
    folder = local_folder(out, options.local_dir)
    if not (folder / "mlflow.db").is_file():
        _end(2, f"{folder}: no runs are recorded here (no mlflow.db)")
    try:
        check_server()
    except ConfigError as error:
        _end(2, str(error))
    uri = server_uri(folder)
    if uri is None:
        _end(2, "set MLFLOW_TRACKING_URI to the server's address")
    set_defaults()
    with closing(LocalRuns(folder)) as local:
        if not local.is_alone:
            _end(2, f"{folder}: a run is active here; it sends its own record")
        unsent: list[str] = []
        try:
            local.end_killed()
            unsent += [run.info.run_id for run in local.runs()]
            total, mirror = len(unsent), Mirror(local.client, uri)
            while unsent:
                mirror.copy(unsent[0])
                del unsent[0]
        except Exception as failure:
            _end(
                1,
                f"not sent: {safe_first_line(failure, uri)}; "
                f"{len(unsent):,} runs remain in {folder}",
            )
    print_line(f"mlflow     all {total:,} runs are at {without_password(uri)}")


def _end(status: int, line: str) -> NoReturn:
    print_line(f"neuron-atlas-log: {line}")
    sys.exit(status)


if __name__ == "__main__":
    main()
