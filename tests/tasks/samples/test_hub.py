import hashlib
import io
import os
import pickle
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

datasets = pytest.importorskip("datasets")

from PIL import Image  # noqa: E402

from neuron_atlas.tasks.samples import hub as hub_module  # noqa: E402
from neuron_atlas.tasks.samples import hub_load  # noqa: E402
from neuron_atlas.tasks.samples.hub import Hub  # noqa: E402
from neuron_atlas.tasks.samples.source import SampleError, SampleRecord, SourceError  # noqa: E402

COLORS = ("red", "lime", "blue", "white")
ROOT = Path(__file__).parents[3]
PHOTOS = ROOT.parent / "shared" / "photos"


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    """Nothing is read from or written to the caches of whoever runs the tests."""
    caches = tmp_path / "caches"
    (caches / "hub").mkdir(parents=True)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", caches)
    monkeypatch.setattr(datasets.config, "DOWNLOADED_DATASETS_PATH", caches / "downloads")
    monkeypatch.setattr(datasets.config, "EXTRACTED_DATASETS_PATH", caches / "downloads/extracted")
    monkeypatch.setattr(hub_load, "HF_HUB_CACHE", str(caches / "hub"))
    hub_module._open.cache_clear()
    yield
    hub_module._open.cache_clear()


def png(color, size=(4, 3)):
    buffer = io.BytesIO()
    Image.new("RGB", size, color).save(buffer, "PNG")
    return buffer.getvalue()


def table(**more):
    features = datasets.Features(
        {
            "image": datasets.Image(),
            "text": datasets.Value("string"),
            "key": datasets.Value("int64"),
        }
    )
    columns = {
        "image": [{"bytes": png(color), "path": f"{color}.png"} for color in COLORS],
        "text": [f"a {color} picture" for color in COLORS],
        "key": [10, 11, 12, 13],
    }
    built = datasets.Dataset.from_dict(columns, features=features)
    for name, values in more.items():
        built = built.add_column(name, values)
    return built


def saved(folder, built=None):
    (built or table()).save_to_disk(str(folder))
    return str(folder)


def parquet(folder, built=None):
    folder.mkdir()
    (built or table()).to_parquet(str(folder / "train.parquet"))
    return str(folder)


def image_folder(folder):
    (folder / "train").mkdir(parents=True)
    for color in COLORS:
        (folder / "train" / f"{color}.png").write_bytes(png(color))
    lines = (f'{{"file_name": "{color}.png", "text": "a {color} picture"}}\n' for color in COLORS)
    (folder / "train" / "metadata.jsonl").write_text("".join(lines))
    return str(folder)


def sha256(color):
    return hashlib.sha256(png(color)).hexdigest()


def bad(source, image):
    with pytest.raises(SampleError) as caught:
        source.open_image(image)
    return caught.value


@pytest.mark.parametrize("layout", [saved, parquet, image_folder])
def test_every_local_layout_gives_the_same_texts_and_images(layout, tmp_path):
    source = Hub(layout(tmp_path / "data"), "train")
    records = list(source.records())
    assert [record.image for record in records] == ["0", "1", "2", "3"]
    assert {record.text for record in records} == {f"a {color} picture" for color in COLORS}
    for record in records:
        color = record.text.split()[1]
        opened = source.open_image(record.image)
        assert opened.pixels.getpixel((0, 0)) == Image.new("RGB", (1, 1), color).getpixel((0, 0))
        assert opened.sha256 == sha256(color)
        assert source.concepts(record.image) == []


@pytest.mark.parametrize("layout", [saved, parquet])
@pytest.mark.parametrize(
    ("split", "colors"),
    [
        ("train[:2]", ["red", "lime"]),
        ("train[1:-1]", ["lime", "blue"]),
        ("train[50%:]", ["blue", "white"]),
        ("train[3:]+train[:1]", ["white", "red"]),
    ],
)
def test_a_slice_of_a_split_is_read_as_the_library_spells_it(layout, split, colors, tmp_path):
    source = Hub(layout(tmp_path / "data"), split)
    assert list(source.records()) == [
        SampleRecord(str(number), (str(number),), f"a {color} picture")
        for number, color in enumerate(colors)
    ]
    assert source.open_image("0").sha256 == sha256(colors[0])
    assert bad(source, "2").status == "missing"


