import shutil
from pathlib import Path
from types import SimpleNamespace

import huggingface_hub
import pytest
from huggingface_hub import constants
from huggingface_hub.errors import HfHubHTTPError

from neuron_atlas.tasks.subject.revision import subject_revision
from neuron_atlas.tasks.subject.settings import SubjectError, SubjectSettings, model_folder

HOSTED = SubjectSettings(model="someone/some-model", revision="main")


def revision(folder: Path) -> str:
    return subject_revision(SubjectSettings(model=str(folder)))


@pytest.fixture
def copy(subject_folder, tmp_path) -> Path:
    return Path(shutil.copytree(subject_folder, tmp_path / "copy"))


@pytest.fixture
def hub(monkeypatch) -> SimpleNamespace:
    """A Hugging Face hub and a cache that answer what a test lets them answer."""
    hub = SimpleNamespace(answer=SimpleNamespace(sha="abc123"), cached=None, asked=[])

    def model_info(_api: object, name: str, *, revision: str, timeout: float) -> SimpleNamespace:
        hub.asked.append((name, revision))
        if isinstance(hub.answer, Exception):
            raise hub.answer
        return hub.answer

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", model_info)
    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", lambda *_, **__: hub.cached)
    return hub


def test_the_same_weights_are_the_same_revision_wherever_they_lie(subject_folder, copy):
    assert revision(copy) == revision(subject_folder)


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "chat_template.jinja"])
def test_any_file_that_decides_the_answers_decides_the_revision(copy, name):
    before = revision(copy)
    content = bytearray((copy / name).read_bytes())
    content[-2] ^= 1
    (copy / name).write_bytes(content)
    assert revision(copy) != before


def test_a_file_that_is_moved_or_renamed_counts_as_changed(copy):
    before = revision(copy)
    (copy / "chat_template.jinja").rename(copy / "other.jinja")
    assert revision(copy) != before


def test_a_card_or_a_picture_changes_nothing(copy):
    before = revision(copy)
    (copy / "README.md").write_text("new words")
    (copy / "figure.png").write_bytes(b"pixels")
    assert revision(copy) == before


def test_a_hosted_model_is_known_by_its_commit(hub):
    assert subject_revision(HOSTED) == "abc123"
    assert hub.asked == [("someone/some-model", "main")]


def test_without_a_network_the_cached_commit_counts(hub):
    hub.answer = ConnectionError("no route to host")
    hub.cached = "cache/models/snapshots/def456/config.json"
    assert subject_revision(HOSTED) == "def456"


def test_offline_the_hub_is_not_asked(hub, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    hub.cached = "cache/models/snapshots/def456/config.json"
    assert subject_revision(HOSTED) == "def456"
    assert hub.asked == []


def test_a_model_that_is_nowhere_is_an_error_that_says_what_to_do(hub):
    hub.answer = ConnectionError("no route to host")
    with pytest.raises(SubjectError, match="'someone/some-model' is no folder and is not in"):
        subject_revision(HOSTED)


def test_a_hub_that_says_no_is_quoted(hub):
    response = SimpleNamespace(headers={}, request=SimpleNamespace(), status_code=404)
    hub.answer = HfHubHTTPError("404 Client Error\nRequest ID", response=response)
    with pytest.raises(SubjectError, match=r"hub answers: 404 Client Error$"):
        subject_revision(HOSTED)


@pytest.mark.parametrize("path", ["./none", "/none/at/all", "~/none", "a/b/c", "llava-scenes"])
def test_what_can_only_be_a_folder_must_be_there(path):
    with pytest.raises(SubjectError, match=f"there is no folder '{path}'"):
        model_folder(SubjectSettings(model=path))


def test_owner_and_name_are_a_hosted_model_unless_there_is_such_a_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert model_folder(SubjectSettings(model="owner/name")) is None
    (tmp_path / "owner" / "name").mkdir(parents=True)
    assert model_folder(SubjectSettings(model="owner/name")) == Path("owner/name")
