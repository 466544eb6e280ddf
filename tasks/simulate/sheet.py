"""List what a model rates in a sample: rows of cells, lines of tokens, and the sample itself."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import numpy as np

from neuron_atlas.tasks.simulate.scale import MAX_RATING

PER_LINE = 10
"""Tokens in a line; few, so that a model does not lose count."""
SAMPLE = "sample"
"""Name of the field for the sample as a whole."""


@dataclass(frozen=True)
class RatingSheet:
    """Fields that a model fills with ratings for one sample.

    grids: (rows, columns) over each picture. tokens: number of text tokens. top: ratings are 0 to
    `top`.
    """

    grids: tuple[tuple[int, int], ...]
    tokens: int
    top: int = MAX_RATING

    @property
    def fields(self) -> tuple[tuple[str, int], ...]:
        """Name and count of numbers of each row and line, in order.

        `SAMPLE` is last, so that it cannot influence the other ratings.
        """
        return (*self._rows(), *self._lines(), (SAMPLE, 1))

    @property
    def numbers(self) -> int:
        """How many numbers an answer has."""
        return sum(count for _, count in self.fields)

    def list_fields(self) -> str:
        """Return the fields in words, for a prompt."""
        parts = []
        for (stem, count), group in groupby(self.fields, key=lambda one: (_stem(one[0]), one[1])):
            names = [name for name, _ in group]
            span = f'"{names[0]}"' if len(names) == 1 else f'"{names[0]}" to "{names[-1]}"'
            if stem == SAMPLE:
                parts.append(span)
            else:
                each = "" if len(names) == 1 else ", each"
                parts.append(f"{span}{each} with {count} number{'s' if count > 1 else ''}")
        return "; ".join(parts)

    def response_format(self) -> dict[str, Any]:
        """Return the response format: a JSON schema, which also fixes the counts of numbers."""
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
        """Split an answer into float32 [rows, columns] for each picture, float32 [tokens], and
        the rating of the sample."""
        ratings = np.array(values, dtype=np.float32)
        cells, first = [], 0
        for rows, columns in self.grids:
            cells.append(ratings[first : first + rows * columns].reshape(rows, columns))
            first += rows * columns
        return cells, ratings[first : first + self.tokens], float(ratings[-1])

    def _rows(self) -> Iterator[tuple[str, int]]:
        for picture, (rows, columns) in enumerate(self.grids, start=1):
            prefix = f"picture {picture} " if len(self.grids) > 1 else ""
            for row in range(1, rows + 1):
                yield f"{prefix}row {row}", columns

    def _lines(self) -> Iterator[tuple[str, int]]:
        for line, first in enumerate(range(0, self.tokens, PER_LINE), start=1):
            yield f"line {line}", min(PER_LINE, self.tokens - first)


def _stem(name: str) -> str:
    return name.rstrip("0123456789 ")
