from neuron_atlas.tasks.capture.settings import CaptureSettings
from neuron_atlas.tasks.evidence.held_out import (
    HeldOut,
    evidence_samples,
    held_out,
    samples_needed,
)
from neuron_atlas.tasks.evidence.settings import EvidenceSettings

SETTINGS = EvidenceSettings()
NO_IMAGES: dict[int, tuple[str, ...]] = dict.fromkeys(range(1000), ())


def chosen(count: int, top_n: int) -> HeldOut:
    return held_out(*evidence_samples(range(count), top_n, SETTINGS), NO_IMAGES)


def top_n_of(count: int) -> int:
    return CaptureSettings().for_samples(count).top_n


def test_top_n_is_lowered_to_half_of_a_small_dataset():
    assert [top_n_of(count) for count in (1, 5, 16, 99, 100, 10**6)] == [1, 2, 8, 49, 50, 50]
    assert CaptureSettings(max_exemplar_share=1.0).for_samples(16).top_n == 16


def test_sixteen_photographs_have_two_exemplars_and_four_others_held_out():
    assert chosen(16, top_n_of(16)) == HeldOut(2, 4)
    assert chosen(16, 8).n_scored == 4


def test_without_other_samples_nothing_can_be_scored():
    assert chosen(16, 16) == HeldOut(4, 0)
    assert chosen(16, 16).n_scored == 0


def test_the_number_needed_is_the_smallest_that_can_be_scored():
    needed = samples_needed(top_n_of, SETTINGS, 4)
    assert needed == 12
    assert chosen(needed, top_n_of(needed)).n_scored >= 4
    assert chosen(needed - 1, top_n_of(needed - 1)).n_scored < 4
    assert samples_needed(top_n_of, SETTINGS, 2) == 4


def test_no_number_is_enough_without_random_samples():
    assert samples_needed(top_n_of, EvidenceSettings(random_samples=0), 4) is None


def test_samples_that_share_an_image_are_held_out_together():
    images = {one: (f"image-{one // 4}",) for one in range(16)}
    shared = held_out(*evidence_samples(range(16), 8, SETTINGS), images)
    assert shared != chosen(16, 8)
