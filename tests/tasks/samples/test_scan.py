from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from neuron_atlas.tasks.artifacts import CONCEPTS, SAMPLES, read_table, write_table
from neuron_atlas.tasks.samples.folder import Folder
from neuron_atlas.tasks.samples.llava_json import LlavaJson
from neuron_atlas.tasks.samples.scan import (
    bad_share,
    duplicate_positions,
    first_bad,
    list_records,
    scan_notes,
    scan_samples,
)
from neuron_atlas.tasks.samples.source import (
    Concept,
    OpenedImage,
    SampleError,
    SampleRecord,
    SourceError,
)

PHOTOS = Path(__file__).parents[3].parent / "shared" / "photos"
MASK = np.arange(576, dtype=np.uint32).reshape(24, 24).astype(np.uint8)


@dataclass(frozen=True)
class Told:
    """A source whose images do what their references say."""

    ids: tuple[str, ...] = ()
    title = "Told, train"

    def records(self):
        return [SampleRecord(name, ("fine",), "some text") for name in self.ids]

    def open_image(self, image):
        if image == "fine":
            return OpenedImage(Image.new("RGB", (4, 3)), "5ha")
        if image == "crash":
            raise ZeroDivisionError("by chance")
        if image == "no dataset":
            raise SourceError("the mount is gone")
        raise SampleError(image, f"it is {image}")

    def probe(self):
        return ""

    def concepts(self, image):
        return [Concept("dark red", "color", ("dark", "red"), MASK)]


def scanned(records, first_id=0, require_text=False, duplicates=()):
    return scan_samples(Told(), records, first_id, require_text=require_text, duplicates=duplicates)


def rows(*args, **settings):
    return scanned(*args, **settings)[0].to_pylist()


def test_a_good_sample_is_described_in_full():
    assert rows([SampleRecord("a", ("fine",), "some text")], first_id=7) == [
        {
            "sample_id": 7,
            "source_id": "a",
            "images": ["fine"],
            "image_sha256": "5ha",
            "width": 4,
            "height": 3,
            "text": "some text",
            "status": "ok",
            "reason": "",
        }
    ]


def test_a_sample_of_several_images_has_one_hash_of_them_all_and_the_first_ones_size():
    (one,) = rows([SampleRecord("a", ("fine",), "")])
    (two,) = rows([SampleRecord("a", ("fine", "fine"), "")])
    (three,) = rows([SampleRecord("a", ("fine", "fine", "fine"), "")])
    assert (two["images"], two["width"], two["height"]) == (["fine", "fine"], 4, 3)
    assert len({row["image_sha256"] for row in (one, two, three)}) == 3
    assert len(two["image_sha256"]) == len(three["image_sha256"]) == 64


def test_one_bad_image_of_several_spoils_the_sample():
    (row,) = rows([SampleRecord("a", ("fine", "missing"), "")])
    assert (row["status"], row["reason"]) == ("missing", "it is missing")


def test_a_sample_of_text_only_is_good_and_has_no_size():
    (row,) = rows([SampleRecord("a", (), "some text")], require_text=True)
    assert (row["status"], row["images"], row["image_sha256"]) == ("ok", [], "")
    assert (row["width"], row["height"]) == (None, None)


@pytest.mark.parametrize("status", ["missing", "unreadable", "oversized", "outside_folder"])
def test_a_bad_image_is_a_row_with_its_reason_and_no_size(status):
    (row,) = rows([SampleRecord("a", (status,), "some text")])
    assert (row["status"], row["reason"]) == (status, f"it is {status}")
    assert (row["image_sha256"], row["width"], row["height"]) == ("", None, None)
    assert row["text"] == "some text"


def test_an_unforeseen_error_costs_one_sample_and_leaves_its_name():
    first, second = rows([SampleRecord("a", ("crash",), ""), SampleRecord("b", ("fine",), "")])
    assert (first["status"], first["reason"]) == ("unreadable", "ZeroDivisionError: by chance")
    assert second["status"] == "ok"


def test_a_dataset_that_cannot_be_read_here_is_no_matter_of_single_images():
    with pytest.raises(SourceError, match="the mount is gone"):
        scanned([SampleRecord("a", ("no dataset",), "")])


@pytest.mark.parametrize("text", ["", " \n\t"])
def test_a_blank_text_counts_only_where_a_text_is_needed(text):
    records = [SampleRecord("a", ("fine",), text)]
    assert rows(records)[0]["status"] == "ok"
    (row,) = rows(records, require_text=True)
    assert row["status"] == "empty_text"
    assert row["reason"]
    assert (row["image_sha256"], row["width"]) == ("5ha", 4)


def test_later_samples_of_one_id_are_duplicates_wherever_the_shard_begins():
    records = [SampleRecord(name, ("fine",), "text") for name in "abacab"]
    duplicates = duplicate_positions(records)
    assert duplicates == {2, 4, 5}
    whole = rows(records, duplicates=duplicates)
    assert [row["status"] for row in whole] == [
        "ok",
        "ok",
        *["duplicate_id", "ok"],
        *["duplicate_id"] * 2,
    ]
    assert "id a" in whole[2]["reason"]
    parts = rows(records[:3], duplicates=duplicates)
    parts += rows(records[3:], first_id=3, duplicates=duplicates)
    assert parts == whole


def test_a_bad_image_is_reported_before_a_duplicate_id_and_that_before_an_empty_text():
    records = [SampleRecord("a", ("missing",), ""), SampleRecord("a", ("fine",), "")]
    statuses = [row["status"] for row in rows(records, require_text=True, duplicates={0, 1})]
    assert statuses == ["missing", "duplicate_id"]


