"""Measure whether the subject sees: compare its descriptions with the truth, with and without the
image."""

import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image
from transformers import LlavaForConditionalGeneration, LlavaProcessor

from neuron_atlas.infra.subject.architecture import conversation
from neuron_atlas.tasks.samples.drawing import SHAPES
from neuron_atlas.tasks.samples.scenes import BACKGROUNDS, COLORS, POSITIONS, SIZES, Scenes

KINDS = {
    "color": tuple(COLORS),
    "shape": SHAPES,
    "size": tuple(SIZES),
    "position": tuple(POSITIONS),
    "background": tuple(BACKGROUNDS),
}
OVERALL = "overall"
HELD_OUT = Scenes(count=500, seed=900_000)
_MID_GRAY = (128, 128, 128)
_KIND_OF = {name: kind for kind, names in KINDS.items() for name in names}
_NAMES = re.compile(r"\b(" + "|".join(sorted(_KIND_OF, key=len, reverse=True)) + r")\b")

_Slot = tuple[int, str, int]


@dataclass(frozen=True)
class Measurement:
    """Shares of correct words by kind and overall on `scenes`, 0-1.

    with_image: with the image. without_image: with a gray image. chance: of the best
    constant description. perfect_share: share of fully correct descriptions. blank_image_answer:
    the description of the gray image.
    """

    scenes: Scenes
    with_image: dict[str, float]
    without_image: dict[str, float]
    chance: dict[str, float]
    perfect_share: float
    blank_image_answer: str


def measure_subject(folder: Path, scenes: Scenes = HELD_OUT) -> Measurement:
    """Let the saved subject describe held-out scenes, with and without the image.

    Blinded, it gets the same mid-gray image for every scene, so one description is enough.
    """
    model = LlavaForConditionalGeneration.from_pretrained(folder, use_safetensors=True).eval()
    processor = LlavaProcessor.from_pretrained(folder)
    records = list(scenes.records())
    images = [scenes.open_image(record.image).pixels for record in records]
    truths = [record.text for record in records]
    answers = describe_images(model, processor, images)
    (blank_image_answer,) = describe_images(
        model, processor, [Image.new("RGB", images[0].size, _MID_GRAY)]
    )
    return Measurement(
        scenes=scenes,
        with_image=accuracy(truths, answers),
        without_image=accuracy(truths, [blank_image_answer] * len(truths)),
        chance=best_constant(truths),
        perfect_share=sum(a == t for a, t in zip(answers, truths, strict=True)) / len(truths),
        blank_image_answer=blank_image_answer,
    )


def describe_images(
    model: LlavaForConditionalGeneration,
    processor: LlavaProcessor,
    images: Sequence[Image.Image],
    batch_size: int = 50,
) -> list[str]:
    """Return the subject's greedy answer to the question about each image."""
    prompt = processor.apply_chat_template(conversation(), add_generation_prompt=True)
    answers: list[str] = []
    for start in range(0, len(images), batch_size):
        batch = list(images[start : start + batch_size])
        inputs = processor(images=batch, text=[prompt] * len(batch), return_tensors="pt")
        inputs["pixel_values"] = inputs["pixel_values"].to(model.dtype)
        with torch.inference_mode():
            tokens = model.generate(**inputs)
        answer_tokens = tokens[:, inputs["input_ids"].shape[1] :]
        answers += processor.batch_decode(answer_tokens, skip_special_tokens=True)
    return [answer.strip() for answer in answers]


def accuracy(truths: Sequence[str], answers: Sequence[str]) -> dict[str, float]:
    """Return the share of correct words of each kind, and overall.

    The n-th word of a kind in a sentence of the truth is compared with the n-th word of that kind
    in the same sentence of the answer. A missing word counts as wrong.
    """
    correct: Counter[str] = Counter()
    total: Counter[str] = Counter()
    for truth, answer in zip(truths, answers, strict=True):
        answered = dict(_slots(answer))
        for slot, name in _slots(truth):
            for group in (slot[1], OVERALL):
                total[group] += 1
                correct[group] += answered.get(slot) == name
    return {group: correct[group] / total[group] for group in (*KINDS, OVERALL)}


def best_constant(truths: Sequence[str]) -> dict[str, float]:
    """Return the accuracy of the best constant description of these truths: chance without an
    image."""
    counts: dict[_Slot, Counter[str]] = defaultdict(Counter)
    for truth in truths:
        for slot, name in _slots(truth):
            counts[slot][name] += 1
    correct: Counter[str] = Counter()
    total: Counter[str] = Counter()
    for slot, names in counts.items():
        for group in (slot[1], OVERALL):
            total[group] += names.total()
            correct[group] += max(names.values())
    return {group: correct[group] / total[group] for group in (*KINDS, OVERALL)}


def _slots(text: str) -> Iterator[tuple[_Slot, str]]:
    """Yield the words of KINDS in a text with their slot: (sentence, kind, position among the words
    of that kind in the sentence)."""
    for number, sentence in enumerate(text.split(".")):
        positions: Counter[str] = Counter()
        for name in _NAMES.findall(sentence):
            kind = _KIND_OF[name]
            yield (number, kind, positions[kind]), name
            positions[kind] += 1
