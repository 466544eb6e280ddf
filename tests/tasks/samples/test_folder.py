import os
import re
import shutil
from pathlib import Path

import pytest
from PIL import Image

from neuron_atlas.tasks.samples.folder import Folder
from neuron_atlas.tasks.samples.source import SampleError, SampleRecord, SourceError

PHOTOS = Path(__file__).parents[3].parent / "shared" / "photos"


@pytest.fixture
def images(tmp_path):
    folder = tmp_path / "images"
    for name in ("b.JPG", "a.png", "sub/c.jpeg", ".hidden.png", ".cache/d.png"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (4, 3), "red").save(folder / name)
    (folder / "readme.md").write_text("not an image")
    return folder


def texts(folder):
    return {record.image: record.text for record in folder.records()}


def status(folder, image):
    with pytest.raises(SampleError) as bad:
        folder.open_image(image)
    return bad.value.status


def test_images_are_listed_by_relative_path_at_any_depth_without_captions(images):
    assert list(Folder(str(images)).records()) == [
        SampleRecord("a.png", ("a.png",), ""),
        SampleRecord("b.JPG", ("b.JPG",), ""),
        SampleRecord("sub/c.jpeg", ("sub/c.jpeg",), ""),
    ]
    for record in Folder(str(images)).records():
        assert Folder(str(images)).open_image(record.image).pixels.size == (4, 3)


def test_the_order_is_that_of_the_paths(images):
    names = [f"sub/{number:02}.png" for number in range(40)]
    for name in reversed(names):
        shutil.copy(images / "a.png", images / name)
    listed = [record.image for record in Folder(str(images)).records()]
    assert listed == ["a.png", "b.JPG", *names, "sub/c.jpeg"]


def test_limit_lists_only_the_first_images(images):
    assert [record.image for record in Folder(str(images), limit=2).records()] == ["a.png", "b.JPG"]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("captions.csv", 'image,text\na.png,"red, and square"\n./sub/c.jpeg,small\n'),
        (
            "captions.csv",
            '\ufefffile_name,n,caption\r\na.png,1,"red, and square"\r\nsub/c.jpeg,2,small',
        ),
        ("metadata.csv", 'file_name,text\na.png,"red, and square"\nsub/c.jpeg,small\n'),
        (
            "captions.jsonl",
            '{"image": "a.png", "text": "red, and square"}\n'
            '{"image": "sub/c.jpeg", "text": "small"}\n',
        ),
        (
            "metadata.jsonl",
            '{"file_name": "a.png", "text": "red, and square"}\n\n'
            '{"file_name": "sub/c.jpeg", "text": "small"}',
        ),
        (
            "mine.jsonl",
            '{"file_name": "a.png", "caption": ["red, and square", "another"]}\n'
            '{"file_name": "sub/c.jpeg", "caption": ["small"]}\n',
        ),
    ],
)
def test_captions_come_from_a_table(images, name, content):
    (images / name).write_text(content, encoding="utf-8")
    assert texts(Folder(str(images))) == {
        "a.png": "red, and square",
        "b.JPG": "",
        "sub/c.jpeg": "small",
    }


def test_captions_come_from_a_text_file_beside_each_image(images):
    (images / "a.txt").write_text("\ufeffred square\n", encoding="utf-8")
    (images / "sub" / "c.txt").write_text("two\nlines")
    assert texts(Folder(str(images))) == {
        "a.png": "red square",
        "b.JPG": "",
        "sub/c.jpeg": "two\nlines",
    }


def test_a_table_of_captions_silences_the_text_files(images):
    (images / "captions.csv").write_text("image,text\na.png,from the table\n")
    (images / "b.txt").write_text("from the file")
    assert texts(Folder(str(images)))["b.JPG"] == ""


def test_the_first_of_several_captions_counts(images):
    (images / "captions.csv").write_text("image,text\na.png,first\na.png,second\n")
    assert texts(Folder(str(images)))["a.png"] == "first"


def test_a_caption_without_its_image_is_listed_and_missing_when_opened(images):
    (images / "captions.csv").write_text("image,text\nzebra.png,striped\n../x.png,elsewhere\n")
    folder = Folder(str(images))
    assert texts(folder)["zebra.png"] == "striped"
    assert status(folder, "zebra.png") == "missing"
    assert texts(folder)["../x.png"] == "elsewhere"
    assert status(folder, "../x.png") == "outside_folder"


def test_a_linked_image_that_lies_elsewhere_is_listed_and_outside(images, tmp_path):
    Image.new("RGB", (1, 1)).save(tmp_path / "secret.png")
    (images / "link.png").symlink_to(tmp_path / "secret.png")
    assert "link.png" in texts(Folder(str(images)))
    assert status(Folder(str(images)), "link.png") == "outside_folder"


def test_a_linked_caption_that_lies_elsewhere_is_not_read(images, tmp_path):
    (tmp_path / "secret").write_text("secret words")
    (images / "a.txt").symlink_to(tmp_path / "secret")
    read = next(iter(Folder(str(images)).records()))
    assert (read.status, read.text) == ("outside_folder", "")
    assert re.search(r"a\.txt: .*is outside the dataset's folder", read.reason)


def test_a_loop_of_linked_folders_ends(images):
    (images / "again").symlink_to(images)
    assert len(texts(Folder(str(images)))) == 3


