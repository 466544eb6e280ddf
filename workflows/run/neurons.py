"""Split the selected neurons into work items, and load their evidence."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc

from neuron_atlas.tasks.artifacts import (
    EVIDENCE,
    EXPLANATIONS,
    IMAGE_CLUSTER_NAMES,
    IMAGE_CLUSTERS,
    NEAR_MISSES,
    NEURON_TYPES,
    STRATUM_SIZES,
    layer_prefix,
    read_table,
)
from neuron_atlas.tasks.samples.image_clusters import ImageClusterFiles
from neuron_atlas.tasks.samples.source import Source
from neuron_atlas.workflows.cluster.image_cache import ImageCache
from neuron_atlas.workflows.run.content import hash_rows
from neuron_atlas.workflows.run.context import Context

if TYPE_CHECKING:
    from neuron_atlas.tasks.evidence.evidence import Evidence, Purpose
    from neuron_atlas.tasks.evidence.strata import Strata
    from neuron_atlas.tasks.samples.catalog import Catalog


@dataclass(frozen=True)
class NeuronPart:
    """Neurons of one layer, as one work item. types: their rows of the `types` table."""

    layer: int
    neurons: tuple[int, ...]
    types: pa.Table

    @property
    def key(self) -> str:
        """Name of the part. It hashes the neurons, so parts of another size have other names."""
        digest = hashlib.sha256(repr(self.neurons).encode()).hexdigest()[:8]
        return f"layer-{self.layer:03d}-{self.neurons[0]:06d}-{digest}"

    def file(self, artifact: str) -> str:
        """Return the name of the part's file of an artifact."""
        return f"{artifact}-{self.key}.parquet"


def split_into_parts(chosen: pa.Table, size: int) -> list[NeuronPart]:
    """Cut rows of `types`, sorted by layer and neuron, into parts of at most `size` neurons.

    Each part has neurons of one layer.
    """
    parts = []
    for layer in sorted(set(chosen["layer"].to_pylist())):
        rows = chosen.filter(pc.equal(chosen["layer"], layer))
        for start in range(0, len(rows), size):
            types = rows.slice(start, size)
            parts.append(NeuronPart(layer, tuple(types["neuron"].to_pylist()), types))
    return parts


def explained_parts(context: Context, explainer: str) -> list[NeuronPart]:
    """Return the neurons that an explainer explained, in the same parts as in that stage."""
    types = read_table(context.paths("classify", "types"), NEURON_TYPES)
    keys = ["layer", "neuron"]
    explained = read_table(context.paths("explain", "explanations", explainer), EXPLANATIONS, keys)
    chosen = types.join(explained, keys=keys, join_type="left semi")
    chosen = chosen.sort_by([(key, "ascending") for key in keys]).select(types.column_names)
    (manifest,) = context.manifests_of("explain", explainer)
    return split_into_parts(chosen, manifest.about["neurons_per_task"])


def neurons_identity(types: pa.Table) -> str:
    """Return a hash of what later stages read of some rows of `types`: the neurons, their types
    and scales."""
    return hash_rows([types.select(["layer", "neuron", "type", "scale"])])


def explained_identity(context: Context, explainer: str) -> str:
    """Return `neurons_identity` of the neurons that an explainer explained."""
    parts = explained_parts(context, explainer)
    return neurons_identity(
        pa.concat_tables([NEURON_TYPES.schema.empty_table(), *(part.types for part in parts)])
    )


def explanation_texts(context: Context, explainer: str) -> dict[tuple[int, int], str]:
    """Return the usable explanations of an explainer by layer and neuron, ascending."""
    columns = ["layer", "neuron", "text", "status"]
    rows = read_table(context.paths("explain", "explanations", explainer), EXPLANATIONS, columns)
    rows = rows.filter(pc.equal(rows["status"], "ok")).sort_by(
        [("layer", "ascending"), ("neuron", "ascending")]
    )
    layers, neurons, texts = (rows[name].to_pylist() for name in columns[:3])
    return dict(zip(zip(layers, neurons, strict=True), texts, strict=True))


