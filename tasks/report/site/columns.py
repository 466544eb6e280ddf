"""Write the columns of the table of neurons by layer, as arrays of a few bytes per neuron."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa

from neuron_atlas.tasks.artifacts import (
    EFFECTS,
    EXPLANATIONS,
    FAITHFULNESS,
    NEURON_TESTS,
    RESPONSES,
    SCORE_AGGREGATES,
    SCORES,
    TESTED_TYPES,
    TYPE_COLUMNS,
    TYPES,
    read_table,
)
from neuron_atlas.tasks.report.controls import CONTROLS, strongest_control
from neuron_atlas.tasks.report.inputs import LayerFiles, read_types
from neuron_atlas.tasks.report.site.effect_columns import effect_columns, faithfulness_columns
from neuron_atlas.tasks.report.site.layout import (
    data_file,
    scores_key,
    table_key,
    texts_key,
    words_key,
)
from neuron_atlas.tasks.report.site.script import to_base64, write_script
from neuron_atlas.tasks.report.site.texts import text_columns
from neuron_atlas.tasks.report.verdict import (
    VERDICT_COLUMNS,
    VERDICTS,
    false_discovery_level,
    verdict_word,
)

UNEXPLAINED = "not explained"
UNSCORED = "not scored"
OUTCOMES = (
    "scored",
    UNSCORED,
    UNEXPLAINED,
    *(status for status in SCORES.statuses if status != "ok"),
    *(status for status in EXPLANATIONS.statuses if status != "ok"),
)
"""Outcome of a neuron: scored, or why it has no score, or why it has no explanation."""

NO_NUMBER = -32768
STEPS = 10_000
"""A correlation is stored as int16 in steps of 1 / STEPS. `NO_NUMBER` stands for none."""

LONGEST_WORDS = 600
"""Characters of an explanation for the table and its search. The neuron's view has all."""

_EXTRA = {"effect": EFFECTS.name, "faithful": FAITHFULNESS.name}
"""Columns that only runs with a table have, and the table."""

_MEANINGS = ("meanings", "monosemanticity")
_MEASURES = ("correlation", "ci_low", "ci_high", "control", "margin")


@dataclass(frozen=True)
class ScorePairs:
    """Explainers and simulators of a run, in the order of the site.

    level: the largest q with which a neuron beats its controls. A run without explanations has one
    explainer with an empty name.
    """

    explainers: tuple[str, ...]
    pairs: tuple[tuple[str, str], ...]
    """Each explainer with each simulator that scored it, or with "" if none did."""
    level: float | None = None

    def to_json(self) -> dict[str, Any]:
        """Return plain data, for from_json."""
        return asdict(self)

    @staticmethod
    def from_json(plain: Mapping[str, Any]) -> ScorePairs:
        """Return the object whose to_json gave `plain`."""
        pairs = tuple((explainer, simulator) for explainer, simulator in plain["pairs"])
        return ScorePairs(tuple(plain["explainers"]), pairs, plain["level"])


def list_score_pairs(
    explanations: Sequence[Path], scores: Sequence[Path], aggregates: Sequence[Path]
) -> ScorePairs:
    """List explainers and simulators in the order in which the tables name them."""
    explained, scored = (
        pl.DataFrame(read_table(paths, spec, columns)).unique(maintain_order=True)
        for paths, spec, columns in (
            (explanations, EXPLANATIONS, ["explainer"]),
            (scores, SCORES, ["explainer", "simulator"]),
        )
    )
    explainers = list(dict.fromkeys([*explained["explainer"], *scored["explainer"]])) or [""]
    pairs = [
        (explainer, simulator)
        for explainer in explainers
        for simulator in scored.filter(explainer=explainer)["simulator"].to_list() or [""]
    ]
    level = false_discovery_level(read_table(aggregates, SCORE_AGGREGATES, ["max_q"]))
    return ScorePairs(tuple(explainers), tuple(pairs), level)


