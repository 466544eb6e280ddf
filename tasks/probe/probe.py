"""Run the subject of a finished run on one image and text, and find the neurons that fire most."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc
from PIL import Image

from neuron_atlas.tasks.artifacts import DESCRIPTIONS, USABLE, read_table
from neuron_atlas.tasks.clean_text import clean_text
from neuron_atlas.tasks.effects.intervention import Intervention, intervening
from neuron_atlas.tasks.probe.changed import NeuronKey, in_words, interventions
from neuron_atlas.tasks.probe.errors import ProbeError
from neuron_atlas.tasks.probe.firing import Firing, rank_neurons
from neuron_atlas.tasks.probe.gather import gather_neurons
from neuron_atlas.tasks.probe.images import read_image
from neuron_atlas.tasks.probe.observe import read_peaks, read_traces
from neuron_atlas.tasks.probe.result import Probe
from neuron_atlas.tasks.probe.run_subject import open_run_subject
from neuron_atlas.tasks.samples.catalog import Catalog, Sample
from neuron_atlas.tasks.samples.source import (
    OpenedImage,
    SampleRecord,
    Source,
)
from neuron_atlas.tasks.subject.describe import describe_samples
from neuron_atlas.tasks.subject.encode import encode
from neuron_atlas.tasks.subject.generate import generate_descriptions
from neuron_atlas.tasks.subject.settings import DescribeSettings, HookPoint, TextSource
from neuron_atlas.tasks.subject.subject import Subject

if TYPE_CHECKING:
    from neuron_atlas.tasks.atlas.atlas import Atlas

DEFAULT_COUNT = 20
_SAMPLE = 0


@dataclass(frozen=True)
class _OneImage(Source):
    """The image of a probe, as a dataset."""

    image: Image.Image

    @property
    def title(self) -> str:
        return "a probe"

    def records(self) -> Iterable[SampleRecord]:
        return []

    def open_image(self, image: str) -> OpenedImage:
        return OpenedImage(self.image, "")

    def probe(self) -> str:
        return ""


def probe_atlas(
    atlas: Atlas,
    image: str | Path | Image.Image | None = None,
    text: str | None = None,
    *,
    without: Sequence[NeuronKey] = (),
    clamp: Mapping[NeuronKey, float] | None = None,
    count: int = DEFAULT_COUNT,
    max_new_tokens: int | None = None,
    model: str | None = None,
    device: str | None = None,
) -> Probe:
    """Show the subject of a run an image, and return the neurons that fire most; see
    `Atlas.probe`."""
    run, clamp = atlas.run, clamp or {}
    changes = interventions(without, clamp)
    if count < 1:
        raise ProbeError(f"count: {count} neurons cannot be shown; give 1 or more")
    if max_new_tokens is not None and max_new_tokens < 1:
        raise ProbeError(f"max_new_tokens: {max_new_tokens} tokens are no answer; give 1 or more")
    if text is not None and not clean_text(text).strip():
        raise ProbeError("the text is empty; leave it out to let the subject answer")
    if image is None and text is None:
        raise ProbeError("give an image, a text, or both")
    missing = {"histograms", "moments", "exemplars", "types"} - set(atlas.tables)
    if missing:
        raise ProbeError(f"the run {run.name} has no table {min(missing)!r}, which a probe reads")
    images = [] if image is None else [read_image(image)]
    subject = open_run_subject(run, model, device)
    capture = run.parameter("capture", "capture")
    hook_point: HookPoint = capture["hook_point"]
    most_tokens = max_new_tokens or run.parameter("describe", "describe")["max_new_tokens"]
    described = _describe(subject, images, text, most_tokens)
    answer = None if text is not None else described
    if changes and answer is None:
        answer = _describe(subject, images, None, most_tokens)
    changed = _changed_answer(subject, images, changes, hook_point, most_tokens)
    encoded = encode(subject, images, described)
    peaks = read_peaks(subject, encoded, atlas.layers, hook_point)
    found = rank_neurons(atlas, peaks, encoded, count)
    sample = Sample(
        sample_id=_SAMPLE,
        source_id=_name(image),
        images=("",) * len(images),
        text=described,
        tokens=encoded.pieces,
        regions=encoded.regions,
        width=images[0].width if images else 0,
        height=images[0].height if images else 0,
    )
    catalog = Catalog({_SAMPLE: sample}, source=_OneImage(images[0]) if images else None)
    traces = read_traces(subject, encoded, _by_layer(found.firing), hook_point)
    return Probe(
        run=run.name,
        subject=run.subject,
        dataset=run.dataset,
        question=subject.settings.question,
        name=sample.source_id,
        text=described,
        is_generated=text is None,
        answer=answer,
        changes=in_words(without, clamp),
        changed_answer=changed,
        n_neurons=found.n_neurons,
        n_silent=found.n_silent,
        n_samples=_count_usable(atlas),
        catalog=catalog,
        neurons=gather_neurons(atlas, found.firing, traces, catalog),
    )


def _name(image: str | Path | Image.Image | None) -> str:
    if image is None:
        return ""
    return "the image" if isinstance(image, Image.Image) else Path(image).name


def _describe(
    subject: Subject, images: Sequence[Image.Image], text: str | None, max_new_tokens: int
) -> str:
    """Return the text as the run would use it: given, or the subject's own answer.

    Raises ProbeError if the subject cannot use the image or the text.
    """
    source: TextSource = "generated" if text is None else "given"
    row = {"sample_id": _SAMPLE, "text": clean_text(text or "")}
    settings = DescribeSettings(source, max_new_tokens, batch_size=1)
    (described,) = describe_samples(subject, [row], [images], settings)
    is_cut = text is not None and described["status"] == "truncated"
    if is_cut or described["status"] not in USABLE:
        raise ProbeError(f"the subject cannot use this input: {described['reason']}")
    return str(described["text"])


def _changed_answer(
    subject: Subject,
    images: Sequence[Image.Image],
    changes: Sequence[Intervention],
    hook_point: HookPoint,
    max_new_tokens: int,
) -> str | None:
    """Return the subject's answer with neurons changed, which may be empty; None without changes.

    Raises InterventionError if a neuron does not exist, or if the output overflows.
    """
    if not changes:
        return None
    with intervening(subject, changes, hook_point):
        generate_descriptions(subject, [images], 1)  # An overflow ends it here, in one pass.
    with intervening(subject, changes, hook_point):
        ((answer, _),) = generate_descriptions(subject, [images], max_new_tokens)
    return answer


def _by_layer(shown: Sequence[Firing]) -> dict[int, list[int]]:
    chosen: dict[int, list[int]] = {}
    for one in shown:
        chosen.setdefault(one.layer, []).append(one.neuron)
    return chosen


def _count_usable(atlas: Atlas) -> int:
    statuses = read_table(atlas.run.paths("descriptions"), DESCRIPTIONS, ["status"])["status"]
    return int(pc.sum(pc.is_in(statuses, value_set=pa.array(USABLE))).as_py() or 0)
