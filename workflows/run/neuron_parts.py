"""How chosen neurons are cut into work items, and what such an item reads."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc
import ray

from neuron_atlas.tasks.artifacts import NEURON_TYPES, layer_file
from neuron_atlas.tasks.artifacts.location import present
from neuron_atlas.tasks.samples.source import Source
from neuron_atlas.workflows.cluster.progress import Advance, progress
from neuron_atlas.workflows.cluster.spread import spread
from neuron_atlas.workflows.run.stage import Context

if TYPE_CHECKING:
    from neuron_atlas.tasks.evidence.evidence import Evidence, Purpose
    from neuron_atlas.tasks.samples.catalog import Catalog


@dataclass(frozen=True)
class NeuronPart:
    """Neurons of one layer that are worked on together; types: their rows of `types`."""

    layer: int
    neurons: tuple[int, ...]
    types: pa.Table

    def file(self, artifact: str) -> str:
        """The part's file of an artifact, named by the neurons that it is of."""
        marked = hashlib.sha256(repr(self.neurons).encode()).hexdigest()[:8]
        return f"{artifact}-layer-{self.layer:03d}-{self.neurons[0]:06d}-{marked}.parquet"


def cut_into_parts(chosen: pa.Table, size: int) -> list[NeuronPart]:
    """Cut rows of `types`, sorted by layer and neuron, into parts of one layer each."""
    parts = []
    for layer in sorted(set(chosen["layer"].to_pylist())):
        rows = chosen.filter(pc.equal(chosen["layer"], layer))
        for start in range(0, len(rows), size):
            types = rows.slice(start, size)
            parts.append(NeuronPart(layer, tuple(types["neuron"].to_pylist()), types))
    return parts


def work_on_parts(
    stage: str,
    artifact: str,
    parts: Sequence[NeuronPart],
    folder: Path,
    submit: Callable[[NeuronPart, Path], ray.ObjectRef],
    accompany: Callable[[Advance], AbstractContextManager[object]] = nullcontext,
    ending_s: float = 0.0,
    *,
    abreast: int | None = None,
    at_once: int | None = None,
    after: Callable[[], None] | None = None,
) -> dict[str, list[str]]:
    """Have every part whose file is not there written to it, with a bar; the files by artifact.

    submit: given a part and the path that its task shall write. accompany: what goes on meanwhile.
    ending_s: how long tasks that are stopped are waited for. abreast: see `spread`.
    after: called each time that at_once parts (None: all) are done, and at the end.
    """
    paths = {part.file(artifact): folder / part.file(artifact) for part in parts}
    written = present(folder, paths)
    waiting = [part for part in parts if part.file(artifact) not in written]
    total = sum(len(part.neurons) for part in parts)
    done = total - sum(len(part.neurons) for part in waiting)
    with progress(stage, total, "neurons", done) as advance, accompany(advance):

        def begin(part: NeuronPart) -> ray.ObjectRef:
            return submit(part, paths[part.file(artifact)])

        step = at_once or max(1, len(waiting))
        for start in range(0, len(waiting), step):
            for part, _ in spread(waiting[start : start + step], begin, ending_s, abreast):
                advance(len(part.neurons))
            if after is not None:
                after()
    return {artifact: list(paths)}


@dataclass(frozen=True)
class TaskInputs:
    """The files that explaining and simulating read, as one picklable value."""

    captured: Path
    samples: Sequence[Path]
    descriptions: Sequence[Path]
    concepts: Sequence[Path]
    source: Source

    @staticmethod
    def of(context: Context) -> TaskInputs:
        """The files of this run."""
        return TaskInputs(
            captured=context.folder("capture"),
            samples=context.paths("samples", "samples"),
            descriptions=context.paths("describe", "descriptions"),
            concepts=context.paths("samples", "concepts"),
            source=context.settings.data.source,
        )

    def evidence(self, part: NeuronPart, purpose: Purpose) -> list[Evidence]:
        """The part's evidence for one purpose."""
        from neuron_atlas.tasks.evidence.evidence import load_evidence

        return load_evidence(
            part.types.cast(NEURON_TYPES.schema),
            self.captured / layer_file("traces", part.layer),
            self.captured / layer_file("random_traces", part.layer),
            self.samples,
            purpose,
        )

    def catalog(self, evidence: Sequence[Evidence]) -> Catalog:
        """The samples of some evidence."""
        from neuron_atlas.tasks.samples.catalog import open_catalog

        wanted = {sample_id for neuron in evidence for sample_id in neuron.sample_ids}
        return open_catalog(
            self.samples,
            self.descriptions,
            self.concepts,
            sample_ids=wanted,
            source=self.source,
        )
