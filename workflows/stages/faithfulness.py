"""Faithfulness: whether neurons write what their explanations say that they respond to."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from neuron_atlas.tasks.artifacts import (
    EXPLANATIONS,
    WORDS,
    layer_file,
    read_table,
    write_table,
)
from neuron_atlas.tasks.artifacts.effects import FAITHFULNESS, OUTPUT_TOKENS
from neuron_atlas.tasks.effects.choose import choose_explained
from neuron_atlas.tasks.effects.settings import EffectsSettings
from neuron_atlas.tasks.samples.source import Source
from neuron_atlas.tasks.settings import identity
from neuron_atlas.tasks.subject.settings import HookPoint
from neuron_atlas.workflows.run.context import Context
from neuron_atlas.workflows.run.neurons import (
    NeuronPart,
    explained_identity,
    explained_parts,
    explanation_texts,
)
from neuron_atlas.workflows.run.stage import Item, Stage, Step, Worker
from neuron_atlas.workflows.run.subject import needs_subject

_PARTS = "parts"


def make_stage(explainer: str, *, is_one_of_several: bool) -> Stage:
    """Return the stage for the explanations of one explainer."""
    key = explainer if is_one_of_several else ""
    return Stage(
        "faithfulness",
        1,
        ("samples", "describe", "analyse", "effects", "explain"),
        partial(_parameters, key),
        (
            Step("faithful", "neurons", partial(_parts, explainer, key), _measure, needs_subject),
            Step("faithful", "", partial(_all_parts, key), _add_q, needs_subject),
        ),
        temporary=(_PARTS,),
        explainer=key,
    )


def _parameters(explainer: str, context: Context) -> Mapping[str, Any]:
    settings = identity(context.settings.effects)
    return {
        "faithfulness": {name: settings[name] for name in settings if name.startswith("faithful_")},
        "neurons": explained_identity(context, explainer),
    }


def _parts(explainer: str, key: str, context: Context, folder: Path) -> list[Item]:
    settings = context.settings
    files = {path.name: path for path in context.paths("explain", "explanations", key)}
    chosen = choose_explained(
        explanation_texts(context, key), settings.effects.faithful_neurons, settings.effects.seed
    )
    return [
        Item(
            key=part.key,
            size=len(part.neurons),
            files=(f"{_PARTS}/{part.file(FAITHFULNESS.name)}",),
            inputs=(
                explainer,
                part.layer,
                part.neurons,
                {neuron for layer, neuron in chosen if layer == part.layer},
                files[part.file("explanations")],
                context.folder("effects") / layer_file(OUTPUT_TOKENS, part.layer),
                context.paths("analyse", "words"),
                context.paths("samples", "samples"),
                context.paths("describe", "descriptions"),
                settings.data.source,
                settings.capture.hook_point,
                settings.effects,
                settings.capture.image_threads,
            ),
        )
        for part in explained_parts(context, key)
    ]


def _measure(
    worker: Worker,
    explainer: str,
    layer: int,
    neurons: Sequence[int],
    chosen: Collection[int],
    explanations: Path,
    output_tokens: Path,
    words: Sequence[Path],
    samples: Sequence[Path],
    descriptions: Sequence[Path],
    source: Source,
    hook_point: HookPoint,
    settings: EffectsSettings,
    threads: int | None,
) -> None:
    """Write the rows of the neurons of one part, without q."""
    from neuron_atlas.tasks.effects.faithfulness import Explained, faithfulness_rows
    from neuron_atlas.tasks.effects.words import Texts
    from neuron_atlas.tasks.samples.catalog import open_catalog
    from neuron_atlas.tasks.subject.encoded import encoded_samples

    columns = ["neuron", "promoted", "write"]
    tokens = {
        row["neuron"]: row
        for row in read_table(output_tokens, OUTPUT_TOKENS, columns, neurons=neurons).to_pylist()
    }
    columns = ["neuron", "text", "status", "exemplar_ids"]
    explained = [
        Explained(
            neuron=row["neuron"],
            text=row["text"],
            is_ok=row["status"] == "ok",
            seen=frozenset(row["exemplar_ids"]),
            promoted=tokens[row["neuron"]]["promoted"],
            write=float("nan") if (write := tokens[row["neuron"]]["write"]) is None else write,
            is_chosen=row["neuron"] in chosen,
        )
        for row in read_table(explanations, EXPLANATIONS, columns).to_pylist()
    ]
    texts = Texts.from_table(read_table(words, WORDS))
    subject = worker.loaded.subject

    def open_samples(sample_ids: Sequence[int]) -> Any:
        catalog = open_catalog(samples, descriptions, sample_ids=sample_ids, source=source)
        return encoded_samples(subject, sample_ids, catalog, threads, 2 * settings.batch_size)

    rows = faithfulness_rows(
        subject, layer, explainer, explained, texts, open_samples, hook_point, settings
    )
    (path,) = worker.paths
    write_table(rows, FAITHFULNESS, path)


def _all_parts(explainer: str, context: Context, folder: Path) -> list[Item]:
    parts = explained_parts(context, explainer)
    layers = sorted({part.layer for part in parts})
    by_layer = [_files_of(parts, layer, folder) for layer in layers]
    names = tuple(layer_file(FAITHFULNESS, layer) for layer in layers)
    return [Item("q", 1, names, (by_layer,))] if names else []


def _files_of(parts: Sequence[NeuronPart], layer: int, folder: Path) -> list[Path]:
    mine = (part for part in parts if part.layer == layer)
    return [folder / _PARTS / part.file(FAITHFULNESS.name) for part in mine]


def _add_q(worker: Worker, parts: Sequence[Sequence[Path]]) -> None:
    from neuron_atlas.tasks.effects.faithfulness import add_faithfulness_q

    add_faithfulness_q(parts, worker.paths)