def test_several_tables_need_a_choice(images):
    (images / "captions.csv").write_text("image,text\na.png,one\n")
    (images / "metadata.jsonl").write_text('{"file_name": "a.png", "text": "two"}\n')
    with pytest.raises(SourceError, match=r"captions\.csv, metadata\.jsonl\); .* data\.captions"):
        list(Folder(str(images)).records())
    assert texts(Folder(str(images), captions="metadata.jsonl"))["a.png"] == "two"


def test_a_table_may_lie_elsewhere_when_it_is_named(images, tmp_path):
    (tmp_path / "other.csv").write_text("image,text\na.png,from afar\n")
    assert texts(Folder(str(images), captions="../other.csv"))["a.png"] == "from afar"
    with pytest.raises(SourceError, match=r"nowhere\.csv: no such file"):
        list(Folder(str(images), captions="nowhere.csv").records())


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        (
            "captions.csv",
            "image,words\na.png,red\n",
            r"captions\.csv: no text column; its columns are image, words\. Set data\.text_column",
        ),
        (
            "captions.csv",
            "picture,text\na.png,red\n",
            r"no image column; its columns are picture, text\. Set data\.image_column",
        ),
        (
            "captions.csv",
            'image,text\na.png,"red\nb.JPG,blue\n',
            r"captions\.csv, line 2: not valid CSV .*; correct the quotes",
        ),
        (
            "captions.jsonl",
            '{"image": "a.png"\n',
            r"captions\.jsonl: line 1: not valid JSON",
        ),
        ("captions.json", '{"version": 1}', r"captions\.json: holds one dict; put the rows"),
    ],
)
def test_a_table_that_cannot_be_read_is_named_with_its_line_column_and_remedy(
    images, name, content, message
):
    (images / name).write_text(content)
    with pytest.raises(SourceError, match=message):
        list(Folder(str(images)).records())


@pytest.mark.parametrize(
    ("name", "content", "image", "reason"),
    [
        (
            "captions.csv",
            "image,text\na.png,red, and square\n",
            "a.png",
            r"captions\.csv, line 2: more fields .* double quotes",
        ),
        (
            "captions.csv",
            'image,text\nb.JPG,"red" one\n',
            "captions.csv, line 2",
            r"line 2: not valid CSV .*; correct the quotes",
        ),
        (
            "captions.csv",
            "image,text\nb.JPG,red\n,blue\n",
            "captions.csv, line 3",
            r'line 3: field "image" is empty; add the image',
        ),
        (
            "captions.jsonl",
            '{"image": "a.png", "text": 1}\n',
            "a.png",
            r'line 1: field "text" must be a string, not int; correct',
        ),
        (
            "captions.jsonl",
            '{"image": "b.JPG", "text": "blue"}\n{"image": "a.png"\n',
            "captions.jsonl, line 2",
            r"captions\.jsonl, line 2: not valid JSON",
        ),
        ("a.txt", b"caf\xe9", "a.png", r"a\.txt: not UTF-8 .*; save it as UTF-8"),
    ],
)
def test_a_malformed_caption_is_counted_with_its_name_and_reason(
    images, name, content, image, reason
):
    (images / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    read = {record.source_id: record for record in Folder(str(images)).records()}
    assert read[image].status == "malformed"
    assert re.search(reason, read[image].reason)
    assert read["sub/c.jpeg"].status == "ok"


@pytest.mark.parametrize("name", ["captions.csv", "captions.jsonl"])
def test_captions_that_are_not_utf8_are_refused(images, name):
    (images / name).write_bytes(b"image,text\na.png,caf\xe9\n")
    with pytest.raises(SourceError, match=rf"{name}: not UTF-8"):
        list(Folder(str(images)).records())


def test_a_missing_folder_is_an_error_of_the_source(tmp_path):
    with pytest.raises(SourceError, match=r"nowhere: no such folder; correct data\.path"):
        list(Folder(str(tmp_path / "nowhere")).records())


def test_a_file_name_that_no_table_can_hold_is_counted(images):
    shutil.copy(images / "a.png", os.fsencode(images) + b"/caf\xe9.png")
    (bad,) = (record for record in Folder(str(images)).records() if record.status != "ok")
    assert (bad.source_id, bad.status, bad.images) == ("caf\ufffd.png", "malformed", ())
    assert "is not Unicode; rename the file" in bad.reason


def test_a_folder_that_cannot_be_listed_is_not_passed_over(images, monkeypatch):
    real = os.scandir

    def refuse(path):
        if str(path).endswith("sub"):
            raise PermissionError(13, "Permission denied", str(path))
        return real(path)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(SourceError, match=r"sub: cannot be listed \(Permission denied\)"):
        list(Folder(str(images)).records())


def test_the_probe_changes_with_images_and_captions(images):
    folder = Folder(str(images))
    probes = [folder.probe()]
    assert folder.probe() == probes[0]
    (images / "a.txt").write_text("red")
    probes.append(folder.probe())
    Image.new("RGB", (1, 1)).save(images / "new.png")
    probes.append(folder.probe())
    os.utime(images / "new.png", ns=(1, 1))
    probes.append(folder.probe())
    assert len(set(probes)) == 4
    (images / "readme.md").write_text("changed")
    assert folder.probe() == probes[-1]


def test_no_concepts_are_claimed(images):
    assert Folder(str(images)).concepts("a.png") == []


@pytest.mark.skipif(not PHOTOS.is_dir(), reason="the sixteen photographs are not here")
def test_the_sixteen_photographs_are_listed_and_open():
    photos = Folder(str(PHOTOS / "images"))
    records = list(photos.records())
    assert len(records) == 16
    assert all(photos.open_image(record.image).pixels.mode == "RGB" for record in records)
