import hashlib
import json
import os
import pickle
import re
from pathlib import Path

import pytest
from PIL import Image

from neuron_atlas.tasks.samples.image_file import digest_files
from neuron_atlas.tasks.samples.llava_json import LlavaJson
from neuron_atlas.tasks.samples.source import SampleError, SampleRecord, SourceError

SHARED = Path(__file__).parents[3].parent / "shared"
PHOTOS, CASES = SHARED / "photos", SHARED / "cases" / "data"


def row(name="a", image="a.png", answer="a red square"):
    return {
        "id": name,
        "image": image,
        "conversations": [
            {"from": "human", "value": "<image>\nCould you describe the image?"},
            {"from": "gpt", "value": answer},
        ],
    }


@pytest.fixture
def images(tmp_path):
    folder = tmp_path / "images"
    folder.mkdir()
    Image.new("RGB", (4, 3), "red").save(folder / "a.png")
    return folder


@pytest.fixture
def source(tmp_path, images):
    """Builds the source of the given rows, or of a file's raw text."""

    def build(content, name="detail.json", **settings):
        text = content if isinstance(content, str) else json.dumps(content)
        (tmp_path / name).write_text(text, encoding="utf-8")
        return LlavaJson(str(tmp_path / name), str(images), **settings)

    return build


def bad(source, image):
    with pytest.raises(SampleError) as caught:
        source.open_image(image)
    return caught.value


def test_the_text_is_the_first_answer(source):
    rows = [row()]
    rows[0]["conversations"] += [
        {"from": "human", "value": "Where?"},
        {"from": "gpt", "value": "Left."},
    ]
    assert list(source(rows).records()) == [SampleRecord("a", ("a.png",), "a red square")]


def test_rows_keep_the_order_of_the_file_and_ids_may_be_numbers(source):
    rows = [row(7), row("b"), row("a")]
    assert [record.source_id for record in source(rows).records()] == ["7", "b", "a"]


def test_a_file_with_one_row_a_line_reads_the_same(source):
    rows = [row("a"), row("b")]
    lines = "\n\n".join(json.dumps(each) for each in rows) + "\n"
    assert list(source(lines, "detail.jsonl").records()) == list(source(rows).records())


def test_a_byte_order_mark_does_no_harm(source):
    assert len(list(source("\ufeff" + json.dumps([row()])).records())) == 1


def test_limit_reads_only_the_first_rows(source):
    rows = [row("a"), row("b"), {"id": "a row that would be refused"}]
    assert len(list(source(rows, limit=2).records())) == 2


def test_a_conversation_without_an_answer_has_no_text(source):
    rows = [row()]
    del rows[0]["conversations"][1]
    assert next(source(rows).records()).text == ""


@pytest.mark.parametrize("image", [None, "", [], "absent"])
def test_a_row_without_an_image_is_a_sample_of_text_only(source, image):
    rows = [row(image=image)]
    rows[0]["conversations"][0]["value"] = "What is a square?"
    if image == "absent":
        del rows[0]["image"]
    read = next(source(rows).records())
    assert (read.images, read.status) == ((), "ok")


def test_a_row_with_a_list_of_images_is_one_sample_of_them_all(source):
    (listed,) = source([row(image=["a.png", "b.png"])]).records()
    assert listed.images == ("a.png", "b.png")


def test_an_empty_name_in_a_list_of_images_is_missing_when_opened(source):
    listed = next(source([row(image=["a.png", ""])]).records())
    assert listed.images == ("a.png", "")
    assert bad(source([row()]), "").status == "missing"
    assert bad(source([row()]), "").reason == "the row names no image"


def test_an_image_is_opened_upright_with_the_hash_of_its_file(source, images):
    opened = source([row()]).open_image("a.png")
    assert (opened.pixels.mode, opened.pixels.size) == ("RGB", (4, 3))
    assert opened.sha256 == hashlib.sha256((images / "a.png").read_bytes()).hexdigest()


def test_a_file_that_is_not_there_is_missing(source):
    for image in ("b.png", "no/such/folder.png", "", ".", "a.png/b.png", "\0", "x" * 5000):
        assert bad(source([row()]), image).status == "missing", image


