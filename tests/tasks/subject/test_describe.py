from dataclasses import dataclass

import pytest
from PIL import Image

from neuron_atlas.tasks.artifacts import DESCRIPTIONS, read_table
from neuron_atlas.tasks.artifacts.regions import Region, read_regions
from neuron_atlas.tasks.samples.scenes import Scenes
from neuron_atlas.tasks.samples.source import OpenedImage, SampleError
from neuron_atlas.tasks.subject.describe import (
    describe_part,
    describe_samples,
    generate_descriptions,
)
from neuron_atlas.tasks.subject.load import Subject
from neuron_atlas.tasks.subject.settings import DescribeSettings
from tests.one_process import describe

SCENES = Scenes(count=9, seed=77)
GIVEN = DescribeSettings(text_source="given")
GENERATED = DescribeSettings(text_source="generated", max_new_tokens=80)
PICTURE = Image.new("RGB", (40, 30), (0, 0, 255))


@dataclass(frozen=True)
class Vanished:
    """A source whose images opened when they were scanned, and no longer do."""

    def open_image(self, image: str) -> OpenedImage:
        raise SampleError("missing", f"no such file: {image}")


def given(subject: Subject, *texts: str) -> list[dict]:
    samples = [{"sample_id": number, "text": text} for number, text in enumerate(texts)]
    return describe_samples(subject, samples, [[PICTURE]] * len(texts), GIVEN)


def test_a_given_text_is_kept_as_it_is_and_laid_out_in_tokens(subject):
    (row,) = given(subject, "  A blue 🦓 picture.\n")
    assert (row["text"], row["text_source"], row["status"]) == ("A blue 🦓 picture.", "given", "ok")
    assert "".join(row["tokens"]) == row["text"]
    assert row["n_visual"] == 64
    assert row["n_text"] == len(row["tokens"])
    assert read_regions(row["regions"]) == (Region(0, 8, 8, 0, 0, 40, 30),)


def test_an_empty_text_is_a_row_with_a_reason(subject):
    rows = given(subject, "", " \n", "Blue.")
    assert [row["status"] for row in rows] == ["empty_text", "empty_text", "ok"]
    assert rows[0]["reason"] == "the dataset has no text"
    assert rows[0]["tokens"] == []


def test_a_text_that_spells_the_image_placeholder_loses_it_and_nothing_else(subject):
    rows = given(subject, "<image>\nA blue picture.", "An <ima<image>ge> here.", "<image>")
    assert [row["status"] for row in rows] == ["ok", "ok", "empty_text"]
    assert rows[0]["text"] == "A blue picture."
    assert all(row["n_visual"] == 64 for row in rows[:2])


def test_the_subjects_own_answer_is_the_same_however_images_are_batched(subject):
    images = [[SCENES.open_image(record.image).pixels] for record in SCENES.records()]
    together = generate_descriptions(subject, images, 80)
    alone = [generate_descriptions(subject, [image], 80)[0] for image in images]
    assert together == alone
    assert len({text for text, _ in together}) > 5
    assert all(finished and text.startswith("There is a") for text, finished in together)


def test_an_answer_that_is_cut_says_so(subject):
    image = SCENES.open_image("77/0").pixels
    settings = DescribeSettings(text_source="generated", max_new_tokens=5)
    (row,) = describe_samples(subject, [{"sample_id": 3, "text": ""}], [[image]], settings)
    assert (row["sample_id"], row["status"], row["n_text"]) == (3, "truncated", 5)
    assert row["reason"] == "the answer reached describe.max_new_tokens"


def test_every_usable_sample_of_a_file_gets_a_row_and_progress_is_told(subject, tmp_path):
    described = describe(subject, SCENES, tmp_path, GENERATED)
    counted: list[int] = []
    settings = DescribeSettings(text_source="generated", max_new_tokens=80, batch_size=4)
    describe_part(
        subject, tmp_path / "samples.parquet", SCENES, settings, tmp_path / "again", counted.append
    )
    assert counted == [4, 4, 1]
    assert described.descriptions.equals(read_table(tmp_path / "again", DESCRIPTIONS))
    assert described.descriptions["sample_id"].to_pylist() == list(range(9))
    assert set(described.descriptions["text_source"].to_pylist()) == {"generated"}


def test_an_image_that_vanished_since_it_was_scanned_is_an_error_and_writes_nothing(
    subject, tmp_path
):
    describe(subject, SCENES, tmp_path, GIVEN)
    with pytest.raises(SampleError, match="no such file"):
        describe_part(subject, tmp_path / "samples.parquet", Vanished(), GIVEN, tmp_path / "new")
    assert not (tmp_path / "new").exists()
