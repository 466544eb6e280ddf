"""Schemas of all tables that stages exchange: columns, units, keys and statuses.

Stages exchange data only through these tables. The schemas are therefore all you need to replace
a stage, or to read an atlas without this code.

Units: activations are in the subject's own activation units, lengths in tokens, image sizes in
pixels of the original image, money in US dollars, time in seconds.
"""

from __future__ import annotations

from neuron_atlas.tasks.artifacts.analysed import (
    ALL_LAYERS,
    MEANINGS,
    RESPONSES,
    TYPE_AGREEMENT,
    TYPE_CONCEPTS,
    TYPE_KAPPA,
    TYPE_RESPONSES,
    TYPE_SHARES,
    TYPE_SUMMARIES,
    TYPE_TOP_WORDS,
    WORDS,
)
from neuron_atlas.tasks.artifacts.captured import (
    HISTOGRAMS,
    MOMENTS,
    exemplars_spec,
    in_shard,
    slot_values,
)
from neuron_atlas.tasks.artifacts.columns import NO_SAMPLE, ROLES, TableSpec
from neuron_atlas.tasks.artifacts.effects import (
    ABLATIONS,
    EFFECTS,
    FAITHFULNESS,
    OUTPUT_TOKENS,
)
from neuron_atlas.tasks.artifacts.evidence import (
    CHOSEN,
    EVIDENCE,
    NEAR_MISSES,
    PURPOSES,
    STRATA,
    STRATUM_SIZES,
)
from neuron_atlas.tasks.artifacts.experts import EXPERTS, ExpertLayout
from neuron_atlas.tasks.artifacts.explained import (
    EXPLANATION_STATUSES,
    EXPLANATIONS,
    MEANING_EXPLANATIONS,
    TRANSIENT_STATUSES,
)
from neuron_atlas.tasks.artifacts.files import (
    ROW_GROUP,
    artifact_of,
    layer_file,
    layer_of,
    layer_prefix,
    list_rows,
    read_batches,
    read_rows,
    read_table,
    row_count,
    write_table,
    write_table_parts,
)
from neuron_atlas.tasks.artifacts.image_clusters import (
    IMAGE_CLUSTER_CENTERS,
    IMAGE_CLUSTER_NAMES,
    IMAGE_CLUSTERS,
)
from neuron_atlas.tasks.artifacts.old_tables import OldTableError, old_table_message
from neuron_atlas.tasks.artifacts.samples import (
    CONCEPT_GRID,
    CONCEPTS,
    DESCRIPTIONS,
    SAMPLES,
    USABLE,
)
from neuron_atlas.tasks.artifacts.scored import (
    CLAIMS,
    LEVELS,
    MEANING_SCORES,
    SCORE_AGGREGATES,
    SCORES,
    SIMULATIONS,
    TOKENS,
)
from neuron_atlas.tasks.artifacts.search import (
    NEIGHBORS,
    PEAK_EMBEDDINGS,
    PEAK_PLACES,
    SEARCH_CENTERS,
    SEARCH_VECTORS,
)
from neuron_atlas.tasks.artifacts.typed import (
    NEURON_TESTS,
    NEURON_TYPES,
    TESTED_TYPES,
    TYPE_COLUMNS,
    TYPES,
)

__all__ = [
    "ABLATIONS",
    "ALL_LAYERS",
    "CHOSEN",
    "CLAIMS",
    "CONCEPTS",
    "CONCEPT_GRID",
    "DESCRIPTIONS",
    "EFFECTS",
    "EVIDENCE",
    "EXPERTS",
    "EXPLANATIONS",
    "EXPLANATION_STATUSES",
    "FAITHFULNESS",
    "HISTOGRAMS",
    "IMAGE_CLUSTERS",
    "IMAGE_CLUSTER_CENTERS",
    "IMAGE_CLUSTER_NAMES",
    "LEVELS",
    "MEANINGS",
    "MEANING_EXPLANATIONS",
    "MEANING_SCORES",
    "MOMENTS",
    "NEAR_MISSES",
    "NEIGHBORS",
    "NEURON_TESTS",
    "NEURON_TYPES",
    "NO_SAMPLE",
    "OUTPUT_TOKENS",
    "PEAK_EMBEDDINGS",
    "PEAK_PLACES",
    "PURPOSES",
    "RESPONSES",
    "ROLES",
    "ROW_GROUP",
    "SAMPLES",
    "SCORES",
    "SCORE_AGGREGATES",
    "SEARCH_CENTERS",
    "SEARCH_VECTORS",
    "SIMULATIONS",
    "STRATA",
    "STRATUM_SIZES",
    "TESTED_TYPES",
    "TOKENS",
    "TRANSIENT_STATUSES",
    "TYPES",
    "TYPE_AGREEMENT",
    "TYPE_COLUMNS",
    "TYPE_CONCEPTS",
    "TYPE_KAPPA",
    "TYPE_RESPONSES",
    "TYPE_SHARES",
    "TYPE_SUMMARIES",
    "TYPE_TOP_WORDS",
    "USABLE",
    "WORDS",
    "ExpertLayout",
    "OldTableError",
    "TableSpec",
    "artifact_of",
    "exemplars_spec",
    "in_shard",
    "layer_file",
    "layer_of",
    "layer_prefix",
    "list_rows",
    "old_table_message",
    "read_batches",
    "read_rows",
    "read_table",
    "row_count",
    "slot_values",
    "write_table",
    "write_table_parts",
]
