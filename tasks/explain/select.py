"""Which neurons are explained."""

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

    only: "layer:neuron" each; what else is set is then ignored. types: which types to take.
    per_layer_and_type, count: at most so many of each layer and type, and in all; None for all.
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
    """The chosen rows of `types`, sorted by layer and neuron.

    The limits keep the neurons with the largest share of their own type, and `count` takes them
    in turn from every layer and type. Raises ValueError where `only` names an absent neuron.
    """
    frame = pl.from_arrow(types)
    assert isinstance(frame, pl.DataFrame)
    if choice.only:
        wanted = [tuple(map(int, name.split(":"))) for name in choice.only]
        known = set(zip(frame["layer"], frame["neuron"], strict=True))
        absent = [pair for pair in wanted if pair not in known]
        if absent:
            layer, neuron = absent[0]
            raise ValueError(f"only: neuron {layer}:{neuron} was not captured")
        keys = {name: frame.schema[name] for name in ("layer", "neuron")}
        named = pl.DataFrame(wanted, schema=keys, orient="row")
        frame = frame.join(named, on=list(keys), how="semi")
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
        .with_columns(place=pl.int_range(pl.len()).over("layer", "type"))
    )
    if choice.per_layer_and_type is not None:
        frame = frame.filter(pl.col("place") < choice.per_layer_and_type)
    if choice.count is not None:
        frame = frame.sort("place", "layer", "type").head(choice.count)
    return frame.drop("purity", "place")
