"""The table of all image-text-to-text types of transformers, from small random instances.

Prints the table of docs/models-and-data.md: python -m tests.families.table
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import CONFIG_MAPPING
from transformers.models.auto.image_processing_auto import IMAGE_PROCESSOR_MAPPING_NAMES
from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES

from neuron_atlas.tasks.artifacts.regions import count_tokens
from neuron_atlas.tasks.subject.describe import describe_samples
from neuron_atlas.tasks.subject.encode import TEXT, VISUAL, encode
from neuron_atlas.tasks.subject.hook_points import check_layers, decoder_layers
from neuron_atlas.tasks.subject.load import Subject, load_subject
from neuron_atlas.tasks.subject.settings import DescribeSettings, SubjectError, SubjectSettings
from neuron_atlas.tasks.subject.types import why_refused
from tests.families.building import Build, build
from tests.families.gate import gate_of
from tests.families.instances import BUILDS
from tests.families.pictures import PICTURES, SEVERAL, TEXT_SAID
from tests.families.wide import WIDE

ALL: Mapping[str, Build] = {**BUILDS, **WIDE}

_NOT_HERE = {
    "timm": ("fast_vlm", "gemma3n", "perception_lm"),
    "torchvision": ("mistral3", "hunyuan_vl", "gemma4", "gemma4_unified", "diffusion_gemma"),
}
"""Types whose processor or tower needs a package, beyond those without a processor for Pillow."""

_OTHER_INPUT = {
    "evolla": "it reads proteins, not images",
    "mistral4": "it is a language model without images",
    "pi0": "it predicts the actions of a robot, and has no text to describe",
    "instructblipvideo": "it reads videos, not images",
    "vision-encoder-decoder": "its decoder reads image features by cross-attention",
    "shieldgemma2": "it classifies images, and has no text to describe",
}

_NO_PLACEHOLDER = ("blip", "git", "kosmos-2", "kosmos-2.5")
"""Types that put image features in front of the text, without placeholders."""

_ONLY_WITH_IMAGES = ("paligemma",)
"""Types whose processor refuses a text without images; such a sample is `not_encoded`."""


@dataclass(frozen=True)
class Row:
    """One type of the table. outcome: `known`, `probed`, `without`, `refused` or `not tried`."""

    kind: str
    outcome: str
    detail: str


def rows(kinds: tuple[str, ...] = tuple(MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES)) -> list[Row]:
    """Return a row of each type, in alphabetical order."""
    return [row(kind) for kind in sorted(kinds)]


def row(kind: str) -> Row:
    """Build a small instance of a type if it can be built here, and run it."""
    if kind in _OTHER_INPUT:
        return Row(kind, "refused", _OTHER_INPUT[kind])
    if kind in _NO_PLACEHOLDER:
        return Row(kind, "refused", "it names no placeholder of image features (image_token_id)")
    if kind not in ALL:
        reason = why_refused(CONFIG_MAPPING[kind]())
        if reason:
            return Row(kind, "refused", f"a model {reason}")
        package = next((one for one, named in _NOT_HERE.items() if kind in named), None)
        processors = IMAGE_PROCESSOR_MAPPING_NAMES.get(kind) or {}
        if package or (processors and "pil" not in processors):
            return Row(kind, "not tried", f"needs {package or 'torchvision'}, not installed here")
        return Row(kind, "not tried", "no small instance was built")
    with tempfile.TemporaryDirectory() as folder:
        build(ALL[kind], Path(folder))
        try:
            template = f"{folder}/prompt.jinja"  # Some processors save none.
            subject = load_subject(SubjectSettings(model=folder, chat_template=template), threads=1)
            check_layers(subject, range(len(decoder_layers(subject))))
        except SubjectError as error:
            return Row(kind, "refused", _without_folder(str(error), folder))
        run(subject)
        outcome = {"none": "without"}.get(subject.layout.kind, subject.layout.kind)
        detail = subject.layout.about.partition(";")[0]
        return Row(kind, outcome, detail if subject.shares_batches else f"{detail}; one at a time")


def run(subject: Subject) -> None:
    """Assert what every subject must do: roles, regions, texts of both sources, and activations
    that do not depend on the batch."""
    shown = [[PICTURES["even"]], [PICTURES["odd"]], SEVERAL, []]
    if subject.family in _ONLY_WITH_IMAGES:
        shown.pop()
    samples = [encode(subject, images, TEXT_SAID) for images in shown]
    for images, sample in zip(shown, samples, strict=True):
        assert sample.n_visual == count_tokens(sample.regions)
        assert {region.image for region in sample.regions} == set(range(len(images)))
        placeholders = sample.input_ids == subject.image_token_id
        assert placeholders[sample.roles == VISUAL].all()
        assert (sample.roles[-sample.n_text :] == TEXT).all()
        assert "".join(sample.pieces) == TEXT_SAID
    length = max(len(sample.input_ids) for sample in samples) + 3
    if subject.shares_batches:
        together = gate_of(subject, samples, length)
    else:
        together = torch.cat([gate_of(subject, [sample], length) for sample in samples])
    for place, sample in enumerate(samples):
        alone = gate_of(subject, [sample], len(sample.input_ids))
        torch.testing.assert_close(
            together[place, : len(sample.input_ids)], alone[0], rtol=1e-3, atol=1e-4
        )
    texts = [{"sample_id": place, "text": TEXT_SAID} for place in range(len(shown))]
    for source in ("given", "generated"):
        described = describe_samples(
            subject, texts, shown, DescribeSettings(text_source=source, max_new_tokens=3)
        )
        assert all(one["status"] in ("ok", "truncated", "empty_text") for one in described), (
            described
        )


def markdown(table: list[Row]) -> Iterator[str]:
    """Yield the lines of the table in docs/models-and-data.md."""
    yield "| `model_type` | visual tokens | what was found |"
    yield "|---|---|---|"
    for one in table:
        yield f"| `{one.kind}` | {one.outcome} | {one.detail} |"


def _without_folder(message: str, folder: str) -> str:
    for name in (f" of {folder!r}", f"{folder!r} is "):
        message = message.replace(name, "")
    return message.partition(": ")[2].partition(", whose neurons")[0]


if __name__ == "__main__":
    import sys

    chosen = tuple(sys.argv[1:]) or tuple(MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES)
    print("\n".join(markdown(rows(chosen))))
