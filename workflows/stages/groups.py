"""Groups: what the subject loses without groups of neurons, and what it says with others turned up.

What it says with one explained neuron clamped does not depend on the other neurons. So all choices
of neurons share one folder, and a run adds files for the neurons that are missing in it.
"""

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
    EXPLANATIONS,
    HISTOGRAMS,
    MOMENTS,
    NEURON_TYPES,
    SCORES,
    exemplars_spec,
    layer_file,
    layer_of,
    read_table,
    row_count,
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
    SAYINGS,
    STEERING_EFFECTS,
    STEERING_LOSSES,
    STEERING_SPEECH,
)
from neuron_atlas.tasks.artifacts.location import existing_files
from neuron_atlas.tasks.classify.rule import Rule
from neuron_atlas.tasks.groups.settings import GroupSettings, SteeringSettings, parse_range
from neuron_atlas.tasks.report.strongest import select_strongest_neurons
from neuron_atlas.tasks.report.tables import over_all_tokens
from neuron_atlas.tasks.samples.random_samples import draw_random
from neuron_atlas.tasks.samples.source import Source
from neuron_atlas.tasks.settings import identity
from neuron_atlas.tasks.subject.settings import HookPoint
from neuron_atlas.workflows.run.context import Context
from neuron_atlas.workflows.run.errors import ConfigError
from neuron_atlas.workflows.run.stage import Files, Item, Stage, StageOutput, Step, Worker
from neuron_atlas.workflows.run.store import Manifest, read_manifest
from neuron_atlas.workflows.run.subject import needs_subject

_SAMPLES = f"{GROUP_SAMPLES.name}.parquet"
_SETS = f"{GROUP_SETS.name}.parquet"
_MOST_SAMPLES = 16
_NEURONS = 64
"""Neurons of one work item."""
_HELD = "sayings"

Neuron = tuple[int, int]


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
    synonyms = _synonyms(settings.groups)
    given = {} if synonyms is None else {"synonyms": _digest(synonyms)}
    return {
        "groups": identity(settings.groups),
        "steering": identity(settings.steering),
        "rule": identity(settings.classify.rule),
    } | given


def _prepare(context: Context) -> None:
    """Raise ConfigError for a neuron or a range of layers that was not captured."""
    layers, settings = context.layers(), context.settings.groups
    listed = ", ".join(map(str, layers))
    for text in settings.layers or ():
        first, last = parse_range(text)
        if not any(first <= layer <= last for layer in layers):
            raise ConfigError(
                f"groups.layers: no layer of {text} was captured; captured layers: {listed}"
            )
    for name, named in settings.named_groups.items():
        for layer, neurons in named.by_layer().items():
            where = f"groups.named.{name}.neurons"
            if layer not in layers:
                raise ConfigError(
                    f"{where}: layer {layer} was not captured; captured layers: {listed}"
                )
            count = row_count(context.folder("capture") / layer_file("moments", layer))
            if neurons[-1] >= count:
                raise ConfigError(
                    f"{where}: there is no neuron {layer}:{neurons[-1]}; layer {layer} has neurons "
                    f"0 to {count - 1}"
                )


