"""Find the addresses of MLflow's databases and servers, and set MLflow's defaults."""

from __future__ import annotations

import os
import re
import shlex
from importlib.metadata import entry_points
from pathlib import Path
from urllib.parse import quote, unquote, urlsplit

from neuron_atlas.workflows.run.errors import ConfigError

_VARIABLE = "MLFLOW_TRACKING_URI"
_DATABASES = ("sqlite", "postgresql", "mysql", "mssql")
_SQLITE = re.compile(r"sqlite(?:\+\w+)?:///([^?]*)(?:\?.*)?", re.DOTALL)
_HOST_AND_PORT = re.compile(r"[\w.-]+:\d+(/.*)?")
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


class DeletedExperimentError(Exception):
    """The experiment was deleted in MLflow, so that it takes no runs. The message has a remedy."""

    def __init__(self, name: str, experiment_id: str, uri: str) -> None:
        restore = f"MLFLOW_TRACKING_URI={shlex.quote(without_password(uri))} mlflow experiments"
        super().__init__(
            f"the experiment {name!r} was deleted in MLflow. Restore it ({restore} restore "
            f"--experiment-id {experiment_id}), or set tracking.experiment to another name"
        )


def set_defaults() -> None:
    """Set MLflow's environment variables that the user has not set."""
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)


def local_uri(folder: Path) -> str:
    """Return the URI of the database in a run's local folder."""
    return database_uri(folder.resolve() / "mlflow.db")


def database_uri(path: Path) -> str:
    """Return the URI of a SQLite database, with an absolute path of any characters."""
    text = str(path)
    if not re.search("[?%#]", text):
        return f"sqlite:///{text}"
    # MLflow would make a folder of the quoted name for a URI that begins with "sqlite:///".
    return f"sqlite+pysqlite:///{quote(text, safe='/ ')}"


def database_of(uri: str) -> Path | None:
    """Return the file of a SQLite URI; None for any other URI."""
    found = _SQLITE.fullmatch(uri)
    return Path(unquote(found[1])).resolve() if found else None


def server_uri(folder: Path) -> str | None:
    """Return MLFLOW_TRACKING_URI; None if it is not set, or is the folder's own database."""
    uri = os.environ.get(_VARIABLE, "").strip()
    is_own = database_of(uri) == folder.resolve() / "mlflow.db"
    return None if is_own else uri or None


def check_server() -> None:
    """Raise ConfigError if MLFLOW_TRACKING_URI is no address that MLflow can send runs to.

    A server that is down is no error: it gets the runs later.
    """
    uri = os.environ.get(_VARIABLE, "").strip()
    if uri and (problem := _problem(uri)):
        raise ConfigError(f"{_VARIABLE}: {without_password(uri)!r} {problem}")


def _problem(uri: str) -> str:
    """Return what is wrong with a URI, and what to write; "" if nothing is."""
    if _HOST_AND_PORT.fullmatch(uri):
        return f"has no scheme; write http://{uri}"
    scheme, _, rest = uri.partition(":")
    scheme = scheme.lower() if re.fullmatch(r"[\w+.-]{2,}", scheme) and rest else ""
    if scheme in ("http", "https"):
        return "" if _has_host(uri) else "names no host; write http://HOST:PORT"
    if scheme.partition("+")[0] in _DATABASES:
        return _database_problem(uri)
    if uri == "databricks" or scheme == "databricks":
        return ""
    if scheme in ("", "file"):
        # MLflow itself reads no folders any more, unless it is told to.
        if os.environ.get("MLFLOW_ALLOW_FILE_STORE", "").lower() in ("true", "1"):
            return ""
        path = Path(unquote(urlsplit(uri).path) if scheme else uri).expanduser().absolute()
        database = path if path.suffix in (".db", ".sqlite") else path / "mlflow.db"
        return f"is a path, and MLflow takes a database: write {database_uri(database)}"
    if any(one.name == scheme for one in entry_points(group="mlflow.tracking_store")):
        return ""
    return (
        f"has the scheme {scheme!r}, which MLflow does not know; write http://HOST:PORT, or the "
        "URI of a database such as sqlite:////folder/mlflow.db"
    )


def _has_host(uri: str) -> bool:
    try:
        address = urlsplit(uri)
        return bool(address.hostname) and (address.port is None or address.port > 0)
    except ValueError:
        return False


def _database_problem(uri: str) -> str:
    from sqlalchemy import create_engine
    from sqlalchemy.exc import SQLAlchemyError

    try:
        create_engine(uri)
    except ImportError as error:
        return f"needs the package {error.name}, which is not installed: pip install {error.name}"
    except (SQLAlchemyError, ValueError) as error:
        return f"cannot be read: {hide_password(str(error).splitlines()[0], uri)}"
    return ""


def artifact_folder(uri: str) -> str | None:
    """Return where a new experiment stores artifacts: next to a SQLite database.

    None for a server, which chooses the place itself.
    """
    database = database_of(uri)
    return None if database is None else (database.parent / "mlartifacts").as_uri()


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
    """Return the first line of an error, without password, at most 160 characters. A
    DeletedExperimentError is returned in full, because it ends with its remedy."""
    lines = str(failure).strip().splitlines()
    line = hide_password(lines[0] if lines else repr(failure), uri)
    is_short = len(line) <= _LONGEST_REASON or isinstance(failure, DeletedExperimentError)
    return line if is_short else f"{line[:_LONGEST_REASON]} ..."


def error_code(failure: Exception) -> str:
    """Return MLflow's code of an error, such as RESOURCE_DOES_NOT_EXIST; empty if it has none."""
    from mlflow.exceptions import MlflowException

    return str(failure.error_code) if isinstance(failure, MlflowException) else ""
