"""A whole atlas of made-up numbers and words, in the tables that a run would have left."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
from PIL import Image

from tasks.artifacts import (
    DESCRIPTIONS,
    EXPLANATIONS,
    HISTOGRAMS,
    MOMENTS,
    NEURON_TESTS,
    NEURON_TYPES,
    RANDOM_TRACES,
    RESPONSES,
    ROLES,
    SAMPLES,
    SCORE_AGGREGATES,
    SCORES,
    SIMULATIONS,
    TESTED_TYPES,
    TRACES,
    TYPES,
    TableSpec,
    exemplars,
    layer_file,
    write_table,
)
from tasks.histogram import BINS, BLOCKS
from tasks.report.site.inputs import LayerFiles, SampleFiles
from tasks.samples.source import BadSample, Concept, OpenedImage, Record


def _list(words: str) -> list[str]:
    return words.split(", ")


_THINGS = _list(
    "dogs, cats, horses, birds, elephants, zebras, giraffes, sheep, cows, bears, children, "
    "women, men, crowds, skateboards, surfboards, bicycles, motorcycles, buses, trains, "
    "aeroplanes, boats, cars, traffic-lights, signs, letters, numbers, clocks, windows, "
    "doors, chairs, tables, sofas, beds, lamps, televisions, laptops, phones, keyboards, "
    "books, bottles, cups, plates, forks, knives, spoons, bowls, bananas, apples, oranges, "
    "pizzas, cakes, sandwiches, carrots, broccoli, hot-dogs, donuts, trees, grass, flowers, "
    "leaves, branches, mountains, beaches, waves, snow, sand, clouds, skies, roads, bridges, "
    "towers, churches, fences, walls, umbrellas, handbags, ties, suitcases, kites, balls, "
    "bats, gloves, rackets, helmets, hats, shirts, shoes"
)
_LOOKS = _list(
    "red, green, blue, yellow, white, black, brown, grey, orange, pink, striped, spotted, "
    "shiny, blurred, bright, dark, round, square, long, thin, wooden, metallic, furry, wet, "
    "open, closed, small, large, distant, crowded"
)
_PLACES = _list(
    "in the foreground, in the background, near the left edge, near the right edge, along the "
    "horizon, in the lower half, at the centre, beside people, on a table, in a street, on "
    "the water, indoors"
)
_TEXTS = _list(
    "the words that name them, verbs of motion beside them, prepositions that place them, "
    "adjectives of colour, the first word of a sentence, counts such as two or several"
)


def describe(rng: np.random.Generator) -> str:
    """An explanation as a model may word it, from some million different ones."""
    thing, other = rng.choice(len(_THINGS), 2, replace=False)
    look, place, text = (rng.integers(len(words)) for words in (_LOOKS, _PLACES, _TEXTS))
    return (
        f"Image regions that show {_LOOKS[look]} {_THINGS[thing]} {_PLACES[place]}, less often "
        f"{_THINGS[other]}; in the text, {_TEXTS[text]}."
    )


@dataclass(frozen=True)
class Painted:
    """A source of flat images; the reference is a colour, and "missing" opens none."""

    side: int = 96

    @property
    def title(self) -> str:
        """See Source."""
        return "painted"

    def records(self) -> Iterable[Record]:
        """See Source: none, as the tables are made up."""
        return ()

    def probe(self) -> str:
        """See Source."""
        return ""

    def concepts(self, image: str) -> list[Concept]:
        """See Source."""
        return []

    def open_image(self, image: str) -> OpenedImage:
        """See Source."""
        if image == "missing":
            raise BadSample("missing", "no such file: <b>missing</b>")
        return OpenedImage(Image.new("RGB", (self.side, self.side), image), image)


@dataclass(frozen=True)
class MadeUp:
    """The files of an atlas, as `write_site` wants them."""

    layers: tuple[LayerFiles, ...]
    samples: SampleFiles
    aggregates: tuple[Path, ...]
    top_n: int


@dataclass(frozen=True)
class Sizes:
    """How large: held_out neurons of each layer have simulated traces; every `unexplained`th
    neuron has no explanation."""

    layers: tuple[int, ...] = (0, 1)
    neurons: int = 64
    samples: int = 40
    grid: int = 4
    text_tokens: int = 12
    top_n: int = 6
    held_out: int = 64
    unexplained: int = 8

    @property
    def with_held_out(self) -> int:
        """Neurons of a layer that have simulated traces."""
        return min(self.held_out, self.neurons)


_SMALL = Sizes()


def make_up(
    folder: Path,
    sizes: Sizes = _SMALL,
    explainers: Sequence[str] = ("gpt4o", "dissect"),
    word: Callable[[np.random.Generator], str] = describe,
    tokens: Sequence[str] = (),
    seed: int = 0,
) -> MadeUp:
    """Write the tables of a made-up atlas; word: gives explanations; tokens: of every text."""
    said = tuple(tokens) or tuple(f" {_THINGS[place]}" for place in range(sizes.text_tokens))
    samples = _samples(folder, sizes, said)
    layers = tuple(
        _layer(folder, layer, sizes, explainers, word, len(said), seed + layer)
        for layer in sizes.layers
    )
    aggregates = folder / "score_aggregates.parquet"
    row = dict.fromkeys(SCORE_AGGREGATES.schema.names)
    row |= {"explainer": explainers[0] if explainers else "", "simulator": "chat", "level": 0.05}
    row |= {"measure": "beats_control", "tokens": "all", "by": "all", "group": ""}
    write_table(pa.Table.from_pylist([row], SCORE_AGGREGATES.schema), SCORE_AGGREGATES, aggregates)
    return MadeUp(layers, samples, (aggregates,), sizes.top_n)


def _samples(folder: Path, sizes: Sizes, tokens: Sequence[str]) -> SampleFiles:
    rng = np.random.default_rng(7)
    listed, described = [], []
    for sample_id in range(sizes.samples):
        colour = "#{:02x}{:02x}{:02x}".format(*rng.integers(256, size=3))
        image = "missing" if sample_id == 1 else colour
        common = {"sample_id": sample_id, "status": "ok", "reason": ""}
        listed.append(
            common
            | {"source_id": f"{tokens[0].strip()}-{sample_id}", "images": [image], "width": 96}
            | {"image_sha256": image, "height": 96, "text": "".join(tokens)}
        )
        region = {"image": 0, "rows": sizes.grid, "columns": sizes.grid, "left": 0.0, "top": 0.0}
        described.append(
            common
            | {"text": "".join(tokens), "text_source": "given", "tokens": list(tokens)}
            | {"n_visual": sizes.grid**2, "n_text": len(tokens)}
            | {"regions": [region | {"right": 96.0, "bottom": 96.0}]}
        )
    paths = {}
    for spec, rows in ((SAMPLES, listed), (DESCRIPTIONS, described)):
        paths[spec.name] = folder / f"{spec.name}.parquet"
        write_table(pa.Table.from_pylist(rows, spec.schema), spec, paths[spec.name])
    return SampleFiles((paths["samples"],), (paths["descriptions"],), Painted())


def _layer(
    folder: Path,
    layer: int,
    sizes: Sizes,
    explainers: Sequence[str],
    word: Callable[[np.random.Generator], str],
    text_tokens: int,
    seed: int,
) -> LayerFiles:
    rng = np.random.default_rng(seed)
    count = sizes.neurons
    who = {
        "layer": pa.array(np.full(count, layer, np.int16)),
        "neuron": pa.array(np.arange(count, dtype=np.int32)),
    }

    def write(spec: TableSpec, table: pa.Table) -> Path:
        path = folder / layer_file(spec.name, layer)
        write_table(table.select(spec.schema.names).cast(spec.schema), spec, path)
        return path

    code = rng.choice(4, count, p=(0.15, 0.35, 0.35, 0.15))
    shares = rng.dirichlet((0.4, 0.4, 0.4, 0.4), count).astype(np.float32)
    shares[np.arange(count), code] += 1
    shares /= shares.sum(axis=1, keepdims=True)
    scale = rng.lognormal(0.5, 0.8, count).astype(np.float32)
    types = pa.table(
        who
        | {f"p_{name}": shares[:, place] for place, name in enumerate(_SHARES)}
        | {"type": pa.array(TYPES).take(pa.array(code)), "scale": scale}
        | {"n_exemplars": np.full(count, sizes.top_n, np.int16)}
    )
    ids = (np.arange(count)[:, None] * 7 + np.arange(sizes.top_n) * 3 + layer) % sizes.samples
    strength = np.sort(rng.uniform(0.5, 1, (count, sizes.top_n)), axis=1)[:, ::-1]
    peaks = (strength * scale[:, None]).astype(np.float32)
    ranked = {"sample_id": ids, "peak": peaks, "peak_role": ids % 2, "peak_token": ids % 3}
    spec = exemplars(sizes.top_n)
    slots = {
        name: pa.FixedSizeListArray.from_arrays(pa.array(values.ravel()), sizes.top_n)
        for name, values in ranked.items()
    }
    captured = {
        "exemplars": write(spec, pa.table(who | slots)),
        "traces": write(TRACES, _traces(rng, layer, ids, peaks, sizes, text_tokens)),
        "random_traces": write(
            RANDOM_TRACES,
            _traces(
                rng,
                layer,
                np.tile([2, 3], (sizes.with_held_out, 1)),
                peaks[: sizes.with_held_out, -2:] / 2,
                sizes,
                text_tokens,
            ),
        ),
        "histograms": write(HISTOGRAMS, _histograms(rng, who, count)),
        "moments": write(MOMENTS, _moments(rng, who, count)),
    }
    said, scored, simulated = _accounts(rng, layer, sizes, explainers, word, code, ids, text_tokens)
    return LayerFiles(
        layer=layer,
        captured=captured,
        types=write(NEURON_TYPES, types),
        tested_types=write(NEURON_TESTS, _tested(rng, who, count)),
        responses=write(RESPONSES, _responses(rng, who, count)),
        explanations=(write(EXPLANATIONS, said),),
        simulations=(write(SIMULATIONS, simulated),),
        scores=(write(SCORES, scored),),
    )


_SHARES = ("visual", "text", "multimodal", "unknown")


def _traces(
    rng: np.random.Generator,
    layer: int,
    ids: np.ndarray,
    peaks: np.ndarray,
    sizes: Sizes,
    text_tokens: int,
) -> pa.Table:
    neurons, ranks = ids.shape

    def lists(tokens: int) -> pa.LargeListArray:
        values = rng.beta(0.4, 3, (neurons * ranks, tokens)) * peaks.reshape(-1, 1)
        values[:, rng.integers(tokens)] = peaks.ravel()
        offsets = np.arange(neurons * ranks + 1, dtype=np.int64) * tokens
        return pa.LargeListArray.from_arrays(offsets, values.astype(np.float16).ravel())

    return pa.table(
        {
            "layer": np.full(ids.size, layer, np.int16),
            "neuron": np.repeat(np.arange(neurons, dtype=np.int32), ranks),
            "rank": np.tile(np.arange(ranks, dtype=np.int16), neurons),
            "sample_id": ids.ravel().astype(np.int32),
            "visual": lists(sizes.grid**2),
            "text": lists(text_tokens),
        }
    )


def _histograms(rng: np.random.Generator, who: dict, count: int) -> pa.Table:
    shape = 2000 * np.exp(-np.arange(BINS) / 2.5)
    columns = {
        role: pa.FixedSizeListArray.from_arrays(
            rng.poisson(shape, (count, BLOCKS, BINS)).astype(np.int32).ravel(), BLOCKS * BINS
        )
        for role in ("visual", "text")
    }
    return pa.table(who | columns)


def _moments(rng: np.random.Generator, who: dict, count: int) -> pa.Table:
    columns = dict(who)
    for role in ROLES:
        columns |= {
            f"n_{role}": np.full(count, 100_000),
            f"nonfinite_{role}": np.zeros(count, np.int64),
            **{f"{name}_{role}": rng.random(count) for name in ("mean", "m2", "max", "positive")},
        }
    return pa.table(columns)


def _tested(rng: np.random.Generator, who: dict, count: int) -> pa.Table:
    columns = {
        name: np.zeros(count) for name in NEURON_TESTS.schema.names if name not in ("type_tested",)
    } | who
    code = rng.choice(len(TESTED_TYPES), count, p=(0.1, 0.3, 0.4, 0.15, 0.05))
    return pa.table(columns | {"type_tested": pa.array(TESTED_TYPES).take(pa.array(code))})


def _responses(rng: np.random.Generator, who: dict, count: int) -> pa.Table:
    columns: dict = dict.fromkeys(RESPONSES.schema.names, pa.nulls(count)) | who
    words = [[_THINGS[place]] for place in rng.integers(len(_THINGS), size=count)]
    shares = pa.array([[0.5]] * count, pa.list_(pa.float64()))
    return pa.table(
        columns | {"favourites": words, "favourite_shares": shares, "seen_words": words}
    )


def _accounts(
    rng: np.random.Generator,
    layer: int,
    sizes: Sizes,
    explainers: Sequence[str],
    word: Callable[[np.random.Generator], str],
    code: np.ndarray,
    ids: np.ndarray,
    text_tokens: int,
) -> tuple[pa.Table, pa.Table, pa.Table]:
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
