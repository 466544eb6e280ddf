"""What made-up explainers say of neurons, with scores and simulated traces."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pyarrow as pa

from bench.made_up.sizes import Sizes
from neuron_atlas.tasks.artifacts import EXPLANATIONS, SCORES, SIMULATIONS, TYPES, TableSpec


def make_accounts(
    rng: np.random.Generator,
    layer: int,
    sizes: Sizes,
    explainers: Sequence[str],
    word: Callable[[np.random.Generator], str],
    code: np.ndarray,
    ids: np.ndarray,
    text_tokens: int,
) -> tuple[pa.Table, pa.Table, pa.Table]:
    """Rows of `explanations`, `scores` and `simulations` of a layer.

    word: gives an explanation. code: [neurons], each one's place in TYPES. ids: [neurons, top_n],
    its exemplars.
    """
    said, scored, simulated = (
        [spec.schema.empty_table()] for spec in (EXPLANATIONS, SCORES, SIMULATIONS)
    )
    explained = np.array([n for n in range(sizes.neurons) if n % sizes.unexplained], np.int32)
    for explainer in explainers:
        texts = [word(rng) for _ in explained]
        said.append(_said(rng, layer, explained, explainer, texts, code))
        scored.append(_scored(rng, layer, explained, explainer, code))
        held = explained[explained < sizes.with_held_out]
        if len(held):
            simulated.append(_simulated(rng, layer, held, explainer, ids, sizes, text_tokens))
    return pa.concat_tables(said), pa.concat_tables(scored), pa.concat_tables(simulated)


def _filled(spec: TableSpec, rows: int, columns: dict) -> pa.Table:
    """A table of `spec` whose other columns are null."""
    whole = [
        pa.array(columns[field.name], field.type)
        if isinstance(columns.get(field.name), list)
        else pa.array(columns[field.name]).cast(field.type)
        if field.name in columns
        else pa.nulls(rows, field.type)
        for field in spec.schema
    ]
    return pa.Table.from_arrays(whole, schema=spec.schema)


def _said(
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
            "text": ["" if no else text for no, text in zip(failed, texts, strict=True)],
            "evidence_for": [
                "" if no else f"It peaks so: {text[:60]}"
                for no, text in zip(failed, texts, strict=True)
            ],
            "evidence_against": [""] * count,
            "confidence": rng.random(count),
            "status": ["refused" if no else "ok" for no in failed],
            "reason": ["it would not say" if no else "" for no in failed],
            "model": ["gpt-4o-2024-11-20"] * count,
        },
    )


def _scored(
    rng: np.random.Generator, layer: int, neurons: np.ndarray, explainer: str, code: np.ndarray
) -> pa.Table:
    count = len(neurons)
    score = np.clip(rng.normal(0.35, 0.25, count), -1, 1)
    control = np.clip(rng.normal(0.1, 0.15, count), -1, 1)
    undefined = rng.random(count) < 0.03
    measure = {
        "correlation": score,
        "ci_low": score - 0.08,
        "ci_high": score + 0.08,
        "control_other": control,
        "margin": score - control,
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
            "status": ["no_variance" if no else "ok" for no in undefined],
            "reason": [""] * count,
            "n_samples": np.full(count, 24),
            "n_tokens": np.full(count, 9000),
            **{
                name: pa.array(values, mask=undefined, from_pandas=True)
                for name, values in measure.items()
            },
        },
    )


def _simulated(
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
            "claim": ["own"] * rows,
            "claim_layer": np.full(rows, layer),
            "claim_neuron": np.repeat(neurons, 4),
            "sample_id": chosen.ravel(),
            "draw": ["exemplar", "exemplar", "random", "random"] * len(neurons),
            "purpose": ["scorer"] * rows,
            "visual": lists(sizes.grid**2),
            "text": lists(text_tokens),
            "estimator": ["made up"] * rows,
            "status": ["ok"] * rows,
            "reason": [""] * rows,
        },
    )
