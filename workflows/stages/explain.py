"""Explain: describe in words what each selected neuron responds to."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa

from neuron_atlas.tasks.artifacts import (
    EXPLANATIONS,
    MEANING_EXPLANATIONS,
    NEURON_TYPES,
    TableSpec,
    read_table,
    write_table,
)
from neuron_atlas.tasks.evidence.evidence import Evidence
from neuron_atlas.tasks.explain.explanation import Background, Explainer
from neuron_atlas.tasks.explain.select import select_neurons_to_explain
from neuron_atlas.tasks.samples.catalog import Catalog
from neuron_atlas.tasks.settings import identity
from neuron_atlas.workflows.config.settings import ExplainSettings
from neuron_atlas.workflows.models.calls import ModelUse
from neuron_atlas.workflows.run.context import Context
from neuron_atlas.workflows.run.errors import ConfigError, RunError
from neuron_atlas.workflows.run.failures import MAY_PASS_LATER, check_failures, count_transient
from neuron_atlas.workflows.run.meanings import (
    MeaningPart,
    meanings_identity,
    split_into_meaning_parts,
)
from neuron_atlas.workflows.run.neurons import (
    EvidenceFiles,
    NeuronPart,
    neurons_identity,
    split_into_parts,
)
from neuron_atlas.workflows.run.stage import (
    Files,
    Item,
    Needs,
    Stage,
    StageOutput,
    Step,
    Worker,
    reads_of_samples,
)
from neuron_atlas.workflows.run.word_classes import (
    WordClasses,
    learned_word_classes,
    word_classes_step,
)

_VOLATILE = {"seconds", "attempts", "cost", "tokens_in", "tokens_out", "reason"}
"""Columns that differ between identical runs, and that no later stage reads."""


def make_stage(settings: ExplainSettings, *, is_one_of_several: bool, is_dry_run: bool) -> Stage:
    """Return the stage for one explainer.

    is_one_of_several: the run has several explainers. is_dry_run: only estimate the calls.
    """
    name = settings.explainer.name
    return Stage(
        "explain",
        5,
        (*reads_of_samples(uses_clusters=settings.explainer.uses_background), "evidence"),
        partial(_parameters, settings),
        (
            word_classes_step(settings.explainer),
            Step(
                "explain",
                "neurons",
                partial(_items, settings),
                _explain,
                partial(_needs, settings, f"explain/{name}" if is_one_of_several else "explain"),
                should_retry=partial(_has_transient_failures, EXPLANATIONS),
            ),
        ),
        partial(_finish, settings, EXPLANATIONS),
        prepare=_prepare,
        explainer=name if is_one_of_several else "",
        is_dry_run=is_dry_run,
    )


def make_meanings_stage(
    settings: ExplainSettings, *, is_one_of_several: bool, is_dry_run: bool
) -> Stage:
    """Return the stage in which an explainer explains each meaning of neurons with several.

    Arguments as of `make_stage`. The budget is that of `make_stage`.
    """
    name = settings.explainer.name
    title = f"explain/{name}/meanings" if is_one_of_several else "explain/meanings"
    return Stage(
        "explain_meanings",
        1,
        (*reads_of_samples(uses_clusters=settings.explainer.uses_background), "evidence"),
        partial(_meanings_parameters, settings),
        (
            word_classes_step(settings.explainer),
            Step(
                "meanings",
                "meanings",
                partial(_meaning_items, settings),
                _explain_meanings,
                partial(_needs, settings, title),
                should_retry=partial(_has_transient_failures, MEANING_EXPLANATIONS),
            ),
        ),
        partial(_finish, settings, MEANING_EXPLANATIONS),
        explainer=name if is_one_of_several else "",
        is_dry_run=is_dry_run,
    )


def _parameters(settings: ExplainSettings, context: Context) -> Mapping[str, Any]:
    return {
        "explainer": identity(settings.explainer),
        "wording": settings.explainer.prompt_hash,
        # Of the types, only those of the chosen neurons decide the explanations.
        "neurons": neurons_identity(_chosen(settings, context)),
    }


def _meanings_parameters(settings: ExplainSettings, context: Context) -> Mapping[str, Any]:
    parts = _meaning_parts(settings, context)
    return dict(_parameters(settings, context)) | {"meanings": meanings_identity(parts)}


def _meaning_parts(settings: ExplainSettings, context: Context) -> list[MeaningPart]:
    return split_into_meaning_parts(context, _chosen(settings, context), settings.neurons_per_task)


def _chosen(settings: ExplainSettings, context: Context) -> pa.Table:
    types = read_table(context.paths("classify", "types"), NEURON_TYPES)
    try:
        return select_neurons_to_explain(types, settings.neurons)
    except ValueError as error:
        raise ConfigError(f"explain.neurons.{error}") from error


def _prepare(context: Context) -> None:
    context.settings.simulate.check()  # Fails before explanations are paid for.


def _needs(settings: ExplainSettings, title: str, context: Context) -> Needs:
    explainer = settings.explainer
    if explainer.client is None:
        return Needs()
    return Needs(
        model=ModelUse(
            "explain",
            title,
            explainer.client,
            explainer.prices,
            settings.budget_usd,
            settings.mode,
        )
    )


def _items(settings: ExplainSettings, context: Context, folder: Path) -> list[Item]:
    evidence = EvidenceFiles.from_context(context, settings.explainer.name)
    classes = learned_word_classes(settings.explainer, folder)
    return [
        Item(
            key=part.key,
            size=len(part.neurons),
            files=(part.file("explanations"),),
            inputs=(settings.explainer, part, evidence, classes),
        )
        for part in split_into_parts(_chosen(settings, context), settings.neurons_per_task)
    ]


def _explain(
    worker: Worker,
    explainer: Explainer,
    part: NeuronPart,
    files: EvidenceFiles,
    word_classes: WordClasses,
) -> None:
    """Write the explanations of a part, unless batch answers are pending."""
    from neuron_atlas.tasks.explain.rows import explanation_rows

    evidence, background, catalog = _load(explainer, part, files, word_classes)
    explanations = explainer.explain_with(background, evidence, catalog, worker.calls)
    if not any(one.status == "pending" for one in explanations):
        (path,) = worker.paths
        write_table(explanation_rows(explainer.name, evidence, explanations), EXPLANATIONS, path)


def _load(
    explainer: Explainer, part: NeuronPart, files: EvidenceFiles, word_classes: WordClasses
) -> tuple[list[Evidence], Background, Catalog]:
    """Return what an explainer sees of a part, what it may use besides, and the samples of both."""
    if not explainer.uses_background:
        evidence = files.load(part, "explainer")["explainer"]
        return evidence, Background(), files.catalog(evidence)
    loaded = files.load(part, "explainer", "calibration")
    evidence, calibration = loaded["explainer"], loaded["calibration"]
    background = Background(calibration, word_classes)
    return evidence, background, files.catalog([*evidence, *calibration])


def _meaning_items(settings: ExplainSettings, context: Context, folder: Path) -> list[Item]:
    evidence = EvidenceFiles.from_context(context, settings.explainer.name)
    classes = learned_word_classes(settings.explainer, folder)
    return [
        Item(
            key=part.neurons.key,
            size=part.n_meanings,
            files=(part.neurons.file(MEANING_EXPLANATIONS.name),),
            inputs=(settings.explainer, part, evidence, classes),
        )
        for part in _meaning_parts(settings, context)
    ]


def _explain_meanings(
    worker: Worker,
    explainer: Explainer,
    part: MeaningPart,
    files: EvidenceFiles,
    word_classes: WordClasses,
) -> None:
    """Write the explanations of the meanings of a part, unless batch answers are pending."""
    from neuron_atlas.tasks.explain.meanings import explain_meanings
    from neuron_atlas.tasks.explain.rows import meaning_rows

    evidence, background, catalog = _load(explainer, part.neurons, files, word_classes)
    meanings, explanations = explain_meanings(
        explainer,
        background,
        evidence,
        part.members(),
        catalog,
        part.strong_share,
        worker.calls,
    )
    if not any(one.status == "pending" for one in explanations):
        (path,) = worker.paths
        rows = meaning_rows(explainer.name, meanings, explanations)
        write_table(rows, MEANING_EXPLANATIONS, path)


def _has_transient_failures(spec: TableSpec, item: Item, folder: Path) -> bool:
    return count_transient([folder / name for name in item.files], spec) > 0


def _finish(
    settings: ExplainSettings, spec: TableSpec, context: Context, folder: Path, files: Files
) -> StageOutput:
    paths = [folder / name for name in files.get(spec.name, ())]
    try:
        check_failures(paths, spec, "explain", settings.max_failed_share)
    except RunError:
        if spec is EXPLANATIONS:
            context.stats.unfinished.extend(paths)
        raise
    return StageOutput(
        {spec.name: [path.name for path in paths]},
        content=_content(read_table(paths, spec), spec),
        about={
            "neurons_per_task": settings.neurons_per_task,
            MAY_PASS_LATER: count_transient(paths, spec),
        },
    )


def _content(explanations: pa.Table, spec: TableSpec) -> str:
    """Return a hash of the explanations, which does not depend on retries or cost."""
    columns = [name for name in spec.schema.names if name not in _VOLATILE]
    digest = hashlib.sha256()
    for batch in explanations.select(columns).to_batches(max_chunksize=4096):
        digest.update(json.dumps(batch.to_pydict(), sort_keys=True).encode())
    return digest.hexdigest()
