"""Select the neurons to explain."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

import polars as pl
import pyarrow as pa

from neuron_atlas.tasks.artifacts import NEURON_TYPES, TYPE_COLUMNS
from neuron_atlas.tasks.settings import AtLeastOne

NeuronType = Literal["visual", "text", "multi-modal", "unknown"]


@dataclass(frozen=True)
class NeuronChoice:
    """Neurons to explain: an explicit list, or the purest of each layer and type.

    only: neurons as "layer:neuron"; if given, the other settings are ignored. types: types to
    select. per_layer_and_type: limit for each layer and type. count: limit in total. None: no
    limit. Raises ValueError if a name in `only` is not layer:neuron.
    """

    only: tuple[str, ...] = ()
    types: tuple[NeuronType, ...] = ("visual", "text", "multi-modal")
    per_layer_and_type: AtLeastOne | None = None
    count: AtLeastOne | None = None

    def __post_init__(self) -> None:
        for name in self.only:
            if not re.fullmatch(r"\d+:\d+", name):
                raise ValueError(f"only: {name!r} is not layer:neuron, such as 3:417")


def select_neurons_to_explain(types: pa.Table, choice: NeuronChoice) -> pa.Table:
    """Return the selected rows of `types`, sorted by layer and neuron.

    The limits select the neurons with the largest share of their own type; `count` takes them in
    turn from every layer and type. Raises ValueError if `only` names a neuron that was not
    captured.
    """
    frame = pl.from_arrow(types)
    assert isinstance(frame, pl.DataFrame)
    if choice.only:
        wanted = [tuple(map(int, name.split(":"))) for name in choice.only]
        captured = set(zip(frame["layer"], frame["neuron"], strict=True))
        absent = [pair for pair in wanted if pair not in captured]
        if absent:
            layer, neuron = absent[0]
            raise ValueError(f"only: neuron {layer}:{neuron} was not captured")
        key_types = {name: frame.schema[name] for name in ("layer", "neuron")}
        keys = pl.DataFrame(wanted, schema=key_types, orient="row")
        frame = frame.join(keys, on=list(key_types), how="semi")
    else:
        frame = _purest(frame.filter(pl.col("type").is_in(choice.types)), choice)
    return frame.sort("layer", "neuron").to_arrow().cast(NEURON_TYPES.schema)


def _purest(frame: pl.DataFrame, choice: NeuronChoice) -> pl.DataFrame:
    purity = pl.coalesce(
        pl.when(pl.col("type") == name).then(pl.col(share)) for name, share in TYPE_COLUMNS.items()
    )
    frame = (
        frame.with_columns(purity=purity)
        .sort(
            ["layer", "type", "purity", "scale", "neuron"],
            descending=[False, False, True, True, False],
        )
        .with_columns(rank=pl.int_range(pl.len()).over("layer", "type"))
    )
    if choice.per_layer_and_type is not None:
        frame = frame.filter(pl.col("rank") < choice.per_layer_and_type)
    if choice.count is not None:
        frame = frame.sort("rank", "layer", "type").head(choice.count)
    return frame.drop("purity", "rank")
