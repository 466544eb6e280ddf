from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from neuron_atlas.tasks.artifacts import NEURON_TESTS, read_table, write_table
from neuron_atlas.tasks.artifacts.histogram import BINS, BLOCKS, bin_edges
from neuron_atlas.tasks.classify.decide import decide_types
from neuron_atlas.tasks.classify.exchange import exchange_p
from neuron_atlas.tasks.classify.paper import PaperRule
from neuron_atlas.tasks.classify.tested import TESTS, RateRule
from neuron_atlas.tasks.statistics.false_discovery import q_values
from tests.tasks.classify.counted import LOUD, even, histograms, two_levels
from tests.tasks.classify.test_paper import BOTH, TEXT, VISUAL, exemplars, moments

RULE = RateRule()
GRID = (0.001, 0.01, 0.05, 0.1, 0.2, 0.5)


def typed(histograms: pa.Table, folder: Path, rule: RateRule = RULE) -> list[dict[str, Any]]:
    """The finished rows of one layer."""
    write_table(rule.test(histograms), NEURON_TESTS, folder / "tests.parquet")
    decide_types(rule, [folder / "tests.parquet"], [folder / "types.parquet"])
    return read_table(folder / "types.parquet", NEURON_TESTS).to_pylist()


# High and all tokens of each role in each of 16 blocks.
KINDS = {
    (50, 1000, 0, 100): "visual",
    (50, 1000, 1, 400): "visual",
    (0, 1000, 5, 100): "text",
    (50, 1000, 5, 100): "multi-modal",
    (50, 1000, 15, 100): "multi-modal",
    (0, 1000, 0, 100): "silent",
}


@pytest.mark.parametrize(("counts", "kind"), KINDS.items())
def test_a_neuron_is_what_its_high_tokens_are(counts, kind, tmp_path):
    (row,) = typed(even([counts]), tmp_path)
    assert row["type_tested"] == kind


def test_a_row_says_what_was_counted(tmp_path):
    (row,) = typed(even([(50, 1000, 2, 100)]), tmp_path)
    assert (row["high_visual"], row["high_text"]) == (16 * 50, 16 * 2)
    assert (row["rate_visual"], row["rate_text"]) == (0.05, 0.02)
    assert row["difference"] == pytest.approx(0.03)
    assert 0 < row["threshold"] <= LOUD
    exact = exchange_p(*(np.array([16 * n]) for n in (50, 1000, 2, 100)))
    assert row["p_exact"] == exact[0]
    assert (row["p_block"], row["p_both"]) == (2 / 2**16, 1 / 2**16)


def test_few_high_tokens_are_silent_and_few_more_are_undecided(tmp_path):
    none = np.zeros((1, BLOCKS), int)
    high = none.copy()
    high[0, :4] = 1
    few = two_levels(high, none + 1000, none, none + 100)
    assert typed(few, tmp_path)[0]["type_tested"] == "silent"
    high[0, 4] = 1
    (row,) = typed(two_levels(high, none + 1000, none, none + 100), tmp_path)
    assert (row["type_tested"], row["high_visual"]) == ("undecided", 5)
    assert row["p_block"] == 2 / 2**5


def test_no_difference_is_no_evidence_of_both(tmp_path):
    # Two bursts, one in each role: rates are equal, and nothing is shown.
    none = np.zeros((1, BLOCKS), int)
    visual, text = none.copy(), none.copy()
    visual[0, 3], text[0, 11] = 800, 80
    (row,) = typed(two_levels(visual, none + 1000, text, none + 100), tmp_path)
    assert row["difference"] == 0
    assert row["type_tested"] == "undecided"


def test_both_roles_must_exceed_the_share_that_is_set(tmp_path):
    weak = even([(100, 1000, 3, 100)])  # Text at 0.3 of the visual rate.
    for background, kind in ((0.2, "multi-modal"), (0.25, "multi-modal"), (0.35, "visual")):
        rule = RateRule(min_rate_ratio=background)
        assert typed(weak, tmp_path, rule)[0]["type_tested"] == kind
    mirrored = even([(3, 100, 100, 1000)])
    assert typed(mirrored, tmp_path, RateRule(min_rate_ratio=0.35))[0]["type_tested"] == "text"


