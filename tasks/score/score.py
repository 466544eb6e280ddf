"""Score explanations: predicted against real traces, beside the controls."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import polars as pl
import pyarrow as pa

from neuron_atlas.tasks.artifacts import CLAIMS, SCORES, TOKENS
from neuron_atlas.tasks.evidence.evidence import Evidence, Purpose
from neuron_atlas.tasks.score.align import GROUP, Aligned, align
from neuron_atlas.tasks.score.blind import NumberedTokens, number_tokens, predict_blindly
from neuron_atlas.tasks.score.bootstrap import bootstrap
from neuron_atlas.tasks.score.correlation import cross_sums, pearson, real_sums, varies
from neuron_atlas.tasks.score.detection import balanced_accuracy, detection_auc, find_threshold
from neuron_atlas.tasks.score.explained_variance import calibrate, explained_variance
from neuron_atlas.tasks.score.outcome import Counted, outcomes
from neuron_atlas.tasks.score.ranks import compare_order
from neuron_atlas.tasks.score.settings import ScoreSettings

_OWN, _OTHER = 0, 1
_PREDICTIONS = (*CLAIMS, "blind")
"""What is correlated with the activations: every claim, and the prediction without a claim."""


def score_neurons(
    simulations: pa.Table,
    evidence: Mapping[Purpose, Sequence[Evidence]],
    texts: Mapping[int, Sequence[str]],
    seen: Mapping[tuple[int, int, str], frozenset[int]],
    settings: ScoreSettings,
) -> pa.Table:
    """`scores` rows of the explanations in `simulations`, in its order: over all tokens, then over
    the visual and the text ones. p and q are left open, for they need all neurons.

    evidence: of the neurons, by purpose: the scorer's and the calibration's hold the real traces,
    the explainer's what the blind control is made from. texts: the text of each sample that these
    show, cut at its token boundaries. seen: for each (layer, neuron, explainer) the samples that
    the explainer saw; a simulated sample among them raises ValueError, for its score would prove
    nothing.
    """
    columns = [*GROUP, "claim", "draw", "purpose", "sample_id", "status", "reason"]
    rows = pl.DataFrame(simulations.select(columns)).with_row_index("row")
    groups = rows.group_by(GROUP, maintain_order=True).agg().with_row_index("group")
    rows = rows.join(groups, on=GROUP, how="left", maintain_order="left")
    if groups.is_empty():
        return SCORES.schema.empty_table()
    _check_unseen(rows, seen)
    held_out = align(simulations, rows, "scorer", CLAIMS, evidence["scorer"], settings.min_samples)
    aside = align(simulations, rows, "calibration", CLAIMS[:1], evidence.get("calibration", ()), 0)
    neurons = {(neuron.layer, neuron.neuron): neuron for neuron in evidence["scorer"]}
    scored = [neurons[key] for key in groups.select("layer", "neuron").rows()]
    blind = _blind(held_out, groups, evidence.get("explainer", ()), number_tokens(texts))
    real, cross = _sums(held_out, blind)
    measures = (
        _correlations(real, cross, held_out.group, len(groups), settings)
        | _orders(held_out, scored, settings)
        | _variances(real, cross, held_out.group, aside, len(groups))
        | _detections(held_out, aside, len(groups))
    )
    pooled = _by_tokens(_pool(real, held_out.group, len(groups)))
    predicted = _by_tokens(_pool(cross[_OWN], held_out.group, len(groups)))
    counted = Counted(
        samples=np.bincount(held_out.group, minlength=len(groups)),
        exemplars=np.bincount(held_out.group[held_out.exemplar], minlength=len(groups)),
        unpaired=np.stack([np.bincount(kind, minlength=len(groups)) for kind in held_out.unpaired]),
        other=np.bincount(
            held_out.group[held_out.predicted[CLAIMS[_OTHER]].made], minlength=len(groups)
        ),
        tokens=pooled[0].astype(np.int64),
        calibration=np.bincount(aside.group, minlength=len(groups)),
        real_varies=varies(*pooled),
        prediction_varies=varies(pooled[0], predicted[0], predicted[1]),
        left_out=np.stack(
            [
                np.bincount(held_out.group[out], minlength=len(groups)) > 0
                for out in held_out.left_out
            ]
        ),
    )
    return outcomes(groups, [neuron.type for neuron in scored], rows, measures, counted, settings)


def _check_unseen(rows: pl.DataFrame, seen: Mapping[tuple[int, int, str], frozenset[int]]) -> None:
    used = rows.filter(pl.col("status") == "ok").select(
        "layer", "neuron", "explainer", "sample_id", "purpose"
    )
    purposes: dict[tuple[int, int, int], str] = {}
    for layer, neuron, explainer, sample_id, purpose in used.unique().rows():
        if sample_id in seen.get((layer, neuron, explainer), frozenset()):
            raise ValueError(
                f"neuron {layer}:{neuron} would be scored on sample {sample_id}, "
                "which its explainer saw"
            )
        if purposes.setdefault((layer, neuron, sample_id), purpose) != purpose:
            raise ValueError(
                f"neuron {layer}:{neuron} would be scored on sample {sample_id}, "
                "which its predictions are calibrated on"
            )


def _blind(
    aligned: Aligned, groups: pl.DataFrame, shown: Sequence[Evidence], tokens: NumberedTokens
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The blind control's visual and text predictions, and for which samples it has any."""
    by_neuron = {(neuron.layer, neuron.neuron): neuron for neuron in shown if neuron.sample_ids}
    starts = np.searchsorted(aligned.group, np.arange(len(groups) + 1))
    visual = [np.empty(0, np.float32)]
    text = [np.empty(0, np.float32)]
    made = np.zeros(len(aligned.group), dtype=bool)
    for place, key in enumerate(groups.select("layer", "neuron").rows()):
        chosen = slice(starts[place], starts[place + 1])
        excitations = aligned.excitations[chosen]
        if key in by_neuron:
            leaked = set(by_neuron[key].sample_ids) & {one.sample_id for one in excitations}
            if leaked:
                raise ValueError(
                    f"neuron {key[0]}:{key[1]} would be scored on sample {min(leaked)}, "
                    "which its blind control is made from"
                )
            made[chosen] = True
            maps, lines = predict_blindly(by_neuron[key], excitations, tokens)
            visual += maps
            text += lines
        else:
            visual += [np.zeros_like(one.visual) for one in excitations]
            text += [np.zeros_like(one.text) for one in excitations]
    return np.concatenate(visual), np.concatenate(text), made