def test_paths_that_leave_the_folder_are_outside(source, images, tmp_path):
    secret = tmp_path / "secret.png"
    Image.new("RGB", (1, 1)).save(secret)
    sibling = tmp_path / "images-more"
    sibling.mkdir()
    Image.new("RGB", (1, 1)).save(sibling / "b.png")
    (images / "link.png").symlink_to(secret)
    (images / "folder").symlink_to(tmp_path)
    for image in (
        "../secret.png",
        "x/../../secret.png",
        "../images-more/b.png",
        str(secret),
        "/etc/passwd",
        "link.png",
        "folder/secret.png",
        "../nowhere.png",
    ):
        outside = bad(source([row()]), image)
        assert outside.status == "outside_folder", image
        assert str(tmp_path) not in outside.reason.replace(image, "")


def test_paths_that_come_back_into_the_folder_are_read(source, images, tmp_path):
    (images / "link.png").symlink_to(images / "a.png")
    for image in ("./a.png", "x/../a.png", "../images/a.png", str(images / "a.png"), "link.png"):
        assert source([row()]).open_image(image).pixels.size == (4, 3), image


def test_the_folder_itself_may_be_a_link(source, images, tmp_path):
    (tmp_path / "linked").symlink_to(images)
    annotations = source([row()]).annotations
    linked = LlavaJson(annotations, str(tmp_path / "linked"))
    assert linked.open_image("a.png").pixels.size == (4, 3)
    assert bad(linked, "../detail.json").status == "outside_folder"


def test_a_loop_of_links_is_missing(source, images):
    (images / "x.png").symlink_to(images / "y.png")
    (images / "y.png").symlink_to(images / "x.png")
    assert bad(source([row()]), "x.png").status == "missing"


def test_what_is_no_plain_file_is_not_waited_for(source, images):
    os.mkfifo(images / "pipe.png")
    assert bad(source([row()]), "pipe.png").status == "missing"


def test_text_in_place_of_an_image_is_unreadable(source, images):
    (images / "t.png").write_text("not an image")
    assert bad(source([row()]), "t.png").status == "unreadable"


def test_the_pixel_limit_is_a_setting(source):
    assert bad(source([row()], max_pixels=11), "a.png").status == "oversized"
    assert source([row()], max_pixels=12).open_image("a.png").pixels.size == (4, 3)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[{", r"detail\.json: not valid JSON .* correct it"),
        ("[" * 100_000, r"detail\.json: not valid JSON"),
        ('{"id": 1}', r"detail\.json: holds one dict; put the rows in a JSON list"),
    ],
)
def test_a_file_that_holds_no_rows_is_named_with_the_remedy(source, content, message):
    with pytest.raises(SourceError, match=message):
        list(source(content).records())


@pytest.mark.parametrize(
    ("bad_row", "message"),
    [
        (1, r"detail\.json, row 2: is a int; make every row an object"),
        ({"image": "a.png"}, r'row 2: field "conversations" must be a list of .*; correct'),
        ({**row(), "id": 1.5}, r'row 2: field "id" must be a string, not float; correct'),
        ({**row(), "image": ["a", 7]}, r'row 2: field "image" must be a string, not int; correct'),
        ({"id": "a"}, r'row 2: field "conversations" must be a list of .*; correct'),
        ({"id": "a", "conversations": ["hi"]}, r'row 2: field "conversations" .* turn 1; correct'),
        (row(answer=5), r'row 2, turn 2: field "value" must be a string, not int; correct'),
    ],
)
def test_a_malformed_row_is_counted_with_its_name_and_reason_and_the_others_are_read(
    source, bad_row, message
):
    first, bad_one, last = source([row("x"), bad_row, row("y")]).records()
    assert (first.status, last.status) == ("ok", "ok")
    assert bad_one.status == "malformed"
    assert re.search(message, bad_one.reason)
    assert bad_one.source_id in ("a", "detail.json, row 2")


def test_text_is_cleaned_where_it_enters(source):
    (read,) = source([row("a\ud83d", answer="half \ud83d of\0a\r\nsign\x1b")]).records()
    assert (read.source_id, read.text) == ("a\ufffd", "half \ufffd of a\nsign ")
    assert read.status == "ok"
    whole = "\ud83d\ude00"  # Two surrogates of one character.
    assert SampleRecord("a", (), whole).text == "\N{GRINNING FACE}"


