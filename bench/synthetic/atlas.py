"""Make a whole synthetic atlas."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from bench.synthetic.layer import write_layer
from bench.synthetic.samples import write_synthetic_samples
from bench.synthetic.sizes import Sizes
from bench.synthetic.words import THINGS, random_explanation
from neuron_atlas.tasks.artifacts import SCORE_AGGREGATES, write_table
from neuron_atlas.tasks.report.inputs import LayerFiles, SampleFiles

_SMALL = Sizes()


@dataclass(frozen=True)
class SyntheticAtlas:
    """Files of a synthetic atlas, in the form that the site writer reads."""

    layers: tuple[LayerFiles, ...]
    samples: SampleFiles
    aggregates: tuple[Path, ...]
    top_n: int


def write_synthetic_atlas(
    folder: Path,
    sizes: Sizes = _SMALL,
    explainers: Sequence[str] = ("gpt4o", "dissect"),
    word: Callable[[np.random.Generator], str] = random_explanation,
    tokens: Sequence[str] = (),
    seed: int = 0,
) -> SyntheticAtlas:
    """Write the tables of a synthetic atlas.

    word: returns an explanation. tokens: the tokens of every text; by default some THINGS.
    """
    text_tokens = tuple(tokens) or tuple(f" {thing}" for thing in THINGS[: sizes.text_tokens])
    samples = write_synthetic_samples(folder, sizes, text_tokens)
    layers = tuple(
        write_layer(folder, layer, sizes, explainers, word, len(text_tokens), seed + layer)
        for layer in sizes.layers
    )
    aggregates = folder / "score_aggregates.parquet"
    row = dict.fromkeys(SCORE_AGGREGATES.schema.names)
    row |= {"explainer": explainers[0] if explainers else "", "simulator": "chat", "max_q": 0.05}
    row |= {"measure": "beats_control", "tokens": "all", "by": "all", "group": ""}
    write_table(pa.Table.from_pylist([row], SCORE_AGGREGATES.schema), SCORE_AGGREGATES, aggregates)
    return SyntheticAtlas(layers, samples, (aggregates,), sizes.top_n)
