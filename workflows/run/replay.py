"""Run the subject again over chosen samples: the work items that several stages share."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from neuron_atlas.tasks.artifacts import (
    CHOSEN,
    DESCRIPTIONS,
    EVIDENCE,
    USABLE,
    read_table,
    write_table,
)
from neuron_atlas.tasks.evidence.choose import image_names
from neuron_atlas.tasks.evidence.gather import gather_layer
from neuron_atlas.tasks.evidence.shards import ReplayShard, plan_replay
from neuron_atlas.tasks.samples.source import Source
from neuron_atlas.tasks.subject.settings import HookPoint
from neuron_atlas.workflows.run.context import Context
from neuron_atlas.workflows.run.stage import Item, Worker

REPLAY = "replay"
"""Folder for the chosen rows and for the shards, until the layers' files are complete."""


def replay_items(context: Context, folder: Path, chosen: Sequence[Path]) -> list[Item]:
    """Return the shards of the samples in files of `chosen`."""
    settings = context.settings
    inputs = (
        tuple(chosen),
        context.paths("samples", "samples"),
        context.paths("describe", "descriptions"),
        settings.data.source,
        settings.capture.hook_point,
        settings.capture.batch_size,
        settings.capture.image_threads,
    )
    return [
        Item(shard.name, len(shard.sample_ids), (_shard_file(chosen, shard),), (shard, *inputs))
        for shard in _plan(context, chosen)
    ]


def replay_shard(
    worker: Worker,
    shard: ReplayShard,
    chosen: Sequence[Path],
    samples: Sequence[Path],
    descriptions: Sequence[Path],
    source: Source,
    hook_point: HookPoint,
    batch_size: int,
    threads: int | None,
) -> None:
    """Write the traces of the rows of `chosen` on one shard of samples."""
    from neuron_atlas.tasks.evidence.replay import replay
    from neuron_atlas.tasks.samples.catalog import open_catalog

    ids = shard.sample_ids
    rows = read_table(chosen, CHOSEN, sample_ids=ids)
    catalog = open_catalog(samples, descriptions, sample_ids=ids, source=source)
    subject = worker.loaded.subject
    table = replay(subject, rows, catalog, hook_point, batch_size, threads, worker.count)
    (path,) = worker.paths
    write_table(table, EVIDENCE, path)


def replayed_files(context: Context, folder: Path, chosen: Sequence[Path]) -> list[Path]:
    """Return the files of the shards of `replay_items`."""
    return [folder / _shard_file(chosen, shard) for shard in _plan(context, chosen)]


def gather_shards(
    worker: Worker,
    layer: int,
    chosen: Path,
    shards: Sequence[Path],
    claims: Mapping[int, str] | None = None,
) -> None:
    """Write the rows of one layer from the files of all shards; see `gather_layer`."""
    (path,) = worker.paths
    gather_layer(layer, chosen, shards, path, claims)


def usable_samples(context: Context, columns: Sequence[str]) -> pa.Table:
    """Return the usable samples' rows of `descriptions`."""
    described = read_table(
        context.paths("describe", "descriptions"), DESCRIPTIONS, [*columns, "status"]
    )
    return described.filter(pc.is_in(described["status"], value_set=pa.array(USABLE)))


def _plan(context: Context, chosen: Sequence[Path]) -> list[ReplayShard]:
    ids = read_table(chosen, CHOSEN, ["sample_id"])["sample_id"].to_numpy()
    distinct, rows = np.unique(ids, return_counts=True)
    described = usable_samples(context, ["sample_id", "n_visual", "n_text"])
    tokens = dict(
        zip(
            described["sample_id"].to_pylist(),
            pc.add(described["n_visual"], described["n_text"]).to_pylist(),
            strict=True,
        )
    )
    trace_bytes = {
        one: 2 * count * tokens[one]
        for one, count in zip(distinct.tolist(), rows.tolist(), strict=True)
    }
    return plan_replay(trace_bytes, image_names(context.paths("samples", "samples"), trace_bytes))


def _shard_file(chosen: Sequence[Path], shard: ReplayShard) -> str:
    """The name hashes the names of the files of `chosen`, which name their rows."""
    digest = hashlib.sha256(repr([path.name for path in chosen]).encode()).hexdigest()[:12]
    return f"{REPLAY}/{digest}/{shard.name}.{EVIDENCE.format}"
