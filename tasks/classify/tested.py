"""Type neurons by statistical tests on all tokens, in addition to the paper's rule.

A neuron's *high* tokens are those above a threshold of its own. Its rates are the shares of high
tokens among its visual and among its text tokens. There are three kinds of tests:

- Do the rates differ? The exact test (exchange.py) permutes all labels. It treats tokens of one
  sample as independent and therefore rejects too often. The block test (blocks.py) compares blocks
  of samples and does not. Blocks are weighted as in the Mantel-Haenszel estimator, by
  n_visual n_text / (n_visual + n_text).
- Do both roles activate the neuron? A missing difference is no evidence of that, and over millions
  of tokens nearly every neuron differs a little, so this is a separate test. Each role's rate must
  exceed `min_rate_ratio` times the other role's rate: rate_visual > min_rate_ratio * rate_text and
  rate_text > min_rate_ratio * rate_visual. These are two one-sided tests for equivalence of the
  rates within a factor (Schuirmann, J. Pharmacokinet. Biopharm. 15, 1987), written as contrasts
  because rates may be 0. Both must hold, so p is the larger of the two and needs no correction
  (Berger and Hsu, Statistical Science 11, 1996). The factor is wide: a role's rate depends on how
  often the neuron's concept is seen or named, so a neuron that responds to both roles rarely has
  equal rates.
- Does the neuron fire at all? Noise has high tokens, too, in both roles and at equal rates. So the
  activations must differ from noise (firing.py): those of the role, or those of both together.

The types, by q-values over all neurons of all layers (false_discovery.py):

    silent        too few high tokens for a test
    multi-modal   both roles activate the neuron, and it fires in each of them
    visual, text  the rates differ, this role's rate is higher, the neuron is not multi-modal, and
                  it fires: in this role, or over the tokens of both roles
    undecided     no test is significant
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Literal

import numpy as np
import pyarrow as pa
from annotated_types import Ge, Interval

from neuron_atlas.tasks.artifacts import NEURON_TESTS
from neuron_atlas.tasks.artifacts.histogram import BINS, BLOCKS, bin_edges
from neuron_atlas.tasks.classify.exchange import exchange_p
from neuron_atlas.tasks.classify.firing import firing_p
from neuron_atlas.tasks.classify.paper import PaperRule
from neuron_atlas.tasks.classify.rule import RuleWithTests
from neuron_atlas.tasks.classify.threshold import otsu_bin, quantile_bin
from neuron_atlas.tasks.settings import AtLeastOne
from neuron_atlas.tasks.statistics.sign_flips import two_sided_p, upper_p

_BetweenZeroAndOne = Annotated[float, Interval(gt=0, lt=1)]
TESTS = ("exact", "block", "both")
FIRING_TESTS = ("fires", "fires_visual", "fires_text")
"""Tests of the activations over both roles, and in each of them."""


@dataclass(frozen=True)
class RateRule(RuleWithTests):
    """Rule that types neurons by tests of the rates of their high tokens.

    paper: the rule for the `types` table. threshold: how to choose a neuron's threshold for high
    tokens, from the histogram of its visual and text tokens: Otsu's method or a quantile. quantile:
    the quantile, if threshold is `quantile`. min_high: with fewer high tokens a neuron is silent.
    min_rate_ratio: a neuron is multi-modal if the weaker role's rate exceeds this share of the
    stronger role's rate. noise_factor: a neuron fires if its activations depart from those of noise
    by more than this factor. deciding_test: the test of the difference that decides the type;
    `exact` takes tokens as independent and does not ask whether the neuron fires. max_q: largest q
    of a significant test.
    """

    paper: PaperRule = field(default_factory=PaperRule)
    threshold: Literal["otsu", "quantile"] = "otsu"
    quantile: _BetweenZeroAndOne = 0.95
    min_high: AtLeastOne = 5
    min_rate_ratio: _BetweenZeroAndOne = 0.2
    noise_factor: Annotated[float, Ge(1)] = 1.5
    deciding_test: Literal["block", "exact"] = "block"
    max_q: _BetweenZeroAndOne = 0.05

    @property
    def top_n(self) -> int | None:
        """Number of exemplars that vote for the paper's type; None for all captured ones."""
        return self.paper.top_n

    def activations_needed(self) -> Mapping[str, int]:
        """See Rule."""
        needed = self.paper.activations_needed()
        return {f"paper.{name}": count for name, count in needed.items()}

    def types(self, exemplars: pa.Table, moments: pa.Table) -> pa.Table:
        """Return the `types` rows of the neurons in `moments`, by the paper's rule."""
        return self.paper.types(exemplars, moments)

    def test(self, histograms: pa.Table) -> pa.Table:
        """Return `tested_types` rows of the neurons in `histograms`; q and type_tested are null."""
        by_role = [_by_block(histograms[role]) for role in ("visual", "text")]
        visual_and_text = np.add(*by_role, dtype=np.int64)
        first = self._first_high_bin(visual_and_text.sum(axis=1))
        # For each role, [neurons, blocks]: the number of tokens and of high tokens.
        tokens = [counts.sum(axis=2) for counts in by_role]
        high = [_count_from(counts, first) for counts in by_role]
        n_visual, n_text = (counts.sum(axis=1) for counts in tokens)
        high_visual, high_text = (counts.sum(axis=1) for counts in high)
        rate_visual, rate_text = _rate(high_visual, n_visual), _rate(high_text, n_text)
        tested = (high_visual + high_text >= self.min_high) & (n_visual > 0) & (n_text > 0)
        p = {name: np.full(len(histograms), np.nan) for name in (*TESTS, *FIRING_TESTS)}
        p["exact"][tested] = exchange_p(
            *(counts[tested] for counts in (high_visual, n_visual, high_text, n_text))
        )
        p["block"][tested], p["both"][tested] = _block_tests(
            [counts[tested] for counts in high],
            [counts[tested] for counts in tokens],
            self.min_rate_ratio,
        )
        for name, counts in zip(FIRING_TESTS, (visual_and_text, *by_role), strict=True):
            p[name][tested] = firing_p(counts[tested], first[tested], self.noise_factor)
        columns = {
            "layer": histograms["layer"],
            "neuron": histograms["neuron"],
            "threshold": _nullable(np.where(high_visual + high_text, bin_edges()[first], np.nan)),
            "high_visual": high_visual,
            "rate_visual": _nullable(rate_visual),
            "high_text": high_text,
            "rate_text": _nullable(rate_text),
            "difference": _nullable(rate_visual - rate_text),
            **{f"p_{name}": _nullable(values) for name, values in p.items()},
            **{f"q_{name}": pa.nulls(len(histograms), pa.float64()) for name in p},
            "type_tested": pa.nulls(len(histograms), pa.string()),
        }
        return pa.table(columns).cast(NEURON_TESTS.schema)

    def decide(self, tested: pa.Table) -> pa.Table:
        """Return `tested_types` rows with type_tested filled in; their q-values must be set."""
        differs, both, fires, fires_visual, fires_text = (
            tested[f"q_{name}"].to_numpy() <= self.max_q
            for name in (self.deciding_test, "both", *FIRING_TESTS)
        )
        not_asked = self.deciding_test == "exact"
        visual = tested["difference"].to_numpy() > 0
        high = tested["high_visual"].to_numpy() + tested["high_text"].to_numpy()
        kinds = np.select(
            [
                high < self.min_high,
                both & fires_visual & fires_text,
                differs & visual & (fires | fires_visual | not_asked),
                differs & ~visual & (fires | fires_text | not_asked),
            ],
            ["silent", "multi-modal", "visual", "text"],
            default="undecided",
        )
        index = tested.schema.get_field_index("type_tested")
        return tested.set_column(index, tested.schema.field(index), pa.array(kinds, pa.string()))

    def _first_high_bin(self, counts: np.ndarray) -> np.ndarray:
        if self.threshold == "otsu":
            return otsu_bin(counts)
        return quantile_bin(counts, self.quantile)


