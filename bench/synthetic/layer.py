"""Make the tables of one layer of synthetic neurons."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa

from bench.synthetic.explanations import make_explanations
from bench.synthetic.sizes import Sizes
from bench.synthetic.words import THINGS
from neuron_atlas.tasks.artifacts import (
    EVIDENCE,
    EXPLANATIONS,
    HISTOGRAMS,
    MOMENTS,
    NEURON_TESTS,
    NEURON_TYPES,
    RESPONSES,
    ROLES,
    SCORES,
    SIMULATIONS,
    TESTED_TYPES,
    TYPES,
    TableSpec,
    exemplars_spec,
    layer_file,
    write_table,
)
from neuron_atlas.tasks.artifacts.histogram import BINS, BLOCKS
from neuron_atlas.tasks.report.inputs import LayerFiles

_SHARES = ("visual", "text", "multimodal", "unknown")


def write_layer(
    folder: Path,
    layer: int,
    sizes: Sizes,
    explainers: Sequence[str],
    word: Callable[[np.random.Generator], str],
    text_tokens: int,
    seed: int,
) -> LayerFiles:
    """Write the tables of a layer. word: returns an explanation."""
    rng = np.random.default_rng(seed)
    count = sizes.neurons
    neuron_columns = {
        "layer": pa.array(np.full(count, layer, np.int16)),
        "neuron": pa.array(np.arange(count, dtype=np.int32)),
    }

    files: dict[str, tuple[Path, ...]] = {}

    def write(spec: TableSpec, table: pa.Table) -> None:
        path = folder / layer_file(spec, layer)
        write_table(table.select(spec.schema.names).cast(spec.schema), spec, path)
        files[spec.name] = (path,)

    code = rng.choice(4, count, p=(0.15, 0.35, 0.35, 0.15))
    shares = rng.dirichlet((0.4, 0.4, 0.4, 0.4), count).astype(np.float32)
    shares[np.arange(count), code] += 1
    shares /= shares.sum(axis=1, keepdims=True)
    scale = rng.lognormal(0.5, 0.8, count).astype(np.float32)
    types = pa.table(
        neuron_columns
        | {f"share_{name}": shares[:, index] for index, name in enumerate(_SHARES)}
        | {"type": pa.array(TYPES).take(pa.array(code)), "scale": scale}
        | {"n_exemplars": np.full(count, sizes.top_n, np.int16)}
    )
    ids = (np.arange(count)[:, None] * 7 + np.arange(sizes.top_n) * 3 + layer) % sizes.samples
    strength = np.sort(rng.uniform(0.5, 1, (count, sizes.top_n)), axis=1)[:, ::-1]
    peaks = (strength * scale[:, None]).astype(np.float32)
    ranked = {"sample_id": ids, "peak": peaks, "peak_role": ids % 2, "peak_token": ids % 3}
    ranked |= {
        "text_peak_token": ids % 3,
        "visual_active": ids % 5,
        "text_active": ids % 4,
        "visual_sum": 2 * peaks,
        "visual_sum_sq": peaks**2,
    }
    spec = exemplars_spec(sizes.top_n)
    slots = {
        name: pa.FixedSizeListArray.from_arrays(pa.array(values.ravel()), sizes.top_n)
        for name, values in ranked.items()
    }
    top = pa.array(peaks[:, :, None].repeat(8, 2).reshape(count, -1).tolist())
    write(spec, pa.table(neuron_columns | slots | {"visual_top": top, "text_top": top}))
    random = np.tile([2, 3], (sizes.with_held_out, 1))
    weak = peaks[: sizes.with_held_out, -2:] / 2
    rows = [
        _evidence(rng, layer, ids, peaks, sizes, text_tokens),
        _evidence(rng, layer, random, weak, sizes, text_tokens, is_random=True),
    ]
    order = [(name, "ascending") for name in ("purpose", "neuron", "stratum", "rank", "sample_id")]
    write(EVIDENCE, pa.concat_tables(rows).sort_by(order))
    write(HISTOGRAMS, _histograms(rng, neuron_columns, count))
    write(MOMENTS, make_moments(rng, neuron_columns, count))
    explanations, scores, simulations = make_explanations(
        rng, layer, sizes, explainers, word, code, ids, text_tokens
    )
    write(NEURON_TYPES, types)
    write(NEURON_TESTS, _tested(rng, neuron_columns, count))
    write(RESPONSES, _responses(rng, neuron_columns, count))
    write(EXPLANATIONS, explanations)
    write(SIMULATIONS, simulations)
    write(SCORES, scores)
    return LayerFiles(layer, files)


def _evidence(
    rng: np.random.Generator,
    layer: int,
    ids: np.ndarray,
    peaks: np.ndarray,
    sizes: Sizes,
    text_tokens: int,
    is_random: bool = False,
) -> pa.Table:
    """Return the rows of some samples. Random samples and the weakest exemplars are scored."""
    neurons, ranks = ids.shape
    stratum = "random" if is_random else "exemplar"

    def lists(tokens: int) -> pa.LargeListArray:
        values = rng.beta(0.4, 3, (neurons * ranks, tokens)) * peaks.reshape(-1, 1)
        values[:, rng.integers(tokens)] = peaks.ravel()
        offsets = np.arange(neurons * ranks + 1, dtype=np.int64) * tokens
        return pa.LargeListArray.from_arrays(offsets, values.astype(np.float16).ravel())

    return pa.table(
        {
            "layer": np.full(ids.size, layer, np.int16),
            "neuron": np.repeat(np.arange(neurons, dtype=np.int32), ranks),
            "rank": np.tile(np.where(is_random, -1, np.arange(ranks)).astype(np.int16), neurons),
            "purpose": [
                "scorer" if is_random or rank >= ranks - 2 else "explainer" for rank in range(ranks)
            ]
            * neurons,
            "stratum": [stratum] * ids.size,
            "weight": np.ones(ids.size),
            "sample_id": ids.ravel().astype(np.int32),
            "visual": lists(sizes.grid**2),
            "text": lists(text_tokens),
        }
    )


def _histograms(rng: np.random.Generator, neuron_columns: dict, count: int) -> pa.Table:
    shape = 2000 * np.exp(-np.arange(BINS) / 2.5)
    columns = {
        role: pa.FixedSizeListArray.from_arrays(
            rng.poisson(shape, (count, BLOCKS, BINS)).astype(np.int32).ravel(), BLOCKS * BINS
        )
        for role in ("visual", "text")
    }
    return pa.table(neuron_columns | columns)


def make_moments(rng: np.random.Generator, neuron_columns: dict, count: int) -> pa.Table:
    """Return `moments` of `count` neurons. neuron_columns: their columns `layer` and `neuron`."""
    columns = dict(neuron_columns)
    for role in ROLES:
        columns |= {
            f"n_{role}": np.full(count, 100_000),
            f"nonfinite_{role}": np.zeros(count, np.int64),
            **{f"{name}_{role}": rng.random(count) for name in ("mean", "m2", "max", "positive")},
        }
    return pa.table(columns)


def _tested(rng: np.random.Generator, neuron_columns: dict, count: int) -> pa.Table:
    columns = {
        name: np.zeros(count) for name in NEURON_TESTS.schema.names if name not in ("type_tested",)
    } | neuron_columns
    code = rng.choice(len(TESTED_TYPES), count, p=(0.1, 0.3, 0.4, 0.15, 0.05))
    return pa.table(columns | {"type_tested": pa.array(TESTED_TYPES).take(pa.array(code))})


def _responses(rng: np.random.Generator, neuron_columns: dict, count: int) -> pa.Table:
    columns: dict = dict.fromkeys(RESPONSES.schema.names, pa.nulls(count)) | neuron_columns
    words = [[THINGS[index]] for index in rng.integers(len(THINGS), size=count)]
    shares = pa.array([[0.5]] * count, pa.list_(pa.float64()))
    return pa.table(columns | {"top_words": words, "top_word_shares": shares, "image_words": words})
