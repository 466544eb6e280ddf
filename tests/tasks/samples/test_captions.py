"""Captions of a folder: which file they are taken from, and what the user is told about it."""

import json
import re
from pathlib import Path

import pytest
from PIL import Image

from neuron_atlas.tasks.samples.folder import Folder
from neuron_atlas.tasks.samples.scan import list_records, scan_samples
from neuron_atlas.tasks.samples.source import SourceError

CASES = Path(__file__).parents[3].parent / "shared" / "cases" / "data"


@pytest.fixture
def folder(tmp_path):
    """Builds the source of a folder: images by name, and other files with their content."""

    def build(images, files=None, **settings):
        root = tmp_path / "photos"
        for name in images:
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            kind = {".heic": "HEIF", ".avif": "AVIF"}.get(Path(name).suffix.lower(), "PNG")
            Image.new("RGB", (64, 48), "red").save(root / name, kind)
        for name, content in (files or {}).items():
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            data = content if isinstance(content, bytes) else content.encode()
            (root / name).write_bytes(data)
        return Folder(str(root), **settings)

    return build


def texts(source):
    return {record.source_id: record.text for record in source.records()}


def scanned(source):
    return scan_samples(source, list_records(source), 0, require_text=True, duplicates=())[0]


@pytest.mark.skipif(not CASES.is_dir(), reason="the cases from the field are not here")
@pytest.mark.parametrize(
    ("case", "name", "text"),
    [
        ("labels.csv", "labels.csv", "A grey square."),
        ("labels.csv", "Captions.csv", "A grey square."),
        ("labels.csv", "CAPTIONS.CSV", "A grey square."),
        ("captions.json", "captions.json", "A grey square."),
        ("semicolons.csv", "captions.csv", "A grey square, with noise."),
    ],
)
def test_the_caption_files_from_the_field_are_used_and_named(folder, case, name, text):
    source = folder(["plain.png"], {name: (CASES / case).read_bytes()})
    assert texts(source) == {"plain.png": text}
    assert source.notes() == [f"captions from {name} for 1 of 1 images"]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("captions.tsv", "Image\tCaption\na.png\tred, and round\n"),
        ("captions.csv", " File Name ;n;Description\na.png;1;red, and round\n"),
        ("captions.csv", "image|text\na.png|red, and round\n"),
        ("captions.csv", "image\ttext\r\na.png\tred, and round\r\n".encode("utf-16")),
        ("captions.txt", 'image,caption\na.png,"red, and round"\n'),
        ("results.csv", "image_name|comment_number|comment\na.png|0|red, and round\na.png|1|x\n"),
        ("labels.json", json.dumps({"a.png": "red, and round", "b.png": ["", "x"]})),
        ("labels.json", json.dumps({"a.png": {"caption": "red, and round"}})),
        (
            "captions_val2017.json",
            json.dumps(
                {
                    "images": [{"id": 7, "file_name": "a.png"}],
                    "annotations": [{"image_id": 7, "caption": "red, and round"}],
                }
            ),
        ),
        ("list.ndjson", json.dumps({"path": "./a.png", "text": ["red, and round", "x"]})),
        (
            "chats.jsonl",
            json.dumps(
                {
                    "image": "a.png",
                    "messages": [
                        {"role": "user", "content": "<image>?"},
                        {"role": "assistant", "content": "red, and round"},
                    ],
                }
            ),
        ),
    ],
)
def test_tables_are_read_in_the_layouts_that_people_have(folder, name, content):
    source = folder(["a.png", "b.png"], {name: content})
    assert texts(source) == {"a.png": "red, and round", "b.png": ""}
    assert source.notes()[0] == f"captions from {name} for 1 of 2 images"


def test_the_columns_may_be_named(folder):
    table = {"mine.csv": "bild;was\na.png;red\n"}
    source = folder(["a.png"], table)
    assert texts(source) == {"a.png": ""}
    assert re.search(
        r"no captions for 1 images: .* seen: mine\.csv \(columns bild, was\); set data\.captions, "
        r"data\.image_column and data\.text_column",
        source.notes()[0],
    )
    assert texts(folder([], {}, image_column="bild", text_column="was")) == {"a.png": "red"}
    with pytest.raises(SourceError, match=r"seen: mine\.csv \(columns bild, was\)"):
        list(folder([], {}, text_column="wie").records())


