"""Let the subject describe images, and record each sample's tokens and regions."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
from PIL import Image

from neuron_atlas.tasks.artifacts import DESCRIPTIONS, SAMPLES, read_table, write_table
from neuron_atlas.tasks.artifacts.regions import why_not_shown
from neuron_atlas.tasks.models.pretrained import first_lines
from neuron_atlas.tasks.samples.source import Source
from neuron_atlas.tasks.subject.cut import cut_to_context
from neuron_atlas.tasks.subject.encode import EncodedSample, encode
from neuron_atlas.tasks.subject.generate import Answer, answers, generate_descriptions
from neuron_atlas.tasks.subject.load import Subject
from neuron_atlas.tasks.subject.settings import DescribeSettings

__all__ = ["describe_part", "describe_samples", "generate_descriptions"]


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
    image can no longer be opened, SubjectError if memory runs out with one sample, and
    DiskFullError.
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

    A sample that the subject cannot take is a row with the reason. Raises SubjectError if memory
    runs out with one sample.
    """
    generated = settings.text_source == "generated"
    if generated:
        given = answers(subject, images, settings.max_new_tokens)
    else:
        given = [Answer(row["text"].strip()) for row in samples]
    return [
        _description(subject, row, pictures, answer, generated)
        for row, pictures, answer in zip(samples, images, given, strict=True)
    ]


def _description(
    subject: Subject, row: dict, images: Sequence[Image.Image], answer: Answer, generated: bool
) -> dict:
    text, removed = _without_markers(subject, answer.text)
    described = {
        "sample_id": row["sample_id"],
        "text": text,
        "text_source": "generated" if generated else "given",
        "tokens": [],
        "n_visual": 0,
        "n_text": 0,
        "regions": [],
        "status": answer.status,
        "reason": answer.reason,
    }
    if answer.status != "ok":
        return described
    if not text:
        reason = "the subject's answer is empty" if generated else "the dataset has no text"
        return described | {"status": "empty_text", "reason": reason}
    try:
        encoded = encode(subject, images, text)
        cut = cut_to_context(subject, images, encoded)
    except Exception as error:  # The processor's words say what is wrong with this sample.
        return described | {"status": "not_encoded", "reason": first_lines(error)}
    if problem := why_not_shown(encoded.regions):
        return described | {"status": "not_encoded", "reason": problem}
    if cut.encoded is None:
        return described | {"status": "too_long", "reason": cut.reason}
    if cut.reason:
        encoded = cut.encoded
        described["text"] = "".join(encoded.pieces)
    status, reason = _outcome(subject, encoded, answer, removed)
    if cut.reason:
        status, reason = "truncated", "; ".join(filter(None, [cut.reason, reason]))
    return described | {
        "tokens": list(encoded.pieces),
        "n_visual": encoded.n_visual,
        "n_text": encoded.n_text,
        "regions": [asdict(region) for region in encoded.regions],
        "status": status,
        "reason": reason,
    }


def _outcome(
    subject: Subject, encoded: EncodedSample, answer: Answer, removed: Sequence[str]
) -> tuple[str, str]:
    """Return status and reason of a usable sample."""
    if answer.finished:
        spelled = ", ".join(map(repr, removed))
        return "ok", f"control tokens left out of the text: {spelled}" if removed else ""
    if subject.context is not None and len(encoded.input_ids) >= subject.context:
        return (
            "truncated",
            f"the answer reached the subject's context of {subject.context:,} tokens",
        )
    return "truncated", "the answer reached describe.max_new_tokens"


def _without_markers(subject: Subject, text: str) -> tuple[str, list[str]]:
    """Return the text without the strings that the tokenizer reads as control tokens, and these."""
    pattern = re.compile("|".join(map(re.escape, subject.markers)))
    removed = list(dict.fromkeys(pattern.findall(text)))
    return pattern.sub(" ", text).strip(), removed
