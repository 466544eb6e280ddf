import numpy as np
import pyarrow as pa
import pytest

from neuron_atlas.tasks.artifacts import SCORES, read_table, write_table
from neuron_atlas.tasks.score.significance import (
    add_significance,
    add_significance_to_files,
    contest_p,
    rounded_q_values,
    winning_margin,
)

NAN = float("nan")


def score_rows(own, other, empty=None, blind=None, **names) -> list[dict]:
    nothing = [None] * len(own)
    rows = zip(own, other, empty or nothing, blind or nothing, strict=True)
    given = {
        "explainer": "a",
        "simulator": "b",
        "tokens": "all",
        "layer": 0,
        "status": "ok",
        "p_paired": 0.0,
    } | names
    return [
        given
        | {
            "neuron": place,
            "correlation": mine,
            "control_other": theirs,
            "control_empty": nobodys,
            "control_blind": blindly,
        }
        for place, (mine, theirs, nobodys, blindly) in enumerate(rows)
    ]


def table(rows: list[dict]) -> pa.Table:
    return pa.Table.from_pylist(rows, schema=SCORES.schema)


@pytest.mark.parametrize(
    ("own", "other", "floor", "won"),
    [
        (0.8, 0.1, NAN, 0.7),
        (0.8, 0.1, 0.5, 0.3),  # The margin over the highest control.
        (0.1, 0.8, 0.5, -0.3),  # What the other would have won.
        (0.2, 0.1, 0.5, 0.0),  # Neither is better than no explanation.
        (0.3, -0.4, -0.2, 0.3),  # Who says nothing has 0, and is a control as well.
        (-0.1, -0.4, -0.3, 0.0),
        (-0.4, 0.2, NAN, -0.2),
        (NAN, 0.1, 0.5, NAN),
        (0.8, NAN, 0.5, NAN),
    ],
)
def test_a_contest_is_won_by_the_margin_over_the_highest_control(own, other, floor, won):
    found = winning_margin(np.array([own]), np.array([other]), np.array([floor]))
    np.testing.assert_allclose(found, [won], atol=1e-12)


def test_swapping_own_and_other_turns_a_contest_around():
    own, other, floor = np.random.default_rng(0).normal(size=(3, 200))
    np.testing.assert_allclose(
        winning_margin(own, other, floor), -winning_margin(other, own, floor)
    )


def test_p_counts_the_losses_that_are_as_large():
    # Losses of 0.2 and 0.5; five contests.
    won = np.array([0.6, 0.5, 0.3, -0.2, -0.5, NAN])
    expected = [1 / 5, 2 / 5, 2 / 5, 1.0, 1.0, NAN]
    np.testing.assert_allclose(contest_p(won), expected)


def test_p_values_of_chance_are_spread_evenly():
    p = np.concatenate(
        [contest_p(np.random.default_rng(seed).normal(size=400)) for seed in range(50)]
    )
    for level in (0.01, 0.05, 0.2, 0.4):
        assert (p <= level).mean() == pytest.approx(level, abs=0.02)


def test_q_leaves_out_neurons_without_a_p():
    p = np.random.default_rng(1).uniform(size=60) ** 3
    held_back = rounded_q_values(np.insert(p, 7, NAN))
    assert np.isnan(held_back[7])
    np.testing.assert_allclose(np.delete(held_back, 7), rounded_q_values(p))


def test_of_shuffled_explanations_hardly_any_run_calls_a_neuron():
    """The false discovery rate: over 300 runs in which nothing is true, at most 5 % call any."""
    called = []
    for seed in range(300):
        rng = np.random.default_rng(seed)
        # A neuron of its own mean and spread, for which two explanations are as good.
        own, other = rng.normal(rng.normal(size=150), rng.uniform(0.1, 1, size=150), (2, 150))
        q = rounded_q_values(contest_p(winning_margin(own, other, rng.normal(-1, 1, 150))))
        called.append((q <= 0.05).mean())
    assert np.mean(np.array(called) > 0) <= 0.08
    assert np.mean(called) <= 0.05


def test_among_true_ones_the_share_of_false_calls_is_at_most_q():
    shares, power = [], []
    for seed in range(200):
        rng = np.random.default_rng(seed)
        true = np.arange(300) < 120
        own, other = rng.normal(0, 0.1, (2, 300))
        own[true] += 0.5
        called = rounded_q_values(contest_p(winning_margin(own, other, np.full(300, NAN)))) <= 0.1
        shares.append((called & ~true).sum() / max(1, called.sum()))
        power.append(called[true].mean())
    assert np.mean(shares) <= 0.11
    assert np.mean(power) > 0.9


def test_judging_fills_in_p_and_q_and_changes_nothing_else():
    rows = score_rows([0.9] * 30 + [0.1, None], [0.0] * 31 + [0.3], blind=[0.2] * 32)
    judged = add_significance(table(rows))
    assert judged.schema.equals(SCORES.schema)
    assert judged.drop(["p_contest", "p", "q"]).equals(table(rows).drop(["p_contest", "p", "q"]))
    assert judged["p"].to_pylist() == pytest.approx([1 / 31] * 30 + [1.0, None])
    assert judged["q"].to_pylist() == pytest.approx([1 / 30] * 30 + [1.0, None])


def test_each_explainer_simulator_and_kind_of_tokens_is_judged_by_itself():
    families = [{}, {"explainer": "x"}, {"simulator": "x"}, {"tokens": "text"}]
    rng = np.random.default_rng(0)
    apart = [score_rows(*rng.normal(size=(2, 40)).tolist(), **names) for names in families]
    together = add_significance(table([row for rows in apart for row in rows]))
    alone = pa.concat_tables([add_significance(table(rows)) for rows in apart])
    assert together.equals(alone)


def test_no_score_below_zero_beats_its_controls_however_bad_they_are():
    judged = add_significance(table(score_rows([-0.1] * 60, [-0.4] * 60, blind=[-0.3] * 60)))
    assert set(judged["q"].to_pylist()) == {1.0}


def test_who_meets_the_level_exactly_is_called():
    """20 of 83 contests won and none lost: 1 / 20 is 0.05, whatever 1 / 83 * 83 / 20 is."""
    won = np.array([0.5] * 20 + [0.0] * 63)
    assert (rounded_q_values(contest_p(won)) <= 0.05).sum() == 20


def test_with_few_neurons_nothing_can_be_called():
    q = add_significance(table(score_rows([0.9] * 10, [0.0] * 10)))["q"].to_pylist()
    assert min(q) == pytest.approx(0.1)


def test_files_are_judged_together_and_may_be_again(tmp_path):
    rows = score_rows(*np.random.default_rng(0).normal(size=(2, 50)).tolist())
    paths = [tmp_path / name for name in ("a", "b", "c")]
    for path, part in zip(paths, (rows[:20], [], rows[20:]), strict=True):
        write_table(table(part), SCORES, path)
    judged = add_significance_to_files(paths)
    assert judged.equals(add_significance(table(rows)))
    assert read_table(paths, SCORES).equals(judged)
    assert add_significance_to_files(paths).equals(judged)
