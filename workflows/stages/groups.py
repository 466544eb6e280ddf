"""Groups: what the subject loses without groups of neurons, and with groups turned up or down."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from neuron_atlas.tasks.artifacts import (
    CONCEPTS,
    MOMENTS,
    exemplars_spec,
    layer_file,
    read_table,
    write_table,
)
from neuron_atlas.tasks.artifacts.grouped import (
    DISSOCIATIONS,
    GROUP_EFFECTS,
    GROUP_LOSSES,
    GROUP_MEMBERS,
    GROUP_SAMPLES,
    GROUP_SETS,
    GROUP_SPEECH,
    STEERING_EFFECTS,
    STEERING_LOSSES,
    STEERING_SPEECH,
)
from neuron_atlas.tasks.classify.rule import Rule
from neuron_atlas.tasks.groups.settings import GroupSettings, SteeringSettings
from neuron_atlas.tasks.samples.source import Source
from neuron_atlas.tasks.settings import identity
from neuron_atlas.tasks.subject.settings import HookPoint
from neuron_atlas.workflows.run.context import Context
from neuron_atlas.workflows.run.group_settings import check_groups, read_synonyms
from neuron_atlas.workflows.run.stage import Item, Stage, Step, Worker
from neuron_atlas.workflows.run.subject import needs_subject

_SAMPLES = f"{GROUP_SAMPLES.name}.parquet"
_SETS = f"{GROUP_SETS.name}.parquet"
_MOST_SAMPLES = 16


@dataclass(frozen=True)
class _Inputs:
    """What the work items of one run read. Picklable."""

    groups: GroupSettings
    steering: SteeringSettings
    synonyms: str | None
    rule: Rule
    captured: Path
    top_n: int
    layers: tuple[int, ...]
    samples: Sequence[Path]
    descriptions: Sequence[Path]
    concepts: Sequence[Path]
    source: Source
    hook_point: HookPoint
    batch_size: int

    @property
    def is_steered(self) -> bool:
        """Whether any group is scaled."""
        return bool(
            self.steering.types or any(one.words for one in self.groups.named_groups.values())
        )


def _parameters(context: Context) -> Mapping[str, Any]:
    settings = context.settings
    synonyms = read_synonyms(settings.groups)
    given = {} if synonyms is None else {"synonyms": _digest(synonyms)}
    return {
        "groups": identity(settings.groups),
        "steering": identity(settings.steering),
        "rule": identity(settings.classify.rule),
    } | given


def _inputs(context: Context) -> _Inputs:
    settings = context.settings
    return _Inputs(
        groups=settings.groups,
        steering=settings.steering,
        synonyms=read_synonyms(settings.groups),
        rule=settings.classify.rule,
        captured=context.folder("capture"),
        top_n=context.capture.top_n,
        layers=context.layers(),
        samples=context.paths("samples", "samples"),
        descriptions=context.paths("describe", "descriptions"),
        concepts=context.paths("samples", "concepts"),
        source=settings.data.source,
        hook_point=settings.capture.hook_point,
        batch_size=settings.capture.batch_size,
    )


def _choose_items(context: Context, folder: Path) -> list[Item]:
    if not context.settings.groups.samples:
        return []
    return [Item("samples", 1, (_SAMPLES,), (_inputs(context),))]


def _choose(worker: Worker, inputs: _Inputs) -> None:
    from neuron_atlas.tasks.groups.choose import choose_samples

    settings = inputs.groups
    chosen = choose_samples(
        inputs.samples,
        inputs.descriptions,
        inputs.concepts,
        inputs.source,
        settings.samples,
        settings.described,
        settings.seed,
    )
    (path,) = worker.paths
    write_table(chosen, GROUP_SAMPLES, path)


def _member_items(context: Context, folder: Path) -> list[Item]:
    if not context.settings.groups.samples:
        return []
    inputs = _inputs(context)
    return [
        Item(f"members-layer-{layer:03d}", 1, (layer_file(GROUP_MEMBERS, layer),), (layer, inputs))
        for layer in context.layers()
    ]


def _decide_members(worker: Worker, layer: int, inputs: _Inputs) -> None:
    from neuron_atlas.tasks.groups.members import decide_members, members_table

    captured = inputs.captured
    ranked = read_table(captured / layer_file("exemplars", layer), exemplars_spec(inputs.top_n))
    moments = read_table(captured / layer_file("moments", layer), MOMENTS)
    chosen = read_table(worker.folder / _SAMPLES, GROUP_SAMPLES, ["sample_id"])
    members = decide_members(inputs.rule, ranked, moments, chosen["sample_id"].to_pylist())
    (path,) = worker.paths
    write_table(members_table(members), GROUP_MEMBERS, path)


def _set_items(context: Context, folder: Path) -> list[Item]:
    if not context.settings.groups.samples:
        return []
    return [Item("sets", 1, (_SETS,), (_inputs(context),))]


def _choose_sets(worker: Worker, inputs: _Inputs) -> None:
    from neuron_atlas.tasks.groups.members import read_members
    from neuron_atlas.tasks.groups.sets import choose_all_sets, sets_table

    files = [worker.folder / layer_file(GROUP_MEMBERS, layer) for layer in inputs.layers]
    members = read_members(read_table(files, GROUP_MEMBERS))
    (path,) = worker.paths
    write_table(sets_table(choose_all_sets(members, inputs.groups)), GROUP_SETS, path)


def _measure_items(context: Context, folder: Path) -> list[Item]:
    if not context.settings.groups.samples:
        return []
    inputs = _inputs(context)
    rows = read_table(folder / _SAMPLES, GROUP_SAMPLES, ["sample_id", "use"])
    ids = rows.filter(pc.equal(rows["use"], "measured"))["sample_id"].to_pylist()
    size = max(1, min(_MOST_SAMPLES, -(-len(ids) // 4)))
    shards = [tuple(ids[start : start + size]) for start in range(0, len(ids), size)]
    return [
        Item(f"measure-{number:03d}", len(shard), _measured_files(number, inputs), (shard, inputs))
        for number, shard in enumerate(shards)
    ]


def _measured_files(number: int, inputs: _Inputs) -> tuple[str, ...]:
    specs = [GROUP_LOSSES, GROUP_SPEECH]
    specs += [STEERING_LOSSES, STEERING_SPEECH] if inputs.is_steered else []
    return tuple(f"{spec.name}-{number:03d}.parquet" for spec in specs)


def _measure(worker: Worker, ids: tuple[int, ...], inputs: _Inputs) -> None:
    from neuron_atlas.tasks.groups.choose import truths_of
    from neuron_atlas.tasks.groups.conditions import ablated, steered
    from neuron_atlas.tasks.groups.measure import Plan, measure
    from neuron_atlas.tasks.groups.members import read_members
    from neuron_atlas.tasks.groups.naming import vocabulary_of
    from neuron_atlas.tasks.groups.sets import read_sets
    from neuron_atlas.tasks.samples.catalog import open_catalog

    settings = inputs.groups
    files = [worker.folder / layer_file(GROUP_MEMBERS, layer) for layer in inputs.layers]
    members = read_members(read_table(files, GROUP_MEMBERS)) if settings.ablation == "mean" else []
    sets = read_sets(read_table(worker.folder / _SETS, GROUP_SETS), members)
    chosen = read_table(worker.folder / _SAMPLES, GROUP_SAMPLES)
    truths = truths_of(chosen)
    named = read_table(inputs.concepts, CONCEPTS, ["kind", "concept"])
    concepts = zip(named["kind"].to_pylist(), named["concept"].to_pylist(), strict=True)
    present = {thing for things in truths.values() for thing in things}
    described = set(chosen.filter(pc.equal(chosen["described"], True))["sample_id"].to_pylist())
    plan = Plan(
        sample_ids=ids,
        described=[one for one in ids if one in described],
        truths={one: truths[one] for one in ids if one in truths},
        vocabulary=vocabulary_of(concepts, present, inputs.synonyms),
        named=settings.named_groups,
        questions=settings.questions,
        max_new_tokens=settings.max_new_tokens,
        seed=settings.seed,
    )
    catalog = open_catalog(
        inputs.samples, inputs.descriptions, sample_ids=ids, source=inputs.source
    )
    runs = [(ablated(sets, settings.ablation), (GROUP_LOSSES, GROUP_SPEECH))]
    if inputs.is_steered:
        conditions = steered(sets, settings, inputs.steering)
        runs.append((conditions, (STEERING_LOSSES, STEERING_SPEECH)))
    paths = iter(worker.paths)
    for number, (conditions, specs) in enumerate(runs):
        tables = measure(
            worker.loaded.subject,
            plan,
            catalog,
            conditions,
            inputs.hook_point,
            inputs.batch_size,
            (lambda count: None) if number else worker.count,
        )
        for table, spec in zip(tables, specs, strict=True):
            write_table(table, spec, next(paths))


def _effect_items(context: Context, folder: Path) -> list[Item]:
    measured = _measure_items(context, folder)
    if not measured:
        return []
    inputs = _inputs(context)
    specs = [GROUP_EFFECTS, DISSOCIATIONS, *([STEERING_EFFECTS] if inputs.is_steered else [])]
    names = [name for item in measured for name in item.files]
    return [Item("effects", 1, tuple(f"{spec.name}.parquet" for spec in specs), (names, inputs))]


def _compute_effects(worker: Worker, names: Sequence[str], inputs: _Inputs) -> list[str]:
    from neuron_atlas.tasks.groups.effects import ablation_effects, dissociations, steering_effects
    from neuron_atlas.tasks.groups.measures import read_results
    from neuron_atlas.tasks.groups.sets import read_sets

    def rows(spec: Any) -> pa.Table:
        start = f"{spec.name}-"
        return read_table([worker.folder / name for name in names if name.startswith(start)], spec)

    settings = inputs.groups
    given = (settings.resamples, settings.seed, settings.max_perplexity_ratio)
    sets = read_sets(read_table(worker.folder / _SETS, GROUP_SETS), [])
    results = read_results(rows(GROUP_LOSSES), rows(GROUP_SPEECH))
    effects, contrasts, *steered = worker.paths
    write_table(ablation_effects(results, sets, *given), GROUP_EFFECTS, effects)
    write_table(dissociations(results, *given), DISSOCIATIONS, contrasts)
    for path in steered:
        chosen = read_table(worker.folder / _SAMPLES, GROUP_SAMPLES, ["sample_id", "half"])
        halves = dict(zip(chosen["sample_id"].to_pylist(), chosen["half"].to_pylist(), strict=True))
        found = read_results(rows(STEERING_LOSSES), rows(STEERING_SPEECH))
        write_table(steering_effects(found, sets, halves, *given), STEERING_EFFECTS, path)
    asked = settings.described and settings.questions
    if asked and "yes_no_correct" not in results.measures:
        return ["groups     the subject answers questions with neither yes nor no: none are scored"]
    return []


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:12]


STAGE = Stage(
    "groups",
    1,
    ("samples", "describe", "capture"),
    _parameters,
    (
        Step("groups", "", _choose_items, _choose),
        Step("groups", "layers", _member_items, _decide_members),
        Step("groups", "", _set_items, _choose_sets),
        Step("groups", "samples", _measure_items, _measure, needs_subject),
        Step("groups", "", _effect_items, _compute_effects),
    ),
    prepare=check_groups,
)