def test_a_saved_dataset_of_several_splits_gives_the_one_that_is_named(tmp_path):
    both = datasets.DatasetDict(train=table(), test=table().select([3]))
    folder = saved(tmp_path / "data", both)
    assert [record.text for record in Hub(folder, "test").records()] == ["a white picture"]
    with pytest.raises(SourceError, match=r'split other: .*"other".*train.*test.*correct'):
        list(Hub(folder, "other").records())


def test_ids_come_from_their_column_when_there_is_one(tmp_path):
    source = Hub(saved(tmp_path / "data"), "train", id_column="key")
    assert [record.source_id for record in source.records()] == ["10", "11", "12", "13"]
    assert [record.image for record in source.records()] == ["0", "1", "2", "3"]


def test_the_first_of_several_captions_counts_and_none_is_empty(tmp_path):
    built = table(captions=[["one", "two"], ["three"], [], None])
    source = Hub(saved(tmp_path / "data", built), "train", text_column="captions")
    assert [record.text for record in source.records()] == ["one", "three", "", ""]


def test_a_dataset_without_texts_is_read_when_asked_for_so(tmp_path):
    folder = saved(tmp_path / "data", table().select_columns(["image"]))
    assert [record.text for record in Hub(folder, "train", text_column=None).records()] == [""] * 4


def test_limit_lists_only_the_first_rows(tmp_path):
    folder = saved(tmp_path / "data")
    assert len(list(Hub(folder, "train", limit=3).records())) == 3
    assert len(list(Hub(folder, "train", limit=3, text_column=None).records())) == 3


def test_listing_decodes_no_image_and_opens_no_file(tmp_path):
    folder = tmp_path / "data"
    image_folder(folder)
    source = Hub(str(folder), "train")
    list(source.records())
    for file in (folder / "train").glob("*.png"):
        file.write_bytes(b"no image")
    assert len(list(source.records())) == 4
    assert bad(source, "0").status == "unreadable"


def test_the_dataset_is_looked_up_once_a_process(tmp_path, monkeypatch):
    source = Hub(parquet(tmp_path / "data"), "train")
    source.open_image("0")
    monkeypatch.setattr(datasets, "load_dataset_builder", None)
    pickle.loads(pickle.dumps(source)).open_image("1")


@pytest.mark.parametrize(
    "settings", [{"image_column": "img"}, {"text_column": "img"}, {"id_column": "img"}]
)
def test_a_missing_column_is_named_beside_those_that_exist(settings, tmp_path):
    folder = saved(tmp_path / "data")
    with pytest.raises(
        SourceError, match=r"no column 'img'. The columns are image, text, key; set"
    ):
        list(Hub(folder, "train", **settings).records())


def test_a_column_of_the_wrong_kind_is_named(tmp_path):
    folder = saved(tmp_path / "data", table(pair=[[1, 2]] * 4))
    with pytest.raises(SourceError, match=r"'key' holds .*int64.*; set data\.image_column"):
        list(Hub(folder, "train", image_column="key").records())
    with pytest.raises(
        SourceError, match=r"'pair' holds List.*, not images; set data\.image_column"
    ):
        list(Hub(folder, "train", image_column="pair").records())
    with pytest.raises(SourceError, match=r"'key' holds .*int64.*not texts; set data\.text_column"):
        list(Hub(folder, "train", text_column="key").records())


VALUE, IMAGE = datasets.Value("string"), datasets.Image()


def many(*colors):
    return [{"bytes": png(color), "path": None} for color in colors]


def chat(*words, names=("from", "value"), roles=("human", "gpt")):
    return [dict(zip(names, pair, strict=True)) for pair in zip(roles, words, strict=True)]


