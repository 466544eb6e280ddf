"""How a site is cut into work, and goes on where it was broken off; the work is done right here."""

from pathlib import Path
from types import SimpleNamespace

import pytest

from bench.synthetic.atlas import write_synthetic_atlas
from bench.synthetic.sizes import Sizes
from neuron_atlas.tasks.report.settings import About, ReportSettings
from neuron_atlas.workflows.run.items import unfinished_items
from neuron_atlas.workflows.run.stage import Worker
from neuron_atlas.workflows.stages import report
from tests.tasks.report.site.reading import value, write

ABOUT = About(subject="llava", dataset="painted", fingerprint="9f2c01", facts=())


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    sizes = Sizes(layers=(0, 3), neurons=40, samples=20)
    return write_synthetic_atlas(tmp_path_factory.mktemp("tables"), sizes)


@pytest.fixture
def work_on_the_site(context, monkeypatch):
    """Works on what is not finished; gives the files of the site, and the keys of the items."""
    monkeypatch.setattr(report, "_about", lambda context: ABOUT)

    def work(folder: Path) -> tuple[set[str], list[str]]:
        done = []
        for step in report.STAGE.steps:
            for item in unfinished_items(step.items(context, folder), folder):
                if item.key == "page":  # Not a part of the site.
                    continue
                paths = tuple(folder / name for name in item.files)
                step.work(Worker(folder, paths), *item.inputs)
                done.append(item.key)
        return set(report.STAGE.finish(context, folder, {}).files["site"]), done

    return work


@pytest.fixture
def context(made):
    """What the stage asks of a run."""
    tables = made.layers[0]["types"][0].parent
    settings = SimpleNamespace(
        report=ReportSettings(title="Painted"),
        data=SimpleNamespace(source=made.samples.source),
        capture=SimpleNamespace(top_n=made.top_n),
    )
    return SimpleNamespace(
        settings=settings,
        layers=lambda: (0, 3),
        folder=lambda name: tables,
        paths=lambda name, artifact: sorted(tables.glob(f"{artifact}*")),
        done={
            "capture": SimpleNamespace(files={"exemplars": [], "histograms": [], "moments": []}),
            "classify": SimpleNamespace(files={"types": [], "tested_types": []}),
        },
    )


def content(folder):
    return {
        path.relative_to(folder): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and ".parts" not in path.parts
    }


def test_work_in_parts_gives_the_site_that_one_process_writes(work_on_the_site, made, tmp_path):
    files, done = work_on_the_site(tmp_path / "parts")
    whole = write(made, tmp_path / "whole" / "site")
    parts = tmp_path / "parts" / "site"
    assert value(parts, "index") == value(whole, "index")
    (parts / "data" / "index.js").write_bytes((whole / "data" / "index.js").read_bytes())
    assert content(parts) == content(whole)
    assert files == {f"site/{name.as_posix()}" for name in content(whole)}
    assert done[-1] == "index"
    assert len(value(whole, "index")["layers"]) == 2


def test_a_site_that_was_broken_off_goes_on_with_what_is_missing(work_on_the_site, tmp_path):
    files, _ = work_on_the_site(tmp_path)
    before = content(tmp_path)
    for lost in (
        f"{report.PARTS}/003-000000.json",
        "site/data/neurons/3/1.js",
        "site/data/samples/0/1.js",
    ):
        (tmp_path / lost).unlink()
    assert work_on_the_site(tmp_path) == (
        files,
        ["neurons-003-000000", "samples-00000000", "index"],
    )
    assert content(tmp_path) == before
    assert work_on_the_site(tmp_path) == (files, ["index"])
