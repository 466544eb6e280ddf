"""What is to be rated of a sample: rows of cells and lines of tokens, each with its name."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import numpy as np

from neuron_atlas.tasks.simulate.scale import HIGHEST

PER_LINE = 10
"""Tokens of a line: so few that a model does not lose count."""
SAMPLE = "sample"
"""The field for the sample as a whole."""


@dataclass(frozen=True)
class Sheet:
    """grids: (rows, columns) over each picture; tokens: of the text; top: of the ratings, which
    begin with 0."""

    grids: tuple[tuple[int, int], ...]
    tokens: int
    top: int = HIGHEST

    @property
    def fields(self) -> tuple[tuple[str, int], ...]:
        """The name of each row and line and how many numbers it has, in order; `SAMPLE` last, so
        that no other rating can follow from it."""
        return (*self._rows(), *self._lines(), (SAMPLE, 1))

    @property
    def numbers(self) -> int:
        """All numbers of an answer."""
        return sum(count for _, count in self.fields)

    def told(self) -> str:
        """The fields in words."""
        said = []
        for (stem, count), group in groupby(self.fields, key=lambda one: (_stem(one[0]), one[1])):
            names = [name for name, _ in group]
            reach = f'"{names[0]}"' if len(names) == 1 else f'"{names[0]}" to "{names[-1]}"'
            if stem == SAMPLE:
                said.append(reach)
            else:
                each = "" if len(names) == 1 else ", each"
                said.append(f"{reach}{each} with {count} number{'s' if count > 1 else ''}")
        return "; ".join(said)

    def response_format(self) -> dict[str, Any]:
        """The JSON schema of an answer, which also counts."""
        properties: dict[str, Any] = {
            name: {
                "type": "array",
                "items": {"$ref": "#/$defs/rating"},
                "minItems": count,
                "maxItems": count,
            }
            for name, count in self.fields[:-1]
        }
        properties[SAMPLE] = {"$ref": "#/$defs/rating"}
        schema = {
            "type": "object",
            "properties": properties,
            "required": list(properties),
            "additionalProperties": False,
            "$defs": {"rating": {"type": "integer", "enum": list(range(self.top + 1))}},
        }
        named = {"name": "sample_ratings", "strict": True, "schema": schema}
        return {"type": "json_schema", "json_schema": named}

    def split(self, values: Sequence[float]) -> tuple[list[np.ndarray], np.ndarray, float]:
        """All numbers of an answer as what they rate: float32 [rows, columns] for each picture,
        float32 [tokens], and the sample."""
        rated = np.array(values, dtype=np.float32)
        cells, first = [], 0
        for rows, columns in self.grids:
            cells.append(rated[first : first + rows * columns].reshape(rows, columns))
            first += rows * columns
        return cells, rated[first : first + self.tokens], float(rated[-1])

    def _rows(self) -> Iterator[tuple[str, int]]:
        for picture, (rows, columns) in enumerate(self.grids, start=1):
            of = f"picture {picture} " if len(self.grids) > 1 else ""
            for row in range(1, rows + 1):
                yield f"{of}row {row}", columns

    def _lines(self) -> Iterator[tuple[str, int]]:
        for line, first in enumerate(range(0, self.tokens, PER_LINE), start=1):
            yield f"line {line}", min(PER_LINE, self.tokens - first)


def _stem(name: str) -> str:
    return name.rstrip("0123456789 ")
