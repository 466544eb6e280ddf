"""Measure how long a site of LLaVA-1.5-7B's 352,256 neurons takes to write, open and filter.

    python -m bench.site [--layers 32] [--neurons 11008] [--rounds 5] [--out bench/site.json]

Seven in eight neurons have a synthetic explanation, with words that models use, and a score. The
tables are written first and not timed. Then one process writes the site, and a headless Chromium
opens it from its folder, each round in a new window without cache. Times run from an action until
the visible rows and the count are those of the new view. Traces have 8 x 8 patches and 20 text
tokens, so the size for the true shape is calculated and reported as well.
"""

from __future__ import annotations

import argparse
import json
import platform
import resource
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from bench.site_size import Shape, expected_bytes
from bench.synthetic.atlas import SyntheticAtlas, write_synthetic_atlas
from bench.synthetic.sizes import Sizes
from neuron_atlas.tasks.report.settings import About, SiteSettings
from neuron_atlas.tasks.report.site.columns import list_score_pairs, write_columns
from neuron_atlas.tasks.report.site.index import write_index
from neuron_atlas.tasks.report.site.layout import split_layer
from neuron_atlas.tasks.report.site.neurons import write_neurons
from neuron_atlas.tasks.report.site.samples import split_samples, write_samples

TARGET_S = 2.0
_SETTINGS = SiteSettings()
_SHOWN = """(before) => {
  const grid = document.querySelector('.grid[aria-busy="false"]');
  const found = document.getElementById('found')?.textContent;
  return Boolean(grid && /neurons$/.test(found)
    && (grid.querySelector('.canvas .row') || document.querySelector('.nothing:not([hidden])'))
    && (!before || location.hash !== before));
}"""


def main() -> None:
    """Measure, print the table and write it as JSON."""
    parser = argparse.ArgumentParser(
        description="Measure writing, opening and filtering a large site."
    )
    parser.add_argument("--layers", type=int, default=32)
    parser.add_argument("--neurons", type=int, default=11_008)
    parser.add_argument("--samples", type=int, default=400)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path, default=Path("bench/site.json"))
    options = parser.parse_args()
    sizes = Sizes(
        layers=tuple(range(options.layers)),
        neurons=options.neurons,
        samples=options.samples,
        grid=8,
        text_tokens=20,
        top_n=4,
    )
    with tempfile.TemporaryDirectory() as scratch:
        atlas = write_synthetic_atlas(Path(scratch) / "tables", sizes, ["gpt4o"])
        site = Path(scratch) / "report" / "site"
        written = _write(site, atlas)
        written["bytes"] = _bytes_by_kind(site)
        browsed = _browse(site, options.rounds)
    result = {
        "machine": {"processor": platform.processor() or platform.machine()},
        "neurons": options.layers * options.neurons,
        "layers": options.layers,
        "rounds": options.rounds,
        "writing": written,
        "seconds": browsed,
        "target_seconds": TARGET_S,
        "within_target": all(one["median"] <= TARGET_S for one in browsed.values()),
        "calculated_bytes_llava_1.5_7b": calculated_bytes(),
    }
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(result, indent=2))


def calculated_bytes() -> dict[str, dict[str, int]]:
    """Return the calculated size of LLaVA-1.5-7B's site over 23,000 samples, in bytes, with 1,280
    and with all neurons explained."""
    shapes = {"1280_explained": Shape(explained=1280), "all_explained": Shape(explained=352_256)}
    return {name: expected_bytes(shape, _SETTINGS) for name, shape in shapes.items()}


