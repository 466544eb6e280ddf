"""Predict a neuron without an explanation: a control that every explanation must beat.

The prediction uses only the samples that the explainer saw, never the scored ones: the neuron's
mean activation at each image position, and how its activation on text depends on token frequency.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, chain, count

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
    numbers: dict[str, int] = defaultdict(count().__next__)

    class ByToken(dict[str, int]):
        def __missing__(self, token: str) -> int:
            self[token] = numbers[token.strip().casefold()]
            return self[token]

    lengths = [len(tokens) for tokens in texts.values()]
    every = chain.from_iterable(texts.values())
    pooled = np.fromiter(map(ByToken().__getitem__, every), np.int64, sum(lengths))
    return NumberedTokens(dict(zip(texts, _cut(pooled, lengths), strict=True)), len(numbers))


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
    scored = list(scored)
    lengths = [len(one.visual) for one in scored]
    mean_maps = _mean_maps([one.visual for one in samples], weights, set(lengths))
    line = _fit_frequency(samples, weights, tokens)
    return [mean_maps[length] for length in lengths], line.predict(tokens, scored)


def _mean_maps(
    maps: Sequence[np.ndarray], weights: np.ndarray, lengths: set[int]
) -> dict[int, np.ndarray]:
    """Return the mean map by number of visual tokens, for all `lengths`; where no map has as many
    tokens, the mean over all tokens."""
    means: dict[int, np.ndarray] = {}
    for length in lengths:
        chosen = [index for index, one in enumerate(maps) if len(one) == length] if length else []
        if chosen:
            share = (weights[chosen] / weights[chosen].sum()).astype(np.float32)
            means[length] = share @ np.stack([maps[index] for index in chosen])
        else:
            means[length] = np.full(length, _mean_activation(maps, weights), np.float32)
    return means


def _mean_activation(maps: Sequence[np.ndarray], weights: np.ndarray) -> float:
    total = np.array([one.sum(dtype=np.float64) for one in maps]) @ weights if len(maps) else 0.0
    count = np.array([len(one) for one in maps]) @ weights if len(maps) else 0.0
    return total / count if count > 0 else 0.0


@dataclass(frozen=True)
class _Line:
    intercept: float
    slope: float
    log_frequency: np.ndarray

    def predict(
        self, tokens: NumberedTokens, samples: Sequence[ActivationRecord]
    ) -> list[np.ndarray]:
        numbers = _numbers(tokens, samples)
        pooled = np.concatenate([*numbers, np.empty(0, np.int64)])
        predicted = self.intercept + self.slope * self.log_frequency[pooled]
        return _cut(predicted.astype(np.float32), [len(one) for one in numbers])


def _fit_frequency(
    samples: Sequence[ActivationRecord], weights: np.ndarray, tokens: NumberedTokens
) -> _Line:
    numbers = _numbers(tokens, samples)
    pooled = np.concatenate([*numbers, np.empty(0, np.int64)])
    counts = np.bincount(pooled, minlength=tokens.size)
    # Few counts are different, so there are few logarithms.
    shares = (1 + np.arange(counts.max(initial=0) + 1)) / max(1, len(pooled) + tokens.size)
    log_frequency = np.log(shares)[counts]
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


def _numbers(tokens: NumberedTokens, samples: Sequence[ActivationRecord]) -> list[np.ndarray]:
    """Return the numbers of each sample's tokens without the end of a truncated text, which the
    subject did not see."""
    return [tokens.by_sample[one.sample_id][: len(one.text)] for one in samples]


def _cut(values: np.ndarray, lengths: Sequence[int]) -> list[np.ndarray]:
    """Cut an array into parts of these lengths."""
    stops = list(accumulate(lengths))
    return [values[stop - length : stop] for stop, length in zip(stops, lengths, strict=True)]
