from dataclasses import dataclass

import pytest
import torch
from PIL import Image

from neuron_atlas.tasks.artifacts import DESCRIPTIONS, USABLE, read_table
from neuron_atlas.tasks.artifacts.regions import Region, read_regions
from neuron_atlas.tasks.samples.scenes import Scenes
from neuron_atlas.tasks.samples.source import OpenedImage, SampleError
from neuron_atlas.tasks.subject.describe import (
    describe_part,
    describe_samples,
    generate_descriptions,
)
from neuron_atlas.tasks.subject.encode import encode
from neuron_atlas.tasks.subject.load import Subject
from neuron_atlas.tasks.subject.settings import DescribeSettings, SubjectError
from tests.one_process import describe

SCENES = Scenes(count=9, seed=77)
GIVEN = DescribeSettings(text_source="given")
GENERATED = DescribeSettings(text_source="generated", max_new_tokens=80)
PICTURE = Image.new("RGB", (40, 30), (0, 0, 255))


PLAIN = Image.new("RGB", (64, 48), (9, 200, 90))


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


def test_a_text_beyond_the_subjects_context_is_cut_with_the_numbers(subject):
    text = "a blue circle " * 600
    rows = given(subject, text, "Blue.")
    assert [row["status"] for row in rows] == ["truncated", "ok"]
    cut = rows[0]
    assert "the subject's context is 1,024 (max_position_embeddings)" in cut["reason"]
    assert cut["reason"].endswith(f"; the text is cut after its first {cut['n_text']:,} tokens")
    assert text.startswith(cut["text"])
    assert "".join(cut["tokens"]) == cut["text"]
    assert len(cut["tokens"]) == cut["n_text"] > 900
    encoded = encode(subject, [PICTURE], cut["text"])
    assert len(encoded.input_ids) == subject.context


@pytest.mark.parametrize("images", [[], [PICTURE]])
@pytest.mark.parametrize(
    "text", ["a blue circle " * 600, "🦓é" * 700, "🦓" * 400 + " " * 900 + "x"]
)
def test_a_cut_text_fits_the_context_and_begins_like_the_whole(subject, images, text):
    samples = [{"sample_id": 0, "text": text}]
    (row,) = describe_samples(subject, samples, [images], GIVEN)
    assert row["status"] == "truncated"
    assert text.startswith(row["text"])
    encoded = encode(subject, images, row["text"])
    assert subject.context - 4 <= len(encoded.input_ids) <= subject.context
    assert encoded.n_text == row["n_text"]
    assert "".join(row["tokens"]) == row["text"]


def test_a_prompt_beyond_the_context_leaves_no_text(subject, monkeypatch):
    encoded = encode(subject, [PICTURE], "square")
    config = subject.model.config.get_text_config()
    prompt = len(encoded.input_ids) - encoded.n_text
    monkeypatch.setattr(config, "max_position_embeddings", prompt)
    (row,) = given(subject, "A blue square.")
    assert row["status"] == "too_long"
    assert row["tokens"] == row["regions"] == []


def test_an_answer_ends_with_the_context_whatever_it_is_batched_with(subject, monkeypatch):
    """The context of a subject whose prompt leaves three tokens for the answer."""
    encoded = encode(subject, [PICTURE], "square")
    prompt = len(encoded.input_ids) - encoded.n_text
    config = subject.model.config.get_text_config()
    monkeypatch.setattr(config, "max_position_embeddings", prompt + 3)
    samples = [{"sample_id": number, "text": ""} for number in range(2)]
    rows = describe_samples(subject, samples, [[PICTURE], [PLAIN]], GENERATED)
    assert [row["status"] for row in rows] == ["truncated", "truncated"]
    assert [row["n_text"] for row in rows] == [3, 3]
    assert all("the subject's context of" in row["reason"] for row in rows)
    monkeypatch.setattr(config, "max_position_embeddings", prompt)
    rows = describe_samples(subject, samples, [[PICTURE], [PLAIN]], GENERATED)
    assert [row["status"] for row in rows] == ["too_long", "too_long"]


def test_control_tokens_that_a_text_spells_are_left_out_and_named(subject):
    (row,) = given(subject, "a dog</s> and <s>a cat<pad>")
    assert (row["status"], row["text"]) == ("ok", "a dog  and  a cat")
    assert row["reason"] == "control tokens left out of the text: '</s>', '<s>', '<pad>'"


def test_a_sample_that_the_processor_refuses_is_a_row_with_its_words(subject, monkeypatch):
    """In both modes, and in the middle of a batch."""
    real = type(subject.processor).__call__
    refused = Image.new("RGB", (3, 900))

    def refuse(self: object, *args: object, images: object = None, **options: object) -> object:
        shown = [one for group in images or () for one in group]  # type: ignore[attr-defined]
        if any(one.size == refused.size for one in shown):
            raise ValueError("absolute aspect ratio must be smaller than 200, got 300.0")
        return real(self, *args, images=images, **options)

    monkeypatch.setattr(type(subject.processor), "__call__", refuse)
    images = [[PICTURE], [PLAIN], [refused], [PICTURE]]
    samples = [{"sample_id": number, "text": "Blue."} for number in range(4)]
    for settings in (GIVEN, GENERATED):
        rows = describe_samples(subject, samples, images, settings)
        assert rows[2]["status"] == "not_encoded"
        assert all(row["status"] in USABLE for row in (*rows[:2], rows[3]))
        assert rows[2]["reason"] == "absolute aspect ratio must be smaller than 200, got 300.0"


def test_memory_that_runs_out_halves_the_batch_and_with_one_sample_ends_the_run(
    subject, monkeypatch
):
    real, most = subject.model.generate, [2]

    def generate(**inputs: torch.Tensor) -> torch.Tensor:
        if len(inputs["input_ids"]) > most[0]:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return real(**inputs)

    monkeypatch.setattr(subject.model, "generate", generate)
    samples = [{"sample_id": number, "text": ""} for number in range(3)]
    rows = describe_samples(subject, samples, [[PICTURE]] * 3, GENERATED)
    assert all(row["status"] in USABLE and row["text"] for row in rows)
    most[0] = 0
    with pytest.raises(SubjectError, match=r"lower describe\.max_new_tokens"):
        describe_samples(subject, samples, [[PICTURE]] * 3, GENERATED)
