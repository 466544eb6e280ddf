"""Let the subject describe images, and record each sample's tokens and regions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import torch
from PIL import Image

from neuron_atlas.tasks.artifacts import DESCRIPTIONS, SAMPLES, read_table, write_table
from neuron_atlas.tasks.samples.source import Source
from neuron_atlas.tasks.subject.encode import adds_special_tokens, encode, question_prompt
from neuron_atlas.tasks.subject.load import Subject
from neuron_atlas.tasks.subject.settings import DescribeSettings


def describe_part(
    subject: Subject,
    samples: Path,
    source: Source,
    settings: DescribeSettings,
    written: Path,
    on_batch: Callable[[int], None] = lambda count: None,
) -> None:
    """Describe the usable samples of one `samples` file and write `descriptions` to `written`.

    on_batch: called with the number of samples of each finished batch. Raises SampleError if an
    image can no longer be opened, SubjectError if a sample cannot be encoded, and DiskFullError.
    """
    listed = read_table(samples, SAMPLES)
    rows = listed.filter(pc.equal(listed["status"], "ok")).to_pylist()
    described = []
    for start in range(0, len(rows), settings.batch_size):
        batch = rows[start : start + settings.batch_size]
        images = [[source.open_image(image).pixels for image in row["images"]] for row in batch]
        described += describe_samples(subject, batch, images, settings)
        on_batch(len(batch))
    write_table(pa.Table.from_pylist(described, schema=DESCRIPTIONS.schema), DESCRIPTIONS, written)


def describe_samples(
    subject: Subject,
    samples: Sequence[dict],
    images: Sequence[Sequence[Image.Image]],
    settings: DescribeSettings,
) -> list[dict]:
    """Return the `descriptions` rows of `samples` (rows of the `samples` table) with `images`.

    Raises SubjectError if a sample cannot be encoded.
    """
    generated = settings.text_source == "generated"
    if generated:
        answers = generate_descriptions(subject, images, settings.max_new_tokens)
    else:
        answers = [(row["text"].strip(), True) for row in samples]
    return [
        _description(subject, row, pictures, text, finished, generated)
        for row, pictures, (text, finished) in zip(samples, images, answers, strict=True)
    ]


def generate_descriptions(
    subject: Subject, images: Sequence[Sequence[Image.Image]], max_new_tokens: int
) -> list[tuple[str, bool]]:
    """Return the subject's greedy answer to the question about each sample's images, and whether
    the answer is complete (it ended before `max_new_tokens`)."""
    answers: dict[int, tuple[str, bool]] = {}
    # In one call, a processor takes a list of images for every prompt or for none.
    for has_images in (True, False):
        chosen = [index for index, group in enumerate(images) if bool(group) == has_images]
        if chosen:
            groups = [list(images[index]) for index in chosen]
            generated = _generate(subject, groups, has_images, max_new_tokens)
            answers |= dict(zip(chosen, generated, strict=True))
    return [answers[index] for index in range(len(images))]


def _generate(
    subject: Subject, images: Sequence[list[Image.Image]], has_images: bool, max_new_tokens: int
) -> list[tuple[str, bool]]:
    prompts = [question_prompt(subject, len(group)) for group in images]
    inputs = subject.processor(
        images=images if has_images else None,
        text=prompts,
        add_special_tokens=adds_special_tokens(subject, prompts[0]),
        padding=True,
        padding_side="left",
        return_tensors="pt",
    ).to(subject.device, subject.model.dtype)
    with torch.inference_mode():
        generated = subject.model.generate(**inputs, max_new_tokens=max_new_tokens, do_sample=False)
    answers = generated[:, inputs["input_ids"].shape[1] :]
    ends = subject.model.generation_config.eos_token_id
    ends = set(ends if isinstance(ends, list) else [ends])
    texts = subject.processor.tokenizer.batch_decode(answers, skip_special_tokens=True)
    return [
        (text.strip(), not ends.isdisjoint(answer))
        for text, answer in zip(texts, answers.tolist(), strict=True)
    ]


def _description(
    subject: Subject,
    row: dict,
    images: Sequence[Image.Image],
    text: str,
    finished: bool,
    generated: bool,
) -> dict:
    for marker in subject.markers:
        text = text.replace(marker, " ")
    text = text.strip()
    described = {
        "sample_id": row["sample_id"],
        "text": text,
        "text_source": "generated" if generated else "given",
        "tokens": [],
        "n_visual": 0,
        "n_text": 0,
        "regions": [],
        "status": "empty_text",
        "reason": "the subject's answer is empty" if generated else "the dataset has no text",
    }
    if not text:
        return described
    encoded = encode(subject, images, text)
    return described | {
        "tokens": list(encoded.pieces),
        "n_visual": encoded.n_visual,
        "n_text": encoded.n_text,
        "regions": [asdict(region) for region in encoded.regions],
        "status": "ok" if finished else "truncated",
        "reason": "" if finished else "the answer reached describe.max_new_tokens",
    }
