"""Make synthetic explanations of neurons, with scores and simulated traces."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pyarrow as pa

from bench.synthetic.sizes import Sizes
from neuron_atlas.tasks.artifacts import EXPLANATIONS, SCORES, SIMULATIONS, TYPES, TableSpec


def make_explanations(
    rng: np.random.Generator,
    layer: int,
    sizes: Sizes,
    explainers: Sequence[str],
    word: Callable[[np.random.Generator], str],
    code: np.ndarray,
    ids: np.ndarray,
    text_tokens: int,
) -> tuple[pa.Table, pa.Table, pa.Table]:
    """Return rows of `explanations`, `scores` and `simulations` of a layer.

    word: returns an explanation. code: int [neurons], each neuron's index in TYPES. ids: int
    [neurons, top_n], sample_ids of its exemplars.
    """
    explanations, scores, simulations = (
        [spec.schema.empty_table()] for spec in (EXPLANATIONS, SCORES, SIMULATIONS)
    )
    explained = np.array([n for n in range(sizes.neurons) if n % sizes.unexplained], np.int32)
    for explainer in explainers:
        texts = [word(rng) for _ in explained]
        explanations.append(_explanations(rng, layer, explained, explainer, texts, code))
        scores.append(_scores(rng, layer, explained, explainer, code))
        held_out = explained[explained < sizes.with_held_out]
        if len(held_out):
            simulations.append(
                _simulations(rng, layer, held_out, explainer, ids, sizes, text_tokens)
            )
    return pa.concat_tables(explanations), pa.concat_tables(scores), pa.concat_tables(simulations)


def _filled(spec: TableSpec, rows: int, columns: dict) -> pa.Table:
    """Return a table of `spec` whose other columns are null."""
    arrays = [
        pa.array(columns[field.name], field.type)
        if isinstance(columns.get(field.name), list)
        else pa.array(columns[field.name]).cast(field.type)
        if field.name in columns
        else pa.nulls(rows, field.type)
        for field in spec.schema
    ]
    return pa.Table.from_arrays(arrays, schema=spec.schema)


def _explanations(
    rng: np.random.Generator,
    layer: int,
    neurons: np.ndarray,
    explainer: str,
    texts: Sequence[str],
    code: np.ndarray,
) -> pa.Table:
    count = len(neurons)
    failed = rng.random(count) < 0.02
    return _filled(
        EXPLANATIONS,
        count,
        {
            "layer": np.full(count, layer),
            "neuron": neurons,
            "explainer": [explainer] * count,
            "type": [TYPES[code[neuron]] for neuron in neurons],
            "text": [
                "" if is_failed else text for is_failed, text in zip(failed, texts, strict=True)
            ],
            "evidence_for": [
                "" if is_failed else f"It peaks so: {text[:60]}"
                for is_failed, text in zip(failed, texts, strict=True)
            ],
            "evidence_against": [""] * count,
            "confidence": rng.random(count),
            "status": ["refused" if is_failed else "ok" for is_failed in failed],
            "reason": ["it would not say" if is_failed else "" for is_failed in failed],
            "model": ["gpt-4o-2024-11-20"] * count,
        },
    )


def _scores(
    rng: np.random.Generator, layer: int, neurons: np.ndarray, explainer: str, code: np.ndarray
) -> pa.Table:
    count = len(neurons)
    score = np.clip(rng.normal(0.35, 0.25, count), -1, 1)
    control = np.clip(rng.normal(0.1, 0.15, count), -1, 1)
    undefined = rng.random(count) < 0.03
    measures = {
        "correlation": score,
        "ci_low": score - 0.08,
        "ci_high": score + 0.08,
        "control_other": control,
        "margin": score - control,
        "margin_low": score - control - 0.08,
        "margin_high": score - control + 0.08,
        "q": rng.random(count) * (score < 0.5),
    }
    return _filled(
        SCORES,
        count,
        {
            "layer": np.full(count, layer),
            "neuron": neurons,
            "explainer": [explainer] * count,
            "simulator": ["chat"] * count,
            "tokens": ["all"] * count,
            "type": [TYPES[code[neuron]] for neuron in neurons],
            "status": ["no_variance" if is_undefined else "ok" for is_undefined in undefined],
            "reason": [""] * count,
            "n_samples": np.full(count, 24),
            "n_tokens": np.full(count, 9000),
            **{
                name: pa.array(values, mask=undefined, from_pandas=True)
                for name, values in measures.items()
            },
        },
    )


def _simulations(
    rng: np.random.Generator,
    layer: int,
    neurons: np.ndarray,
    explainer: str,
    ids: np.ndarray,
    sizes: Sizes,
    text_tokens: int,
) -> pa.Table:
    chosen = np.concatenate([ids[neurons, -2:], np.tile([2, 3], (len(neurons), 1))], axis=1)
    rows = chosen.size

    def lists(tokens: int) -> pa.LargeListArray:
        values = rng.integers(0, 11, rows * tokens).astype(np.float16)
        return pa.LargeListArray.from_arrays(np.arange(rows + 1, dtype=np.int64) * tokens, values)

    return _filled(
        SIMULATIONS,
        rows,
        {
            "layer": np.full(rows, layer),
            "neuron": np.repeat(neurons, 4),
            "explainer": [explainer] * rows,
            "simulator": ["chat"] * rows,
            "explanation": ["own"] * rows,
            "explanation_layer": np.full(rows, layer),
            "explanation_neuron": np.repeat(neurons, 4),
            "sample_id": chosen.ravel(),
            "stratum": ["exemplar", "exemplar", "random", "random"] * len(neurons),
            "purpose": ["scorer"] * rows,
            "visual": lists(sizes.grid**2),
            "text": lists(text_tokens),
            "estimator": ["made up"] * rows,
            "status": ["ok"] * rows,
            "reason": [""] * rows,
        },
    )