def _inputs(context: Context) -> _Inputs:
    settings = context.settings
    return _Inputs(
        groups=settings.groups,
        steering=settings.steering,
        synonyms=_synonyms(settings.groups),
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


def _synonyms(settings: GroupSettings) -> str | None:
    """Return the text of the user's file of synonyms; None without one. Raises ConfigError."""
    if settings.synonyms is None:
        return None
    try:
        return Path(settings.synonyms).expanduser().read_text(encoding="utf-8")
    except (OSError, UnicodeError) as error:
        raise ConfigError(
            f"groups.synonyms: {settings.synonyms} cannot be read ({error})"
        ) from None


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


def _saying_items(context: Context, folder: Path) -> list[Item]:
    """Return parts of the neurons that are missing in the folder."""
    missing = _missing(context, folder)
    inputs = _inputs(context)
    items = []
    for start in range(0, len(missing), _NEURONS):
        part = tuple(missing[start : start + _NEURONS])
        items.append(Item(f"say-{_part(part)}", len(part), _saying_files(part), (part, inputs)))
    return items


def _say(worker: Worker, neurons: tuple[Neuron, ...], inputs: _Inputs) -> None:
    from neuron_atlas.tasks.groups.choose import usable_with_image
    from neuron_atlas.tasks.groups.sayings import clamp_values

    values: dict[Neuron, float] = {}
    for layer in sorted({layer for layer, _ in neurons}):
        mine = [neuron for its_layer, neuron in neurons if its_layer == layer]
        tables = [
            read_table(inputs.captured / layer_file(spec.name, layer), spec, neurons=mine)
            for spec in (HISTOGRAMS, MOMENTS)
        ]
        values |= clamp_values(*tables)
    drawn = draw_random(usable_with_image(inputs.descriptions), 1, inputs.groups.seed)
    table = SAYINGS.schema.empty_table()
    if drawn:
        table = _clamped(worker, values, drawn[0], inputs)
    for path in worker.paths:
        mine = table.filter(pc.equal(table["layer"], layer_of(path.name)))
        write_table(mine, SAYINGS, path)


def _clamped(
    worker: Worker, values: Mapping[Neuron, float], sample_id: int, inputs: _Inputs
) -> pa.Table:
    from neuron_atlas.tasks.groups.sayings import say_clamped
    from neuron_atlas.tasks.samples.catalog import open_catalog

    catalog = open_catalog(
        inputs.samples, inputs.descriptions, sample_ids=[sample_id], source=inputs.source
    )
    return say_clamped(
        worker.loaded.subject,
        values,
        catalog.open_images(sample_id)[0],
        sample_id,
        inputs.hook_point,
        inputs.steering.max_new_tokens,
        inputs.batch_size,
        worker.count,
    )


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


def _finish(context: Context, folder: Path, files: Files) -> StageOutput:
    """List the files of earlier runs and of this one, with the neurons of each."""
    held = dict(_stored(folder))
    missing = _missing(context, folder)
    for start in range(0, len(missing), _NEURONS):
        part = tuple(missing[start : start + _NEURONS])
        for name in _saying_files(part):
            held[name] = [one for one in part if one[0] == layer_of(name)]
    others = {name: some for name, some in files.items() if name != SAYINGS.name}
    said = {SAYINGS.name: sorted(held)} if held else {}
    return StageOutput(others | said, about={_HELD: held})


def _select(context: Context, manifest: Manifest) -> Manifest | None:
    """Return the manifest if it has all neurons of this run."""
    held = {tuple(one) for some in manifest.about[_HELD].values() for one in some}
    return manifest if held.issuperset(_wanted(context)) else None


def _wanted(context: Context) -> list[Neuron]:
    """Return the strongest explained neurons of each type, as the page shows them."""
    count = context.settings.steering.neurons_per_type
    if not count:
        return []
    types = read_table(context.paths("classify", "types"), NEURON_TYPES)
    explained = read_table(context.paths("explain", "explanations"), EXPLANATIONS)
    explained = explained.filter(pc.equal(explained["status"], "ok"))
    keys = explained.select(["layer", "neuron"])
    types = types.join(
        keys.group_by(["layer", "neuron"]).aggregate([]), ["layer", "neuron"], join_type="left semi"
    )
    scores = over_all_tokens(read_table(context.paths("score", "scores"), SCORES))
    chosen = select_strongest_neurons(types, explained, scores, count)
    return sorted((layer, neuron) for layer, neuron, _ in chosen)


def _stored(folder: Path) -> dict[str, list[Neuron]]:
    """Return the neurons of each file of earlier runs that still exists."""
    manifest = read_manifest(folder)
    held = {} if manifest is None else manifest.about[_HELD]
    return {
        name: [(layer, neuron) for layer, neuron in held[name]]
        for name in sorted(existing_files(folder, held))
    }


def _missing(context: Context, folder: Path) -> list[Neuron]:
    stored = {one for some in _stored(folder).values() for one in some}
    return [one for one in _wanted(context) if one not in stored]


def _saying_files(neurons: Sequence[Neuron]) -> tuple[str, ...]:
    """Return a file for each layer of some neurons. Their names hash the neurons."""
    layers = sorted({layer for layer, _ in neurons})
    return tuple(layer_file(SAYINGS, layer, _part(neurons)) for layer in layers)


def _part(neurons: Sequence[Neuron]) -> str:
    return _digest(repr(tuple(neurons)))


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:12]


STAGE = Stage(
    "groups",
    1,
    # It reads explanations and scores only to select neurons, on which no row depends.
    ("samples", "describe", "capture"),
    _parameters,
    (
        Step("groups", "", _choose_items, _choose),
        Step("groups", "layers", _member_items, _decide_members),
        Step("groups", "", _set_items, _choose_sets),
        Step("groups", "samples", _measure_items, _measure, needs_subject),
        Step("steering", "neurons", _saying_items, _say, needs_subject),
        Step("groups", "", _effect_items, _compute_effects),
    ),
    _finish,
    _prepare,
    select=_select,
)
