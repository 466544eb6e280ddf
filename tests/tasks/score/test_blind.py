import numpy as np
import pytest

from neuron_atlas.tasks.evidence.evidence import ActivationRecord, Evidence
from neuron_atlas.tasks.score.blind import number_tokens, predict_blindly

TEXTS = {
    0: ["the", " red", " circle"],
    1: ["The", " the", " the", " blue"],
    7: [" the", " star", " red"],
    8: ["red"],
}
TOKENS = number_tokens(TEXTS)


def seen(sample_id: int, visual, text) -> ActivationRecord:
    return ActivationRecord(sample_id, np.array(visual, np.float32), np.array(text, np.float32))


def shown(exemplars, random=()) -> Evidence:
    return Evidence(0, 0, "visual", 1.0, tuple(exemplars), tuple(random))


def blindly(evidence: Evidence, *scored: ActivationRecord) -> tuple[list, list]:
    return predict_blindly(evidence, scored, TOKENS)


def test_case_and_spaces_do_not_make_another_token():
    numbers = TOKENS.by_sample
    assert numbers[0][0] == numbers[1][0] == numbers[1][1] == numbers[7][0]
    assert numbers[0][1] == numbers[7][2] == numbers[8][0]
    assert TOKENS.size == 5


def test_a_place_of_the_image_is_predicted_by_its_mean_over_the_shown_samples():
    evidence = shown([seen(0, [4, 0], [0, 0, 0]), seen(1, [2, 0], [0] * 4)])
    (visual,), _ = blindly(evidence, seen(7, [9, 9], [9, 9, 9]))
    assert visual.tolist() == [3, 0]


def test_exemplars_weigh_as_much_as_random_samples_however_many_there_are():
    exemplars = [seen(0, [4, 0], [0, 0, 0])] * 3
    (visual,), _ = blindly(shown(exemplars, [seen(1, [0, 2], [0] * 4)]), seen(7, [0, 0], [0] * 3))
    assert visual.tolist() == [2, 1]


def test_with_no_shown_sample_of_its_size_an_image_is_predicted_by_the_mean_of_all_tokens():
    evidence = shown([seen(0, [4, 1], [0, 0, 0]), seen(1, [2], [0] * 4)])
    (visual,), _ = blindly(evidence, seen(7, [9, 9, 9], [9, 9, 9]))
    assert visual == pytest.approx([7 / 3] * 3)


def test_a_sample_without_an_image_is_predicted_no_visual_token():
    evidence = shown([seen(0, [4, 1], [0, 0, 0]), seen(1, [], [0] * 4)])
    (none, some), _ = blindly(evidence, seen(7, [], [9, 9, 9]), seen(8, [9, 9], [9]))
    assert (none.tolist(), some.tolist()) == ([], [4, 1])


def test_a_text_token_is_predicted_from_its_frequency():
    """Shown: "the" four times, the others once; the neuron likes rare words."""
    evidence = shown([seen(0, [], [0, 2, 2]), seen(1, [], [0, 0, 0, 2])])
    _, (text, short) = blindly(evidence, seen(7, [], [9, 9, 9]), seen(8, [], [9]))
    the, star, red = text
    assert [the, red] == pytest.approx([0, 2], abs=1e-6)
    # Never shown, so rarer than any: frequencies (1 + n) / (7 + 5), a line through log 5, log 2.
    assert star == pytest.approx(2 + 2 * np.log(2) / np.log(5 / 2), abs=1e-5)
    assert short.tolist() == [red]


def test_it_does_not_look_at_what_is_scored():
    evidence = shown([seen(0, [1, 2], [0, 2, 1])], [seen(1, [3, 0], [0, 1, 0, 2])])
    silent, loud = (
        blindly(evidence, seen(7, [level, -level], [level, 0, -level])) for level in (0, 99)
    )
    for one, other in zip(silent, loud, strict=True):
        np.testing.assert_array_equal(one[0], other[0])


def test_a_text_that_was_cut_short_is_predicted_as_far_as_it_goes():
    evidence = shown([seen(0, [1], [0.0, 2.0]), seen(1, [1], [0.0])])
    _, (text,) = blindly(evidence, seen(7, [1], [5.0]))
    assert text.shape == (1,)


def test_without_variety_in_frequency_text_is_predicted_by_its_mean():
    evidence = shown([seen(0, [], [1, 2, 6])])
    _, (text,) = blindly(evidence, seen(7, [], [0, 0, 0]))
    assert text == pytest.approx([3, 3, 3])


def test_samples_without_tokens_are_no_trouble():
    (visual,), (text,) = blindly(shown([seen(0, [], [])]), seen(7, [1.0], [1.0]))
    assert (visual.tolist(), text.tolist()) == ([0], [0])