def _sums(aligned: Aligned, blind: tuple[np.ndarray, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Sums of the real side [3, 2 roles, samples], and with each prediction [predictions, 3, 2,
    samples]; NaN where a prediction was not made."""
    real, cross = [], []
    for role, name in enumerate(("visual", "text")):
        x = getattr(aligned, name).astype(np.float64)
        offsets = aligned.offsets[role]
        real.append(real_sums(x, offsets))
        mine = []
        for claim in CLAIMS:
            claimed = aligned.predicted[claim]
            sums = cross_sums(x, getattr(claimed, name), offsets)
            mine.append(np.where(claimed.made, sums, np.nan))
        mine.append(np.where(blind[2], cross_sums(x, blind[role], offsets), np.nan))
        cross.append(mine)
    return np.stack(real, axis=1), np.stack(cross, axis=2)


def _pool(sums: np.ndarray, group: np.ndarray, groups: int) -> np.ndarray:
    """Sums [..., groups] of each explanation's samples [..., samples]; 0 where it has none."""
    pooled = np.zeros((*sums.shape[:-1], groups))
    present, starts = np.unique(group, return_index=True)
    if len(present):
        pooled[..., present] = np.add.reduceat(sums, starts, axis=-1)
    return pooled


def _by_tokens(sums: np.ndarray) -> np.ndarray:
    """Sums [kinds, 2 roles, ...] as those over all, visual and text tokens [kinds, 3, ...]."""
    return np.concatenate([sums.sum(1, keepdims=True), sums], axis=1)


def _correlate(real: np.ndarray, cross: np.ndarray) -> np.ndarray:
    """Correlations and margin [predictions + 1, 3 tokens, ...] from pooled sums.

    The margin is over the highest control, and over 0, the correlation of whoever says nothing.
    """
    x = _by_tokens(real)
    r = np.stack([pearson(x, _by_tokens(y)) for y in cross])
    strongest = np.fmax(np.fmax.reduce(r[_OTHER:]), 0)
    return np.concatenate([r, (r[_OWN] - strongest)[None]])


def _correlations(
    real: np.ndarray,
    cross: np.ndarray,
    group: np.ndarray,
    groups: int,
    settings: ScoreSettings,
) -> dict[str, np.ndarray]:
    """Correlations of all predictions and the margin, with the intervals of own and margin."""
    found = _correlate(
        _pool(real, group, groups), np.stack([_pool(c, group, groups) for c in cross])
    )
    bounds = np.full((2, 2, len(TOKENS), groups), np.nan)
    kinds = np.concatenate([real[None], cross])
    kinds = kinds.reshape(math.prod(kinds.shape[:-1]), kinds.shape[-1])

    def measure(sums: np.ndarray) -> np.ndarray:
        parted = sums.reshape(1 + len(cross), 3, 2, *sums.shape[1:])
        return _correlate(parted[0], parted[1:])[[_OWN, -1]]

    sizes = np.bincount(group, minlength=groups)
    starts = np.searchsorted(group, np.arange(groups))
    for size in sorted(set(sizes.tolist())):
        if size < settings.min_samples:
            continue
        # Explanations with equally many samples share their bootstrap draws, as one product.
        chosen = np.flatnonzero(sizes == size)
        samples = starts[chosen, None] + np.arange(size)
        bounds[..., chosen] = bootstrap(
            kinds[:, samples], measure, settings.resamples, settings.seed
        )
    names = ("correlation", *(f"control_{name}" for name in _PREDICTIONS[1:]), "margin")
    low, high = bounds
    return dict(zip(names, found, strict=True)) | {
        "ci_low": low[0],
        "ci_high": high[0],
        "margin_low": low[1],
        "margin_high": high[1],
    }


def _orders(
    aligned: Aligned, neurons: Sequence[Evidence], settings: ScoreSettings
) -> dict[str, np.ndarray]:
    """Spearman, AUROC and active tokens [3 tokens, groups] of the own claim."""
    own = aligned.predicted[CLAIMS[_OWN]]
    bounds = np.searchsorted(aligned.group, np.arange(len(neurons) + 1))
    visual_at, text_at = (offsets[bounds] for offsets in aligned.offsets)
    found = np.full((3, len(TOKENS), len(neurons)), np.nan)
    found[2] = 0
    for place, neuron in enumerate(neurons):
        visual = slice(visual_at[place], visual_at[place + 1])
        text = slice(text_at[place], text_at[place + 1])
        real = aligned.visual[visual], aligned.text[text]
        unit = neuron.scale / 10 if neuron.scale > 0 else np.inf
        order = compare_order(
            (real[0].astype(np.float16), real[1].astype(np.float16)),
            (own.visual[visual], own.text[text]),
            (real[0] > settings.active_visual * unit, real[1] > settings.active_text * unit),
        )
        found[:, :, place] = order.spearman, order.auroc, order.n_active
    return {"spearman": found[0], "auroc": found[1], "n_active": found[2]}


def _variances(
    real: np.ndarray, cross: np.ndarray, group: np.ndarray, aside: Aligned, groups: int
) -> dict[str, np.ndarray]:
    """Explained variance [3 tokens, groups] of the own claim, calibrated on the samples `aside`."""
    own = aside.predicted[CLAIMS[_OWN]]
    sums = []
    for offsets, x, y in zip(
        aside.offsets, (aside.visual, aside.text), (own.visual, own.text), strict=True
    ):
        sums.append(np.stack([real_sums(x, offsets), cross_sums(x, y, offsets)]))
    fitted = [_by_tokens(_pool(side, aside.group, groups)) for side in np.stack(sums, axis=2)]
    scored = [_by_tokens(_pool(side, group, groups)) for side in (real, cross[_OWN])]
    centred, uncentred = explained_variance(scored[0], scored[1], *calibrate(fitted[0], fitted[1]))
    return {"explained_variance": centred, "explained_variance_uncentred": uncentred}


def _detections(held_out: Aligned, aside: Aligned, groups: int) -> dict[str, np.ndarray]:
    """Detection measures [3 tokens, groups]."""
    strengths = {claim: _strengths(held_out, claim) for claim in CLAIMS[: _OTHER + 1]}
    calibrating = _strengths(aside, CLAIMS[_OWN])
    names = ("detection_auc", "detection_auc_other", "balanced_accuracy")
    found = {name: np.full((len(TOKENS), groups), np.nan) for name in names}
    sizes = np.stack([np.bincount(one.group, minlength=groups) for one in (held_out, aside)])
    starts = [np.searchsorted(one.group, np.arange(groups)) for one in (held_out, aside)]
    for size, apart in sorted(set(zip(*sizes.tolist(), strict=True)) - {(0, 0)}):
        chosen = np.flatnonzero((sizes[0] == size) & (sizes[1] == apart))
        samples = starts[0][chosen, None] + np.arange(size)
        fitted = starts[1][chosen, None] + np.arange(apart)
        for tokens in range(len(TOKENS)):
            own, other = (strength[tokens][samples] for strength in strengths.values())
            exemplar = held_out.exemplar[samples]
            threshold = find_threshold(calibrating[tokens][fitted], aside.exemplar[fitted])
            found["detection_auc"][tokens, chosen] = detection_auc(own, exemplar)
            found["detection_auc_other"][tokens, chosen] = detection_auc(other, exemplar)
            found["balanced_accuracy"][tokens, chosen] = balanced_accuracy(own, exemplar, threshold)
    return found


def _strengths(aligned: Aligned, claim: str) -> np.ndarray:
    """Predicted strength [3 tokens, samples]: the peak, or the simulator's own answer for all
    tokens where every sample of the explanation has one; NaN without tokens or a prediction."""
    claimed = aligned.predicted[claim]
    peaks = np.full((2, len(aligned.group)), np.nan)
    for role, values in enumerate((claimed.visual, claimed.text)):
        offsets = aligned.offsets[role]
        filled = np.diff(offsets) > 0
        if filled.any():
            wide = values.astype(np.float32)
            peaks[role, filled] = np.maximum.reduceat(wide, offsets[:-1][filled])
    answered = np.isfinite(claimed.detected)
    every = np.ones(len(aligned.group), dtype=bool)
    for place in np.unique(aligned.group[~answered]):
        every[aligned.group == place] = False
    whole = np.where(every, claimed.detected, np.fmax(*peaks))
    return np.where(claimed.made, np.stack([whole, *peaks]), np.nan)