def test_the_test_that_decides_is_a_setting(tmp_path):
    none = np.zeros((1, BLOCKS), int)
    burst = none.copy()
    burst[0, 7] = 500
    one_block = two_levels(burst, none + 1000, none, none + 100)
    assert (
        typed(one_block, tmp_path, RateRule(deciding_test="block"))[0]["type_tested"] == "undecided"
    )
    assert typed(one_block, tmp_path, RateRule(deciding_test="exact"))[0]["type_tested"] == "visual"


def test_the_threshold_is_a_setting(tmp_path):
    counts = np.zeros((1, BLOCKS, BINS), int)
    counts[:, :, [3, 10, 14, 20]] = [900, 60, 30, 10]
    table = histograms(counts, counts)
    (otsu,), (quantile,) = (
        typed(table, tmp_path, RateRule(threshold=name, quantile=0.9))
        for name in ("otsu", "quantile")
    )
    assert quantile["high_visual"] == quantile["high_text"] == 100 * BLOCKS
    assert otsu["high_visual"] == 10 * BLOCKS
    assert quantile["threshold"] < otsu["threshold"]


def test_a_token_in_the_first_high_bin_is_high(tmp_path):
    counts = np.zeros((1, BLOCKS, BINS), int)
    counts[:, :, [12, 13]] = [90, 10]
    (row,) = typed(histograms(counts, counts), tmp_path)
    assert row["high_visual"] == row["high_text"] == 10 * BLOCKS
    assert row["threshold"] == bin_edges()[13]


def test_blocks_without_tokens_of_a_role_are_left_out(tmp_path):
    high_visual, n_visual, high_text, n_text = np.repeat(
        np.array([50, 1000, 0, 100])[:, None, None], BLOCKS, axis=2
    )
    high_visual[0, :4] = n_visual[0, :4] = 0
    n_text[0, 4:6] = 0
    (row,) = typed(two_levels(high_visual, n_visual, high_text, n_text), tmp_path)
    assert row["p_block"] == 2 / 2**10
    assert row["rate_visual"] == 0.05


def test_without_tokens_of_a_role_nothing_is_tested_and_nothing_is_nan(tmp_path):
    (row,) = typed(even([(50, 1000, 0, 0)]), tmp_path)
    assert row["type_tested"] == "undecided"
    assert row["rate_text"] is row["difference"] is None
    assert {row[f"{kind}_{name}"] for kind in "pq" for name in TESTS} == {None}


def test_no_number_is_nan(tmp_path):
    none = (0, 0, 0, 0)
    for row in typed(even([*KINDS, none, (5, 5, 5, 5), (1000, 1000, 0, 0)]), tmp_path):
        assert not [name for name, value in row.items() if value != value]


def test_q_is_over_the_neurons_of_all_layers(tmp_path):
    rng = np.random.default_rng(1)
    layers = []
    for rate in (0.02, 0.05, 0.03):
        visual = rng.binomial(1000, rate, (40, BLOCKS))
        text = rng.binomial(100, 0.03, (40, BLOCKS))
        full = np.ones((40, BLOCKS), int)
        layers.append(RULE.test(two_levels(visual, 1000 * full, text, 100 * full)))
    sources = [tmp_path / f"tests-{place}.parquet" for place in range(3)]
    written = [tmp_path / f"types-{place}.parquet" for place in range(3)]
    for table, path in zip(layers, sources, strict=True):
        write_table(table, NEURON_TESTS, path)
    decide_types(RULE, sources, written)
    together = read_table(written, NEURON_TESTS)
    for name in TESTS:
        p = pa.concat_tables(layers)[f"p_{name}"].to_numpy()
        np.testing.assert_array_equal(together[f"q_{name}"].to_numpy(), q_values(p))
        alone = q_values(layers[2][f"p_{name}"].to_numpy())
        assert not np.array_equal(together[f"q_{name}"].to_numpy()[80:], alone)
    unchanged = [name for name in together.column_names if name[:2] not in ("q_", "ty")]
    assert together.select(unchanged).equals(pa.concat_tables(layers).select(unchanged))


def test_the_table_of_the_paper_is_the_papers():
    of = {3: [VISUAL, ([2.5] * 4, [0.0]), BOTH], 8: [TEXT]}
    tables = exemplars(of), moments(dict.fromkeys(of, (10.0, 10.0, 10.0)))
    for paper in (PaperRule(), PaperRule(t_visual=3.0)):
        assert RateRule(paper=paper).types(*tables).equals(paper.types(*tables))
    assert not PaperRule().types(*tables).equals(PaperRule(t_visual=3.0).types(*tables))