def write_columns(
    site: Path, files: LayerFiles, pairs: ScorePairs, texts: Sequence[Path] = ()
) -> dict[str, Any]:
    """Write a layer's columns. Return its entry for the index (`write_index`).

    texts: files of `words`, to find neurons without an explanation by.
    """
    types = pl.DataFrame(read_types(files)).fill_nan(None)
    neurons = types.select("neuron")
    _write(site, table_key(files.layer), {**_typed(types, files), **effect_columns(neurons, files)})
    columns = ["neuron", "explainer", "text", "status"]
    explained = pl.DataFrame(read_table(files["explanations"], EXPLANATIONS, columns))
    scored = pl.DataFrame(
        read_table(files["scores"], SCORES).filter(pa.compute.field("tokens") == "all")
    )
    for number, explainer in enumerate(pairs.explainers):
        mine = neurons.join(explained.filter(explainer=explainer), on="neuron", how="left")
        _write(site, words_key(number, files.layer), _words(mine["text"]))
    if texts:
        found = text_columns(types["neuron"].to_list(), files, texts)
        _write(site, texts_key(files.layer), found)
    seen: set[str] = set()
    for number, (explainer, simulator) in enumerate(pairs.pairs):
        mine = neurons.join(explained.filter(explainer=explainer), on="neuron", how="left")
        its = scored.filter(explainer=explainer, simulator=simulator)
        of_neuron = neurons.join(its, on="neuron", how="left")
        outcome = _outcome(mine, of_neuron)
        seen |= set(outcome)
        made = _scored(of_neuron, outcome, pairs.level)
        made |= faithfulness_columns(neurons, files, explainer, pairs.level)
        _write(site, scores_key(number, files.layer), made)
    return {
        "layer": files.layer,
        "neurons": types.height,
        "first": types["neuron"].min(),
        "last": types["neuron"].max(),
        "types": {name: int((types["type"] == name).sum()) for name in TYPES},
        "outcomes": sorted(seen),
        "tested": bool(files["tested_types"]),
        "texts": bool(texts),
        "extra": [key for key, name in _EXTRA.items() if files[name]],
    }


def _write(site: Path, key: str, value: Any) -> None:
    write_script(site / data_file(key), key, value)


def _typed(types: pl.DataFrame, files: LayerFiles) -> Mapping[str, str]:
    columns = {
        "neuron": to_base64(types["neuron"].to_numpy().astype(np.uint32)),
        "type": _coded(types["type"], TYPES),
        "scale": to_base64(types["scale"].fill_null(0).to_numpy().astype(np.float32)),
        "shares": to_base64(
            np.rint(
                types.select(TYPE_COLUMNS.values()).fill_null(0).to_numpy().clip(0, 1) * 255
            ).astype(np.uint8)
        ),
    }
    if files["responses"]:
        found = pl.DataFrame(read_table(files["responses"], RESPONSES, ["neuron", *_MEANINGS]))
        mine = types.select("neuron").join(found, on="neuron", how="left")
        columns["meanings"] = to_base64(mine["meanings"].fill_null(0).to_numpy().astype(np.uint8))
        columns["monosemanticity"] = to_base64(_steps(mine["monosemanticity"]))
    if files["tested_types"]:
        tested = pl.DataFrame(
            read_table(files["tested_types"], NEURON_TESTS, ["neuron", "type_tested"])
        )
        mine = types.select("neuron").join(tested, on="neuron", how="left")
        columns["tested"] = _coded(mine["type_tested"], TESTED_TYPES)
    return columns


def _coded(words: pl.Series, known: Sequence[str]) -> str:
    codes = {word: code for code, word in enumerate(known)}
    return to_base64(
        words.replace_strict(codes, default=len(known), return_dtype=pl.UInt8).to_numpy()
    )


def _outcome(explained: pl.DataFrame, scored: pl.DataFrame) -> pl.Series:
    explanation = explained["status"].fill_null(UNEXPLAINED).alias("explained")
    score = scored["status"].fill_null(UNSCORED).replace("ok", "scored").alias("scored")
    both = pl.DataFrame([explanation, score])
    of_score = pl.when(pl.col("explained") == "ok").then("scored").otherwise("explained")
    return both.select(of_score.alias("outcome")).to_series()


def _scored(scored: pl.DataFrame, outcome: pl.Series, level: float | None) -> dict[str, str]:
    beats = pl.col("q") <= (level if level is not None else -1.0)
    strongest = [strongest_control(row) for row in scored.select(*CONTROLS).to_dicts()]
    values = [None if control is None else control.value for control in strongest]
    names = ["" if control is None else control.name for control in strongest]
    scored = scored.with_columns(pl.Series("control", values, dtype=pl.Float64))
    verdicts = [verdict_word(row, level) or "" for row in scored.select(VERDICT_COLUMNS).to_dicts()]
    return {
        **{name: to_base64(_steps(scored[name])) for name in _MEASURES},
        "strongest": _coded(pl.Series(names, dtype=pl.String), tuple(CONTROLS)),
        "outcome": _coded(outcome, OUTCOMES),
        "verdict": _coded(pl.Series(verdicts, dtype=pl.String), VERDICTS),
        "beats": to_base64(
            scored.select(beats.fill_null(value=False)).to_series().to_numpy().astype(np.uint8)
        ),
    }


def _steps(measure: pl.Series) -> np.ndarray:
    values = measure.cast(pl.Float64).fill_nan(None).clip(-3, 3) * STEPS
    return values.round().fill_null(NO_NUMBER).to_numpy().astype(np.int16)


def _words(texts: pl.Series) -> str:
    """Return one line per neuron; empty if it was not explained."""
    lines = texts.fill_null("").str.replace_all(r"[\r\n\x0b\x0c\u0085\u2028\u2029]+", " ")
    return "\n".join(lines.str.slice(0, LONGEST_WORDS))
