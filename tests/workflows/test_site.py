"""The site that a run writes."""

import html
import json
import re

import pytest

from neuron_atlas.tasks.atlas import Atlas as Opened
from neuron_atlas.workflows.stages.report import PARTS
from tests.workflows.runs import LAYERS, Atlas, runs_in, small_run

SITE = ("report.site.write=true", "report.site.exemplars=2", "report.site.total_exemplars=3")


@pytest.fixture(scope="module")
def with_site(first_run):
    yield small_run(first_run.store.out, *SITE)
    small_run(first_run.store.out)  # Back to the run that other tests look at.


@pytest.fixture(scope="module")
def atlas(with_site):
    return Atlas(with_site.store.out)


def value(path):
    script = path.read_text(encoding="ascii")
    return json.loads(f"[{script.removeprefix('atlas(')[:-3]}]")[1]


def test_a_run_leaves_a_site_of_every_neuron_and_lists_its_files(with_site, atlas):
    files = {
        path.relative_to(with_site.folder("report")).as_posix() for path in atlas.files("site")
    }
    index = value(with_site.folder("report") / "site" / "data" / "index.js")
    assert [layer["layer"] for layer in index["layers"]] == list(LAYERS)
    types = atlas.table("types", ["type"])
    assert sum(layer["neurons"] for layer in index["layers"]) == len(types)
    for layer in index["layers"]:
        chunks = range(-(-layer["neurons"] // index["chunk"]))
        wanted = {f"site/data/neurons/{layer['layer']}/{chunk}.js" for chunk in chunks}
        assert wanted <= files
    assert {"site/index.html", "site/app/main.js", "site/app/site.css"} <= files
    assert any(name.endswith(".webp") for name in files)
    assert not any(PARTS in name for name in files)
    assert not (with_site.folder("report") / "site" / PARTS).exists()


def test_the_page_leads_to_the_site_and_stands_without_it_where_none_is_written(
    first_run, with_site
):
    page = (with_site.folder("report") / "index.html").read_text(encoding="utf-8")
    assert 'href="site/index.html"' in page
    assert f"{with_site.folder('report').relative_to(with_site.store.out)}/site" in page
    alone = (first_run.folder("report") / "index.html").read_text(encoding="utf-8")
    assert "site/index.html" not in alone
    assert not (first_run.folder("report") / "site").exists()


def test_page_site_and_notebook_give_the_same_verdict_on_a_neuron(with_site):
    report = with_site.folder("report")
    page = (report / "index.html").read_text(encoding="utf-8")
    opened = Opened.open(with_site.store.out)
    size = value(report / "site" / "data" / "index.js")["chunk"]
    found = []
    for article in re.findall(r'<article class="neuron".*?</article>', page, re.DOTALL):
        layer, index = map(int, re.search(r'id="n-(\d+)-(\d+)"', article).groups())
        details = value(report / "site" / "data" / "neurons" / str(layer) / f"{index // size}.js")
        scores = [one for part in details[index % size]["explanations"] for one in part["scores"]]
        on_site = [": ".join(one["verdict"]) for one in scores if "verdict" in one]
        assert verdicts(article) == on_site
        assert verdicts(opened.neuron(layer, index)._repr_html_()) == on_site
        found += on_site
    assert found


def verdicts(markup):
    """The words of each verdict in HTML."""
    lines = re.findall(r'<p class="verdict">(.*?)</p>', markup)
    return [html.unescape(re.sub("<[^>]+>", "", line)) for line in lines]


def test_mlflow_gets_the_page_and_not_the_sites_many_files(with_site):
    client, runs = runs_in(with_site.store.out / "mlflow.db")
    listed = {path.path for path in client.list_artifacts(runs[-1].info.run_id, "report")}
    assert "report/index.html" in listed
    assert "report/site" not in listed
