from dataclasses import replace

import numpy as np
import pytest

from neuron_atlas.tasks.evidence.evidence import ActivationRecord, Evidence
from neuron_atlas.tasks.explain.examples import choose_examples, peak_level
from neuron_atlas.tasks.samples.catalog import Catalog
from tests.tasks.explain.colored_patches import catalog

SCALE = 10.0
TEXTS = {
    20: "A red circle on gray .",
    21: "A green triangle on gray .",
    22: "Seven tall ships sail home .",
    23: "A red circle on gray , a red one .",
}


def excitation(sample_id: int, visual: float = 0.0, text: float = 0.0) -> ActivationRecord:
    return ActivationRecord(
        sample_id, np.array([0, visual], np.float32), np.array([text], np.float32)
    )


def evidence(
    *visual: float, kind: str = "visual", random: tuple[ActivationRecord, ...] = ()
) -> Evidence:
    """Exemplars 0, 1, 2 ... with these visual peaks."""
    seen = tuple(excitation(number, peak) for number, peak in enumerate(visual))
    return Evidence(0, 0, kind, SCALE, seen, random)


def album(**images: str) -> Catalog:
    """Twenty samples that are all red circles, and those of TEXTS; each of its own image."""
    one = replace(catalog(1)[0], text="A red circle on gray .")
    samples = {
        number: replace(one, sample_id=number, images=(str(number),)) for number in range(20)
    }
    samples |= {
        number: replace(one, sample_id=number, images=(str(number),), text=text)
        for number, text in TEXTS.items()
    }
    for name, image in images.items():
        number = int(name.removeprefix("s"))
        samples[number] = replace(samples[number], images=tuple(image.split()))
    return Catalog(samples)


def active(seen: Evidence, count: int, lower_share: float, listed: Catalog | None = None) -> list:
    examples = choose_examples(seen, listed or album(), count, lower_share, 0)
    return [one.sample_id for one in examples.active]


FALLING = evidence(*np.linspace(10, 2, 20))


def test_without_a_lower_share_the_strongest_are_shown_in_order():
    assert active(FALLING, 4, 0.0) == [0, 1, 2, 3]


def test_the_lower_share_comes_from_the_middle_of_equal_parts_of_the_rest():
    chosen = active(FALLING, 8, 0.25)
    assert chosen[:6] == [0, 1, 2, 3, 4, 5]
    # Ranks 6 to 12 and 13 to 19 are the two parts.
    assert chosen[6:] == [9, 16]
    assert active(FALLING, 4, 1.0) == [2, 7, 12, 17]


def test_all_are_shown_where_there_are_no_more_than_asked_for():
    assert active(evidence(9, 8, 7), 8, 0.25) == [0, 1, 2]
    assert active(evidence(9, 8, 7, 6), 4, 0.5) == [0, 1, 2, 3]


def test_an_image_is_shown_once_by_its_strongest_sample():
    listed = album(s1="0", s2="0", s4="3")
    assert active(evidence(9, 8, 7, 6, 5, 4), 3, 0.0, listed) == [0, 3, 5]


def test_a_sample_that_shares_any_image_with_a_shown_one_is_not_shown():
    listed = album(s0="0 a", s1="b a", s2="b")
    assert active(evidence(9, 8, 7, 6), 2, 0.0, listed) == [0, 2]


def test_samples_without_images_are_not_taken_for_one():
    listed = album(s0="", s1="")
    assert active(evidence(9, 8, 7), 2, 0.0, listed) == [0, 1]


@pytest.mark.parametrize(
    ("kind", "level"), [("visual", 2), ("text", 7), ("multi-modal", 7), ("unknown", 7)]
)
def test_a_peak_is_that_of_the_tokens_that_are_shown(kind, level):
    assert peak_level(excitation(0, 2.2, 6.9), evidence(kind=kind)) == level


def test_a_sample_that_is_silent_where_it_would_be_shown_is_not():
    seen = Evidence(0, 0, "visual", SCALE, (excitation(0, 0.4, 9.0), excitation(1, 3.0)), ())
    assert active(seen, 4, 0.0) == [1]
    assert active(replace(seen, type="multi-modal"), 4, 0.0) == [0, 1]
    assert active(replace(seen, scale=0.0), 4, 0.0) == []


def contrasts(count: int, *random: ActivationRecord, listed: Catalog | None = None) -> list[int]:
    seen = evidence(9, 8, random=random)
    examples = choose_examples(seen, listed or album(), 4, 0.0, count)
    assert examples.sample_ids == (0, 1, *(one.sample_id for one in examples.contrasts))
    return [one.sample_id for one in examples.contrasts]


SILENT = tuple(excitation(number) for number in TEXTS)


def test_contrasts_are_the_silent_samples_whose_texts_are_most_alike():
    assert contrasts(2, *SILENT) == [20, 23]
    assert contrasts(1, *reversed(SILENT)) == [20]
    assert contrasts(0, *SILENT) == []


def test_what_shares_only_common_words_comes_last_and_what_shares_none_never():
    assert contrasts(9, *SILENT)[:3] == [20, 23, 21]
    without_the_full_stop = album()
    ships = replace(without_the_full_stop[22], text="Seven tall ships sail home")
    without_the_full_stop.samples[22] = ships
    assert contrasts(9, *SILENT, listed=without_the_full_stop) == [20, 23, 21]


def test_a_sample_that_excites_the_neuron_somewhere_is_no_contrast():
    assert contrasts(1, excitation(20, visual=1.5), excitation(21)) == [21]
    assert contrasts(1, excitation(20, text=1.5), excitation(21)) == [21]
    assert contrasts(1, excitation(20, visual=0.5), excitation(21)) == [20]


def test_another_caption_of_a_shown_image_is_no_contrast():
    assert contrasts(1, *SILENT[:2], listed=album(s20="1")) == [21]


def test_a_neuron_without_active_samples_has_no_contrasts_either():
    seen = evidence(0.1, random=SILENT)
    assert choose_examples(seen, album(), 4, 0.0, 2).sample_ids == ()


def test_which_contrasts_are_taken_does_not_depend_on_other_neurons_samples():
    larger = album()
    larger.samples[99] = replace(larger[22], sample_id=99, text="red red red circle circle gray")
    assert contrasts(4, *SILENT, listed=larger) == contrasts(4, *SILENT)
