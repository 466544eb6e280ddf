import io
import json
import tarfile

import pytest

datasets = pytest.importorskip("datasets")

from PIL import Image  # noqa: E402

from neuron_atlas.tasks.samples import hub as hub_module  # noqa: E402
from neuron_atlas.tasks.samples.hub import Hub  # noqa: E402
from neuron_atlas.tasks.samples.source import SampleError, SourceError  # noqa: E402


def picture(kind="JPEG", color="red"):
    buffer = io.BytesIO()
    Image.new("RGB", (64, 48), color).save(buffer, kind)
    return buffer.getvalue()


@pytest.fixture
def shards(tmp_path, monkeypatch):
    """Builds the source of shards: their members by name."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    hub_module._open.cache_clear()

    def build(**settings):
        return Hub(str(tmp_path / "json"), settings.pop("split", "train"), **settings)

    def write(name, members):
        path = tmp_path / "json" / name  # The library has a reader of this name.
        path.parent.mkdir(parents=True, exist_ok=True)
        with tarfile.open(path, "w") as tar:
            for member, content in members.items():
                content = content.encode() if isinstance(content, str) else content
                info = tarfile.TarInfo(member)
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
        return path

    build.write = write
    yield build
    hub_module._open.cache_clear()


def sizes(source, record):
    return [source.open_image(image).pixels.size for image in record.images]


def test_images_and_texts_of_one_key_are_a_sample(shards):
    chat = [{"from": "human", "value": "<image>?"}, {"from": "gpt", "value": "answer"}]
    shards.write(
        "train-000.tar",
        {
            "00.jpg": picture(),
            "00.txt": "one\n",
            "00.json": json.dumps({"caption": "not taken"}),
            "a/01.HEIC": picture("HEIF"),
            "a/01.json": json.dumps({"caption": "two", "width": 64}),
            "02.left.png": picture("PNG"),
            "02.right.png": picture("PNG", "blue"),
            "02.json": json.dumps({"conversations": chat}),
            "03.v1.webp": picture("WEBP"),
            "03.v1.txt": "four",
            "README.md": "# About",
            "._00.jpg": "hidden",
        },
    )
    source = shards()
    read = list(source.records())
    assert [(one.source_id, one.text, one.status) for one in read] == [
        ("train-000/00", "one", "ok"),
        ("train-000/a/01", "two", "ok"),
        ("train-000/02", "answer", "ok"),
        ("train-000/03", "four", "ok"),
    ]
    assert [sizes(source, one) for one in read] == [[(64, 48)]] * 2 + [[(64, 48)] * 2, [(64, 48)]]
    assert source.notes() == ["1 WebDataset shards"]
    assert [one.text for one in shards(text_column="width", limit=1).records()] == [""]
    (only,) = (one for one in shards(image_column="right.png").records() if one.images)
    assert only.images == ("train-000.tar/02.right.png",)


def test_files_of_a_key_need_not_be_neighbors_and_shards_may_repeat_keys(shards):
    members = {"0.jpg": picture(), "1.jpg": picture(), "0.txt": "zero", "1.txt": "one"}
    for name in ("x/train-0.tar", "y/train-0.tar"):
        shards.write(name, members)
    read = list(shards().records())
    assert [one.text for one in read] == ["zero", "one"] * 2
    assert len({one.source_id for one in read}) == 4
    assert sizes(shards(), read[-1]) == [(64, 48)]


def test_a_bad_sample_is_counted_with_its_name_and_reason(shards):
    shards.write(
        "train.tar",
        {
            "0.jpg": picture(),
            "0.txt": b"caf\xe9",
            "1.jpg": picture(),
            "1.json": "{",
            "2.mp4": b"",
            "2.txt": "a video",
            "3.jpg": b"no image",
            "3.txt": "three",
            "4.jpg": picture(),
            "4.json": json.dumps({"caption": 5}),
            "5.jpg": picture(),
            "5.txt": "five",
        },
    )
    read = list(shards().records())
    statuses = ["malformed", "malformed", "skipped", "ok", "malformed", "ok"]
    assert [one.status for one in read] == statuses
    assert "train.tar/0: 0.txt cannot be read: 'utf-8'" in read[0].reason
    assert "1.json cannot be read" in read[1].reason
    assert "mp4 is video" in read[2].reason
    with pytest.raises(SampleError, match="not an image"):
        shards().open_image(read[3].images[0])
    assert 'field "caption" must be a string, not int' in read[4].reason
    for image in ("train.tar/9.jpg", "other.tar/0.jpg", ""):
        with pytest.raises(SampleError) as refused:
            shards().open_image(image)
        assert refused.value.status == "missing"


@pytest.mark.parametrize("damage", ["cut in an image", "cut in a header", "garbage"])
def test_a_damaged_shard_gives_its_first_samples_and_says_so(shards, damage):
    members = {f"{n}.jpg": picture() for n in range(3)}
    path = shards.write("train.tar", members)
    whole = path.read_bytes()
    second = whole.index(b"1.jpg")
    broken = {
        "cut in an image": whole[: second + 600],
        "cut in a header": whole[: second + 100],
        "garbage": whole[:second] + b"?" * 512 + whole[second + 512 :],
    }[damage]
    path.write_bytes(broken)
    read = list(shards().records())
    assert read[0].source_id == "train/0"
    assert sizes(shards(), read[0]) == [(64, 48)]
    assert (read[-1].source_id, read[-1].status) == ("train.tar", "malformed")
    assert "samples may be missing" in read[-1].reason
    path.write_bytes(whole)
    assert [one.status for one in shards().records()] == ["ok"] * 3


def test_a_split_is_that_of_the_library_and_others_are_named(shards):
    for split in ("train", "test"):
        shards.write(f"{split}-0.tar", {"0.jpg": picture(), "0.txt": split})
    assert [one.text for one in shards(split="test").records()] == ["test"]
    with pytest.raises(SourceError, match=r"split train\[:1\]: .*train, test.*data\.limit"):
        list(shards(split="train[:1]").records())


def test_a_file_that_is_no_tar_is_named(shards):
    path = shards.write("train.tar", {})
    path.write_bytes(b"hello" * 1000)
    with pytest.raises(SourceError, match=r"train\.tar: not an uncompressed tar file"):
        list(shards().records())


def test_the_probe_changes_with_the_shards(shards):
    shards.write("train.tar", {"0.jpg": picture()})
    before = shards().probe()
    assert shards().probe() == before
    shards.write("train.tar", {"0.jpg": picture(), "1.jpg": picture()})
    assert shards().probe() != before
