import numpy as np
import pytest

from neuron_atlas.tasks.statistics.false_discovery import q_values


def test_a_worked_example():
    p = np.array([0.01, 0.04, 0.03, 0.005, 0.6])
    np.testing.assert_allclose(q_values(p), [0.025, 0.05, 0.05, 0.025, 0.6])


def test_what_was_not_tested_has_no_q_and_changes_none():
    p = np.array([0.01, np.nan, 0.04, np.nan, 0.9])
    tested = ~np.isnan(p)
    np.testing.assert_allclose(q_values(p)[tested], q_values(p[tested]))
    assert np.isnan(q_values(p)[~tested]).all()
    assert np.isnan(q_values(np.full(3, np.nan))).all()
    assert len(q_values(np.zeros(0))) == 0


def test_q_rises_with_p_and_does_not_depend_on_their_order():
    rng = np.random.default_rng(1)
    p = rng.uniform(0, 1, 500) ** 3
    order = rng.permutation(500)
    np.testing.assert_array_equal(q_values(p)[order], q_values(p[order]))
    assert (np.diff(q_values(np.sort(p))) >= 0).all()


def test_equal_p_have_equal_q_and_p_of_0_and_1_stay():
    q = q_values(np.array([0.02, 0.02, 0.0, 1.0]))
    assert q[0] == q[1] == pytest.approx(0.08 / 3)
    assert (q[2], q[3]) == (0, 1)


@pytest.mark.parametrize("share_of_effects", [0.0, 0.3])
def test_the_share_of_wrong_calls_stays_at_what_is_allowed(share_of_effects):
    rng = np.random.default_rng(2)
    runs, tests = 400, 200
    effects = round(share_of_effects * tests)
    for allowed in (0.05, 0.1, 0.3):
        shares = []
        for _ in range(runs):
            p = rng.uniform(0, 1, tests)
            p[:effects] = rng.beta(0.05, 5, effects)
            called = q_values(p) <= allowed
            shares.append(called[effects:].sum() / max(1, called.sum()))
        noise = 3 * np.std(shares) / np.sqrt(runs)
        assert np.mean(shares) <= allowed * (1 - share_of_effects) + noise
