"""Small tables of the artifacts' true schemas, and a catalog of drawn images, for the report."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
from PIL import Image

from neuron_atlas.tasks.artifacts import (
    EVIDENCE,
    EXPLANATIONS,
    NEURON_TYPES,
    SCORE_AGGREGATES,
    SCORES,
    TYPES,
    TableSpec,
)
from neuron_atlas.tasks.artifacts.regions import Region
from neuron_atlas.tasks.report.inputs import Slot
from neuron_atlas.tasks.samples.catalog import Catalog, Sample
from neuron_atlas.tasks.samples.source import Concept, OpenedImage, SampleError, SampleRecord
from neuron_atlas.tasks.score.aggregate import BEATS_CONTROL, MEASURES

PURE = {
    "visual": (1.0, 0.0, 0.0, 0.0),
    "text": (0.0, 1.0, 0.0, 0.0),
    "multi-modal": (0.0, 0.0, 1.0, 0.0),
    "unknown": (0.0, 0.0, 0.0, 1.0),
}


def neuron_types(*rows: Mapping[str, Any]) -> pa.Table:
    """Rows of `types`; each needs layer, neuron and type."""
    whole = []
    for row in rows:
        shares = row.get("shares", PURE[row["type"]])
        named = dict(zip(("visual", "text", "multimodal", "unknown"), shares, strict=True))
        defaults = {f"share_{name}": share for name, share in named.items()}
        defaults |= {"n_exemplars": 10, "scale": 2.0}
        whole.append(defaults | {key: row[key] for key in row if key != "shares"})
    return _table(whole, NEURON_TYPES)


def explanations(*rows: Mapping[str, Any]) -> pa.Table:
    defaults = {
        "explainer": "dissect", "type": "visual", "text": "red things", "status": "ok",
        "reason": "", "model": "", "prompt_hash": "", "exemplar_ids": [], "attempts": 0,
        "evidence_for": "", "evidence_against": "", "confidence": None, "calibration_ids": [],
        "scorer_ids": [], "omitted": "",
        "tokens_in": 0, "tokens_out": 0, "cost": 0.0, "seconds": 0.1,
    }  # fmt: skip
    return _table([defaults | dict(row) for row in rows], EXPLANATIONS)


def scores(*rows: Mapping[str, Any]) -> pa.Table:
    """Rows of `scores`; the interval and the margin follow from correlation and control."""
    whole = []
    for row in rows:
        correlation: Any = row.get("correlation")
        control: Any = row.get("control_other")
        defaults = {
            "explainer": "dissect", "simulator": "concept", "type": "visual",
            "correlation": None, "control_other": None, "status": "ok", "reason": "",
            "ci_low": None if correlation is None else correlation - 0.1,
            "ci_high": None if correlation is None else correlation + 0.1,
            "margin": None if None in (correlation, control) else correlation - control,
            "n_samples": 8, "n_tokens": 400, "tokens": "all",
        }  # fmt: skip
        rest = dict.fromkeys(set(SCORES.schema.names) - {"layer", "neuron"})
        whole.append(rest | defaults | dict(row))
    return _table(whole, SCORES)


def aggregates(*rows: Mapping[str, Any]) -> pa.Table:
    """Rows of `score_aggregates`: every measure of a group has the numbers that are given."""
    defaults = {
        "explainer": "dissect", "simulator": "concept", "tokens": "all", "by": "all", "group": "",
        "n": 8, "undefined": 2, "mean": 0.5, "ci_low": 0.4, "ci_high": 0.6, "median": 0.5,
        "max_q": None,
    }  # fmt: skip
    whole = []
    for row in rows:
        for measure in (*MEASURES, BEATS_CONTROL):
            of_test = {"max_q": 0.05, "ci_low": None, "ci_high": None}
            named = of_test if measure == BEATS_CONTROL else {}
            whole.append(defaults | {"measure": measure} | named | dict(row))
    return _table(whole, SCORE_AGGREGATES)


def trace(
    visual: np.ndarray,
    text: Sequence[float] | np.ndarray,
    *,
    layer: int = 0,
    neuron: int = 0,
    rank: int = 0,
    sample_id: int = 0,
) -> dict[str, Any]:
    """A row of `evidence`, an exemplar; visual has the shape of the sample's only grid."""
    return {
        "layer": layer, "neuron": neuron, "rank": rank, "sample_id": sample_id,
        "purpose": "show", "stratum": "exemplar", "weight": 1.0,
        "visual": np.asarray(visual, np.float16).ravel(), "text": np.asarray(text, np.float16),
    }  # fmt: skip


def traces(*rows: Mapping[str, Any]) -> pa.Table:
    return _table(rows, EVIDENCE)


def slots(table: pa.Table) -> dict[int, list[Slot]]:
    """The exemplars of each neuron, as capture would have ranked those with these traces."""
    ranked: dict[int, list[Slot]] = {}
    for row in sorted(table.to_pylist(), key=lambda row: row["rank"]):
        tokens = [list(row["visual"]), list(row["text"])]
        peaks = [max(values, default=-np.inf) for values in tokens]
        role = int(peaks[1] > peaks[0])
        token = tokens[role].index(peaks[role]) if tokens[role] else 0
        slot = Slot(row["sample_id"], float(peaks[role]), role, token)
        ranked.setdefault(row["neuron"], []).append(slot)
    return ranked


def every_type(per_type: int = 3, layers: int = 2) -> pa.Table:
    """A few neurons of each type in each layer."""
    return neuron_types(
        *(
            {"layer": layer, "neuron": place * per_type + index, "type": name}
            for layer in range(layers)
            for place, name in enumerate(TYPES)
            for index in range(per_type)
        )
    )


@dataclass
class Drawn:
    """A source of plain images by reference "WIDTHxHEIGHT"; counts how often each is opened."""

    opened: list[str] = field(default_factory=list)

    def open_image(self, image: str) -> OpenedImage:
        self.opened.append(image)
        if "x" not in image:
            raise SampleError("missing", f"no such file: {image}")
        width, height = map(int, image.split("x"))
        ramp = np.linspace(0, 255, width * height).reshape(height, width).astype(np.uint8)
        return OpenedImage(Image.fromarray(ramp).convert("RGB"), "")

    def records(self) -> list[SampleRecord]:
        return []

    def probe(self) -> str:
        return ""

    def concepts(self, image: str) -> list[Concept]:
        return []


def sample(
    sample_id: int = 0,
    *,
    tokens: Sequence[str] = ("a", " red", " circle"),
    image: str = "48x48",
    grid: tuple[int, int] = (2, 3),
    view: tuple[float, float, float, float] | None = None,
    source_id: str | None = None,
) -> Sample:
    width, height = map(int, image.split("x")) if "x" in image else (48, 48)
    return Sample(
        sample_id=sample_id,
        source_id=f"source-{sample_id}" if source_id is None else source_id,
        images=(image,),
        text="".join(tokens),
        tokens=tuple(tokens),
        regions=(Region(0, *grid, *(view or (0.0, 0.0, float(width), float(height)))),),
        width=width,
        height=height,
    )


def catalog(*samples: Sample) -> Catalog:
    return Catalog({one.sample_id: one for one in samples}, {}, Drawn())


def _table(rows: Sequence[Mapping[str, Any]], spec: TableSpec) -> pa.Table:
    for row in rows:
        assert set(row) == set(spec.schema.names), set(row) ^ set(spec.schema.names)
        assert not spec.statuses or row["status"] in spec.statuses
    return pa.Table.from_pylist([dict(row) for row in rows], schema=spec.schema)
