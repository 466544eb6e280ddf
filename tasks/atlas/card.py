"""Write the dataset card of an exported atlas: method, columns, results and limitations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl
import pyarrow as pa
from jinja2 import Environment, PackageLoader, StrictUndefined

from neuron_atlas.tasks.artifacts import TYPES, TableSpec
from neuron_atlas.tasks.artifacts.effects import CAUSAL_TYPES
from neuron_atlas.tasks.report.controls import CONTROLS, strongest_control

if TYPE_CHECKING:
    from neuron_atlas.tasks.atlas.atlas import Atlas

SPLIT = "atlas"
_UNCHOSEN = "unknown"


@dataclass(frozen=True)
class Exported:
    """One config of the exported dataset: its table, file, number of rows, and bytes in memory."""

    name: str
    spec: TableSpec
    schema: pa.Schema
    path: Path
    rows: int
    bytes: int


def write_card(
    atlas: Atlas, path: Path, exported: Sequence[Exported], license_id: str, title: str = ""
) -> None:
    """Write README.md: YAML for the Hub and `datasets`, then text and tables."""
    about = _about(atlas)
    title = join_lines(title) or f"Neurons of {about['subject']} on {about['dataset']}"
    environment = Environment(
        loader=PackageLoader("neuron_atlas.tasks.atlas"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        autoescape=False,
    )
    scores = _scores(atlas)
    environment.filters |= {"cell": markdown_cell, "meaning": _meaning}
    words = environment.get_template("card.md").render(
        title=title,
        about=about,
        exported=exported,
        types=TYPES,
        by_layer=_types_by_layer(atlas),
        scores=scores,
        strongest=_strongest(scores),
        causal_types=CAUSAL_TYPES,
        causal=_causal_types(atlas),
        failures=_failures(atlas, exported),
        license_id="" if license_id == _UNCHOSEN else license_id,
    )
    path.write_text(f"---\n{_front_matter(exported, license_id, title)}\n---\n\n{words}", "utf-8")


def join_lines(text: str) -> str:
    """Join lines with spaces, for a title or a row of a table."""
    return " ".join(text.split())


def markdown_cell(value: Any) -> str:
    """Format a value as a cell of a Markdown table, with all markup escaped."""
    if value is None:
        return ""
    text = f"{value:.3f}" if isinstance(value, float) else join_lines(str(value))
    return "".join(f"\\{one}" if one in "\\|*_`[]<>#&~" else one for one in text)


def _meaning(field: pa.Field) -> str:
    return (field.metadata or {}).get(b"meaning", b"").decode()


def _front_matter(exported: Sequence[Exported], license_id: str, title: str) -> str:
    from datasets import DatasetInfo, Features, SplitDict, SplitInfo
    from datasets.info import DatasetInfosDict
    from datasets.utils.metadata import MetadataConfigs
    from huggingface_hub import DatasetCardData

    card = DatasetCardData(
        license=license_id,
        pretty_name=title,
        language=["en"],
        tags=["interpretability", "vision-language-model", "neurons", "neuron-atlas"],
    )
    infos = {
        one.name: DatasetInfo(
            features=Features.from_arrow_schema(one.schema),
            splits=SplitDict({SPLIT: SplitInfo(SPLIT, one.bytes, one.rows)}),
            download_size=one.path.stat().st_size,
            dataset_size=one.bytes,
            config_name=one.name,
        )
        for one in exported
    }
    DatasetInfosDict(infos).to_dataset_card_data(card)
    configs = {
        one.name: {
            "data_files": [{"split": SPLIT, "path": f"{one.name}/*.parquet"}],
            **({"default": True} if one is exported[0] else {}),
        }
        for one in exported
    }
    MetadataConfigs(configs).to_dataset_card_data(card)
    return str(card.to_yaml())


def _about(atlas: Atlas) -> dict[str, str]:
    """Describe the run in words, without paths of the machine that ran it."""
    run = atlas.run
    subject = run.parameter("describe", "subject")
    capture, describe = run.parameter("capture", "capture"), run.parameter("describe", "describe")
    explainer = run.parameter("explain", "explainer")
    simulator = run.parameter("simulate", "simulator")
    return {
        "subject": run.subject or "a model whose name is not known",
        "revision": str(subject.get("revision", ""))[:16],
        "question": str(subject.get("question", "")),
        "dataset": run.dataset or _class_name(run.parameter("samples", "source")),
        "samples": f"{run.artifacts['samples']['rows']:,}" if "samples" in run.artifacts else "",
        "texts": str(describe.get("text", "")),
        "layers": ", ".join(map(str, atlas.layers)),
        "hook_point": str(capture.get("hook_point", "")),
        "top_n": str(capture.get("top_n", "")),
        "rule": _class_name(run.parameter("classify", "rule")),
        "explainer": str(explainer.get("name") or _class_name(explainer)),
        "model": str(dict(explainer.get("client") or {}).get("model", "")),
        "simulator": str(simulator.get("name") or _class_name(simulator)),
        "run": run.name,
        "finished": run.finished,
    }


def _class_name(settings: Mapping[str, Any]) -> str:
    return str(settings.get("class", "")).rpartition(".")[2]


def _types_by_layer(atlas: Atlas) -> list[dict[str, Any]]:
    counted = atlas.types.group_by("layer", "type").len().collect()
    rows = []
    for layer in sorted(set(counted["layer"])):
        of = dict(counted.filter(pl.col("layer") == layer).select("type", "len").iter_rows())
        rows.append({"layer": layer, **{name: of.get(name, 0) for name in TYPES}})
    return rows


def _causal_types(atlas: Atlas) -> list[dict[str, Any]]:
    """Return the neurons of each type by causal type, and their median absolute effect; empty for a
    run without effects."""
    if "effects" not in atlas.tables:
        return []
    effects = atlas.effects.filter(pl.col("status") == "ok").select(
        "layer", "neuron", "causal_type", pl.col("effect").abs()
    )
    typed = atlas.types.select("layer", "neuron", "type").join(effects, on=["layer", "neuron"])
    counts = [(pl.col("causal_type") == name).sum().alias(name) for name in CAUSAL_TYPES]
    grouped = typed.group_by("type").agg(*counts, pl.col("effect").median().alias("median"))
    rows = {row["type"]: row for row in grouped.collect().to_dicts()}
    return [rows[name] for name in TYPES if name in rows]


def _scores(atlas: Atlas) -> list[dict[str, Any]]:
    """Return mean scores with intervals for each explainer and simulator, over all tokens."""
    if "score_aggregates" not in atlas.tables:
        return []
    measures = ("correlation", *CONTROLS, "margin", "beats_control")
    found = atlas.score_aggregates.filter(
        pl.col("tokens") == "all",
        pl.col("by") == "all",
        pl.col("measure").is_in(measures),
        (pl.col("n") > 0) | ~pl.col("measure").is_in(list(CONTROLS)),
    )
    return found.collect().sort("explainer", "simulator", "measure").to_dicts()


def _strongest(scores: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return the strongest control of each explainer and simulator, from the rows of `_scores`."""
    means: dict[tuple[str, str], dict[str, Any]] = {}
    for row in scores:
        means.setdefault((row["explainer"], row["simulator"]), {})[row["measure"]] = row["mean"]
    found = {pair: strongest_control(values) for pair, values in means.items()}
    return [
        {"explainer": pair[0], "simulator": pair[1], "control": control}
        for pair, control in found.items()
        if control is not None
    ]


def _failures(atlas: Atlas, exported: Sequence[Exported]) -> list[dict[str, Any]]:
    rows = []
    for one in exported:
        if "status" in one.schema.names:
            counted = atlas.table(one.name).filter(pl.col("status") != "ok")
            counts = counted.group_by("status").len().collect().sort("status")
            rows += [{"table": one.name, **row} for row in counts.to_dicts()]
    return rows
