"""Capture one shard into its folder."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from neuron_atlas.tasks.artifacts import in_shard, layer_file, write_table
from neuron_atlas.tasks.artifacts.location import atomic_folder
from neuron_atlas.tasks.capture.capture import RecordSpec, capture
from neuron_atlas.tasks.capture.demand import plan_shard_memory
from neuron_atlas.tasks.capture.record import LayerRecord
from neuron_atlas.tasks.capture.record_tables import layer_tables
from neuron_atlas.tasks.capture.shard_plan import ShardPlan
from neuron_atlas.tasks.samples.catalog import Catalog
from neuron_atlas.tasks.subject.encode import ROLE_INDEX, EncodedSample, encode
from neuron_atlas.tasks.subject.load import Subject
from neuron_atlas.tasks.subject.prefetch import prefetch

_IMAGE_THREADS_WITH_GPU = 4
_MOST_WRITERS = 8
"""Threads that write the layers of a shard. Each holds the tables of one layer."""


def capture_shard(
    subject: Subject,
    shard: ShardPlan,
    catalog: Catalog,
    folder: Path,
    n_processes: int = 1,
    on_batch: Callable[[int], None] = lambda count: None,
) -> None:
    """Capture a shard's samples into `folder`, which is either complete or absent.

    n_processes: processes that capture on this machine and share its memory. on_batch: called with
    the number of samples of each batch. Raises SubjectError, SampleError and DiskFullError.
    """
    settings = shard.settings
    recording = RecordSpec(
        layers=shard.layers,
        hook_point=settings.hook_point,
        top_n=settings.top_n,
        top_activations=settings.top_activations,
        peak_roles=tuple(ROLE_INDEX[role] for role in settings.peak_roles),
    )
    plan = plan_shard_memory(subject, shard, n_processes)
    records = capture(
        subject, lambda: _encoded(subject, shard, catalog), recording, plan.batch_size, on_batch
    )
    threads = max(1, min(_MOST_WRITERS, len(os.sched_getaffinity(0)) // n_processes))
    with atomic_folder(folder) as unfinished, ThreadPoolExecutor(threads) as pool:
        written = [
            pool.submit(_write, layer, record, unfinished) for layer, record in records.items()
        ]
        for layer in written:
            layer.result()


def _write(layer: int, record: LayerRecord, folder: Path) -> None:
    for table_spec, table in layer_tables(layer, record):
        spec = in_shard(table_spec)
        write_table(table, spec, folder / layer_file(spec, layer))


def _encoded(
    subject: Subject, shard: ShardPlan, catalog: Catalog
) -> Iterator[tuple[int, EncodedSample]]:
    """Yield the shard's samples, longest first. Samples of one length then come together, and a
    batch that does not fit into memory is the first one."""

    def prepare(sample_id: int) -> tuple[int, EncodedSample]:
        return sample_id, encode(subject, catalog.open_images(sample_id), catalog[sample_id].text)

    def length(sample_id: int) -> int:
        return catalog[sample_id].n_visual + len(catalog[sample_id].tokens)

    threads = shard.settings.image_threads
    if threads is None:
        threads = _IMAGE_THREADS_WITH_GPU if subject.device.type == "cuda" else 0
    longest_first = sorted(shard.sample_ids, key=length, reverse=True)
    return prefetch(longest_first, prepare, threads, 2 * shard.settings.batch_size)
