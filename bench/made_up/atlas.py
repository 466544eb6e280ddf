"""A whole made-up atlas."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from bench.made_up.layer import write_layer
from bench.made_up.samples import write_samples
from bench.made_up.sizes import Sizes
from bench.made_up.words import THINGS, describe
from neuron_atlas.tasks.artifacts import SCORE_AGGREGATES, write_table
from neuron_atlas.tasks.report.inputs import LayerFiles, SampleFiles

_SMALL = Sizes()


@dataclass(frozen=True)
class MadeUp:
    """The files of an atlas, as `write_site` wants them."""

    layers: tuple[LayerFiles, ...]
    samples: SampleFiles
    aggregates: tuple[Path, ...]
    top_n: int


def make_up(
    folder: Path,
    sizes: Sizes = _SMALL,
    explainers: Sequence[str] = ("gpt4o", "dissect"),
    word: Callable[[np.random.Generator], str] = describe,
    tokens: Sequence[str] = (),
    seed: int = 0,
) -> MadeUp:
    """Write the tables of a made-up atlas; word: gives explanations; tokens: of every text."""
    said = tuple(tokens) or tuple(f" {THINGS[place]}" for place in range(sizes.text_tokens))
    samples = write_samples(folder, sizes, said)
    layers = tuple(
        write_layer(folder, layer, sizes, explainers, word, len(said), seed + layer)
        for layer in sizes.layers
    )
    aggregates = folder / "score_aggregates.parquet"
    row = dict.fromkeys(SCORE_AGGREGATES.schema.names)
    row |= {"explainer": explainers[0] if explainers else "", "simulator": "chat", "level": 0.05}
    row |= {"measure": "beats_control", "tokens": "all", "by": "all", "group": ""}
    write_table(pa.Table.from_pylist([row], SCORE_AGGREGATES.schema), SCORE_AGGREGATES, aggregates)
    return MadeUp(layers, samples, (aggregates,), sizes.top_n)
