import numpy as np
import pytest

from neuron_atlas.tasks.artifacts.histogram import BINS, BLOCKS, bin_edges, block_of


def test_bins_are_half_octaves_up_to_256():
    edges = bin_edges()
    assert len(edges) == BINS
    assert edges[:4].tolist() == [-np.inf, 2**-7, 1.5 * 2**-7, 2**-6]
    assert edges[-1] == 256.0
    assert (np.diff(edges) > 0).all()


@pytest.mark.parametrize("step", [1, 2, 16, 100])
def test_samples_fall_evenly_into_blocks_whatever_the_period_of_their_ids(step):
    counts = np.bincount(block_of(np.arange(0, 1600 * step, step)), minlength=BLOCKS)
    assert len(counts) == BLOCKS
    assert counts.min() >= 80
    assert counts.max() <= 120
