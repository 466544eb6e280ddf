"""Name the strongest control of a score: the control that an explanation has to beat."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

CONTROLS = {
    "control_other": "another neuron\N{RIGHT SINGLE QUOTATION MARK}s explanation",
    "control_empty": "an explanation without words",
    "control_blind": "a prediction without an explanation",
}
"""Controls in words, by their column of `scores` and measure of `score_aggregates`."""

CONTROL_TERMS = {
    "control_other": "other neuron",
    "control_empty": "no words",
    "control_blind": "no explanation",
}
"""Terms of the glossary for the controls, where there is little space."""


@dataclass(frozen=True)
class Control:
    """A control with its correlation. name: one of CONTROLS."""

    name: str
    value: float

    @property
    def words(self) -> str:
        """The control in words, such as "a prediction without an explanation"."""
        return CONTROLS[self.name]

    @property
    def term(self) -> str:
        """The control's term in the glossary, such as "no explanation"."""
        return CONTROL_TERMS[self.name]


def strongest_control(values: Mapping[str, Any]) -> Control | None:
    """Return the control with the highest correlation; None if no control is known.

    values: correlation by the name of the control, as in a row of `scores`, or as means over
    neurons. Names that are no control are ignored. Of equal controls, the first of CONTROLS wins.
    """
    known = [
        Control(name, float(values[name]))
        for name in CONTROLS
        if values.get(name) is not None and values[name] == values[name]
    ]
    return max(known, key=lambda control: control.value, default=None)
