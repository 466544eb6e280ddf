"""A headless Chromium, and what a person does with the site in it."""

import shutil
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import uvicorn

from neuron_atlas.workflows.site_server import listen, report_server
from tests.waiting import PATIENCE_S


@contextmanager
def chromium() -> Iterator:
    """A browser: Debian's, or Playwright's own. Skips where there is none."""
    playwright = pytest.importorskip("playwright.sync_api", reason="pip install playwright")
    with playwright.sync_playwright() as driver:
        found = shutil.which("chromium") or driver.chromium.executable_path
        if not Path(found).is_file():
            pytest.skip("no Chromium: apt-get install chromium, or playwright install chromium")
        browser = driver.chromium.launch(executable_path=found, args=["--no-sandbox"])
        try:
            yield browser
        finally:
            browser.close()


@contextmanager
def served(root: Path, host: str = "127.0.0.1") -> Iterator[str]:
    """The address of a server of these files."""
    with served_by(report_server(root, host), host) as address:
        yield address


@contextmanager
def served_by(server: uvicorn.Server, host: str = "127.0.0.1") -> Iterator[str]:
    """The address of a server, which runs meanwhile."""
    listener = listen(host)
    thread = threading.Thread(target=server.run, args=([listener],), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/"
    finally:
        server.should_exit = True
        thread.join()


class Visit:
    """One page of the browser, and what went wrong in it."""

    def __init__(self, browser, base: str, **options):
        options.setdefault("viewport", {"width": 1280, "height": 800})
        self.context = browser.new_context(**options)
        self.page = self.context.new_page()
        self.page.set_default_timeout(PATIENCE_S * 1000)
        self.base = base
        self.problems: list[str] = []
        self.asked: list[str] = []
        self.page.on("pageerror", lambda error: self.problems.append(str(error)))
        self.page.on(
            "console",
            lambda said: said.type in ("error", "warning") and self.problems.append(said.text),
        )
        self.page.on("request", lambda request: self.asked.append(request.url))
        self.page.on("dialog", self._dialog)

    def _dialog(self, dialog):
        self.problems.append(f"a dialog: {dialog.message}")
        dialog.dismiss()

    def open(self, view: str = "#/neurons"):
        self.page.goto(f"{self.base}site/index.html{view}")
        return self.settled()

    def settled(self):
        """Once the table or the neuron is there."""
        self.page.wait_for_selector('.grid[aria-busy="false"], .one, .empty:not([hidden])')
        return self

    @property
    def count(self) -> str:
        return self.page.locator("#found").inner_text()

    def until(self, expression: str, wanted: object = True):
        """Wait for the value of an expression; the page's policy forbids to wait for it inside."""
        end = time.monotonic() + PATIENCE_S
        while (found := self.page.evaluate(expression)) != wanted:
            assert time.monotonic() < end, f"{expression}: {found!r}, not {wanted!r}"
            self.page.wait_for_timeout(20)

    def expect_count(self, words: str):
        self.until("document.getElementById('found').textContent", words)

    def until_filtered(self):
        self.until("/ of /.test(document.getElementById('found').textContent)")

    def until_filled(self):
        """Once every sample in sight is there."""
        self.until("document.querySelector('.waiting') === null")

    def expect_neuron(self, layer: int | str, neuron: int | str):
        self.until(
            "document.querySelector('h1').textContent", f"Layer {layer} Neuron {int(neuron):,}"
        )

    def cells(self, place: int) -> list[str]:
        """The words of a column in the rows in sight, from above."""
        rows = self.page.locator(".canvas .row").all()
        found = {int(row.get_attribute("data-position")): row for row in rows}
        return [
            found[at].locator(f":scope > :nth-child({place})").inner_text() for at in sorted(found)
        ]

    def close(self):
        self.context.close()
