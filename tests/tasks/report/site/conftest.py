import pytest

from bench.made_up.atlas import make_up
from bench.made_up.sizes import Sizes
from tests.tasks.report.site.reading import write


@pytest.fixture(scope="session")
def made(tmp_path_factory):
    return make_up(tmp_path_factory.mktemp("tables"), Sizes())


@pytest.fixture(scope="session")
def site(made, tmp_path_factory):
    return write(made, tmp_path_factory.mktemp("report") / "site")
