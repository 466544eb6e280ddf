"""Say in words where a peak is in its neuron's distribution, and what the neuron does."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from neuron_atlas.tasks.probe.result import FiringNeuron
from neuron_atlas.tasks.report.wording import three_digits

EFFECT_COLUMNS: Mapping[str, Sequence[str]] = {
    "output_tokens": ("promoted", "suppressed"),
    "effects": ("effect", "effect_low", "effect_high", "q", "causal_type"),
    "faithfulness": ("explainer", "faithfulness", "q", "agreement"),
}
"""Tables on what a neuron does, which a run may have, and their columns that a probe shows."""
_MOST_TOKENS = 8


def quantile_text(one: FiringNeuron) -> str:
    """Return the quantile as a number with as many digits as the distribution supports."""
    if one.quantile >= 1:
        return "maximum"
    return f"{_rounded_down(one.quantile)} %"


def quantile_words(one: FiringNeuron) -> str:
    """Return the quantile and its bounds in words."""
    tokens = f"{one.n_tokens:,} {one.role} tokens of the dataset"
    if one.quantile >= 1:
        return f"no lower than any of the {tokens}, whose highest is {three_digits(one.highest)}"
    low, high = _rounded_down(one.quantile_low), _rounded_down(one.quantile_high)
    bounds = f" (from {low} % to {high} %, the bounds of its bin)" if low != high else ""
    return f"higher than about {_rounded_down(one.quantile)} % of the {tokens}{bounds}"


def rank_words(one: FiringNeuron, n_samples: int) -> str:
    """Return in words how many samples of the dataset have a higher peak."""
    if one.rank is None:
        return f"more of the {n_samples:,} samples have a higher peak than the run stores"
    samples = "sample has" if one.rank == 1 else "samples have"
    return f"{one.rank:,} of the {n_samples:,} {samples} a higher peak"


def effect_lines(
    effects: Mapping[str, Sequence[Mapping[str, Any]]],
) -> Iterator[tuple[str, str]]:
    """Yield the name of a table and the measures of a neuron, for each of its rows of effects."""
    for name, rows in effects.items():
        for row in rows:
            if row.get("status", "ok") != "ok":
                continue
            values = {key: _value(row.get(key)) for key in EFFECT_COLUMNS[name]}
            words = [f"{key.replace('_', ' ')} {value}" for key, value in values.items() if value]
            if words:
                yield name.replace("_", " "), ", ".join(words)


def _value(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return three_digits(value)
    if isinstance(value, list):
        return " ".join(filter(None, (_value(one).strip() for one in value[:_MOST_TOKENS])))
    return str(value)


def _rounded_down(share: float) -> str:
    """Return a share in percent with enough digits to be below 100, if it is below 1."""
    for digits in (1, 2, 3, 4):
        text = f"{int(share * 100 * 10**digits) / 10**digits:.{digits}f}"
        if share * 100 < 99.5 or float(text) < 100 - 0.5 / 10 ** (digits - 1):
            return text
    return text
