"""What of a run stays on the driver's machine, and how it gets to where the rest is."""

from __future__ import annotations

import errno
import re
import sqlite3
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra

from neuron_atlas.tasks.models.account.account import LocalAccount
from neuron_atlas.workflows.config.composition import CONF, plain_config, register_resolvers
from neuron_atlas.workflows.run.errors import ConfigError
from neuron_atlas.workflows.run.output import copy_journal, opened_store
from neuron_atlas.workflows.run.store import Store
from tests.loopback.object_store import BUCKET
from tests.tasks.models.account.ledgers import answer as store_answer

URI = f"s3://{BUCKET}/a run"


@pytest.fixture
def machine(store, monkeypatch, tmp_path):
    """Go on as if on the machine of this name."""

    def go_to(name: str) -> None:
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / name))

    return go_to


def answer(journal: Path, request: str) -> None:
    opened = LocalAccount(journal)
    store_answer(opened, request, usd=0.5)
    opened.close()


def answers(journal: Path) -> set[str]:
    with sqlite3.connect(journal) as database:
        return {row[0] for row in database.execute("SELECT request_hash FROM answers")}


def test_a_folder_holds_its_own_journal(tmp_path):
    with opened_store(str(tmp_path / "out"), None) as opened:
        assert opened.local == opened.out == tmp_path / "out"


def test_the_journal_of_a_prefix_is_found_on_this_machine_and_copied_at_the_end(
    machine, tmp_path, store, capsys
):
    machine("mine")
    with opened_store(URI, None) as opened:
        assert opened.local.parent == tmp_path / "mine" / "neuron-atlas"
        answer(opened.local / "journal.sqlite", "a")
        assert "a run/journal.sqlite" not in store.names()
    assert f"MLflow's runs are in {opened.local}" in capsys.readouterr().err
    assert store.names() == ["a run/journal.sqlite"]


def test_it_is_copied_whatever_ends_the_run(machine, store):
    machine("mine")

    def stopped() -> None:
        with opened_store(URI, None) as opened:
            answer(opened.local / "journal.sqlite", "a")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stopped()
    assert store.names() == ["a run/journal.sqlite"]


def test_another_machine_knows_what_was_paid_for_and_so_does_the_first_again(machine):
    for name, asked, known in (
        ("first", "a", {"a"}),
        ("second", "b", {"a", "b"}),
        ("first", "c", {"a", "b", "c"}),
    ):
        machine(name)
        with opened_store(URI, None) as opened:
            answer(opened.local / "journal.sqlite", asked)
        assert answers(opened.local / "journal.sqlite") == known


def test_a_named_folder_beside_a_shared_one_is_used_the_same_way(tmp_path):
    out, local = tmp_path / "shared", tmp_path / "own"
    with opened_store(str(out), str(local)) as opened:
        assert opened.local == local
        answer(local / "journal.sqlite", "a")
    assert answers(out / "journal.sqlite") == {"a"}


def test_a_copy_that_fails_costs_a_line_and_not_the_run(tmp_path, capsys):
    answer(tmp_path / "own" / "journal.sqlite", "a")
    (tmp_path / "file").write_text("no folder")
    copy_journal(Store(tmp_path / "file", tmp_path / "own"))
    said = capsys.readouterr().err
    assert said.startswith(f"local      the journal was not copied to {tmp_path / 'file'}: ")
    assert said.count("\n") == 1


def test_a_second_program_with_the_same_local_folder_is_refused_in_a_line(tmp_path):
    local = str(tmp_path / "own")
    with (
        opened_store(str(tmp_path / "one"), local),
        pytest.raises(
            ConfigError, match=r"^local_dir: another run is writing to '.*own'; wait for it"
        ),
        opened_store(str(tmp_path / "two"), local),
    ):
        pass
    with opened_store(str(tmp_path / "two"), local):
        pass  # Once the first has ended.


@pytest.mark.parametrize(
    ("out", "local", "said"),
    [
        ("ssh://host/x", None, "out: ssh:// is not a supported object store"),
        ("s3://", None, "out: 's3://' has no bucket"),
        ("/proc/nothing", None, "out: cannot write below '/proc/nothing'"),
        (".", "/proc/nothing", "local_dir: cannot write below '/proc/nothing'"),
    ],
)
def test_a_wrong_place_is_refused_in_a_line(tmp_path, monkeypatch, out, local, said):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=re.escape(said)), opened_store(out, local):
        pass


def test_a_folder_that_exists_and_cannot_be_written_is_refused_too(tmp_path, monkeypatch):
    def refuse(*_: object) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(Path, "open", refuse)
    said = f"out: cannot write below '{tmp_path}': Read-only file system; name another folder"
    with pytest.raises(ConfigError, match=re.escape(said)), opened_store(str(tmp_path), None):
        pass


def test_a_file_in_place_of_the_folder_is_called_a_file(tmp_path):
    (tmp_path / "file").touch()
    out = str(tmp_path / "file")
    with pytest.raises(ConfigError, match="it is a file; name another"), opened_store(out, None):
        pass


def test_a_uri_stays_as_it_is_and_sweeps_are_noted_on_this_machine(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    register_resolvers()
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        config = compose("atlas", overrides=[f"out='{URI}'"], return_hydra_config=True)
    place = str(config.hydra.sweep.dir)
    assert place.startswith(f"{tmp_path}/neuron-atlas/")
    assert place.endswith("/sweep")
    del config.hydra
    assert plain_config(config)["out"] == URI