@pytest.mark.parametrize("content", ["", "\n", "image,text\n"])
def test_an_empty_table_is_not_taken_and_named(folder, content):
    source = folder(["a.png", "b.png"], {"captions.csv": content, "a.txt": "red"})
    assert texts(source) == {"a.png": "red", "b.png": ""}
    assert source.notes() == [
        "captions from .txt files next to 1 of 2 images; seen: captions.csv (no rows)"
    ]
    with pytest.raises(SourceError, match=r"captions\.csv: no rows"):
        list(folder([], {}, captions="captions.csv").records())


def test_without_captions_the_files_looked_for_are_named(folder):
    (note,) = folder(["a.png"]).notes()
    assert re.search(r"no captions for 1 images: .*\.csv.*\.jsonl.*\.txt or \.caption", note)


def test_a_caption_of_160000_characters_is_read(folder):
    source = folder(["a.png"], {"captions.csv": "image,text\na.png," + "x " * 80_000})
    assert len(texts(source)["a.png"]) == 160_000
    assert scanned(source)["status"].to_pylist() == ["ok"]


def test_text_files_are_found_whatever_their_case_and_suffix(folder):
    files = {"a.TXT": "one", "b.caption": "two", "sub/c.png.txt": "three", "d.txt": "four"}
    files |= {"d.caption": "not taken", "e.txt": "no image"}
    source = folder(["a.PNG", "b.png", "sub/c.png", "d.png"], files)
    assert list(texts(source).values()) == ["one", "two", "four", "three"]
    assert source.notes()[-1] == "not read: 1 .txt without an image"


def test_each_subfolder_may_have_its_own_table(folder):
    files = {
        "train/metadata.csv": "file_name,text\na.png,one\n",
        "test/metadata.csv": "file_name,text\na.png,two\n,lost\n",
    }
    source = folder(["train/a.png", "test/a.png"], files)
    assert texts(source) == {
        "test/a.png": "two",
        "test/metadata.csv, line 3": "",
        "train/a.png": "one",
    }
    assert source.notes()[0].startswith("captions from test/metadata.csv, train/metadata.csv for 2")


@pytest.mark.parametrize("name", ["x/A.JPG.png", "x\\a.jpg.png", "photos/x/a.jpg.png", "A.jpg"])
def test_an_image_is_found_by_the_name_that_a_table_gives_it(folder, name):
    source = folder(["x/a.jpg.png", "b.png"], {"labels.tsv": f"image\ttext\n{name}\tred\n"})
    assert texts(source) == {"b.png": "", "x/a.jpg.png": "red"}


def test_a_name_of_several_images_is_of_none(folder):
    source = folder(["x/a.png", "y/a.png"], {"labels.csv": "image,text\na.png,red\n"})
    assert texts(source) == {"a.png": "red", "x/a.png": "", "y/a.png": ""}


def test_photographs_of_phones_are_read_and_what_is_not_read_is_named(folder):
    source = folder(
        ["a.HEIC", "b.avif"], {"a.MOV": b"", "a.txt": "red", "c.cr2": b"", "a.nef": b""}
    )
    read = scanned(source)
    assert read["source_id"].to_pylist() == ["a.HEIC", "b.avif", "c.cr2"]
    assert read["status"].to_pylist() == ["ok", "empty_text", "unreadable"]
    assert re.search(
        "not an image in a supported format .* save it as JPEG", read["reason"][2].as_py()
    )
    assert source.notes()[-1] == "not read: 1 .mov"


def test_a_folder_without_images_says_what_it_holds(folder):
    with pytest.raises(SourceError) as bad:
        list(folder([], {"a.mov": b"", "b.mov": b"", "notes.pdf": b""}).records())
    assert re.search(
        r"no images .*; it holds 2 \.mov, 1 \.pdf\. Correct data\.path", str(bad.value)
    )
    assert "Folder(" not in str(bad.value)


def test_a_table_that_is_not_named_after_captions_never_ends_a_run(folder):
    files = {"metadata.json": '{"version": 1}', "notes.csv": b"\xff\xfe\xff", "x.json": "["}
    source = folder(["a.png"], files)
    assert texts(source) == {"a.png": ""}
    assert all(name in source.notes()[0] for name in files)
