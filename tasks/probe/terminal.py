"""Print a probe at the terminal: the answers, and a table of the neurons."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator

from neuron_atlas.tasks.probe.result import FiringNeuron, Probe
from neuron_atlas.tasks.probe.wording import effect_lines, quantile_text
from neuron_atlas.tasks.report.wording import signed, three_digits

_HEADER = ("neuron", "type", "where", "activation", "quantile", "above", "score")
_LEFT = 3
"""The first columns are aligned to the left."""
_NARROWEST = 24
"""Least characters of an explanation in a line."""
_LONGEST_PLACE = 34


def terminal_lines(probe: Probe, width: int) -> Iterator[str]:
    """Yield the lines of a probe. width: characters in a line."""
    said = "answer" if probe.is_generated else "text"
    yield from _paragraph(said, probe.text, width)
    if probe.changed_answer is not None:
        if not probe.is_generated:
            yield from _paragraph("answer", probe.answer or "", width)
        yield from _paragraph("changed", probe.changed_answer or "(no words)", width)
        same = ": the same answer" if probe.changed_answer == probe.answer else ""
        yield from _paragraph("", f"({probe.changes}{same})", width)
    yield ""
    if not probe.neurons:
        yield "No neuron fires on this input."
        return
    rows = [_HEADER, *map(_cells, probe.neurons)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(_HEADER))]
    explanations = ["explanation", *(one.explanation for one in probe.neurons)]
    for row, explanation in zip(rows, explanations, strict=True):
        cells = [
            cell.ljust(size) if column < _LEFT else cell.rjust(size)
            for column, (cell, size) in enumerate(zip(row, widths, strict=True))
        ]
        line = "  ".join(cells)
        room = max(_NARROWEST, width - len(line) - 2)
        words = " ".join(explanation.split())
        yield f"{line}  {words if len(words) <= room else words[: room - 3] + '...'}".rstrip()
    for one in probe.neurons:
        for name, value in effect_lines(one.effects):
            yield from _paragraph(f"{one.layer}:{one.neuron}", f"{name}: {value}", width)
    yield ""
    yield from textwrap.wrap(
        "quantile: share of the dataset's visual or text tokens on which the neuron is no higher; "
        f"above: samples of {probe.n_samples:,} with a higher peak",
        max(width, 40),
    )


def _cells(one: FiringNeuron) -> tuple[str, ...]:
    place = one.place.removeprefix("in the ")
    return (
        f"{one.layer}:{one.neuron}" + (f" ({one.record.part})" if one.record.part else ""),
        one.record.type,
        place if len(place) <= _LONGEST_PLACE else f"{place[: _LONGEST_PLACE - 3]}...",
        three_digits(one.activation),
        quantile_text(one),
        "more" if one.rank is None else str(one.rank),
        signed(one.score),
    )


def _paragraph(name: str, words: str, width: int) -> Iterator[str]:
    lines = textwrap.wrap(words, max(width - 11, _NARROWEST)) or [""]
    for number, line in enumerate(lines):
        yield f"{name if number == 0 else '':<10} {line}"
