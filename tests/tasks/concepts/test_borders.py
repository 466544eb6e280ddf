import numpy as np

from neuron_atlas.tasks.artifacts.regions import Region
from neuron_atlas.tasks.concepts.borders import at_edge, next_to


def test_the_edge_of_a_concept_is_where_it_covers_a_patch_in_part():
    coverage = np.array([0, 0.05, 0.06, 0.5, 0.94, 0.95, 1], np.float32)
    assert at_edge(coverage).tolist() == [False, False, True, True, True, False, False]


def test_patches_touch_by_side_or_corner_within_their_region_only():
    above, below = (Region(0, 2, 3, 0, top, 3, top + 2) for top in (0, 2))
    coverage = np.zeros((2, 12), np.float32)
    coverage[0, 3], coverage[1, 8] = 0.9, 0.9
    near = next_to(coverage, [above, below]).astype(int).tolist()
    assert near[0] == [1, 1, 0, 0, 1, 0, *[0] * 6]
    assert near[1] == [*[0] * 6, 0, 1, 0, 0, 1, 1]


def test_a_patch_that_shows_the_concept_is_not_next_to_it():
    coverage = np.full((1, 4), 1, np.float32)
    assert not next_to(coverage, [Region(0, 2, 2, 0, 0, 2, 2)]).any()
