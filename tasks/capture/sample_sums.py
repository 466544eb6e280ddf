"""Layout of the sums of one sample in the compiled pass.

The sums of one role are one float32 array of SUMS rows of CHUNK_NEURONS each. Counts and tokens are
float32 too, exact up to 2^24. With one array and constant offsets, the compiler can prove that the
rows do not overlap, and vectorizes the loops over neurons without checks.
"""

from __future__ import annotations

CHUNK_NEURONS = 512
"""Neurons per chunk: a sample's activations, sums and bins fit into a core's L2 cache."""

SUM, SQUARES, ABOVE, NONFINITE, PEAK, PEAK_TOKEN = range(6)
"""Rows: sum and sum of squares of the finite activations, number of activations above 0 and of
infinite or NaN ones, highest finite activation, and the first token that reaches it."""

SUMS = 6