def test_a_text_that_no_subject_can_read_is_counted(source):
    texts = ["x" * 160_000, "x" * 1_000_001]
    short, long = source([row(str(n), answer=text) for n, text in enumerate(texts)]).records()
    assert (short.status, len(short.text)) == ("ok", 160_000)
    assert (long.status, long.text) == ("oversized", "")
    assert "1,000,001 characters; the limit is 1,000,000" in long.reason


def test_an_image_name_that_no_table_can_hold_is_counted(source):
    (read,) = source([row(image="\ud83d.png")]).records()
    assert (read.status, read.images) == ("malformed", ())
    assert "is not Unicode; rename" in read.reason


def test_a_malformed_line_is_counted_by_its_number(source):
    lines = json.dumps(row()) + "\n\n{\n" + json.dumps(row("b"))
    _, bad_one, last = source(lines, "detail.jsonl").records()
    assert bad_one.source_id == "detail.jsonl, line 3"
    assert bad_one.reason.startswith("detail.jsonl, line 3: not valid JSON")
    assert last.source_id == "b"


@pytest.mark.skipif(not CASES.is_dir(), reason="the cases from the field are not here")
@pytest.mark.parametrize("name", ["plural-images-key", "user-assistant-roles"])
def test_the_layouts_from_the_field_give_their_images_and_texts(name):
    read = list(LlavaJson(str(CASES / f"{name}.json"), str(CASES)).records())
    assert [(one.images, one.text, one.status) for one in read] == [
        (("plain.png",), "A grey square with noise.", "ok")
    ] * 4


def test_images_and_roles_have_their_common_names(source):
    said = [{"role": "user", "content": "<image>?"}, {"role": "assistant", "content": "red"}]
    parts = [
        {"type": "image", "image": "file://a.png"},
        {"type": "image_url", "image_url": {"url": "b.png"}},
        {"type": "text", "text": "What?"},
    ]
    answer = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    rows = [
        {"messages": said, "images": ["a.png"]},
        {"messages": said, "images": [{"path": "a.png", "bytes": None}]},
        {"conversations": said, "image": "a.png", "images": ["a.png"]},
        {
            "messages": [
                {"role": "system", "content": "Be brief."},
                {"role": "User", "content": parts},
                {"role": "Assistant", "content": answer},
            ]
        },
    ]
    assert [(one.source_id, one.images, one.text) for one in source(rows).records()] == [
        ("detail.json, row 1", ("a.png",), "red"),
        ("detail.json, row 2", ("a.png",), "red"),
        ("detail.json, row 3", ("a.png",), "red"),
        ("detail.json, row 4", ("a.png", "b.png"), "a\nb"),
    ]


@pytest.mark.parametrize(
    ("change", "status", "reason"),
    [
        ({"picture": "a.png"}, "malformed", r'"picture" seems to hold images, .* rename it'),
        ({"img_paths": ["a", "b"]}, "malformed", r'"img_paths" seems to hold images'),
        ({"shown": {"left": "x/a.JPG?size=1"}}, "malformed", r'"shown" seems to hold images'),
        ({}, "malformed", r"mentions 1 images \(<image>\), but the row has 0"),
        ({"video": "a.mp4"}, "skipped", r'"video" has a video, which is not read'),
        ({"image": "a.png", "videos": ["b.mp4"]}, "skipped", r'"videos" has a video'),
        ({"image": "clip.MOV"}, "skipped", r'"image" has a video'),
        ({"clip": "a.webm"}, "skipped", r'"clip" has a video'),
        ({"audios": ["a.wav"]}, "skipped", r'"audios" has a audio'),
        ({"image": ["a.png"], "source_video": "b.mp4"}, "ok", ""),
        ({"image": "a.png", "video": None, "frames": 3}, "ok", ""),
    ],
)
def test_no_row_loses_its_media_without_a_reason(source, change, status, reason):
    (read,) = source([{key: row()[key] for key in ("id", "conversations")} | change]).records()
    assert read.status == status
    assert re.search(reason, read.reason)


def test_unknown_roles_are_a_reason_that_lists_them(source):
    turns = [{"from": "Mensch", "value": "?"}, {"from": "maschine", "value": "red"}]
    (read,) = source([row() | {"conversations": turns}]).records()
    assert (read.status, read.images) == ("malformed", ("a.png",))
    assert "its roles are mensch, maschine" in read.reason
    assert "gpt, assistant" in read.reason


