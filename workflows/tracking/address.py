"""Which MLflow is used, and how."""

from __future__ import annotations

import os
from pathlib import Path

_ENVIRONMENT = {
    "MLFLOW_LOGGING_LEVEL": "WARNING",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    # What is logged lies in a file until it has arrived, so no call need be long in vain.
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
    # A bar for files that are sent, and where a run can be seen, are no lines of this program.
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
}
"""How MLflow is used where the user has not said otherwise."""


def set_defaults() -> None:
    """Tell MLflow, by the environment, what the user has not."""
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)


def tracking_uri(out: Path) -> str:
    """MLFLOW_TRACKING_URI, or else a database in the output folder."""
    return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{out / 'mlflow.db'}"


def without_password(uri: str) -> str:
    """The address as it may be shown: servers and databases can carry a password in theirs."""
    scheme, slashes, rest = uri.partition("://")
    place, slash, path = rest.partition("/")
    return f"{scheme}{slashes}{place.rpartition('@')[2]}{slash}{path}"


def hide_password(text: str, uri: str) -> str:
    """A message that may quote the address, as it may be shown."""
    place = uri.partition("://")[2].partition("/")[0]
    login, at, host = place.rpartition("@")
    _, colon, password = login.partition(":")
    text = text.replace(f"{login}{at}{host}", host) if at else text
    return text.replace(password, "***") if colon and password else text


def artifact_place(uri: str) -> str | None:
    """Beside a database that is a file; a server has its own place."""
    if not uri.startswith("sqlite:///"):
        return None
    return (Path(uri.removeprefix("sqlite:///")).resolve().parent / "mlartifacts").as_uri()
