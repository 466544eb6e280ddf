import random

from neuron_atlas.tasks.samples.random_samples import draw_random

IDS = list(range(0, 3000, 3))


def test_the_draw_is_of_the_ids_in_ascending_order_without_repeats():
    drawn = draw_random(IDS, 32, seed=0)
    assert len(set(drawn)) == 32
    assert set(drawn) <= set(IDS)
    assert drawn == sorted(drawn)


def test_the_draw_does_not_depend_on_the_order_of_the_ids():
    shuffled = IDS.copy()
    random.Random(1).shuffle(shuffled)
    assert draw_random(shuffled, 32, seed=0) == draw_random(IDS, 32, seed=0)


def test_another_seed_draws_others():
    assert len(set(draw_random(IDS, 100, seed=0)) & set(draw_random(IDS, 100, seed=1))) < 30


def test_a_larger_draw_holds_the_smaller_one():
    assert set(draw_random(IDS, 10, seed=0)) < set(draw_random(IDS, 40, seed=0))


def test_a_few_more_samples_change_few_of_those_drawn():
    more = draw_random([*IDS, *range(3001, 3031)], 100, seed=0)
    assert len(set(more) & set(draw_random(IDS, 100, seed=0))) >= 90


def test_a_dataset_that_is_too_small_is_drawn_whole():
    assert draw_random([5, 3], 32, seed=0) == [3, 5]
    assert draw_random(IDS, 0, seed=0) == []


def test_all_parts_of_a_dataset_are_drawn_from():
    thirds = [
        sum(low <= drawn < low + 1000 for drawn in draw_random(IDS, 300, 0))
        for low in (0, 1000, 2000)
    ]
    assert min(thirds) > 70
