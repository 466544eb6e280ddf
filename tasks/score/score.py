"""Score explanations: compare predicted with real traces, and do the same for the controls."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import polars as pl
import pyarrow as pa

from neuron_atlas.tasks.artifacts import CLAIMS, LEVELS, SCORES, TOKENS
from neuron_atlas.tasks.evidence.evidence import Evidence, Purpose
from neuron_atlas.tasks.evidence.strata import Strata
from neuron_atlas.tasks.score.align import GROUP, Aligned, align
from neuron_atlas.tasks.score.blind import NumberedTokens, number_tokens, predict_blindly
from neuron_atlas.tasks.score.correlation import cross_sums, has_variance, pearson, real_sums
from neuron_atlas.tasks.score.detection import balanced_accuracy, detection_auroc, find_threshold
from neuron_atlas.tasks.score.explained_variance import calibrate, explained_variance
from neuron_atlas.tasks.score.levels import compare_levels, level_claims
from neuron_atlas.tasks.score.margin import weighted_correlations
from neuron_atlas.tasks.score.paired import paired_p
from neuron_atlas.tasks.score.pool import by_tokens, pool
from neuron_atlas.tasks.score.purity import purities
from neuron_atlas.tasks.score.ranks import rank_scores
from neuron_atlas.tasks.score.score_rows import ScoreCounts, score_rows
from neuron_atlas.tasks.score.settings import ScoreSettings
from neuron_atlas.tasks.score.strength import predicted_strengths
from neuron_atlas.tasks.score.unseen import check_unseen
from neuron_atlas.tasks.score.weights import weigh

_OWN, _OTHER = 0, 1


def score_neurons(
    simulations: pa.Table,
    evidence: Mapping[Purpose, Sequence[Evidence]],
    texts: Mapping[int, Sequence[str]],
    seen: Mapping[tuple[int, int, str], frozenset[int]],
    settings: ScoreSettings,
    strata: Mapping[tuple[int, int, str], Strata] | None = None,
) -> pa.Table:
    """Return `scores` rows of the explanations in `simulations`, in its order: three for each, over
    all, visual and text tokens. p and q stay null, because they need all neurons.

    evidence: of the neurons, by purpose. The scorer's and the calibration evidence hold the real
    traces; the blind control is fitted on the explainer's. texts: tokens of each of their samples.
    seen: sample_ids that the explainer saw, by (layer, neuron, explainer). strata: of the dataset,
    by the same keys; they give the weights of the samples. Without them, all samples weigh the
    same. Correlations, margin, purity and recall are over all samples with their weights; the other
    measures are over exemplars and random samples, as they are published. Raises ValueError if a
    scored sample was seen by the explainer, or also serves the blind control or the calibration.
    """
    columns = [
        *GROUP,
        "explanation",
        "wording",
        "stratum",
        "purpose",
        "sample_id",
        "status",
        "reason",
    ]
    rows = pl.DataFrame(simulations.select(columns)).with_row_index("row")
    groups = rows.group_by(GROUP, maintain_order=True).agg().with_row_index("group")
    rows = rows.join(groups, on=GROUP, how="left", maintain_order="left")
    if groups.is_empty():
        return SCORES.schema.empty_table()
    check_unseen(rows, seen)
    held_out = align(
        simulations, rows, "scorer", CLAIMS, evidence["scorer"], settings.min_samples, LEVELS
    )
    calibration = align(
        simulations, rows, "calibration", CLAIMS[:1], evidence.get("calibration", ()), 0
    )
    neurons = {(neuron.layer, neuron.neuron): neuron for neuron in evidence["scorer"]}
    scored = [neurons[key] for key in groups.select("layer", "neuron").rows()]
    blind = _blind(held_out, groups, evidence.get("explainer", ()), number_tokens(texts))
    real, cross, of_levels = _sums(held_out, blind)
    is_paired = ~held_out.near_miss
    paired = held_out.select(is_paired)
    its_strata = [
        (strata or {}).get(key) for key in groups.select("layer", "neuron", "explainer").rows()
    ]
    weighted = weigh(held_out, its_strata)
    sums_of_pairs = real[..., is_paired], cross[_OWN][..., is_paired]
    weighted_sums = np.concatenate([real[None], cross]) * weighted.weight
    measures = (
        {"p_paired": paired_p(weighted_sums, held_out.group, held_out.exemplar, len(groups))}
        | compare_levels(
            weighted_sums[:2],
            of_levels * weighted.weight,
            held_out.group,
            held_out.exemplar,
            len(groups),
        )
        | weighted_correlations(real, cross, held_out.group, weighted, settings)
        | _of_pairs(*sums_of_pairs, paired.group, calibration, len(groups))
        | purities(held_out, weighted, its_strata, scored, settings)
        | _orders(paired, scored, settings)
        | _detections(paired, calibration, len(groups))
    )
    pooled = by_tokens(pool(real, held_out.group, len(groups)))
    predicted = by_tokens(pool(cross[_OWN], held_out.group, len(groups)))
    counts = ScoreCounts(
        samples=np.bincount(held_out.group, minlength=len(groups)),
        near_misses=np.bincount(held_out.group[held_out.near_miss], minlength=len(groups)),
        exemplars=np.bincount(held_out.group[held_out.exemplar], minlength=len(groups)),
        unpaired=np.stack([np.bincount(kind, minlength=len(groups)) for kind in held_out.unpaired]),
        other=np.bincount(
            held_out.group[held_out.predicted[CLAIMS[_OTHER]].is_made], minlength=len(groups)
        ),
        tokens=pooled[0].astype(np.int64),
        calibration=np.bincount(calibration.group, minlength=len(groups)),
        real_varies=has_variance(*pooled),
        prediction_varies=has_variance(pooled[0], predicted[0], predicted[1]),
        left_out=np.stack(
            [
                np.bincount(held_out.group[is_out], minlength=len(groups)) > 0
                for is_out in held_out.left_out
            ]
        ),
        predicts_nothing=np.array([its is not None and not its.predicted for its in its_strata]),
    )
    types = [neuron.type for neuron in scored]
    claims = level_claims(rows, len(groups))
    return score_rows(groups, types, rows, measures, counts, settings, claims)


def _blind(
    aligned: Aligned, groups: pl.DataFrame, explainer: Sequence[Evidence], tokens: NumberedTokens
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the blind control's visual and text predictions, and bool [samples]: are they made?

    explainer: the explainer's evidence. Raises ValueError if it shares a sample with `aligned`.
    """
    by_neuron = {(neuron.layer, neuron.neuron): neuron for neuron in explainer if neuron.sample_ids}
    starts = np.searchsorted(aligned.group, np.arange(len(groups) + 1))
    visual = [np.empty(0, np.float32)]
    text = [np.empty(0, np.float32)]
    is_made = np.zeros(len(aligned.group), dtype=bool)
    for group, key in enumerate(groups.select("layer", "neuron").rows()):
        chosen = slice(starts[group], starts[group + 1])
        excitations = aligned.excitations[chosen]
        if key in by_neuron:
            leaked = set(by_neuron[key].sample_ids) & {one.sample_id for one in excitations}
            if leaked:
                raise ValueError(
                    f"neuron {key[0]}:{key[1]} would be scored on sample {min(leaked)}, "
                    "which its blind control is fitted on"
                )
            is_made[chosen] = True
            of_visual, of_text = predict_blindly(by_neuron[key], excitations, tokens)
            visual += of_visual
            text += of_text
        else:
            visual += [np.zeros_like(one.visual) for one in excitations]
            text += [np.zeros_like(one.text) for one in excitations]
    return np.concatenate(visual), np.concatenate(text), is_made


