from pathlib import Path

import pytest

from neuron_atlas.tasks.samples.scenes import Scenes
from neuron_atlas.tasks.subject.load import Subject, load_subject
from neuron_atlas.tasks.subject.settings import DescribeSettings, SubjectSettings
from tests.one_process import Described, describe

BUNDLED = Path(__file__).parents[2] / "infra" / "subject" / "llava-scenes"


@pytest.fixture(scope="session")
def subject_folder() -> Path:
    return BUNDLED


@pytest.fixture(scope="session")
def subject(subject_folder: Path) -> Subject:
    return load_subject(SubjectSettings(model=str(subject_folder)), threads=1)


@pytest.fixture(scope="session")
def scenes(subject: Subject, tmp_path_factory: pytest.TempPathFactory) -> Described:
    """Twenty-four drawn scenes with their true descriptions."""
    folder = tmp_path_factory.mktemp("scenes")
    return describe(
        subject, Scenes(count=24, seed=31), folder, DescribeSettings(text_source="given")
    )
