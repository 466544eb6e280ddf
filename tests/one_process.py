"""The stages of `tasks`, one after the other in one process: what the workflow does on Ray."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from neuron_atlas.tasks.analyse.responses import responses, seen_places
from neuron_atlas.tasks.analyse.seen import random_places, seen_patches
from neuron_atlas.tasks.analyse.settings import AnalyseSettings
from neuron_atlas.tasks.analyse.words import build_lexicon, list_words
from neuron_atlas.tasks.artifacts import (
    CHOSEN,
    CONCEPTS,
    DESCRIPTIONS,
    EVIDENCE,
    HISTOGRAMS,
    MOMENTS,
    NEURON_TESTS,
    SAMPLES,
    exemplars_spec,
    layer_file,
    read_table,
    write_table,
)
from neuron_atlas.tasks.capture.merge import merge_layer
from neuron_atlas.tasks.capture.settings import CaptureSettings
from neuron_atlas.tasks.capture.shard import capture_shard
from neuron_atlas.tasks.capture.shard_plan import ShardPlan, plan_shards
from neuron_atlas.tasks.classify.decide import decide_types
from neuron_atlas.tasks.classify.rule import Rule, RuleWithTests
from neuron_atlas.tasks.evidence.choose import choose_evidence, image_names
from neuron_atlas.tasks.evidence.evidence import Evidence, Purpose
from neuron_atlas.tasks.evidence.gather import gather_layer
from neuron_atlas.tasks.evidence.read import load_evidence
from neuron_atlas.tasks.evidence.replay import replay
from neuron_atlas.tasks.evidence.settings import EvidenceSettings
from neuron_atlas.tasks.evidence.shards import plan_replay
from neuron_atlas.tasks.evidence.wanted import Wanted
from neuron_atlas.tasks.samples.catalog import Catalog, open_catalog
from neuron_atlas.tasks.samples.random_samples import draw_random
from neuron_atlas.tasks.samples.scan import list_records, scan_samples
from neuron_atlas.tasks.samples.source import Source
from neuron_atlas.tasks.subject.describe import describe_part
from neuron_atlas.tasks.subject.embed_places import embed_places
from neuron_atlas.tasks.subject.load import Subject
from neuron_atlas.tasks.subject.settings import DescribeSettings


@dataclass(frozen=True)
class Described:
    """A dataset after `samples` and `describe`: its source and the artifacts of the two stages."""

    source: Source
    folder: Path

    @property
    def descriptions(self) -> pa.Table:
        """The `descriptions` table."""
        return read_table(self.folder / "descriptions.parquet", DESCRIPTIONS)

    def catalog(self, sample_ids: Collection[int] | None = None) -> Catalog:
        """All samples, or only some."""
        return open_catalog(
            [self.folder / "samples.parquet"],
            [self.folder / "descriptions.parquet"],
            [self.folder / "concepts.parquet"],
            sample_ids=sample_ids,
            source=self.source,
        )


def describe(
    subject: Subject, source: Source, folder: Path, settings: DescribeSettings
) -> Described:
    """Scan and describe a dataset into `folder`."""
    records = list_records(source)
    samples, concepts = scan_samples(source, records, 0, require_text=False, duplicates=())
    write_table(samples, SAMPLES, folder / "samples.parquet")
    write_table(concepts, CONCEPTS, folder / "concepts.parquet")
    written = folder / "descriptions.parquet"
    describe_part(subject, folder / "samples.parquet", source, settings, written)
    return Described(source, folder)


def capture(
    subject: Subject,
    described: Described,
    layers: Sequence[int],
    settings: CaptureSettings,
    folder: Path,
) -> Path:
    """Capture a dataset shard by shard, and merge; the folder with the merged layers."""
    plans = plan_shards(described.descriptions, layers, settings, 512)
    shards = [capture_one(subject, described, plan, folder / "shards") for plan in plans]
    return merge(shards, layers, settings.top_n, folder)


def capture_one(subject: Subject, described: Described, plan: ShardPlan, folder: Path) -> Path:
    """Capture one shard below `folder`; where it lies."""
    shard = folder / plan.name
    capture_shard(subject, plan, described.catalog(plan.sample_ids), shard)
    return shard


def merge(shards: Sequence[Path], layers: Sequence[int], top_n: int, folder: Path) -> Path:
    """Merge every layer of `shards` into `folder`."""
    for layer in layers:
        merge_layer(shards, layer, top_n, folder)
    return folder


def classify(captured: Path, layer: int, rule: Rule) -> pa.Table:
    """The `types` of one layer."""
    moments = read_table(captured / layer_file("moments", layer), MOMENTS)
    return rule.types(read_exemplars(captured, layer), moments)


def read_exemplars(captured: Path, layer: int) -> pa.Table:
    """The `exemplars` of one layer, whatever their number."""
    path = captured / layer_file("exemplars", layer)
    top_n = pq.read_schema(path).field("peak").type.list_size
    return read_table(path, exemplars_spec(top_n))


def types_by_tests(
    captured: Path, layers: Sequence[int], rule: RuleWithTests, folder: Path
) -> pa.Table:
    """The `tested_types` of some layers, written below `folder`."""
    names = [layer_file("tested_types", layer) for layer in layers]
    for layer, name in zip(layers, names, strict=True):
        histograms = read_table(captured / layer_file("histograms", layer), HISTOGRAMS)
        write_table(rule.test(histograms), NEURON_TESTS, folder / "without-q" / name)
    written = [folder / name for name in names]
    decide_types(rule, [folder / "without-q" / name for name in names], written)
    return read_table(written, NEURON_TESTS)


def respond(subject: Subject, captured: Path, layer: int, catalog: Catalog) -> pa.Table:
    """The `responses` of one layer."""
    settings, exemplars = AnalyseSettings(), read_exemplars(captured, layer)
    moments = read_table(captured / layer_file("moments", layer), MOMENTS)
    lexicon = build_lexicon(list_words(catalog))
    random = random_places(lexicon.samples, lexicon.n_visual, settings.seed)
    places = np.union1d(seen_places(exemplars, moments, settings), random)
    seen = seen_patches(places, embed_places(subject, places, catalog, 16), random)
    return responses(exemplars, moments, lexicon, seen, settings)[0]


def replay_evidence(
    subject: Subject,
    catalog: Catalog,
    captured: Path,
    layer: int,
    wanted: Wanted,
    settings: EvidenceSettings = EvidenceSettings(),  # noqa: B008
    batch_size: int = 16,
    shards: Sequence[Sequence[int]] | None = None,
) -> Path:
    """Replay the evidence of some neurons of one layer; its file, written beside what was captured.

    `samples` lies there, too. shards: sample_ids of each shard; by default as in a run.
    """
    random_ids = draw_random(catalog.samples, settings.random_samples, settings.seed)
    chosen = captured / "replay" / layer_file(CHOSEN, layer, wanted.digest)
    samples = [captured / "samples.parquet"]
    ranked = captured / layer_file("exemplars", layer)
    count, limit = len(catalog.samples), settings.exemplars
    rows = choose_evidence(layer, wanted, ranked, samples, random_ids, count, limit)
    write_table(rows, CHOSEN, chosen)
    if shards is None:
        trace_bytes = dict.fromkeys(rows["sample_id"].to_pylist(), 1000)
        planned = plan_replay(trace_bytes, image_names(samples, trace_bytes))
        shards = [shard.sample_ids for shard in planned]
    paths = []
    for number, ids in enumerate(shards):
        mine = read_table(chosen, CHOSEN, sample_ids=ids)
        table = replay(subject, mine, catalog, "gate", batch_size)
        paths.append(chosen.with_name(f"shard-{number}-{wanted.digest}.arrow"))
        write_table(table, EVIDENCE, paths[-1])
    path = captured / layer_file(EVIDENCE, layer, wanted.digest)
    gather_layer(layer, chosen, paths, path)
    return path


def evidence(
    subject: Subject, catalog: Catalog, captured: Path, types: pa.Table
) -> dict[Purpose, list[Evidence]]:
    """The evidence of neurons of one layer, named by their rows of `types`, by purpose."""
    wanted = Wanted(tuple(types["neuron"].to_pylist()))
    layer = types["layer"][0].as_py()
    return load_evidence(types, [replay_evidence(subject, catalog, captured, layer, wanted)])
