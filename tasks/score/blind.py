"""A prediction that knows no explanation: what any explanation has to be better than.

It knows the neuron from the samples that its explainer saw, never from those that are scored: its
mean activation at each place of the image, and how its activation on text goes with the frequency
of a token. What it predicts well needs no words to be said about it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from neuron_atlas.tasks.evidence.evidence import ActivationRecord, Evidence


@dataclass(frozen=True)
class NumberedTokens:
    """The text tokens of samples as numbers, int64 [n_text] by sample_id; size: different ones."""

    by_sample: Mapping[int, np.ndarray]
    size: int


def number_tokens(texts: Mapping[int, Sequence[str]]) -> NumberedTokens:
    """Number the tokens of texts, cut at their token boundaries; case and spaces do not count."""
    known: dict[str, int] = {}
    by_sample = {
        sample_id: np.array(
            [known.setdefault(token.strip().casefold(), len(known)) for token in tokens],
            dtype=np.int64,
        )
        for sample_id, tokens in texts.items()
    }
    return NumberedTokens(by_sample, len(known))


def predict_blindly(
    shown: Evidence, scored: Iterable[ActivationRecord], tokens: NumberedTokens
) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Visual and text predictions, float32 in activation units, of the `scored` samples' tokens.

    Of `scored` only the ids and the numbers of tokens are looked at. shown: the explainer's
    evidence; its exemplars weigh as much as its random samples, however many there are. A visual
    token is predicted by the mean over the shown samples with as many visual tokens (without one,
    over all visual tokens). A text token is predicted by the least-squares line through activation
    over log frequency, (1 + times shown) / (tokens shown + different tokens).
    """
    seen = (*shown.exemplars, *shown.random)
    weights = np.concatenate(
        [np.full(len(kind), 1 / max(1, len(kind))) for kind in (shown.exemplars, shown.random)]
    )
    places = _mean_maps([one.visual for one in seen], weights)
    line = _fit_frequency(seen, weights, tokens)
    scored = list(scored)
    return (
        [_at(places, len(one.visual)) for one in scored],
        [line.predict(tokens, one) for one in scored],
    )


def _mean_maps(maps: Sequence[np.ndarray], weights: np.ndarray) -> dict[int, np.ndarray]:
    """Mean by number of tokens; under 0, the mean over all tokens."""
    means: dict[int, np.ndarray] = {0: np.zeros(1, np.float32)}
    total = np.array([one.sum(dtype=np.float64) for one in maps]) @ weights if len(maps) else 0.0
    count = np.array([len(one) for one in maps]) @ weights if len(maps) else 0.0
    if count > 0:
        means[0] = np.array([total / count], np.float32)
    for length in {len(one) for one in maps} - {0}:
        chosen = [place for place, one in enumerate(maps) if len(one) == length]
        share = (weights[chosen] / weights[chosen].sum()).astype(np.float32)
        means[length] = share @ np.stack([maps[place] for place in chosen])
    return means


def _at(places: Mapping[int, np.ndarray], tokens: int) -> np.ndarray:
    return places[tokens] if tokens in places and tokens else places[0].repeat(tokens)


@dataclass(frozen=True)
class _Line:
    level: float
    slope: float
    log_frequency: np.ndarray

    def predict(self, tokens: NumberedTokens, sample: ActivationRecord) -> np.ndarray:
        numbers = tokens.by_sample[sample.sample_id][: len(sample.text)]
        return (self.level + self.slope * self.log_frequency[numbers]).astype(np.float32)


def _fit_frequency(
    seen: Sequence[ActivationRecord], weights: np.ndarray, tokens: NumberedTokens
) -> _Line:
    # A text that was cut short has tokens that the subject was never shown.
    numbers = [tokens.by_sample[one.sample_id][: len(one.text)] for one in seen]
    pooled = np.concatenate([*numbers, np.empty(0, np.int64)])
    counts = np.bincount(pooled, minlength=tokens.size)
    log_frequency = np.log((1 + counts) / max(1, len(pooled) + tokens.size))
    if not len(pooled):
        return _Line(0.0, 0.0, log_frequency)
    weight = np.repeat(weights, [len(one) for one in numbers])
    weight /= weight.sum()
    x = log_frequency[pooled]
    y = np.concatenate([one.text for one in seen]).astype(np.float64)
    middle_x, middle_y = weight @ x, weight @ y
    spread = weight @ (x - middle_x) ** 2
    slope = (weight @ ((x - middle_x) * (y - middle_y))) / spread if spread > 1e-12 else 0.0
    return _Line(float(middle_y - slope * middle_x), float(slope), log_frequency)
