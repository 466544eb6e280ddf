"""Find the addresses of MLflow's databases and servers, and set MLflow's defaults."""

from __future__ import annotations

import os
from pathlib import Path

_ENVIRONMENT = {
    "MLFLOW_LOGGING_LEVEL": "WARNING",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    # Short, because the mirror retries a tracking server later anyway.
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
    # Without these, MLflow prints progress bars and addresses between this program's lines.
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
}
"""Defaults of MLflow's environment variables."""

_LONGEST_REASON = 160


def set_defaults() -> None:
    """Set MLflow's environment variables that the user has not set."""
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)


def local_uri(folder: Path) -> str:
    """Return the URI of the database in a run's local folder."""
    return f"sqlite:///{folder.resolve() / 'mlflow.db'}"


def server_uri(folder: Path) -> str | None:
    """Return MLFLOW_TRACKING_URI; None if it is not set, or is the folder's own database."""
    uri = os.environ.get("MLFLOW_TRACKING_URI")
    return None if uri == local_uri(folder) else uri or None


def artifact_folder(uri: str) -> str | None:
    """Return where a new experiment stores artifacts: next to a SQLite database.

    None for a server, which chooses the place itself.
    """
    if not uri.startswith("sqlite:///"):
        return None
    return (Path(uri.removeprefix("sqlite:///")).resolve().parent / "mlartifacts").as_uri()


def without_password(uri: str) -> str:
    """Return a URI without user name and password."""
    scheme, slashes, rest = uri.partition("://")
    authority, slash, path = rest.partition("/")
    return f"{scheme}{slashes}{authority.rpartition('@')[2]}{slash}{path}"


def hide_password(text: str, uri: str) -> str:
    """Return a message that may quote the URI, without user name and password."""
    authority = uri.partition("://")[2].partition("/")[0]
    login, at, host = authority.rpartition("@")
    _, colon, password = login.partition(":")
    text = text.replace(f"{login}{at}{host}", host) if at else text
    return text.replace(password, "***") if colon and password else text


def safe_first_line(failure: Exception, uri: str) -> str:
    """Return the first line of an error, without password, at most 160 characters."""
    lines = str(failure).strip().splitlines()
    line = hide_password(lines[0] if lines else repr(failure), uri)
    return line if len(line) <= _LONGEST_REASON else f"{line[:_LONGEST_REASON]} ..."


def error_code(failure: Exception) -> str:
    """Return MLflow's code of an error, such as RESOURCE_DOES_NOT_EXIST; empty if it has none."""
    from mlflow.exceptions import MlflowException

    return str(failure.error_code) if isinstance(failure, MlflowException) else ""