def test_truths_are_kept_for_usable_samples_only():
    records = [SampleRecord("a", ("missing",), ""), SampleRecord("b", ("fine",), "")]
    (row,) = scanned(records, first_id=5)[1].to_pylist()
    assert row.pop("mask") == MASK.ravel().tolist()
    assert row == {
        "sample_id": 6,
        "concept": "dark red",
        "kind": "color",
        "words": ["dark", "red"],
    }


def test_the_tables_can_be_written_and_read_back(tmp_path):
    every = [SampleRecord(status, (status,), "") for status in SAMPLES.statuses[1:5]]
    for records in ([], [*every, SampleRecord("z", ("fine",), "")]):
        for table, spec in zip(scanned(records), (SAMPLES, CONCEPTS), strict=True):
            path = tmp_path / f"{spec.name}.parquet"
            assert table.schema.equals(spec.schema, check_metadata=True)
            write_table(table, spec, path)
            assert read_table(path, spec).equals(table)


def test_the_bad_share_counts_whatever_is_not_ok():
    samples = scanned(
        [SampleRecord("a", ("missing",), ""), *[SampleRecord("b", ("fine",), "")] * 3]
    )[0]
    assert bad_share(samples) == 0.25
    assert bad_share(samples.slice(0, 0)) == 0.0
    assert bad_share(samples.slice(0, 1)) == 1.0


def test_a_record_that_the_dataset_cannot_use_is_a_row_with_its_reason_and_opens_no_image():
    record = SampleRecord("a", ("crash",), "", "malformed", "row 1: is a\x00\nlist " + "x" * 999)
    (row,) = rows([record], require_text=True)
    assert (row["status"], row["images"]) == ("malformed", ["crash"])
    assert row["reason"].startswith("row 1: is a list xxx")
    assert len(row["reason"]) < 310


def test_skipped_rows_are_not_bad_but_listed_last():
    skipped = SampleRecord("v", (), "", "skipped", "a video")
    samples = scanned([skipped, SampleRecord("a", ("missing",), ""), SampleRecord("b", (), "t")])[0]
    assert bad_share(samples) == 0.5
    assert first_bad(samples) == ["a: missing: it is missing", "v: skipped: a video"]
    assert bad_share(scanned([skipped])[0]) == 0.0


def test_the_notes_count_unusable_samples_by_reason_and_those_without_an_image():
    assert scan_notes(scanned([SampleRecord("a", ("fine",), "t")])[0]) == []
    records = [
        SampleRecord("a", ("fine",), "t"),
        SampleRecord("b", ("missing",), "t"),
        SampleRecord("c", (), "t"),
    ]
    assert scan_notes(scanned(records)[0]) == [
        "1 of 3 cannot be used (1 missing), such as b: missing: it is missing",
        "1 of 3 have no image; they are text only",
    ]


def test_the_first_bad_samples_are_told_in_a_line_each():
    statuses = ["fine", "missing", "fine", "outside_folder", "crash"]
    samples = scanned(
        [SampleRecord(f"id-{n}", (status,), "") for n, status in enumerate(statuses)]
    )[0]
    assert first_bad(samples, 2) == [
        "id-1: missing: it is missing",
        "id-3: outside_folder: it is outside_folder",
    ]
    assert len(first_bad(samples)) == 3


def test_records_are_listed_up_to_a_limit_and_an_empty_dataset_is_an_error():
    assert [record.source_id for record in list_records(Told(("a", "b", "c")), 2)] == ["a", "b"]
    assert len(list_records(Told(("a", "b", "c")))) == 3
    with pytest.raises(SourceError, match=r"^Told, train has no samples; correct"):
        list_records(Told())


def test_a_folder_with_every_kind_of_trouble_is_scanned_to_the_end(tmp_path):
    images = tmp_path / "images"
    images.mkdir()
    Image.new("RGB", (8, 8)).save(images / "fine.png")
    Image.new("RGB", (99, 99)).save(images / "large.png")
    (images / "broken.png").write_bytes((images / "fine.png").read_bytes()[:40])
    (images / "link.png").symlink_to("/etc/hostname")
    names = ("fine", "large", "broken", "link", "absent", "../up")
    lines = [f"{name}.png,text" for name in names] + ["bare.png,"]
    (images / "captions.csv").write_text("image,text\n" + "\n".join(lines))
    Image.new("RGB", (8, 8)).save(images / "bare.png")
    source = Folder(str(images), max_pixels=5000)
    records = list_records(source)
    samples, _ = scan_samples(source, records, 0, require_text=True, duplicates=())
    assert {row["source_id"]: row["status"] for row in samples.to_pylist()} == {
        "fine.png": "ok",
        "large.png": "oversized",
        "broken.png": "unreadable",
        "link.png": "outside_folder",
        "absent.png": "missing",
        "../up.png": "outside_folder",
        "bare.png": "empty_text",
    }


@pytest.mark.skipif(not PHOTOS.is_dir(), reason="the sixteen photographs are not here")
def test_all_sixteen_photographs_are_usable():
    source = LlavaJson(str(PHOTOS / "detail.json"), str(PHOTOS / "images"))
    records = list_records(source)
    samples, concepts = scan_samples(
        source, records, 0, require_text=True, duplicates=duplicate_positions(records)
    )
    assert samples["status"].to_pylist() == ["ok"] * 16
    assert max(samples["width"].to_pylist()) == 1411
    assert len(set(samples["image_sha256"].to_pylist())) == 16
    assert concepts.num_rows == 0
