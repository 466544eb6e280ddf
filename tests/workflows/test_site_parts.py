"""How a site is cut into work, and goes on where it was broken off; the work is done right here."""

import inspect
from types import SimpleNamespace

import pytest

from bench.made_up.atlas import make_up
from bench.made_up.sizes import Sizes
from neuron_atlas.tasks.report.settings import About, ReportSettings
from neuron_atlas.workflows.stages import site as stage
from tests.tasks.report.site.reading import value, write

WORK = ("_list_accounts", "_write_columns", "_write_part", "_write_batch", "_write_index")
ABOUT = About(subject="llava", dataset="painted", fingerprint="9f2c01", facts=())


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    sizes = Sizes(layers=(0, 3), neurons=40, samples=20)
    return make_up(tmp_path_factory.mktemp("tables"), sizes)


@pytest.fixture
def done(monkeypatch):
    """Each piece of work as it is done, by its name and what it is of."""
    done = []

    def here(name, work):
        def call(*given):
            done.append((name, given[1] if name in ("_write_part", "_write_batch") else None))
            return work(*given)

        return SimpleNamespace(remote=call)

    for name in WORK:
        work = inspect.unwrap(getattr(stage, name)._function)
        monkeypatch.setattr(stage, name, here(name, work))
    monkeypatch.setattr(stage, "result", lambda value: value)
    monkeypatch.setattr(stage, "spread", lambda items, call: [(one, call(one)) for one in items])
    return done


@pytest.fixture
def context(made):
    """What the stage asks of a run."""
    tables = made.layers[0].types.parent
    settings = SimpleNamespace(
        report=ReportSettings(title="Painted"),
        data=SimpleNamespace(source=made.samples.source),
        capture=SimpleNamespace(top_n=made.top_n),
    )
    return SimpleNamespace(
        settings=settings,
        layers=lambda: (0, 3),
        folder=lambda name: tables,
        paths=lambda name, artifact: sorted(tables.glob(f"{artifact}*.parquet")),
        done={"classify": SimpleNamespace(files={"types": [], "tested_types": []})},
    )


def content(folder):
    return {
        path.relative_to(folder): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and stage.MARKS not in path.parts
    }


def test_work_in_parts_gives_the_site_that_one_process_writes(done, context, made, tmp_path):
    files = stage.write_site(context, tmp_path / "parts", ABOUT)
    whole = write(made, tmp_path / "whole" / "site")
    assert content(tmp_path / "parts" / "site") == content(whole)
    assert set(files) == {f"site/{name.as_posix()}" for name in content(whole)}
    assert [name for name, _ in done][-1] == "_write_index"
    assert len(value(whole, "index")["layers"]) == 2


def test_a_site_that_was_broken_off_goes_on_with_what_is_missing(done, context, tmp_path):
    files = stage.write_site(context, tmp_path, ABOUT)
    before = content(tmp_path)
    site = tmp_path / "site"
    for lost in (
        site / stage.MARKS / "003-000000.json",
        site / "data" / "neurons" / "3" / "1.js",
        site / "data" / "samples" / "0" / "1.js",
    ):
        lost.unlink()
    done.clear()
    assert stage.write_site(context, tmp_path, ABOUT) == files
    parts = [(part.layer, part.start) for name, part in done if name == "_write_part"]
    assert parts == [(3, 0)]
    assert len([name for name, _ in done if name == "_write_batch"]) == 1
    assert content(tmp_path) == before
    done.clear()
    stage.write_site(context, tmp_path, ABOUT)
    assert {name for name, _ in done} == set(WORK) - {"_write_part", "_write_batch"}
