"""MLflow's server as an ASGI application on one output folder, which opens on the last run.

MLflow's own command starts job runners, four workers and an AI assistant, and opens on a page of
generative AI.
"""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, PlainTextResponse
from starlette.routing import Route

from neuron_atlas.workflows.tracking.address import local_uri, set_defaults
from neuron_atlas.workflows.tracking.links import TABLE_STATE, run_route, table_key

_ASSISTANT = "/ajax-api/3.0/mlflow/assistant/{path:path}"
_METHODS = ["GET", "POST", "PUT", "PATCH", "DELETE"]
_ENVIRONMENT = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_ENABLE_AI_GATEWAY": "false",
    "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
}
_STORED = {
    "mlflow.workflowType_v1": '"machine_learning"',
    "mlflow.assistant.fab.autoOpenedOnFirstLoad_v1": "true",
    "mlflow.assistant.panelOpen_v1": "false",
}
"""What MLflow's page stores in the browser once a user has chosen model training and closed the
assistant."""
_HIDDEN = "[data-assistant-ui] { display: none !important; }"


def mlflow_app(folder: Path) -> Starlette:
    """Return MLflow's application on the runs in a folder. Call once per process.

    Raises MLflow's errors, such as for a database of another version of MLflow.
    """
    uri = local_uri(folder)
    set_defaults()
    os.environ |= _ENVIRONMENT
    from mlflow.server import constants

    os.environ[constants.BACKEND_STORE_URI_ENV_VAR] = uri
    os.environ[constants.REGISTRY_STORE_URI_ENV_VAR] = uri
    os.environ[constants.ARTIFACT_ROOT_ENV_VAR] = (folder.resolve() / "mlartifacts").as_uri()
    from mlflow.server import REL_STATIC_DIR, handlers

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # MLflow uses parts of Starlette that will go.
        from mlflow.server.fastapi_app import app

    handlers.initialize_backend_stores(uri, uri, os.environ[constants.ARTIFACT_ROOT_ENV_VAR])
    index = Path(handlers.__file__).parent / REL_STATIC_DIR / "index.html"
    page = index.read_text(encoding="utf-8")

    def home(request: Request) -> HTMLResponse:
        run = last_run(uri)
        tables = [table_key(experiment) for experiment in _experiments(uri)]
        opening = _opening(None if run is None else run_route(*run), tables)
        return HTMLResponse(page.replace("<head>", f"<head>{opening}", 1))

    def no_assistant(request: Request) -> PlainTextResponse:
        return PlainTextResponse("The assistant is off.", 404)

    # Before MLflow's own routes, of which the first one that fits answers.
    app.router.routes[:0] = [
        Route("/", home),
        Route(_ASSISTANT, no_assistant, methods=_METHODS),
    ]
    return app


def last_run(uri: str) -> tuple[str, str] | None:
    """Return the ids of the experiment and of the run that started last; None without a run.

    Jobs of a sweep do not count: their sweep leads to them.
    """
    from mlflow import MlflowClient

    runs: list[Any] = MlflowClient(tracking_uri=uri).search_runs(
        _experiments(uri), order_by=["attributes.start_time DESC"], max_results=1000
    )
    for run in runs:
        if "mlflow.parentRunId" not in run.data.tags:
            return str(run.info.experiment_id), str(run.info.run_id)
    return None


def _experiments(uri: str) -> list[str]:
    from mlflow import MlflowClient

    found = MlflowClient(tracking_uri=uri).search_experiments()
    return [str(experiment.experiment_id) for experiment in found]


def _opening(route: str | None, tables: Sequence[str]) -> str:
    """Return a script that opens the page at a route, with the main columns in new tables."""
    stored = json.dumps(_STORED)
    columns = json.dumps(dict.fromkeys(tables, TABLE_STATE))
    go = f"if (location.hash.length < 3) location.hash = {json.dumps(route)};" if route else ""
    return (
        f"<style>{_HIDDEN}</style><script>"
        f"for (const [name, value] of Object.entries({stored})) "
        f"try {{ localStorage.setItem(name, value); }} catch {{}} "
        f"for (const [name, value] of Object.entries({columns})) "
        f"try {{ if (!localStorage.getItem(name)) localStorage.setItem(name, value); }} catch {{}} "
        f"{go}</script>"
    )
