"""Every kind of work item reads its own samples only, and every stage decodes an image once."""

from __future__ import annotations

import shutil
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from neuron_atlas.tasks.artifacts import (
    CONCEPTS,
    DESCRIPTIONS,
    SAMPLES,
    files,
    read_table,
    row_groups,
    write_table,
)
from neuron_atlas.tasks.artifacts.conditions import Condition
from neuron_atlas.tasks.samples.scenes import Scenes
from neuron_atlas.tasks.samples.source import OpenedImage
from neuron_atlas.tasks.subject.load import load_subject
from neuron_atlas.workflows.atlas import stages_of
from neuron_atlas.workflows.run.context import Context
from neuron_atlas.workflows.run.stage import Worker
from neuron_atlas.workflows.run.store import Store

_BY_SAMPLE = {spec.name: spec for spec in (SAMPLES, DESCRIPTIONS, CONCEPTS)}
_ROW_GROUP = 2
_OWN_FILE = {
    ("describe", "samples"),
    ("analyse", "descriptions"),
    ("near_misses", "descriptions"),
    ("search", "descriptions"),
}
"""Stages with items that read the whole file of their own samples."""


@dataclass
class Reads:
    """The reads of the tables by sample of one work item, and the images that it decodes.

    chosen: rows read by id. decoded: rows of the row groups that hold them. whole: rows of files
    that were read without ids, by table.
    """

    chosen: int = 0
    decoded: int = 0
    whole: Counter[str] = field(default_factory=Counter)


@pytest.fixture(scope="module")
def items(
    first_run: Context, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[list[tuple[str, str, int, Reads]], dict[str, Counter[str]]]]:
    """Work on all items after `samples` again, in this process and from tables with row groups of
    two rows. Yields stage, item, size and reads of each, and the images decoded by each stage."""
    folder = tmp_path_factory.mktemp("again")
    context = _copy(first_run, folder / "out")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tempfile, "tempdir", str(folder))
        reads, images = _watch(patch)
        done: list[tuple[str, str, int, Reads]] = []
        by_stage: dict[str, Counter[str]] = {}
        subject = load_subject(context.settings.subject)
        holding = SimpleNamespace(subject=subject, n_processes=1)
        for stage in stages_of(context.settings)[1:]:
            images.clear()
            written = folder / stage.name
            written.mkdir()
            for step in stage.steps:
                held = holding if step.needs(context).resource is not None else None
                reads.append(Reads())  # Of listing the items.
                for item in step.items(context, written):
                    paths = tuple(written / name for name in item.files)
                    reads.append(Reads())
                    step.work(Worker(written, paths, held), *item.inputs)
                    done.append((stage.name, item.key, item.size, reads[-1]))
            by_stage[stage.name] = Counter(images)
        yield done, by_stage


def test_an_item_decodes_no_row_group_without_one_of_its_samples(items):
    done, _ = items
    kinds = {stage for stage, _, _, reads in done if reads.chosen}
    assert {"capture", "explain", "simulate", "score", "report"} <= kinds
    for stage, key, _, reads in done:
        assert reads.decoded <= _ROW_GROUP * reads.chosen, (stage, key)


def test_what_is_read_whole_is_the_file_of_the_items_own_samples(items):
    done, _ = items
    for stage, key, size, reads in done:
        for table, rows in reads.whole.items():
            if stage == "report":
                assert key == "page"  # It counts failures by status over all rows.
            elif stage == "explain":
                assert key == "word_classes"  # It learns from the first texts of all samples.
            elif key == "random-patches":
                assert stage == "analyse"  # It counts the visual tokens of all samples.
            else:
                assert (stage, table) in _OWN_FILE, (stage, key, table)
                assert rows == size, (stage, key)


def test_a_stage_decodes_an_image_once(items):
    _, by_stage = items
    for name in ("describe", "capture"):
        assert set(by_stage[name].values()) == {1}
    for name in ("explain", "simulate", "score", "report"):
        assert max(by_stage[name].values(), default=0) <= 1
    assert by_stage["report"]  # The page and the site show the same images.


def _copy(first_run: Context, out: Path) -> Context:
    """Copy a run, its tables by sample with small row groups, and with a site to write."""
    shutil.copytree(first_run.store.out, out)
    for path in (out / "artifacts").glob("*/*/*.parquet"):
        if spec := _BY_SAMPLE.get(path.stem.split("-")[0]):
            write_table(read_table(path, spec), replace(spec, row_group=_ROW_GROUP), path)
    report = first_run.settings.report
    report = replace(report, site=replace(report.site, write=True))
    context = Context(replace(first_run.settings, report=report), Store(out))
    context.done.update(first_run.done)
    return context


def _watch(patch: pytest.MonkeyPatch) -> tuple[list[Reads], Counter[str]]:
    """Record reads in the last of the returned list, and decoded images in the counter."""
    reads = [Reads()]
    images: Counter[str] = Counter()
    decode, read, open_image = (
        row_groups.decode_row_groups,
        files.read_row_groups,
        Scenes.open_image,
    )
    is_by_sample = [False]

    def counted_decode(file: pq.ParquetFile, groups: list[int], columns: list[str]) -> pa.Table:
        table = decode(file, groups, columns)
        if is_by_sample[-1]:
            reads[-1].decoded += len(table)
        return table

    def counted_read(
        path: Path, columns: Sequence[str], conditions: Sequence[Condition] = ()
    ) -> pa.Table:
        name = path.stem.split("-")[0]
        has_ids = any(column == "sample_id" for column, _, _ in conditions)
        is_by_sample.append(has_ids and name in _BY_SAMPLE)
        table = read(path, columns, conditions)
        if is_by_sample.pop():
            reads[-1].chosen += len(table)
        elif name in _BY_SAMPLE:
            reads[-1].whole[name] += len(table)
        return table

    def counted_image(self: Scenes, image: str) -> OpenedImage:
        images[image] += 1
        return open_image(self, image)

    patch.setattr(row_groups, "decode_row_groups", counted_decode)
    patch.setattr(files, "read_row_groups", counted_read)
    patch.setattr(Scenes, "open_image", counted_image)
    return reads, images