def test_the_layout_of_the_cauldron_is_read(tmp_path):
    turns = [
        {"user": "What is this?", "assistant": "A square.", "source": "vqa"},
        {"user": "Which color?", "assistant": "Red.", "source": "vqa"},
    ]
    features = {
        "images": datasets.List(IMAGE),
        "texts": datasets.List(dict.fromkeys(("user", "assistant", "source"), VALUE)),
    }
    columns = {"images": [many("red"), many("lime", "blue"), [None]], "texts": [turns] * 3}
    built = datasets.Dataset.from_dict(columns, features=datasets.Features(features))
    source = Hub(parquet(tmp_path / "data", built), "train")
    assert list(source.records()) == [
        SampleRecord("0", ("0/0",), "A square."),
        SampleRecord("1", ("1/0", "1/1"), "A square."),
        SampleRecord("2", ("2/0",), "A square."),
    ]
    assert source.notes() == ["images from column images, texts from texts"]
    assert [source.open_image(f"1/{n}").sha256 for n in (0, 1)] == [sha256("lime"), sha256("blue")]
    for image in ("1/2", "1", "1/x", "3/0", "2/0"):
        assert bad(source, image).status == "missing"
    sliced = Hub(source.dataset, "train[1:]")
    assert [record.images for record in sliced.records()] == [("0/0", "0/1"), ("1/0",)]
    assert sliced.open_image("0/1").sha256 == sha256("blue")


def test_the_layout_of_llava_onevision_is_read(tmp_path):
    columns = {
        "id": ["a", "b", "c", "d"],
        "image": [*many("red"), None, *many("blue", "white")],
        "conversations": [
            chat("<image>\nWhat?", "A square."),
            chat("Who are you?", "A model."),
            chat("<image>\nWhat?", "A square.", roles=("human", "robot")),
            chat("<image> or <image>?", "Neither."),
        ],
        "data_source": ["made"] * 4,
    }
    features = datasets.Features(
        {
            "id": VALUE,
            "image": IMAGE,
            "conversations": datasets.List({"from": VALUE, "value": VALUE}),
            "data_source": VALUE,
        }
    )
    built = datasets.Dataset.from_dict(columns, features=features)
    source = Hub(saved(tmp_path / "data", built), "train", id_column="id")
    first, second, third, fourth = source.records()
    assert (first.source_id, first.images, first.text) == ("a", ("0",), "A square.")
    assert (second.status, bad(source, "1").reason) == ("ok", "the row has no image")
    assert third.status == "malformed"
    assert "its roles are human, robot" in third.reason
    assert "mentions 2 images (<image>), but the row has 1" in fourth.reason


def test_messages_with_lists_of_images_are_read(tmp_path):
    names, roles = ("role", "content"), ("user", "assistant")
    columns = {
        "messages": [
            chat(q, "Red.", names=names, roles=roles) for q in ("<image>?", "Hi", "<image>")
        ],
        "images": [["in.png"], [], None],
    }
    source = Hub(parquet(tmp_path / "data", datasets.Dataset.from_dict(columns)), "train")
    (tmp_path / "data" / "in.png").write_bytes(png("red"))
    read = list(source.records())
    assert [(one.images, one.text) for one in read[:2]] == [(("0/0",), "Red."), ((), "Red.")]
    assert source.open_image("0/0").sha256 == sha256("red")
    assert (read[2].status, read[2].images) == ("malformed", ())


def test_columns_that_are_not_clear_are_asked_for(tmp_path):
    features = datasets.Features({"left": IMAGE, "right": IMAGE, "label": VALUE})
    columns = {"left": many("red"), "right": many("blue"), "label": ["x"]}
    built = datasets.Dataset.from_dict(columns, features=features)
    folder = saved(tmp_path / "data", built)
    with pytest.raises(
        SourceError, match=r"split train: no column .* images\. The columns are left"
    ):
        list(Hub(folder, "train").records())
    with pytest.raises(SourceError, match=r"that of the texts\. .* \(null for none\)"):
        list(Hub(folder, "train", image_column="left").records())
    (read,) = Hub(folder, "train", image_column="right", text_column="label").records()
    assert read.text == "x"


def test_a_row_without_an_image_is_missing(tmp_path):
    built = table().map(
        lambda row, n: {"image": None if n == 1 else row["image"]}, with_indices=True
    )
    source = Hub(saved(tmp_path / "data", built), "train")
    assert bad(source, "1").reason == "the row has no image"
    assert bad(source, "1").status == "missing"
    assert source.open_image("2").pixels.size == (4, 3)
    for image in ("4", "-1", "x", ""):
        assert bad(source, image).status == "missing"


def test_the_pixel_limit_holds_for_stored_images(tmp_path):
    assert bad(Hub(saved(tmp_path / "data"), "train", max_pixels=11), "0").status == "oversized"


