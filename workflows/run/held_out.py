"""Say before a run whether its dataset is large enough to score neurons."""

from __future__ import annotations

from collections.abc import Sequence

from neuron_atlas.tasks.evidence.choose import image_names
from neuron_atlas.tasks.evidence.held_out import evidence_samples, held_out, samples_needed
from neuron_atlas.workflows.run.context import Context

_HALF = 0.5


def held_out_lines(context: Context, sample_ids: Sequence[int]) -> list[str]:
    """Return lines for a dataset with few usable samples; none for a larger one.

    They say how many exemplars are stored per neuron, how many samples are held out, and, if these
    are too few, how many are needed. sample_ids: the usable samples.
    """
    settings = context.settings
    configured, captured = settings.capture, context.capture
    exemplars, random = evidence_samples(sample_ids, captured.top_n, settings.evidence)
    images = image_names(context.paths("samples", "samples"), {*exemplars, *random})
    held = held_out(exemplars, random, images)
    is_lowered = captured.top_n < configured.top_n
    is_short = held.n_scored < settings.score.min_samples
    lines = []
    if is_lowered:
        lines.append(
            f"{len(sample_ids):,} usable samples: capture.top_n is lowered from {configured.top_n} "
            f"to {captured.top_n} (capture.max_exemplar_share is {configured.max_exemplar_share:g})"
        )
    if is_lowered or is_short:
        lines.append(
            f"each neuron has {len(exemplars)} exemplars and about {len(random)} other samples; "
            f"{held.exemplars} and {held.random} of them are held out to score it"
        )
    if is_short:
        lines.append(
            "too few to score a neuron: a score compares as many exemplars as other samples, "
            f"{held.n_scored} here, and needs {settings.score.min_samples} (score.min_samples). "
            f"{_remedy(context, len(sample_ids))}"
        )
    return lines


def _remedy(context: Context, n_samples: int) -> str:
    settings = context.settings
    needed = samples_needed(
        lambda count: settings.capture.for_samples(count).top_n,
        settings.evidence,
        settings.score.min_samples,
    )
    if needed is None:
        return "Raise evidence.random_samples"
    if needed <= n_samples:
        return "Samples that share an image count once: use more images, or lower score.min_samples"
    share = settings.capture.max_exemplar_share
    more = f"Use at least {needed} samples, each with an image of its own"
    return f"{more}, or lower score.min_samples" + (
        ", or lower capture.max_exemplar_share" if share > _HALF else ""
    )
