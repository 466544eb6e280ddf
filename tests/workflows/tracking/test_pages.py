"""MLflow's own pages of a real sweep, in a headless Chromium: what a stranger finds there."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from mlflow import MlflowClient

from tests.tasks.report.site.browsing import chromium
from tests.workflows.runs import ROOT, SMALL, command
from tests.workflows.tracking.server import mlflow_server

pytestmark = pytest.mark.browser

LAYERS = (0, 1, 2, 3)
PATIENCE_MS = 60_000
COMPARED = """() => {
  const said = (cells) => cells.map((cell) => cell.innerText.trim());
  const rows = [...document.querySelectorAll('.mlflow-compare-table tr')]
    .map((row) => said([...row.children]));
  const [names, values] = [...document.querySelectorAll('.ReactVirtualized__Grid > *')]
    .map((grid) => [...grid.children]);
  const place = (cell, side) => parseFloat(cell.style[side]);
  for (const name of names) {
    const beside = values.filter((cell) => place(cell, 'top') === place(name, 'top'));
    rows.push(said([name, ...beside.sort((a, b) => place(a, 'left') - place(b, 'left'))]));
  }
  return Object.fromEntries(rows.map(([name, ...cells]) => [name, cells]));
}"""
"""The rows in sight of the compare view: tables, and two grids side by side for the metrics."""


@dataclass(frozen=True)
class Pages:
    """The addresses of a sweep's pages."""

    server: str
    experiment: str
    parent: Any
    jobs: list[Any]

    def runs(self) -> str:
        return f"{self.server}/#/experiments/{self.experiment}/runs"

    def of(self, run: Any, tab: str = "") -> str:
        return f"{self.runs()}/{run.info.run_id}{tab}"


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pages]:
    folder = tmp_path_factory.mktemp("pages")
    of_layers = [text for text in SMALL if not text.startswith("capture.layers")]
    swept = f"capture.layers={','.join(map(str, LAYERS))}"
    with mlflow_server(folder / "server") as server:
        server.start()
        environment = os.environ | {
            "MLFLOW_TRACKING_URI": server.address,
            "PYTHONPATH": str(ROOT),
        }
        called = command("--multirun", "data.count=60", *of_layers, swept, f"out={folder / 'out'}")
        with (folder / "log").open("w") as log:
            ended = subprocess.run(called, env=environment, stdout=log, stderr=log)
        assert ended.returncode == 0, (folder / "log").read_text()
        client = MlflowClient(server.address)
        experiment = client.get_experiment_by_name("neuron-atlas").experiment_id
        parent, *jobs = client.search_runs([experiment], order_by=["attributes.start_time ASC"])
        yield Pages(server.address, experiment, parent, jobs)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as found:
        yield found


@pytest.fixture
def page(browser: Any) -> Iterator[Any]:
    """A window of its own for each test: MLflow remembers what was unfolded in one."""
    opened = browser.new_page(viewport={"width": 1600, "height": 950})
    opened.set_default_timeout(PATIENCE_MS)
    yield opened
    opened.close()


def go(page: Any, address: str) -> None:
    """Open a page as one who comes from elsewhere: the pages share one document."""
    page.goto("about:blank")
    page.goto(address)


def shown(page: Any, text: str | re.Pattern[str]) -> None:
    page.get_by_text(text).first.wait_for(state="visible")


def unfold_the_sweep(page: Any) -> None:
    row = page.get_by_role("row").filter(has_text="sweep: layers=0,1,2,3").first
    row.get_by_role("button").first.click()


def test_the_table_of_runs_shows_the_sweep_and_below_it_its_jobs(page, pages):
    go(page, pages.runs())
    shown(page, "sweep: layers=0,1,2,3")
    shown(page, "60 drawn scenes, seed 0")
    shown(page, re.compile("the FFN neurons of a vision-language model"))
    assert page.get_by_text("layers=2", exact=True).count() == 0
    unfold_the_sweep(page)
    for layer in LAYERS:
        shown(page, re.compile(rf"^layers={layer}$"))