def called_under_the_null(tested: list[pa.Table], name: str) -> dict[float, float]:
    """For each q of the grid the share of data sets in which any neuron is called: where no
    neuron differs, every call is wrong, and that share is what q bounds."""
    q = [q_values(table[f"p_{name}"].to_numpy()) for table in tested]
    return {a: float(np.mean([(values <= a).any() for values in q])) for a in GRID}


def allowed(a: float, runs: int) -> float:
    return a + 3 * np.sqrt(a * (1 - a) / runs)


def test_with_shuffled_labels_no_more_is_called_than_is_stated():
    rng = np.random.default_rng(2)
    runs, neurons = 200, 30
    full = np.ones((neurons, BLOCKS), int)
    tested = []
    for _ in range(runs):
        high = rng.binomial(220, rng.uniform(0.02, 0.4, (neurons, 1)), (neurons, BLOCKS))
        visual = rng.hypergeometric(high, 220 - high, 160)  # The labels of 220 tokens dealt out.
        tested.append(RULE.test(two_levels(visual, 160 * full, high - visual, 60 * full)))
    for name in ("exact", "block"):
        shares = called_under_the_null(tested, name)
        assert all(share <= allowed(a, runs) for a, share in shares.items()), (name, shares)
    assert called_under_the_null(tested, "exact")[0.5] > 0.2


def correlated(rng: np.random.Generator, neurons: int) -> pa.Table:
    """The roles do not differ, but a sample's tokens of one role are loud or quiet together."""
    samples, n_visual, n_text = 12 * BLOCKS, 36, 18
    shape = (neurons, samples)
    rates = rng.beta(0.3, 2.0, (2, *shape))
    visual = rng.binomial(n_visual, rates[0]).reshape(neurons, BLOCKS, -1).sum(2)
    text = rng.binomial(n_text, rates[1]).reshape(neurons, BLOCKS, -1).sum(2)
    full = np.full((neurons, BLOCKS), samples // BLOCKS)
    return two_levels(visual, n_visual * full, text, n_text * full)


def test_tokens_that_go_together_fool_the_exact_test_and_not_that_by_blocks():
    rng = np.random.default_rng(3)
    runs = 100
    tested = [RULE.test(correlated(rng, 30)) for _ in range(runs)]
    by_block = called_under_the_null(tested, "block")
    assert all(share <= allowed(a, runs) for a, share in by_block.items()), by_block
    fooled = called_under_the_null(tested, "exact")
    assert all(share > 0.95 for share in fooled.values()), fooled


def test_by_blocks_a_true_difference_is_found_among_tokens_that_go_together():
    rng = np.random.default_rng(4)
    samples = 40 * BLOCKS
    rates = rng.beta(0.3, 2.0, (2, 50, samples)) * np.array([1.0, 0.5])[:, None, None]
    visual = rng.binomial(36, rates[0]).reshape(50, BLOCKS, -1).sum(2)
    text = rng.binomial(18, rates[1]).reshape(50, BLOCKS, -1).sum(2)
    full = np.full((50, BLOCKS), samples // BLOCKS)
    q = q_values(RULE.test(two_levels(visual, 36 * full, text, 18 * full))["p_block"].to_numpy())
    assert (q <= 0.05).mean() > 0.9


def test_a_neuron_at_its_background_is_seldom_called_multi_modal():
    rng = np.random.default_rng(5)
    samples = 40 * BLOCKS
    rates = (
        rng.beta(0.3, 2.0, (2, 2000, samples)) * np.array([1.0, RULE.min_rate_ratio])[:, None, None]
    )
    visual = rng.binomial(36, rates[0]).reshape(2000, BLOCKS, -1).sum(2)
    text = rng.binomial(18, rates[1]).reshape(2000, BLOCKS, -1).sum(2)
    full = np.full((2000, BLOCKS), samples // BLOCKS)
    p = RULE.test(two_levels(visual, 36 * full, text, 18 * full))["p_both"].to_numpy()
    for a in (0.01, 0.05, 0.2):
        assert (p <= a).mean() <= a + 4 * np.sqrt(a * (1 - a) / 2000)
