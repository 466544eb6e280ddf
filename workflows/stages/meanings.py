"""Score meanings: simulate and score the explanation of each meaning of neurons with several."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from neuron_atlas.tasks.artifacts import (
    MEANING_EXPLANATIONS,
    MEANING_SCORES,
    NEURON_TYPES,
    read_table,
    write_table,
)
from neuron_atlas.tasks.score.settings import ScoreSettings
from neuron_atlas.tasks.settings import identity
from neuron_atlas.tasks.simulate.simulator import Capabilities, Simulator
from neuron_atlas.workflows.run.context import Context
from neuron_atlas.workflows.run.failures import MAY_PASS_LATER, count_transient
from neuron_atlas.workflows.run.meanings import (
    MeaningPart,
    meanings_identity,
    split_into_meaning_parts,
)
from neuron_atlas.workflows.run.neurons import (
    EvidenceFiles,
    NearMissFiles,
    explanation_texts,
    neurons_identity,
)
from neuron_atlas.workflows.run.simulator import in_place, read_capabilities, simulator_needs
from neuron_atlas.workflows.run.stage import (
    Files,
    Item,
    Stage,
    StageOutput,
    Step,
    Worker,
    reads_of_samples,
)


def make_stage(
    explainer: str, *, is_one_of_several: bool, is_dry_run: bool, uses_clusters: bool
) -> Stage:
    """Return the stage that scores the meanings that one explainer explained.

    is_one_of_several: the run has several explainers. is_dry_run: only estimate the calls. The
    budget is that of `simulate`, in which predictions for whole neurons were paid for.
    uses_clusters: see `reads_of_samples`.
    """
    key = explainer if is_one_of_several else ""
    return Stage(
        "score_meanings",
        1,
        (
            *reads_of_samples(uses_clusters=uses_clusters),
            "evidence",
            "explain",
            "explain_meanings",
            "near_misses",
        ),
        partial(_parameters, key),
        (
            Step(
                "meanings",
                "meanings",
                partial(_items, explainer, key, is_dry_run),
                _score,
                partial(
                    simulator_needs, f"simulate/{key}/meanings" if key else "simulate/meanings"
                ),
                should_retry=_has_transient_failures,
            ),
        ),
        _finish,
        explainer=key,
        is_dry_run=is_dry_run,
    )


def _parameters(explainer: str, context: Context) -> Mapping[str, Any]:
    simulator = context.settings.simulate.simulator
    loaded = {"weights": simulator.weights()} if simulator.loads_model else {}
    parts = _parts(explainer, context)
    return {
        "simulator": identity(simulator),
        "wording": simulator.prompt_hash,
        "score": identity(context.settings.score),
        "meanings": meanings_identity(parts),
        "neurons": [neurons_identity(part.neurons.types) for part in parts],
        **loaded,
    }


def _parts(explainer: str, context: Context) -> list[MeaningPart]:
    types = read_table(context.paths("classify", "types"), NEURON_TYPES)
    keys = ["layer", "neuron"]
    paths = context.paths("explain_meanings", MEANING_EXPLANATIONS.name, explainer)
    explained = read_table(paths, MEANING_EXPLANATIONS, keys)
    chosen = types.join(explained, keys=keys, join_type="left semi")
    chosen = chosen.sort_by([(key, "ascending") for key in keys]).select(types.column_names)
    (manifest,) = context.manifests_of("explain_meanings", explainer)
    return split_into_meaning_parts(context, chosen, manifest.about["neurons_per_task"])


def _items(
    explainer: str, key: str, is_dry_run: bool, context: Context, folder: Path
) -> list[Item]:
    settings = context.settings
    simulator = settings.simulate.simulator
    capabilities = (
        simulator.assumed_capabilities()
        if is_dry_run
        else read_capabilities(_folder_of_simulate(key, context))
    )
    texts = explanation_texts(context, key)
    paths = context.paths("explain_meanings", MEANING_EXPLANATIONS.name, key)
    evidence = EvidenceFiles.from_context(context, key)
    near_misses = NearMissFiles.from_context(context, key)
    items = []
    for part in _parts(key, context):
        layer, neurons = part.neurons.layer, part.neurons.neurons
        whole = {neuron: texts[layer, neuron] for neuron in neurons if (layer, neuron) in texts}
        items.append(
            Item(
                key=part.neurons.key,
                size=part.n_meanings,
                files=(part.neurons.file(MEANING_SCORES.name),),
                inputs=(
                    simulator,
                    capabilities,
                    explainer,
                    part,
                    evidence,
                    near_misses,
                    whole,
                    [path for path in paths if f"-layer-{layer:03d}-" in path.name],
                    settings.score,
                ),
            )
        )
    return items


def _folder_of_simulate(explainer: str, context: Context) -> Path:
    (manifest,) = context.manifests_of("simulate", explainer)
    return context.store.folder("simulate", manifest.fingerprint)


def _score(
    worker: Worker,
    simulator: Simulator,
    capabilities: Capabilities | None,
    explainer: str,
    part: MeaningPart,
    files: EvidenceFiles,
    near_misses: NearMissFiles,
    whole: Mapping[int, str],
    explanations: list[Path],
    settings: ScoreSettings,
) -> None:
    """Write the scores of the meanings of a part, unless batch answers are pending."""
    from neuron_atlas.tasks.evidence.meanings import split_by_meaning
    from neuron_atlas.tasks.score.meanings import ScoredMeaning, score_meanings
    from neuron_atlas.tasks.simulate.rows import simulate_claims

    simulator, calls = in_place(worker, simulator)
    columns = ["neuron", "meaning", "text", "status"]
    rows = read_table(
        explanations, MEANING_EXPLANATIONS, columns, neurons=part.neurons.neurons
    ).to_pylist()
    texts = {(row["neuron"], row["meaning"]): row["text"] for row in rows if row["status"] == "ok"}
    strata = near_misses.load(part.neurons.layer, whole)
    held_out = [
        replace(one, near_misses=strata[one.neuron].records) if one.neuron in strata else one
        for one in files.load(part.neurons, "scorer")["scorer"]
    ]
    catalog = files.catalog(held_out)
    meanings = split_by_meaning(held_out, part.members(), catalog.samples, part.strong_share)
    explained = {
        number: (texts[one.evidence.neuron, one.meaning], whole[one.evidence.neuron])
        for number, one in enumerate(meanings)
        if (one.evidence.neuron, one.meaning) in texts and one.evidence.neuron in whole
    }
    claims = [
        (text, meanings[number].evidence.records)
        for number, both in explained.items()
        for text in both
    ]
    made = simulate_claims(simulator, claims, catalog, calls, capabilities)
    if any(one.status == "pending" for claim in made for one in claim):
        return
    predictions = dict(zip(explained, zip(made[::2], made[1::2], strict=True), strict=True))
    scored = [
        ScoredMeaning(one, strata.get(one.evidence.neuron), predictions.get(number, ()))
        for number, one in enumerate(meanings)
    ]
    (path,) = worker.paths
    write_table(score_meanings(explainer, simulator.name, scored, settings), MEANING_SCORES, path)


def _has_transient_failures(item: Item, folder: Path) -> bool:
    return count_transient([folder / name for name in item.files], MEANING_SCORES) > 0


def _finish(context: Context, folder: Path, files: Files) -> StageOutput:
    paths = [folder / name for name in files.get(MEANING_SCORES.name, ())]
    return StageOutput(
        {MEANING_SCORES.name: [path.name for path in paths]},
        about={MAY_PASS_LATER: count_transient(paths, MEANING_SCORES)},
    )
