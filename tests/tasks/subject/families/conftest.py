import pytest
from PIL import Image

from neuron_atlas.tasks.subject.families import FAMILIES
from neuron_atlas.tasks.subject.load import Subject, load_subject
from neuron_atlas.tasks.subject.settings import SubjectSettings
from tests.families.building import build
from tests.families.instances import BUILDS
from tests.families.pictures import PICTURES, SEVERAL, SIZES


@pytest.fixture(scope="session", params=FAMILIES)
def subject(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Subject:
    """A small random instance of each family."""
    folder = build(BUILDS[request.param], tmp_path_factory.mktemp(request.param))
    return load_subject(SubjectSettings(model=str(folder)), threads=1)


@pytest.fixture(params=[*SIZES, "several", "none"])
def images(request: pytest.FixtureRequest) -> list[Image.Image]:
    """The images of a sample."""
    if request.param == "several":
        return SEVERAL
    return [] if request.param == "none" else [PICTURES[request.param]]