@dataclass(frozen=True)
class NearMissFiles:
    """The files with the near misses of one explainer's explanations. Picklable.

    files: pairs of a file of `stratum_sizes` and its file of `near_misses`.
    """

    files: Sequence[tuple[Path, Path]]

    @staticmethod
    def from_context(context: Context, explainer: str) -> NearMissFiles:
        """Return the files of this run."""
        sizes, near_misses = (
            context.paths("near_misses", spec.name, explainer)
            for spec in (STRATUM_SIZES, NEAR_MISSES)
        )
        return NearMissFiles(list(zip(sizes, near_misses, strict=True)))

    def load(self, layer: int, texts: Mapping[int, str]) -> dict[int, Strata]:
        """Load the strata and near misses of some neurons of a layer. texts: their explanations."""
        from neuron_atlas.tasks.evidence.strata import load_strata

        start = layer_prefix(STRATUM_SIZES.name, layer)
        mine = [pair for pair in self.files if pair[0].name.startswith(start)]
        return load_strata(mine, texts)


@dataclass(frozen=True)
class EvidenceFiles:
    """The files with the evidence of neurons. Picklable."""

    evidence: Sequence[Path]
    samples: Sequence[Path]
    descriptions: Sequence[Path]
    concepts: Sequence[Path]
    clusters: ImageClusterFiles
    source: Source
    images: ImageCache

    @staticmethod
    def from_context(context: Context, explainer: str = "") -> EvidenceFiles:
        """Return the files of this run. explainer: its name, if the run has several."""
        return EvidenceFiles(
            evidence=context.paths("evidence", "evidence"),
            samples=context.paths("samples", "samples"),
            descriptions=context.paths("describe", "descriptions"),
            concepts=context.paths("samples", "concepts"),
            clusters=image_cluster_files(context, explainer),
            source=context.settings.data.source,
            images=image_cache(context),
        )

    def load(self, part: NeuronPart, *purposes: Purpose) -> dict[Purpose, list[Evidence]]:
        """Load the evidence of a part's neurons, by purpose. Reads no other traces."""
        from neuron_atlas.tasks.evidence.read import load_evidence

        start = layer_prefix(EVIDENCE.name, part.layer)
        mine = [path for path in self.evidence if path.name.startswith(start)]
        return load_evidence(part.types.cast(NEURON_TYPES.schema), mine, purposes)

    def catalog(self, evidence: Sequence[Evidence]) -> Catalog:
        """Open a catalog of the samples in some evidence."""
        from neuron_atlas.tasks.samples.catalog import open_catalog

        return open_catalog(
            self.samples,
            self.descriptions,
            self.concepts,
            self.clusters,
            sample_ids=_sample_ids(evidence),
            source=self.source,
            images=self.images,
        )

    def texts(self, evidence: Sequence[Evidence]) -> Catalog:
        """Open a catalog of the texts of the samples in some evidence; reads nothing else."""
        from neuron_atlas.tasks.samples.catalog import open_texts

        return open_texts(self.descriptions, _sample_ids(evidence))


def _sample_ids(evidence: Sequence[Evidence]) -> set[int]:
    return {sample_id for neuron in evidence for sample_id in neuron.sample_ids}


def image_cluster_files(context: Context, explainer: str = "") -> ImageClusterFiles:
    """Return the files of this run's image clusters; none for an explainer that names none.

    explainer: its name, if the run has several.
    """
    explainers = [one.explainer for one in context.settings.explain.each_explainer]
    is_used = any(one.uses_background for one in explainers if explainer in ("", one.name))
    if not (is_used and context.done["image_clusters"].files):
        return ImageClusterFiles()
    return ImageClusterFiles(
        context.paths("image_clusters", IMAGE_CLUSTERS.name),
        context.paths("image_clusters", IMAGE_CLUSTER_NAMES.name),
    )


def image_cache(context: Context) -> ImageCache:
    """Return the decoded images of this run's samples, for the stages after describe."""
    return ImageCache(str(context.folder("samples")))
