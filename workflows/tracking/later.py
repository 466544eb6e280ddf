"""neuron-atlas-log: log what runs told while MLflow could not be reached."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from neuron_atlas.tasks.artifacts.location import is_uri
from neuron_atlas.workflows.cluster.progress import say
from neuron_atlas.workflows.run.errors import WrongCall
from neuron_atlas.workflows.run.lock import locked
from neuron_atlas.workflows.run.store import local_folder
from neuron_atlas.workflows.tracking.address import set_defaults, tracking_uri, without_password
from neuron_atlas.workflows.tracking.delivery import Delivery
from neuron_atlas.workflows.tracking.outgoing import first_line, log_left
from neuron_atlas.workflows.tracking.spool import FOLDER


def main() -> None:
    """The console script: exit status 0, 1 where MLflow still cannot be reached, 2 for a wrong
    call."""
    parser = argparse.ArgumentParser(
        prog="neuron-atlas-log",
        description="Log to MLflow what runs in an output folder told while it could not be "
        "reached. MLFLOW_TRACKING_URI names the server; without it, it is the folder's database.",
    )
    parser.add_argument("out", help="the output folder (the out=... of the runs)")
    parser.add_argument("--local", help="the folder beside it, where the runs had local=...")
    told = parser.parse_args()
    place = told.out if is_uri(told.out) else str(Path(told.out).expanduser().resolve())
    out = local_folder(place, told.local)
    if not out.is_dir():
        _end(2, f"{out}: no such folder")
    set_defaults()
    uri = tracking_uri(out)
    try:
        with locked(out):
            logged = log_left(out, Delivery(uri))
    except WrongCall as error:
        _end(2, str(error))
    except Exception as failure:
        left = len(list((out / FOLDER).glob("*.jsonl")))
        _end(1, f"not logged: {first_line(failure, uri)}; {left:,} records wait in {out / FOLDER}")
    say(f"mlflow     {logged:,} runs logged to {without_password(uri)}")


def _end(status: int, line: str) -> None:
    say(f"neuron-atlas-log: {line}")
    sys.exit(status)


if __name__ == "__main__":
    main()
