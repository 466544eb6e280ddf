"""What is shown of an address, and of messages that quote it."""

from __future__ import annotations

import pytest

from neuron_atlas.workflows.run.errors import ConfigError
from neuron_atlas.workflows.tracking import address
from neuron_atlas.workflows.tracking.address import (
    check_server,
    database_of,
    hide_password,
    local_uri,
    server_uri,
    without_password,
)
from neuron_atlas.workflows.tracking.local import LocalRuns

STRANGE = ["a?b", "a#b", "a%20b", "a%zz", "a&b", "a b", "a'b", 'a"b', "a:b@c", "a+b", "é 中"]


@pytest.mark.parametrize(
    ("uri", "shown"),
    [
        ("postgresql://me:secret@db.example/mlflow", "postgresql://db.example/mlflow"),
        ("https://me:s@cret@example:5000", "https://example:5000"),
        ("http://127.0.0.1:5000", "http://127.0.0.1:5000"),
        ("sqlite:////a@b/mlflow.db", "sqlite:////a@b/mlflow.db"),
        ("databricks", "databricks"),
    ],
)
def test_a_password_in_the_address_is_not_shown(uri, shown):
    assert without_password(uri) == shown


@pytest.mark.parametrize(
    ("message", "shown"),
    [
        ("no answer of https://me:secret@db.example/x", "no answer of https://db.example/x"),
        ("login me failed with secret", "login me failed with ***"),
        ("nothing to hide", "nothing to hide"),
    ],
)
def test_a_message_that_quotes_the_address_is_shown_without_its_password(message, shown):
    assert hide_password(message, "https://me:secret@db.example/x") == shown


@pytest.mark.parametrize("name", STRANGE)
def test_a_folder_of_any_name_holds_its_own_database(tmp_path, monkeypatch, name):
    folder = tmp_path / name
    assert database_of(local_uri(folder)) == folder / "mlflow.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", local_uri(folder))
    assert server_uri(folder) is None


def test_the_database_of_a_strange_folder_is_in_it_and_nothing_is_beside_it(
    tmp_path, make_database
):
    folder = tmp_path / "a?b#c%3F&d 'e\"中"
    folder.mkdir()
    make_database(folder / "mlflow.db")
    local = LocalRuns(folder)
    uri = address.artifact_folder(local.uri)
    run = local.client.create_run(local.client.create_experiment("x", artifact_location=uri))
    local.client.log_text(run.info.run_id, "hello", "greeting.txt")
    local.close()
    again = LocalRuns(folder)
    assert [one.info.run_id for one in again.runs()] == [run.info.run_id]
    assert list(folder.glob("mlartifacts/*/artifacts/greeting.txt"))
    again.close()
    assert [one.name for one in tmp_path.iterdir()] == [folder.name]


@pytest.mark.parametrize(
    ("uri", "said"),
    [
        ("htp://x", "has the scheme 'htp', which MLflow does not know; write http://HOST:PORT"),
        ("127.0.0.1:5077", "has no scheme; write http://127.0.0.1:5077"),
        ("mlflow.example:5000/x", "has no scheme; write http://mlflow.example:5000/x"),
        ("http://", "names no host"),
        ("http://host:port", "names no host"),
        ("./mlruns", "is a path, and MLflow takes a database: write sqlite:////"),
        ("mlruns/mine.db", "/mlruns/mine.db"),
        ("file:///tmp/mlruns", "write sqlite:////tmp/mlruns/mlflow.db"),
        ("sqlite://mine/mlflow.db", "cannot be read: "),
        ("uc:http://host", "has the scheme 'uc'"),
        ("postgresql+nope://me:secret@host/db", "postgresql+nope://host/db"),
    ],
)
def test_an_address_that_takes_no_runs_is_refused_with_the_remedy(monkeypatch, uri, said):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    with pytest.raises(ConfigError, match=r"^MLFLOW_TRACKING_URI: ") as caught:
        check_server()
    assert said in str(caught.value)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    "uri",
    ["", "http://127.0.0.1:5077", "https://me:secret@host/mlflow", "databricks", "sqlite:///x.db"],
)
def test_an_address_that_may_take_runs_is_accepted_even_if_nothing_answers_now(monkeypatch, uri):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    check_server()


def test_a_folder_is_accepted_where_mlflow_is_told_to_write_folders(monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "./mlruns")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    check_server()


def test_the_program_refuses_it_before_it_writes_anything(ended, monkeypatch, tmp_path):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "htp://x")
    status, said = ended(f"out={tmp_path / 'out'}")
    assert status == 2
    assert said.startswith("neuron-atlas: MLFLOW_TRACKING_URI: 'htp://x' has the scheme 'htp'")
    assert not (tmp_path / "out").exists()