def _sums(
    aligned: Aligned, blind: tuple[np.ndarray, ...]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return sums of real activations [3, 2 roles, samples], and cross sums with each prediction,
    and with each of LEVELS, [predictions, 3, 2 roles, samples]; NaN without a prediction.

    blind: from `_blind`."""
    real, cross, of_levels = [], [], []
    for role, name in enumerate(("visual", "text")):
        x = getattr(aligned, name).astype(np.float64)
        offsets = aligned.offsets[role]
        real.append(real_sums(x, offsets))
        of_role = []
        for claim in (*CLAIMS, *LEVELS):
            predicted = aligned.predicted[claim]
            sums = cross_sums(x, getattr(predicted, name), offsets)
            of_role.append(np.where(predicted.is_made, sums, np.nan))
        of_levels.append(of_role[len(CLAIMS) :])
        of_blind = np.where(blind[2], cross_sums(x, blind[role], offsets), np.nan)
        cross.append([*of_role[: len(CLAIMS)], of_blind])
    return np.stack(real, axis=1), np.stack(cross, axis=2), np.stack(of_levels, axis=2)


def _orders(
    aligned: Aligned, neurons: Sequence[Evidence], settings: ScoreSettings
) -> dict[str, np.ndarray]:
    """Return Spearman, AUROC and active tokens [3 tokens, groups] of the own claim."""
    own = aligned.predicted[CLAIMS[_OWN]]
    bounds = np.searchsorted(aligned.group, np.arange(len(neurons) + 1))
    visual_starts, text_starts = (offsets[bounds] for offsets in aligned.offsets)
    found = np.full((3, len(TOKENS), len(neurons)), np.nan)
    found[2] = 0
    for group, neuron in enumerate(neurons):
        visual = slice(visual_starts[group], visual_starts[group + 1])
        text = slice(text_starts[group], text_starts[group + 1])
        real = aligned.visual[visual], aligned.text[text]
        unit = neuron.scale / 10 if neuron.scale > 0 else np.inf
        order = rank_scores(
            (real[0].astype(np.float16), real[1].astype(np.float16)),
            (own.visual[visual], own.text[text]),
            (real[0] > settings.t_visual * unit, real[1] > settings.t_text * unit),
        )
        found[:, :, group] = order.spearman, order.auroc, order.n_active
    return {"spearman": found[0], "auroc": found[1], "n_active": found[2]}


def _of_pairs(
    real: np.ndarray, cross: np.ndarray, group: np.ndarray, calibration: Aligned, groups: int
) -> dict[str, np.ndarray]:
    """Return the unweighted correlation, and the explained variance after calibration, [3 tokens,
    groups], of the own claim on as many exemplars as random samples.

    real, cross: sums [3, 2 roles, samples]."""
    own = calibration.predicted[CLAIMS[_OWN]]
    traces, predicted = (calibration.visual, calibration.text), (own.visual, own.text)
    sums = []
    for offsets, x, y in zip(calibration.offsets, traces, predicted, strict=True):
        sums.append(np.stack([real_sums(x, offsets), cross_sums(x, y, offsets)]))
    fitted = [by_tokens(pool(side, calibration.group, groups)) for side in np.stack(sums, axis=2)]
    scored = [by_tokens(pool(side, group, groups)) for side in (real, cross)]
    centered, uncentered = explained_variance(
        scored[0], scored[1], *calibrate(fitted[0], fitted[1])
    )
    return {
        "top_random_correlation": pearson(*scored),
        "explained_variance": centered,
        "explained_variance_uncentered": uncentered,
    }


def _detections(held_out: Aligned, calibration: Aligned, groups: int) -> dict[str, np.ndarray]:
    """Return detection measures [3 tokens, groups]."""
    strengths = {claim: predicted_strengths(held_out, claim) for claim in CLAIMS[: _OTHER + 1]}
    fit_strengths = predicted_strengths(calibration, CLAIMS[_OWN])
    names = ("detection_auroc", "detection_auroc_other", "balanced_accuracy")
    found = {name: np.full((len(TOKENS), groups), np.nan) for name in names}
    sizes = np.stack([np.bincount(one.group, minlength=groups) for one in (held_out, calibration)])
    starts = [np.searchsorted(one.group, np.arange(groups)) for one in (held_out, calibration)]
    for size, n_calibration in sorted(set(zip(*sizes.tolist(), strict=True)) - {(0, 0)}):
        chosen = np.flatnonzero((sizes[0] == size) & (sizes[1] == n_calibration))
        samples = starts[0][chosen, None] + np.arange(size)
        fitted = starts[1][chosen, None] + np.arange(n_calibration)
        for tokens in range(len(TOKENS)):
            own, other = (strength[tokens][samples] for strength in strengths.values())
            exemplar = held_out.exemplar[samples]
            threshold = find_threshold(fit_strengths[tokens][fitted], calibration.exemplar[fitted])
            found["detection_auroc"][tokens, chosen] = detection_auroc(own, exemplar)
            found["detection_auroc_other"][tokens, chosen] = detection_auroc(other, exemplar)
            found["balanced_accuracy"][tokens, chosen] = balanced_accuracy(own, exemplar, threshold)
    return found
