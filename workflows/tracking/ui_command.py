"""`neuron-atlas-ui`: open MLflow on the runs in an output folder, on loopback."""

from __future__ import annotations

import argparse
import socket
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import NoReturn

import uvicorn

from neuron_atlas.tasks.artifacts.location import is_uri
from neuron_atlas.workflows.run.store import local_folder
from neuron_atlas.workflows.tracking.address import local_uri, safe_first_line
from neuron_atlas.workflows.tracking.links import PORT, local_server, run_link, table_link


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the console script. Exit status 2 for a wrong call, 1 if MLflow cannot open the runs or
    the port is not available."""
    parser = argparse.ArgumentParser(
        prog="neuron-atlas-ui",
        description="Open MLflow on the runs in an output folder. It listens on this machine only, "
        "and writes nothing outside the folder.",
    )
    parser.add_argument("out", nargs="?", default="out", help="output folder (default: out)")
    parser.add_argument(
        "--local-dir", help="local folder of the runs, if they were started with local_dir=..."
    )
    parser.add_argument(
        "--port", type=int, default=PORT, help=f"port; 0 for any free port (default: {PORT})"
    )
    options = parser.parse_args(arguments)
    if not 0 <= options.port < 65_536:
        parser.error("--port: must be 0 to 65535")
    out = options.out if is_uri(options.out) else str(Path(options.out).expanduser().resolve())
    folder = local_folder(out, options.local_dir)
    if not (folder / "mlflow.db").is_file():
        parser.error(f"{folder}: no runs are recorded here (no mlflow.db); name the out= folder")
    try:
        listener = socket.create_server(("127.0.0.1", options.port))
    except OSError as error:
        reason = error.strerror or error
        _fail(f"cannot listen on port {options.port}: {reason}; try another --port")
    from neuron_atlas.workflows.tracking.ui_app import last_run, mlflow_app

    uri = local_uri(folder)
    try:
        app = mlflow_app(folder)
        run = last_run(uri)
    except Exception as error:  # MLflow's errors are of many kinds.
        _fail(
            f"{folder}: {safe_first_line(error, uri)}. Another version of MLflow may have "
            f"written the runs: mlflow db upgrade {uri}"
        )
    server = local_server(listener.getsockname()[1])
    if run is None:
        print(f"{server}/  (no runs yet)", flush=True)
    else:
        print(f"last run   {run_link(server, *run)}", flush=True)
        print(f"all runs   {table_link(server, run[0])}", flush=True)
    with suppress(KeyboardInterrupt):
        uvicorn.Server(uvicorn.Config(app, log_level="warning")).run([listener])


def _fail(line: str) -> NoReturn:
    print(f"neuron-atlas-ui: {line}", file=sys.stderr)
    sys.exit(1)


if __name__ == "__main__":
    main()
