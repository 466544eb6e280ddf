"""Read the record of a neuron that the page, the site and the notebook show."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
from PIL import Image

from neuron_atlas.tasks.artifacts import (
    EFFECTS,
    EVIDENCE,
    EXPLANATIONS,
    FAITHFULNESS,
    NEURON_TYPES,
    OUTPUT_TOKENS,
    SCORES,
    TYPE_COLUMNS,
    TableSpec,
)
from neuron_atlas.tasks.artifacts.regions import activation_map, count_tokens
from neuron_atlas.tasks.evidence.evidence import (
    ActivationRecord,
    activation_records,
    normalize_to_ten,
)
from neuron_atlas.tasks.report.inputs import (
    LayerFiles,
    Slot,
    by_neuron,
    part_names,
    read_neurons,
    read_slots,
)
from neuron_atlas.tasks.report.pictures import open_scaled_view
from neuron_atlas.tasks.report.verdict import Verdict, judge_score
from neuron_atlas.tasks.samples.catalog import Catalog, Sample

HOW_TO_STORE = (
    "Traces are stored of explained neurons, and of the strongest exemplars of other neurons. "
    "Explain the neuron, raise report.site.exemplars_of_unexplained, or set evidence.traces=all. "
    "Then run the same command again."
)
OLDER_RUN = (
    "An older version of neuron-atlas wrote this run. Run its command again in the same folder; "
    "the stage `evidence` then stores the traces."
)

_EXPLANATION_COLUMNS = ("text", "evidence_for", "evidence_against", "status", "reason", "model")


class TraceNotStoredError(LookupError):
    """An exemplar has no trace, and so no heat map; the message says how to get one."""


@dataclass(frozen=True, repr=False)
class Exemplar:
    """One of a neuron's top-activating samples. Rank 0 is the strongest.

    peak: highest activation. peak_role: 0 for a peak in the image, 1 in the text. peak_token: index
    of the peak among the visual or text tokens. scale: the neuron's highest activation over the
    dataset, which maps to 10. trace: None if it is not stored.
    """

    sample_id: int
    rank: int
    peak: float
    peak_role: int
    peak_token: int
    scale: float
    catalog: Catalog
    trace: ActivationRecord | None = None
    how_to_store: str = ""

    @property
    def visual(self) -> np.ndarray:
        """Activation at each visual token: float32 [n_visual]. Raises TraceNotStoredError."""
        return self._stored().visual

    @property
    def text(self) -> np.ndarray:
        """Activation at each token of `tokens`: float32 [n_text]. Raises TraceNotStoredError."""
        return self._stored().text

    def _stored(self) -> ActivationRecord:
        if self.trace is None:
            raise TraceNotStoredError(
                f"exemplar {self.rank} (sample {self.sample_id}) has no trace, so it has no heat "
                f"map. {self.how_to_store}"
            )
        return self.trace

    @property
    def sample(self) -> Sample | None:
        """The sample; None if it is no longer listed as usable."""
        return self.catalog.samples.get(self.sample_id)

    @property
    def tokens(self) -> tuple[str, ...]:
        """The text, split at its token boundaries."""
        return self.sample.tokens if self.sample else ()

    @cached_property
    def image(self) -> Image.Image | None:
        """The image as the subject saw it, in RGB; None if it cannot be opened."""
        return open_scaled_view(self.catalog, self.sample_id)[0]

    @cached_property
    def heat(self) -> np.ndarray | None:
        """Heat map over `image`: float32 [rows, columns], 0 to 10; None without an image.

        Raises TraceNotStoredError.
        """
        return sample_heat_map(self._stored(), self.scale, self.catalog)

    def __repr__(self) -> str:
        return f"<Exemplar {self.rank}: sample {self.sample_id}, peak {self.peak:.3g}>"


@dataclass(frozen=True)
class ScoredExplanation:
    """One explainer's row of `explanations` with its rows of `scores`.

    level: the run's false discovery rate, for verdicts; None if it has no scores. faithfulness: its
    row of `faithfulness`; None if the run has none.
    """

    explanation: Mapping[str, Any]
    scores: tuple[Mapping[str, Any], ...]
    level: float | None = None
    faithfulness: Mapping[str, Any] | None = None

    def verdict(self, score: Mapping[str, Any]) -> Verdict | None:
        """Return the verdict on one of `scores`; None if it has no score or no margin."""
        return judge_score(score, self.level)


@dataclass(frozen=True)
class TypedNeuron:
    """A neuron with its row of `types`."""

    row: Mapping[str, Any]

    @property
    def layer(self) -> int:
        """Layer of the neuron."""
        return self.row["layer"]

    @property
    def neuron(self) -> int:
        """Index of the neuron in its layer."""
        return self.row["neuron"]

    @property
    def type(self) -> str:
        """Type: visual, text, multi-modal or unknown."""
        return self.row["type"]

    @property
    def shares(self) -> dict[str, float]:
        """Share of its exemplars that have each type."""
        return {name: self.row[column] or 0.0 for name, column in TYPE_COLUMNS.items()}

    @property
    def scale(self) -> float:
        """Highest activation over the dataset, which maps to 10."""
        return self.row["scale"] or 0.0


@dataclass(frozen=True)
class NeuronRecord(TypedNeuron):
    """One neuron with its explanations and exemplars.

    exemplars: strongest first. statistics: its rows of further tables, by the name of the table;
    of `effects` and `output_tokens`, if the run has them. part: expert and index in it, in words.
    """

    explanations: tuple[ScoredExplanation, ...]
    exemplars: tuple[Exemplar, ...]
    statistics: Mapping[str, Mapping[str, Any]]
    part: str = ""


def read_records(
    files: LayerFiles,
    neurons: Collection[int],
    open_samples: Callable[[Collection[int]], Catalog],
    exemplars: int | None = None,
    of_others: int | None = None,
    statistics: Collection[TableSpec] = (),
    level: float | None = None,
) -> dict[int, NeuronRecord]:
    """Read some neurons of a layer. Returns records by the neuron's index.

    open_samples: opens the exemplars' samples by id. exemplars: maximum per neuron; None for all.
    of_others: maximum for a neuron that was not explained; None for `exemplars`. statistics:
    further tables to read. level: the run's false discovery rate, for verdicts.
    """
    specs = (NEURON_TYPES, SCORES, EFFECTS, OUTPUT_TOKENS, FAITHFULNESS, *statistics)
    tables = {spec.name: read_neurons(files, spec, neurons) for spec in specs}
    columns = ["neuron", "explainer", "confidence", *_EXPLANATION_COLUMNS]
    tables["explanations"] = read_neurons(files, EXPLANATIONS, neurons, columns)
    explained = set(tables["explanations"]["neuron"].to_pylist())
    slots = {
        neuron: ranked[: exemplars if of_others is None or neuron in explained else of_others]
        for neuron, ranked in read_slots(files, neurons).items()
    }
    only = [("rank", ">=", 0), ("rank", "<", max(map(len, slots.values()), default=0))]
    columns = ["neuron", "rank", "sample_id", "visual", "text"]
    tables["evidence"] = read_neurons(files, EVIDENCE, neurons, columns, only)
    catalog = open_samples({slot.sample_id for ranked in slots.values() for slot in ranked})
    how_to_store = HOW_TO_STORE if files["evidence"] else OLDER_RUN
    records = gather_records(tables, slots, catalog, level, how_to_store)
    name = part_names(files)
    return {one: replace(record, part=name(one)) for one, record in records.items()}


def gather_records(
    tables: Mapping[str, pa.Table],
    slots: Mapping[int, Sequence[Slot]],
    catalog: Catalog,
    level: float | None = None,
    how_to_store: str = HOW_TO_STORE,
) -> dict[int, NeuronRecord]:
    """Combine the rows of one layer's neurons into records, by the neuron's index.

    tables: `types`, `explanations`, `scores`, `evidence` (the traces of exemplars that have one),
    perhaps `faithfulness`, and tables of statistics, by name. slots: the exemplars of each neuron,
    strongest first. level: the run's false discovery rate, for verdicts. how_to_store: what to do
    about a trace that is not stored.
    """
    rows = {name: by_neuron(table) for name, table in tables.items() if name != "evidence"}
    types, explained, scored = (rows.pop(name) for name in ("types", "explanations", "scores"))
    faithful = rows.pop(FAITHFULNESS.name, {})
    traces = _traces(tables["evidence"])
    return {
        neuron: NeuronRecord(
            row,
            _pair_up(
                explained.get(neuron, []), scored.get(neuron, []), faithful.get(neuron, []), level
            ),
            tuple(
                Exemplar(
                    slot.sample_id,
                    rank,
                    slot.peak,
                    slot.role,
                    slot.token,
                    row["scale"] or 0.0,
                    catalog,
                    traces.get((neuron, rank)),
                    how_to_store,
                )
                for rank, slot in enumerate(slots.get(neuron, ()))
            ),
            {name: found[neuron][0] for name, found in rows.items() if neuron in found},
        )
        for neuron, (row,) in sorted(types.items())
    }


def sample_heat_map(trace: ActivationRecord, scale: float, catalog: Catalog) -> np.ndarray | None:
    """Return the heat map of a sample: float32 [rows, columns], 0 to 10, where `scale` maps to 10.

    Returns None if the sample has no image, or a different one than when it was captured.
    """
    sample = catalog.samples.get(trace.sample_id)
    if sample is None or not len(trace.visual) or count_tokens(sample.regions) != len(trace.visual):
        return None
    return activation_map(sample.view, normalize_to_ten(trace.visual, scale))


def _traces(evidence: pa.Table) -> dict[tuple[int, int], ActivationRecord]:
    """Return the traces of exemplars by neuron and rank."""
    keys = zip(*(evidence[name].to_pylist() for name in ("neuron", "rank")), strict=True)
    return dict(zip(keys, activation_records(evidence), strict=True))


def _pair_up(
    explanations: list[dict[str, Any]],
    scores: list[dict[str, Any]],
    faithfulness: list[dict[str, Any]],
    level: float | None,
) -> tuple[ScoredExplanation, ...]:
    explained = {row["explainer"]: row for row in explanations}
    faithful = {row["explainer"]: row for row in faithfulness}
    missing = dict.fromkeys(_EXPLANATION_COLUMNS, "") | {"status": "missing", "confidence": None}
    return tuple(
        ScoredExplanation(
            explained.get(name, missing | {"explainer": name}),
            tuple(row for row in scores if row["explainer"] == name),
            level,
            faithful.get(name),
        )
        for name in dict.fromkeys(row["explainer"] for row in (*explanations, *scores))
    )
