"""What every subject must do, whatever its type."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from neuron_atlas.tasks.artifacts import exemplars_spec, layer_file, read_table, slot_values
from neuron_atlas.tasks.artifacts.regions import count_tokens
from neuron_atlas.tasks.capture.settings import CaptureSettings
from neuron_atlas.tasks.subject.describe import describe_samples
from neuron_atlas.tasks.subject.encode import TEMPLATE, TEXT, VISUAL, EncodedSample, encode
from neuron_atlas.tasks.subject.hook_points import check_layers, decoder_layers
from neuron_atlas.tasks.subject.layout import is_located
from neuron_atlas.tasks.subject.load import Subject
from neuron_atlas.tasks.subject.settings import DescribeSettings, HookPoint, SubjectError
from tests.families.activations import activations_of
from tests.families.looking import misplaced_tokens
from tests.families.pictures import PICTURES, SEVERAL, TEXT_SAID, Pictures
from tests.one_process import capture, describe

ONLY_WITH_IMAGES = ("got_ocr2", "paligemma")
"""Types whose processor refuses a text without images; such a sample is `not_encoded`."""

EQUAL_TILES = ("perception_lm",)
"""Types whose processor refuses images of a sample that have different numbers of tiles."""


@dataclass(frozen=True)
class Reading:
    """A hook point of a type's FFNs, and the layers that have it."""

    hook_point: HookPoint
    layers: tuple[int, ...]


def reading(subject: Subject) -> Reading:
    """Return where neurons can be read: `gate` if any layer has it, else `gate_up`. Raises
    SubjectError, of the last layer, if no layer has an FFN that can be read."""
    layers = range(len(decoder_layers(subject)))
    refused: list[SubjectError] = []
    for hook_point in ("gate", "gate_up"):
        found = []
        for layer in layers:
            try:
                check_layers(subject, [layer], hook_point)
                found.append(layer)
            except SubjectError as error:
                refused.append(error)
        if found:
            return Reading(hook_point, tuple(found))
    raise refused[0]


def shown_to(subject: Subject) -> list[list[Image.Image]]:
    """Return images of samples: two of different proportions, several, and none."""
    several = SEVERAL[:1] * 2 if subject.family in EQUAL_TILES else SEVERAL
    shown = [[PICTURES["even"]], [PICTURES["odd"]], several, []]
    return shown[:-1] if subject.family in ONLY_WITH_IMAGES else shown


def run(subject: Subject) -> None:
    """Assert roles, regions, texts of both sources, and activations that do not depend on the
    batch."""
    shown = shown_to(subject)
    samples = [encode(subject, images, TEXT_SAID) for images in shown]
    for images, sample in zip(shown, samples, strict=True):
        roles = sample.roles
        assert len(roles) == len(sample.input_ids)
        assert sum(int((roles == role).sum()) for role in (VISUAL, TEXT, TEMPLATE)) == len(roles)
        assert sample.n_visual == count_tokens(sample.regions)
        assert {region.image for region in sample.regions} == set(range(len(images)))
        placeholders = sample.input_ids == subject.image_token_id
        assert placeholders[roles == VISUAL].all()
        assert (roles[-sample.n_text :] == TEXT).all()
        assert "".join(sample.pieces) == TEXT_SAID
    _same_in_a_batch(subject, samples)
    texts = [{"sample_id": place, "text": TEXT_SAID} for place in range(len(shown))]
    for source in ("given", "generated"):
        described = describe_samples(
            subject, texts, shown, DescribeSettings(text_source=source, max_new_tokens=3)
        )
        assert all(one["status"] in ("ok", "truncated", "empty_text") for one in described), (
            described
        )


def run_thoroughly(subject: Subject, folder: Path) -> None:
    """Assert what `run` does, that pixels change the tokens that look at them, and the same rows of
    `descriptions` and `exemplars` for batches of 1 and of 8."""
    run(subject)
    shown = shown_to(subject)
    for images in [*shown, [PICTURES["portrait"]]]:
        if images and is_located(encode(subject, images, TEXT_SAID).regions):
            assert not misplaced_tokens(subject, images, TEXT_SAID)
    for source in ("given", "generated"):
        one, eight = (_captured(subject, source, size, folder / source) for size in (1, 8))
        for layer in reading(subject).layers:
            mine, other = (
                read_table(path / layer_file("exemplars", layer), exemplars_spec(5))
                for path in (one, eight)
            )
            for column in ("sample_id", "peak_role", "peak_token"):
                assert mine[column].equals(other[column]), column
            for role in ("visual", "text"):
                tops = [slot_values(table, f"{role}_top") for table in (mine, other)]
                np.testing.assert_allclose(*tops, rtol=2e-3, atol=1e-4)


def _captured(subject: Subject, source: str, batch_size: int, folder: Path) -> Path:
    """Return the folder of a capture that describes and reads `batch_size` samples at a time."""
    described = describe(
        subject,
        Pictures(),
        folder / str(batch_size),
        DescribeSettings(text_source=source, max_new_tokens=3, batch_size=batch_size),
    )
    statuses = set(described.descriptions["status"].to_pylist())
    assert statuses <= {"ok", "truncated", "empty_text", "not_encoded"}
    found = reading(subject)
    settings = CaptureSettings(top_n=5, batch_size=batch_size, hook_point=found.hook_point)
    return capture(subject, described, found.layers, settings, folder / f"capture-{batch_size}")


def _same_in_a_batch(subject: Subject, samples: list[EncodedSample]) -> None:
    found = reading(subject)
    layer, point = found.layers[-1], found.hook_point
    length = max(len(sample.input_ids) for sample in samples) + 3
    batches = [samples] if subject.shares_batches else [[sample] for sample in samples]
    together = torch.cat([activations_of(subject, one, length, layer, point) for one in batches])
    for place, sample in enumerate(samples):
        tokens = len(sample.input_ids)
        alone = activations_of(subject, [sample], tokens, layer, point)
        torch.testing.assert_close(together[place, :tokens], alone[0], rtol=1e-3, atol=1e-4)
