"""Faithfulness: whether zeroing a neuron costs the words of its explanation more than others."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from neuron_atlas.tasks.artifacts import read_table, write_table
from neuron_atlas.tasks.artifacts.effects import FAITHFULNESS
from neuron_atlas.tasks.effects.ablation import Ablation, loss_changes
from neuron_atlas.tasks.effects.agreement import Agreement, agreements
from neuron_atlas.tasks.effects.choose import shuffled
from neuron_atlas.tasks.effects.settings import EffectsSettings
from neuron_atlas.tasks.effects.words import Texts
from neuron_atlas.tasks.statistics.false_discovery import q_values
from neuron_atlas.tasks.statistics.sign_flips import upper_p
from neuron_atlas.tasks.subject.encode import EncodedSample
from neuron_atlas.tasks.subject.settings import HookPoint
from neuron_atlas.tasks.subject.subject import Subject

BLOCKS = 16
"""Samples are averaged into at most this many blocks, whose signs are flipped."""
_MIN_SAMPLES = 4
_MEASURES = (
    *("own_change", "other_change", "faithfulness", "p", "q"),
    *("agreement", "agreement_other"),
)

OpenSamples = Callable[[Sequence[int]], Iterable[tuple[int, EncodedSample]]]


@dataclass(frozen=True)
class Explained:
    """One neuron's explanation. seen: samples that the explainer saw. promoted: tokens that the
    neuron promotes. write: see `output_tokens`; NaN if unknown. is_chosen: whether it is ablated.
    """

    neuron: int
    text: str
    is_ok: bool
    seen: frozenset[int]
    promoted: Sequence[str]
    write: float
    is_chosen: bool


def faithfulness_rows(
    subject: Subject,
    layer: int,
    explainer: str,
    explained: Sequence[Explained],
    texts: Texts,
    open_samples: OpenSamples,
    hook_point: HookPoint,
    settings: EffectsSettings,
    on_batch: Callable[[int], None] = lambda count: None,
) -> pa.Table:
    """Return rows of `faithfulness` of some neurons of one layer; `q` is null until
    `add_faithfulness_q`.

    On each sample the loss of the explanation's words is compared with that of the sample's other
    words that are about as frequent. The samples hold such words, were not shown to the explainer,
    and come in one order for all neurons. open_samples: encodes samples. Raises as `loss_changes`
    does.
    """
    words = {one.neuron: _words(one, texts) for one in explained}
    order = shuffled(texts.words, settings.seed)
    sample_ids: dict[int, list[int]] = {}
    for one in explained:
        own, _ = words[one.neuron]
        if one.is_chosen and own:
            found = texts.holding(own, order, one.seen)
            chosen = [one for _, one in zip(range(settings.faithful_samples), found, strict=False)]
            if len(chosen) >= _MIN_SAMPLES:
                sample_ids[one.neuron] = chosen
    pairs = [(neuron, one) for neuron, some in sample_ids.items() for one in some]
    wanted = list(dict.fromkeys(sample_id for _, sample_id in pairs))
    changes = loss_changes(
        subject,
        [Ablation(sample_id, layer, neuron) for neuron, sample_id in pairs],
        lambda: open_samples(wanted),
        hook_point,
        settings.batch_size,
        on_batch,
    )
    compared: dict[int, list[tuple[float, float]]] = {}
    for (neuron, sample_id), change in zip(pairs, changes, strict=True):
        own, _ = words[neuron]
        compared.setdefault(neuron, []).append(texts.changes(sample_id, own, change))
    agreed = agreements(
        subject,
        layer,
        {one.neuron: one.write for one in explained},
        {neuron: own for neuron, (own, source) in words.items() if source == "explanation"},
        list(texts.counts),
        hook_point,
    )
    rows = [
        _row(layer, explainer, one, words[one.neuron], compared.get(one.neuron, ()), agreed)
        for one in explained
    ]
    return pa.Table.from_pylist(rows, schema=FAITHFULNESS.schema)


def add_faithfulness_q(parts: Sequence[Sequence[Path]], written: Sequence[Path]) -> None:
    """Write the rows of all parts of an explainer, a file for each layer, with q-values over all.

    parts: the files of each layer.
    """
    order = [("neuron", "ascending")]
    tables = [read_table(list(some), FAITHFULNESS).sort_by(order) for some in parts]
    q = q_values(np.concatenate([table["p"].to_numpy().astype(np.float64) for table in tables]))
    start = 0
    for table, path in zip(tables, written, strict=True):
        mine = pa.array(q[start : start + len(table)], from_pandas=True)
        start += len(table)
        place = table.schema.get_field_index("q")
        write_table(table.set_column(place, table.schema.field("q"), mine), FAITHFULNESS, path)


def paired_p(differences: np.ndarray) -> float:
    """Return the one-sided p-value of positive differences [samples], by flips of their signs.

    More than BLOCKS samples are averaged into BLOCKS blocks.
    """
    blocks = np.array_split(differences, min(BLOCKS, len(differences)))
    return float(upper_p(np.array([[len(one) * one.mean() for one in blocks]]))[0])


def _words(one: Explained, texts: Texts) -> tuple[tuple[str, ...], str]:
    if not one.is_ok:
        return (), ""
    if own := texts.content_words(one.text):
        return own, "explanation"
    promoted = texts.promoted_words(one.promoted)
    return promoted, "promoted" if promoted else ""


def _row(
    layer: int,
    explainer: str,
    one: Explained,
    words: tuple[tuple[str, ...], str],
    compared: Sequence[tuple[float, float]],
    agreed: Mapping[int, Agreement],
) -> dict[str, Any]:
    own, source = words
    row = {
        **dict.fromkeys(_MEASURES),
        "layer": layer,
        "neuron": one.neuron,
        "explainer": explainer,
        "words": own,
        "words_from": source,
        "n_samples": len(compared),
        "status": "ok",
        "reason": "",
    }
    if one.neuron in agreed:
        row |= {
            "agreement": agreed[one.neuron].own, "agreement_other": agreed[one.neuron].other
        }  # fmt: skip
    if not one.is_ok:
        return row | {"status": "no_explanation", "reason": "the explainer gave none"}
    if not own:
        return row | {"status": "no_words", "reason": "no word of it is in the texts"}
    if not one.is_chosen:
        return row | {"status": "not_ablated", "reason": "not drawn by effects.faithful_neurons"}
    if not compared:
        reason = f"fewer than {_MIN_SAMPLES} samples hold its words next to words as frequent"
        return row | {"status": "too_few_samples", "reason": reason}
    values = np.array(compared)
    if not np.isfinite(values).all():
        return row | {"status": "nonfinite", "reason": "a loss is infinite or NaN"}
    differences = values[:, 0] - values[:, 1]
    return row | {
        "own_change": values[:, 0].mean(),
        "other_change": values[:, 1].mean(),
        "faithfulness": differences.mean(),
        "p": paired_p(differences),
    }