def _write(site: Path, atlas: SyntheticAtlas) -> dict[str, Any]:
    """Write the site in this process; return the seconds of each step, and the peak memory."""
    seconds = {}

    def timed(name: str, work: Callable[[], Any]) -> Any:
        start = time.perf_counter()
        value = work()
        seconds[name] = round(time.perf_counter() - start, 1)
        return value

    pairs = list_score_pairs(
        [path for files in atlas.layers for path in files["explanations"]],
        [path for files in atlas.layers for path in files["scores"]],
        atlas.aggregates,
    )
    rows = timed("columns", lambda: [write_columns(site, files, pairs) for files in atlas.layers])
    sample_ids = timed(
        "neurons",
        lambda: {
            sample_id
            for files in atlas.layers
            for part in split_layer(files)
            for sample_id in write_neurons(site, part, files, atlas.samples, _SETTINGS, pairs.level)
        },
    )
    timed("samples", lambda: _write_samples(site, atlas, sample_ids))
    about = About("llava-1.5-7b", "made up", "0", ())
    timed("index", lambda: write_index(site, rows, pairs, about, "LLaVA-1.5-7B"))
    resident = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    return {"seconds": seconds, "settings": asdict(_SETTINGS), "resident_gb": round(resident, 2)}


def _write_samples(site: Path, atlas: SyntheticAtlas, sample_ids: set[int]) -> None:
    for batch in split_samples(sample_ids):
        write_samples(site, batch, atlas.samples, _SETTINGS)


def _bytes_by_kind(site: Path) -> dict[str, int]:
    kinds = {"images": site / "images"} | {
        name: site / "data" / name for name in ("table", "scores", "words", "neurons", "samples")
    }
    sizes = {
        name: sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
        for name, folder in kinds.items()
    }
    files = sum(path.is_file() for path in site.rglob("*"))
    return sizes | {"all": sum(sizes.values()), "files": files}


def _browse(site: Path, rounds: int) -> dict[str, dict[str, float]]:
    from playwright.sync_api import sync_playwright

    timings: dict[str, list[float]] = {}
    with sync_playwright() as driver:
        path = shutil.which("chromium") or driver.chromium.executable_path
        browser = driver.chromium.launch(executable_path=path, args=["--no-sandbox"])
        for _ in range(rounds):
            for name, seconds in _visit(browser, site).items():
                timings.setdefault(name, []).append(seconds)
        browser.close()
    return {
        name: {
            "median": round(statistics.median(seconds), 3),
            "min": round(min(seconds), 3),
            "max": round(max(seconds), 3),
        }
        for name, seconds in timings.items()
    }


def _visit(browser: Any, site: Path) -> dict[str, float]:
    """Open the table in a new window, filter and sort it, and open a neuron; return the seconds."""
    page = browser.new_context(viewport={"width": 1280, "height": 800}).new_page()
    problems: list[str] = []
    page.on("pageerror", lambda error: problems.append(str(error)))
    timings = {}

    def timed(name: str, act: Callable[[], Any], done: str = _SHOWN, changes: bool = True) -> None:
        before = page.evaluate("location.hash") if changes else ""
        start = time.perf_counter()
        act()
        while not page.evaluate(done, before):
            if time.perf_counter() - start > 120:
                raise RuntimeError(f"{name}: no result after two minutes; {problems}")
            page.wait_for_timeout(5)
        timings[name] = time.perf_counter() - start

    def search(words: str) -> Callable[[], Any]:
        return lambda: page.get_by_role("searchbox").fill(words)

    address = f"{site.as_uri()}/index.html"
    timed("open", lambda: page.goto(f"{address}#/neurons"), changes=False)
    timed("filter_by_type", lambda: page.click('[data-type="visual"]'))
    timed("filter_by_words_first", search("zebras"))
    timed("filter_by_words_again", search("red umbrellas"))
    timed("clear", lambda: page.get_by_role("button", name="Clear filters").click())
    for name in ("Score", "Highest", "Explanation"):
        button = page.get_by_role("button", name=name, exact=True)
        timed(f"sort_by_{name.lower()}", button.click)
    timed("filter_by_layer", lambda: page.get_by_label("From layer").select_option(index=1))
    link = page.locator(".canvas .row a").first
    timed("open_neuron", link.click, "() => Boolean(document.querySelector('.one .neuron-body'))")
    page.context.close()
    other = browser.new_context().new_page()
    start = time.perf_counter()
    other.goto(f"{address}#/neuron/0:417")
    other.wait_for_selector(".one .neuron-body")
    timings["open_neuron_by_link"] = time.perf_counter() - start
    other.context.close()
    if problems:
        raise RuntimeError(f"the page has errors: {problems}")
    return timings


if __name__ == "__main__":
    main()
