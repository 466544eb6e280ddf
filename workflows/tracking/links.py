"""Links to MLflow's pages of model training, where neuron-atlas records its runs."""

from __future__ import annotations

import json
import shlex
import shutil
import sys
from pathlib import Path
from urllib.parse import quote

PICTURES = "pictures"
"""Folder of a run's artifacts with the pictures of its description."""
PORT = 5000
"""Default port of `neuron-atlas-ui`."""

_MODEL_TRAINING = "workflowType=machine_learning"
"""Without it, MLflow opens its pages of generative AI, which have no data here."""
_VIEW = "neuron-atlas"
_COLUMNS = (
    "tags.`layers`",
    "tags.`explainer`",
    "metrics.`score/correlation`",
    "metrics.`score/correlation_of_control`",
    "metrics.`score/margin_over_control`",
    "metrics.`score/share_that_beat_control`",
    "metrics.`neurons_share/visual`",
    "metrics.`neurons_share/text`",
    "metrics.`neurons_share/multi-modal`",
    "metrics.`neurons/all`",
    "metrics.`cost/usd`",
    "tags.`strongest_control`",
)
_LETTER_PX, _MARGIN_PX = 6.5, 30
TABLE_STATE = json.dumps(
    {
        "selectedColumns": _COLUMNS,
        "columnOrder": [*_COLUMNS, "duration"],
        "columnWidths": {
            name: round(_MARGIN_PX + _LETTER_PX * len(name.partition("`")[2])) for name in _COLUMNS
        },
    }
)
"""State of MLflow's table of runs that shows the main columns."""

VIEW_TAGS = {
    f"mlflow.sharedViewState.{_VIEW}": json.dumps(
        {"name": "Results of neuron-atlas", "createdAt": 0, "updatedAt": 0, "state": TABLE_STATE}
    )
}
"""Tags of an experiment that store the table with the main columns as a view."""


def run_link(server: str, experiment_id: str, run_id: str) -> str:
    """Return the address of a run's page."""
    return f"{server.rstrip('/')}/{run_route(experiment_id, run_id)}"


def run_route(experiment_id: str, run_id: str) -> str:
    """Return the path of a run's page in MLflow's application."""
    return f"#/experiments/{experiment_id}/runs/{run_id}?{_MODEL_TRAINING}"


def table_link(server: str, experiment_id: str) -> str:
    """Return the address of the table of runs with its main columns."""
    query = f"viewStateShareKey={_VIEW}&{_MODEL_TRAINING}"
    return f"{server.rstrip('/')}/#/experiments/{experiment_id}/runs?{query}"


def picture_address(run_id: str, name: str) -> str:
    """Return the address of a picture of a run, relative to MLflow's page."""
    return f"get-artifact?path={PICTURES}%2F{quote(name)}&run_uuid={run_id}"


def table_key(experiment_id: str) -> str:
    """Return the name under which MLflow's page stores a table's state in the browser."""
    return (
        f"MLflowLocalStorage-1.1-ExperimentPage-{json.dumps([experiment_id])}-ReactComponentState"
    )


def local_server(port: int = PORT) -> str:
    """Return the address of `neuron-atlas-ui`."""
    return f"http://127.0.0.1:{port}"


def ui_command(folder: Path) -> str:
    """Return the command that opens MLflow on the runs in a local folder, to be pasted."""
    name = "neuron-atlas-ui"
    beside = Path(sys.executable).parent / name
    program = name if shutil.which(name) or not beside.is_file() else str(beside)
    return shlex.join([program, str(folder)])
