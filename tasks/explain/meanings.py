"""Explain each meaning of neurons that have several, from the samples of that meaning alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from neuron_atlas.tasks.evidence.evidence import Evidence
from neuron_atlas.tasks.evidence.meanings import MeaningEvidence, Members, split_by_meaning
from neuron_atlas.tasks.explain.explanation import Background, Explainer, Explanation
from neuron_atlas.tasks.models.call_options import CallOptions
from neuron_atlas.tasks.samples.catalog import Catalog


def explain_meanings(
    explainer: Explainer,
    background: Background,
    evidence: Sequence[Evidence],
    members: Members,
    catalog: Catalog,
    strong_share: float,
    calls: CallOptions,
) -> tuple[list[MeaningEvidence], list[Explanation]]:
    """Return the meanings of the neurons of one layer, and the explanation of each, in order.

    The calibration samples of the background are restricted to the meaning as well; a meaning
    without a calibration exemplar has none. catalog: of the samples of evidence and background.
    members, strong_share: see `split_by_meaning`.
    """
    meanings = split_by_meaning(evidence, members, catalog.samples, strong_share)
    if not explainer.uses_background:
        return meanings, explainer.explain([one.evidence for one in meanings], catalog, calls)
    calibration = [
        one
        for one in split_by_meaning(background.calibration, members, catalog.samples, strong_share)
        if one.evidence.exemplars
    ]
    found: dict[int, Explanation] = {}
    # An explainer finds the calibration samples of a neuron by its name, so of one meaning at once.
    for meaning in sorted({one.meaning for one in meanings}):
        places = [place for place, one in enumerate(meanings) if one.meaning == meaning]
        mine = [one.evidence for one in calibration if one.meaning == meaning]
        explanations = explainer.explain_with(
            replace(background, calibration=mine),
            [meanings[place].evidence for place in places],
            catalog,
            calls,
        )
        found |= zip(places, explanations, strict=True)
    return meanings, [found[place] for place in range(len(meanings))]
