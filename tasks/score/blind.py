"""Predict a neuron without an explanation: a control that every explanation must beat.

The prediction uses only the samples that the explainer saw, never the scored ones: the neuron's
mean activation at each image position, and how its activation on text depends on token frequency.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from neuron_atlas.tasks.evidence.evidence import ActivationRecord, Evidence


@dataclass(frozen=True)
class NumberedTokens:
    """Text tokens as numbers, int64 [n_text] by sample_id. size: number of distinct tokens."""

    by_sample: Mapping[int, np.ndarray]
    size: int


def number_tokens(texts: Mapping[int, Sequence[str]]) -> NumberedTokens:
    """Number the distinct tokens of texts, ignoring case and surrounding spaces.

    texts: tokens by sample_id.
    """
    numbers: dict[str, int] = {}
    by_sample = {
        sample_id: np.array(
            [numbers.setdefault(token.strip().casefold(), len(numbers)) for token in tokens],
            dtype=np.int64,
        )
        for sample_id, tokens in texts.items()
    }
    return NumberedTokens(by_sample, len(numbers))


def predict_blindly(
    explainer: Evidence, scored: Iterable[ActivationRecord], tokens: NumberedTokens
) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Return visual and text predictions, float32 in activation units, for the `scored` samples.

    scored: only the ids and the numbers of tokens are used. explainer: the explainer's evidence;
    its exemplars and its random samples have the same total weight. A visual token's prediction is
    the mean at its position over the explainer's samples with as many visual tokens (if there are
    none, over all visual tokens). A text token's prediction is a least-squares line of activation
    over log frequency, where frequency is (1 + count) / (tokens + distinct tokens).
    """
    samples = (*explainer.exemplars, *explainer.random)
    weights = np.concatenate(
        [
            np.full(len(kind), 1 / max(1, len(kind)))
            for kind in (explainer.exemplars, explainer.random)
        ]
    )
    mean_maps = _mean_maps([one.visual for one in samples], weights)
    line = _fit_frequency(samples, weights, tokens)
    scored = list(scored)
    return (
        [_map_of_length(mean_maps, len(one.visual)) for one in scored],
        [line.predict(tokens, one) for one in scored],
    )


def _mean_maps(maps: Sequence[np.ndarray], weights: np.ndarray) -> dict[int, np.ndarray]:
    """Return the mean map by number of visual tokens; under key 0, the mean over all tokens."""
    means: dict[int, np.ndarray] = {0: np.zeros(1, np.float32)}
    total = np.array([one.sum(dtype=np.float64) for one in maps]) @ weights if len(maps) else 0.0
    count = np.array([len(one) for one in maps]) @ weights if len(maps) else 0.0
    if count > 0:
        means[0] = np.array([total / count], np.float32)
    for length in {len(one) for one in maps} - {0}:
        chosen = [index for index, one in enumerate(maps) if len(one) == length]
        share = (weights[chosen] / weights[chosen].sum()).astype(np.float32)
        means[length] = share @ np.stack([maps[index] for index in chosen])
    return means


def _map_of_length(mean_maps: Mapping[int, np.ndarray], n_tokens: int) -> np.ndarray:
    is_known = n_tokens in mean_maps and n_tokens
    return mean_maps[n_tokens] if is_known else mean_maps[0].repeat(n_tokens)


@dataclass(frozen=True)
class _Line:
    intercept: float
    slope: float
    log_frequency: np.ndarray

    def predict(self, tokens: NumberedTokens, sample: ActivationRecord) -> np.ndarray:
        numbers = tokens.by_sample[sample.sample_id][: len(sample.text)]
        return (self.intercept + self.slope * self.log_frequency[numbers]).astype(np.float32)


def _fit_frequency(
    samples: Sequence[ActivationRecord], weights: np.ndarray, tokens: NumberedTokens
) -> _Line:
    # The subject did not see the end of a truncated text.
    numbers = [tokens.by_sample[one.sample_id][: len(one.text)] for one in samples]
    pooled = np.concatenate([*numbers, np.empty(0, np.int64)])
    counts = np.bincount(pooled, minlength=tokens.size)
    log_frequency = np.log((1 + counts) / max(1, len(pooled) + tokens.size))
    if not len(pooled):
        return _Line(0.0, 0.0, log_frequency)
    weight = np.repeat(weights, [len(one) for one in numbers])
    weight /= weight.sum()
    x = log_frequency[pooled]
    y = np.concatenate([one.text for one in samples]).astype(np.float64)
    mean_x, mean_y = weight @ x, weight @ y
    variance = weight @ (x - mean_x) ** 2
    slope = (weight @ ((x - mean_x) * (y - mean_y))) / variance if variance > 1e-12 else 0.0
    return _Line(float(mean_y - slope * mean_x), float(slope), log_frequency)
