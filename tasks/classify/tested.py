"""Types with evidence: the paper's, and beside them what tests on all tokens say.

A neuron's *high* tokens are those above a threshold of its own. Its rates are the shares of its
visual and of its text tokens that are high. Two questions are asked of them:

- Do the rates differ? By the exact test under exchange of all labels (exchange.py), which counts
  the tokens of one sample as independent and so calls too much; and by blocks of samples
  (blocks.py), which does not. The difference of the blocks is weighted as in Mantel and Haenszel's
  estimator, n_visual n_text / (n_visual + n_text) of each block.
- Do both roles excite it? Not to find a difference is no evidence of that, and over millions of
  tokens nearly every neuron differs a little. So there is a test of its own. The neuron's
  background is `background` times its stronger role's rate, and each role's rate must be shown to
  lie above it: rate_visual > background * rate_text and rate_text > background * rate_visual. That
  is two one-sided tests of the ratio of the rates for equivalence within a factor (Schuirmann, J.
  Pharmacokinet. Biopharm. 15, 1987), as contrasts, since rates may be 0; both must hold, so p is
  the larger of the two and needs no correction (Berger and Hsu, Statistical Science 11, 1996).
  The factor is wide, for how often a role's tokens can excite a neuron depends on how often its
  concept is seen and named: equal rates are not to be expected of one that responds to both.

The types, by q-values over all neurons of all layers (false_discovery.py):

    silent        too few high tokens to say anything
    multi-modal   both roles are shown to excite it
    visual, text  the rates differ, this role's is higher, and not both are shown to excite it
    undecided     neither is shown
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Literal

import numpy as np
import pyarrow as pa
from annotated_types import Interval

from neuron_atlas.tasks.artifacts import NEURON_TESTS
from neuron_atlas.tasks.artifacts.histogram import BINS, BLOCKS, bin_edges
from neuron_atlas.tasks.classify.blocks import two_sided_p, upper_p
from neuron_atlas.tasks.classify.exchange import exchange_p
from neuron_atlas.tasks.classify.paper import PaperRule
from neuron_atlas.tasks.classify.rule import RuleWithTests
from neuron_atlas.tasks.classify.threshold import otsu_bin, quantile_bin
from neuron_atlas.tasks.settings import AtLeastOne

_BetweenZeroAndOne = Annotated[float, Interval(gt=0, lt=1)]
TESTS = ("exact", "block", "both")


@dataclass(frozen=True)
class RateRule(RuleWithTests):
    """paper: the rule of the `types` table. threshold: how a neuron's high tokens are told, from
    the histogram of its visual and text tokens together; quantile: of these, where it is that.

    min_high: high tokens below which a neuron is silent. background: share of the stronger role's
    rate that the other's must exceed. decides: the test of the difference that decides the type.
    max_q: largest q at which a neuron is called.
    """

    paper: PaperRule = field(default_factory=PaperRule)
    threshold: Literal["otsu", "quantile"] = "otsu"
    quantile: _BetweenZeroAndOne = 0.95
    min_high: AtLeastOne = 5
    background: _BetweenZeroAndOne = 0.2
    decides: Literal["block", "exact"] = "block"
    max_q: _BetweenZeroAndOne = 0.05

    @property
    def top_n(self) -> int | None:
        """Exemplars that vote for the paper's type."""
        return self.paper.top_n

    def types(self, traces: pa.Table, moments: pa.Table) -> pa.Table:
        """The `types` rows, by the paper's rule."""
        return self.paper.types(traces, moments)

    def test(self, histograms: pa.Table) -> pa.Table:
        """The `tested_types` rows of the neurons of `histograms`, without q and type_tested."""
        by_role = [_by_block(histograms[role]) for role in ("visual", "text")]
        first = self._first_high_bin(sum(counts.sum(axis=1) for counts in by_role))
        # [neurons, blocks] of each role: its tokens, and those of them that are high.
        tokens = [counts.sum(axis=2) for counts in by_role]
        high = [_count_from(counts, first) for counts in by_role]
        n_visual, n_text = (counts.sum(axis=1) for counts in tokens)
        high_visual, high_text = (counts.sum(axis=1) for counts in high)
        rate_visual, rate_text = _rate(high_visual, n_visual), _rate(high_text, n_text)
        tested = (high_visual + high_text >= self.min_high) & (n_visual > 0) & (n_text > 0)
        p = {name: np.full(len(histograms), np.nan) for name in TESTS}
        p["exact"][tested] = exchange_p(
            *(counts[tested] for counts in (high_visual, n_visual, high_text, n_text))
        )
        p["block"][tested], p["both"][tested] = _block_tests(
            [counts[tested] for counts in high],
            [counts[tested] for counts in tokens],
            self.background,
        )
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
            **{f"q_{name}": pa.nulls(len(histograms), pa.float64()) for name in TESTS},
            "type_tested": pa.nulls(len(histograms), pa.string()),
        }
        return pa.table(columns).cast(NEURON_TESTS.schema)

    def decide(self, tested: pa.Table) -> pa.Table:
        """Rows of `tested_types` with their q: the same with type_tested."""
        differs, both = (
            tested[f"q_{name}"].to_numpy() <= self.max_q for name in (self.decides, "both")
        )
        visual = tested["difference"].to_numpy() > 0
        high = tested["high_visual"].to_numpy() + tested["high_text"].to_numpy()
        kinds = np.select(
            [high < self.min_high, both, differs & visual, differs],
            ["silent", "multi-modal", "visual", "text"],
            default="undecided",
        )
        place = tested.schema.get_field_index("type_tested")
        return tested.set_column(place, tested.schema.field(place), pa.array(kinds, pa.string()))

    def _first_high_bin(self, counts: np.ndarray) -> np.ndarray:
        if self.threshold == "otsu":
            return otsu_bin(counts)
        return quantile_bin(counts, self.quantile)


def _by_block(column: pa.ChunkedArray) -> np.ndarray:
    """Token counts int32 [neurons, BLOCKS, BINS]."""
    return column.combine_chunks().flatten().to_numpy().reshape(-1, BLOCKS, BINS)


def _count_from(counts: np.ndarray, first: np.ndarray) -> np.ndarray:
    """The tokens int64 [neurons, blocks] in bin `first` and those above."""
    is_high = np.arange(BINS) >= first[:, None]
    return np.einsum("nbk,nk->nb", counts, is_high, dtype=np.int64)


def _block_tests(
    high: list[np.ndarray], tokens: list[np.ndarray], background: float
) -> tuple[np.ndarray, np.ndarray]:
    """p of the difference and p of both roles, from counts [neurons, blocks] of each role.

    A block without tokens of one role weighs nothing.
    """
    n_visual, n_text = tokens
    visual, text = (
        counts / np.maximum(total, 1) for counts, total in zip(high, tokens, strict=True)
    )
    weight = n_visual * (n_text / np.maximum(n_visual + n_text, 1))
    both = [
        upper_p(weight * (visual - background * text)),
        upper_p(weight * (text - background * visual)),
    ]
    return two_sided_p(weight * (visual - text)), np.maximum(*both)


def _rate(high: np.ndarray, tokens: np.ndarray) -> np.ndarray:
    """high / tokens, NaN where there are no tokens."""
    return np.divide(high, tokens, out=np.full(len(high), np.nan), where=tokens > 0)


def _nullable(values: np.ndarray) -> pa.Array:
    """An Arrow array in which NaN is null."""
    return pa.array(values, from_pandas=True)