def test_jobs_that_are_compared_show_their_scores_by_layer_and_what_differs(page, pages):
    go(page, pages.runs())
    unfold_the_sweep(page)
    for layer in LAYERS:
        row = page.get_by_role("row").filter(has_text=f"layers={layer}", has_not_text="sweep")
        row.first.get_by_role("checkbox").first.check()
    page.get_by_role("button", name="Compare", exact=True).click()
    shown(page, "Comparing 4 Runs from 1 Experiment")
    page.locator(".axis-title").nth(1).wait_for(state="attached")
    axes = page.locator(".axis-title").all_text_contents()
    assert axes == ["capture.layers", "score/correlation"]
    rows = page.evaluate(COMPARED)
    order = [int(name.removeprefix("layers=")) for name in rows["Run Name:"]]
    assert sorted(order) == list(LAYERS)
    assert {"score.resamples", "neurons/all", "neurons/text"} < set(rows)
    for only_what_differs in page.get_by_role("switch").all():
        only_what_differs.click()
    page.get_by_text("score.resamples", exact=True).first.wait_for(state="detached")
    page.get_by_text("neurons/all", exact=True).first.wait_for(state="detached")
    rows = page.evaluate(COMPARED)
    assert [name for name in rows if "." in name] == ["capture.layers"]
    assert rows["capture.layers"] == rows["layers"] == [str(layer) for layer in order]
    for name in ("neurons/text", "neurons_share/text"):
        logged = [pages.jobs[layer].data.metrics[name] for layer in order]
        assert [float(text) for text in rows[name]] == pytest.approx(logged, abs=6e-4)


def test_the_sweeps_description_shows_score_and_controls_on_one_axis_by_layer(page, pages):
    go(page, pages.of(pages.parent))
    page.get_by_text("Show more").first.click()
    picture = page.locator("img[src*='scores.png']").first
    picture.wait_for(state="visible")
    assert picture.evaluate("image => image.naturalWidth") > 300
    assert pages.parent.info.run_id in picture.get_attribute("src")


def test_the_runs_page_says_what_was_run_and_how_to_read_it(page, pages):
    job = pages.jobs[0]
    go(page, pages.of(job))
    shown(page, re.compile("the neurons of llava-scenes"))
    page.get_by_text("Show more").first.click()
    shown(page, "How to read the metrics")
    shown(page, re.compile("they respond most to visual tokens"))
    shown(page, re.compile(r"60 drawn scenes, seed 0"))


def test_the_dataset_and_the_subject_are_the_inputs_of_a_run(page, pages):
    go(page, pages.of(pages.jobs[0]))
    shown(page, re.compile(r"^60 drawn scenes, seed 0 \([0-9a-f]{16}\)$"))
    shown(page, "Logged models (1)")
    shown_row = page.get_by_role("row").filter(has_text="Input").first
    assert "llava-scenes" in shown_row.inner_text()


def test_the_machine_of_a_sweep_has_its_charts(page, pages):
    go(page, pages.of(pages.parent, "/model-metrics"))
    for measure in ("cpu_utilization_percentage", "system_memory_usage_megabytes"):
        shown(page, measure)
    page.locator("path.point").first.wait_for(state="attached")


@pytest.mark.parametrize(
    ("of_sweep", "path", "said"),
    [
        (False, "report/index.html", "The feed-forward neurons of"),
        (True, "comparison/index.html", "A sweep of neuron-atlas"),
    ],
)
def test_the_page_is_rendered_among_the_artifacts(page, pages, of_sweep, path, said):
    run = pages.parent if of_sweep else pages.jobs[0]
    go(page, pages.of(run, f"/artifacts/{path}"))
    inside = page.frame_locator("iframe").first
    inside.get_by_text(said).first.wait_for(state="visible")


def test_a_figure_is_shown_among_the_artifacts(page, pages):
    go(page, pages.of(pages.parent, "/artifacts/comparison/figures/scores.png"))
    shown(page, re.compile(r"^comparison/figures/scores\.png"))
    picture = page.locator(
        "img[src^='blob:'], img[src*='get-artifact'], img[src^='data:image/png']"
    )
    picture.first.wait_for(state="visible")
    assert picture.first.evaluate("image => image.naturalWidth") > 500
