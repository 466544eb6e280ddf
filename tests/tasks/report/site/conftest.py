import pytest

from bench.synthetic.atlas import write_synthetic_atlas
from bench.synthetic.sizes import Sizes
from tests.tasks.report.site.reading import write


@pytest.fixture(scope="session")
def made(tmp_path_factory):
    return write_synthetic_atlas(tmp_path_factory.mktemp("tables"), Sizes())


@pytest.fixture(scope="session")
def site(made, tmp_path_factory):
    return write(made, tmp_path_factory.mktemp("report") / "site")