@pytest.mark.parametrize("stored", [png("red"), {"bytes": png("red"), "path": None}])
def test_an_image_stored_as_plain_bytes_is_read(stored, tmp_path):
    built = datasets.Dataset.from_dict({"image": [stored], "text": ["red"]})
    opened = Hub(parquet(tmp_path / "data", built), "train").open_image("0")
    assert opened.sha256 == sha256("red")


def test_paths_in_the_table_are_read_below_the_dataset_only(tmp_path):
    secret = tmp_path / "secret.png"
    secret.write_bytes(png("red"))
    names = ["in.png", "../secret.png", str(secret), "https://host/a.png", "no.png", "link.png"]
    built = datasets.Dataset.from_dict({"image": names, "text": names})
    source = Hub(parquet(tmp_path / "data", built), "train")
    (tmp_path / "data" / "in.png").write_bytes(png("lime"))
    (tmp_path / "data" / "link.png").symlink_to(secret)
    assert source.open_image("0").sha256 == sha256("lime")
    (tmp_path / "caches" / "no.png").write_bytes(png("red"))
    statuses = [bad(source, str(number)).status for number in range(1, 6)]
    assert statuses == [
        "outside_folder",
        "outside_folder",
        "outside_folder",
        "missing",
        "outside_folder",
    ]


def test_images_in_the_librarys_cache_are_read(tmp_path):
    blob = tmp_path / "caches" / "hub" / "blob"
    blob.write_bytes(png("blue"))
    built = datasets.Dataset.from_dict({"image": [str(blob)], "text": ["blue"]})
    opened = Hub(parquet(tmp_path / "data", built), "train").open_image("0")
    assert opened.sha256 == sha256("blue")


@pytest.mark.parametrize("layout", [saved, parquet, image_folder])
def test_the_probe_changes_with_the_data_and_not_with_the_process(layout, tmp_path):
    source = Hub(layout(tmp_path / "data"), "train")
    before = source.probe()
    code = (
        "from neuron_atlas.tasks.samples.hub import Hub\n"
        f"print(Hub({source.dataset!r}, 'train').probe())"
    )
    environment = os.environ | {"HF_HOME": str(tmp_path / "other"), "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, "-c", code]
    elsewhere = subprocess.check_output(command, cwd=ROOT, env=environment, text=True)
    assert elsewhere.strip() == before
    assert Hub(source.dataset, "train[:2]").probe() != before
    assert Hub(source.dataset, "train", text_column=None).probe() != before
    shutil.rmtree(tmp_path / "data")
    if layout is image_folder:
        image_folder(tmp_path / "data")
    else:
        layout(tmp_path / "data", table().select([0, 1, 3, 2]))
    assert source.probe() != before


def test_the_probe_notices_images_that_changed_before_the_dataset_was_saved_again(tmp_path):
    file = tmp_path / "a.png"
    features = datasets.Features({"image": datasets.Image(), "text": datasets.Value("string")})
    probes = []
    for color in ("red", "lime"):
        file.write_bytes(png(color))
        built = datasets.Dataset.from_dict({"image": [str(file)], "text": ["a"]}, features=features)
        source = Hub(saved(tmp_path / "data", built), "train")
        probes.append(source.probe())
        assert source.open_image("0").sha256 == sha256(color)
    assert probes[0] != probes[1]


def test_offline_and_not_cached_the_error_says_what_to_do(monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    with pytest.raises(
        SourceError, match=r"nobody/nothing: .*cache does not hold it .*Load it once"
    ):
        list(Hub("nobody/nothing", "train").records())


def test_a_dataset_that_brings_code_is_refused_unrun(tmp_path):
    folder = tmp_path / "scripted"
    folder.mkdir()
    (folder / "scripted.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    with pytest.raises(SourceError, match="scripted"):
        list(Hub(str(folder), "train").records())
    assert not (tmp_path / "ran").exists()


def test_an_unknown_split_is_named_beside_those_that_exist(tmp_path):
    with pytest.raises(SourceError, match=r"split test: .*train.*; correct the data settings"):
        list(Hub(parquet(tmp_path / "data"), "test").records())


@pytest.mark.skipif(not PHOTOS.is_dir(), reason="the sixteen photographs are not here")
def test_the_sixteen_photographs_open_as_an_image_folder():
    source = Hub(str(PHOTOS / "images"), "train", text_column=None)
    paths = (PHOTOS / "images").iterdir()
    files = {hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}
    assert {source.open_image(record.image).sha256 for record in source.records()} == files