def _by_block(column: pa.ChunkedArray) -> np.ndarray:
    """Return the token counts of one role: int32 [neurons, BLOCKS, BINS]."""
    return column.combine_chunks().flatten().to_numpy().reshape(-1, BLOCKS, BINS)


def _count_from(counts: np.ndarray, first: np.ndarray) -> np.ndarray:
    """Count the tokens in bin `first` [neurons] and above: int64 [neurons, blocks]."""
    is_high = np.arange(BINS) >= first[:, None]
    return np.einsum("nbk,nk->nb", counts, is_high, dtype=np.int64)


def _block_tests(
    high: list[np.ndarray], tokens: list[np.ndarray], min_rate_ratio: float
) -> tuple[np.ndarray, np.ndarray]:
    """Return the p-values of the difference and of both roles, float64 [neurons] each.

    high, tokens: counts [neurons, blocks] of each role. A block without tokens of a role has
    weight 0.
    """
    n_visual, n_text = tokens
    visual, text = (
        counts / np.maximum(total, 1) for counts, total in zip(high, tokens, strict=True)
    )
    weight = n_visual * (n_text / np.maximum(n_visual + n_text, 1))
    both = [
        upper_p(weight * (visual - min_rate_ratio * text)),
        upper_p(weight * (text - min_rate_ratio * visual)),
    ]
    return two_sided_p(weight * (visual - text)), np.maximum(*both)


def _rate(high: np.ndarray, tokens: np.ndarray) -> np.ndarray:
    """Return high / tokens; NaN without tokens."""
    return np.divide(high, tokens, out=np.full(len(high), np.nan), where=tokens > 0)


def _nullable(values: np.ndarray) -> pa.Array:
    """Return an Arrow array with null for NaN."""
    return pa.array(values, from_pandas=True)