def test_an_image_that_is_a_url_or_embedded_is_a_reason_of_one_line(source):
    for image in ("https://host/a.png", "data:image/png;base64," + "A" * 100_000):
        refused = bad(source([row()]), image)
        assert refused.status == "outside_folder"
        assert "only downloaded images are read" in refused.reason
        assert len(refused.reason) < 250


def test_a_file_that_is_not_utf8_is_refused(source):
    broken = source([row()])
    Path(broken.annotations).write_bytes(b'[{"id": "\xff"}]')
    with pytest.raises(SourceError, match=r"detail\.json: not UTF-8 .*; save it as UTF-8"):
        list(broken.records())


def test_a_missing_file_or_folder_is_an_error_of_the_source(source, images, tmp_path):
    there = source([row()])
    with pytest.raises(SourceError, match=r"nowhere\.json: no such file; correct"):
        list(LlavaJson(str(tmp_path / "nowhere.json"), str(images)).records())
    with pytest.raises(SourceError, match=r"nowhere: no such folder; correct"):
        list(LlavaJson(there.annotations, str(tmp_path / "nowhere")).records())


def test_a_worker_without_the_folder_says_so_instead_of_missing_every_image(source, tmp_path):
    with pytest.raises(SourceError, match=r"nowhere: no such folder on this machine"):
        LlavaJson(source([row()]).annotations, str(tmp_path / "nowhere")).open_image("a.png")


def test_the_probe_changes_with_the_rows_and_the_images_and_with_nothing_else(source, images):
    probes = [source([row()]).probe(), source([row(answer="a blue square")]).probe()]
    Image.new("RGB", (4, 3), "blue").save(images / "a.png")
    os.utime(images / "a.png", ns=(1, 1))
    probes.append(source([row()]).probe())
    os.utime(images / "a.png", ns=(2, 2))
    probes.append(source([row()]).probe())
    (images / "a.png").unlink()
    probes.append(source([row()]).probe())
    assert len(set(probes)) == 5
    (images / "not listed.png").write_bytes(b"")
    assert source([row()]).probe() == probes[-1]


def test_the_probe_does_not_depend_on_where_the_dataset_lies(source, images, tmp_path):
    here = source([row()])
    there = tmp_path / "elsewhere"
    images.rename(there)
    before = LlavaJson(here.annotations, str(there)).probe()
    there.rename(images)
    assert here.probe() == before


def test_a_source_can_be_hashed_compared_and_sent_to_a_worker(source):
    here = source([row()])
    assert pickle.loads(pickle.dumps(here)) == here
    assert hash(here) == hash(source([row()]))


def test_no_concepts_are_claimed(source):
    assert source([row()]).concepts("a.png") == []


@pytest.mark.skipif(not PHOTOS.is_dir(), reason="the sixteen photographs are not here")
def test_the_sixteen_photographs_are_listed_and_open():
    photos = LlavaJson(str(PHOTOS / "detail.json"), str(PHOTOS / "images"))
    records = list(photos.records())
    assert len({record.source_id for record in records}) == 16
    for record in records:
        assert len(record.text) > 20
        assert photos.open_image(record.image).pixels.mode == "RGB"


def test_objects_are_read_by_id_and_change_the_digest_only_where_there_are_any(tmp_path):
    rows = [
        {"id": "a", "image": "a.jpg", "objects": ["Dog", "traffic light"]},
        {"id": 7, "image": "b.jpg", "objects": []},
        {"image": "c.jpg", "objects": ["cat"]},
        {"id": "d", "image": "d.jpg"},
    ]

    def source(some: list[dict]) -> LlavaJson:
        file = tmp_path / "rows.json"
        file.write_text(json.dumps(some), encoding="utf-8")
        return LlavaJson(str(file), str(tmp_path))

    objects = {"a": ("dog", "traffic light"), "7": (), "rows.json, row 3": ("cat",)}
    assert source(rows).objects() == objects
    assert source(rows).objects({"7", "d"}) == {"7": ()}
    with_objects = source(rows).probe()
    without = [{key: row[key] for key in row if key != "objects"} for row in rows]
    records = source(without).records()
    assert source(without).probe() == digest_files(records, tmp_path)
    assert source(without).probe() != with_objects
    with pytest.raises(SourceError, match='row 1: field "objects" must be a list of names'):
        source([{"id": "a", "objects": "dog"}]).objects()
