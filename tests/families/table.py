"""The table of all image-text-to-text types of transformers, from small random instances.

Prints the table of docs/models-and-data.md: python -m tests.families.table
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from transformers import CONFIG_MAPPING
from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES

from neuron_atlas.tasks.subject.hook_points import decoder_layers, expert_layouts
from neuron_atlas.tasks.subject.load import Subject, load_subject
from neuron_atlas.tasks.subject.settings import SubjectError, SubjectSettings
from neuron_atlas.tasks.subject.types import why_refused
from tests.families.building import Build, build
from tests.families.checks import Reading, reading, run
from tests.families.further import FURTHER
from tests.families.instances import BUILDS
from tests.families.packaged import NEEDS, PACKAGED, missing
from tests.families.wide import WIDE

ALL: Mapping[str, Build] = {**BUILDS, **WIDE, **FURTHER, **PACKAGED}

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
        needs = f"; needs {' and '.join(NEEDS[kind])}" if kind in NEEDS else ""
        return Row(kind, "not tried", f"no small instance was built{needs}")
    if missing(kind):
        return Row(kind, "not tried", f"needs {' and '.join(missing(kind))}, not installed here")
    with tempfile.TemporaryDirectory() as folder:
        try:
            subject = small(kind, Path(folder))
            found = reading(subject)
        except SubjectError as error:
            return Row(kind, "refused", _without_folder(str(error), folder))
        run(subject)
    return Row(
        kind,
        {"none": "without"}.get(subject.layout.kind, subject.layout.kind),
        "; ".join(_notes(subject, found)),
    )


def small(kind: str, folder: Path) -> Subject:
    """Build a small instance of a type in `folder` and load it. Raises SubjectError."""
    build(ALL[kind], folder)
    template = str(folder / "prompt.jinja")  # Some processors save none.
    return load_subject(SubjectSettings(model=str(folder), chat_template=template), threads=1)


def _notes(subject: Subject, found: Reading) -> Iterator[str]:
    yield subject.layout.about.partition(";")[0]
    if not subject.shares_batches:
        yield "one at a time"
    if found.hook_point != "gate":
        yield f"capture.hook_point={found.hook_point}"
    if len(found.layers) < len(decoder_layers(subject)):
        yield "only layers without experts (capture.layers)"
    elif expert_layouts(subject, found.hook_point):
        yield "experts"
    if subject.family in NEEDS:
        yield f"needs {' and '.join(NEEDS[subject.family])}"


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
