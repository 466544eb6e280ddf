import pytest

from neuron_atlas.tasks.report.page import PageInputs, write_page
from tests.tasks.report.rendering import Outline


@pytest.fixture
def render(tmp_path):
    def _render(given: PageInputs) -> tuple[str, Outline]:
        page = write_page(tmp_path / "page", given).read_text(encoding="utf-8")
        return page, Outline(page)

    return _render
