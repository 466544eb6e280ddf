"""Conditions on the rows to read: (column, operator, value), as for pyarrow.parquet.

Operators: `==`, `<`, `<=`, `>`, `>=`, and `in` with a list of values.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, TypeVar

import pyarrow as pa
import pyarrow.compute as pc

Condition = tuple[str, str, Any]
Rows = TypeVar("Rows", pa.RecordBatch, pa.Table)
Range = tuple[Any, Any]
"""Lowest and highest value of a column."""

_MAY_HOLD: Mapping[str, Callable[[Any, Any, Any], bool]] = {
    "==": lambda low, high, value: low <= value <= high,
    "<": lambda low, high, value: low < value,
    "<=": lambda low, high, value: low <= value,
    ">": lambda low, high, value: high > value,
    ">=": lambda low, high, value: high >= value,
    "in": lambda low, high, values: _any_between(low, high, values),
}

_MEETS: Mapping[str, Callable[[pa.Array, Any], pa.Array]] = {
    "==": pc.equal,
    "<": pc.less,
    "<=": pc.less_equal,
    ">": pc.greater,
    ">=": pc.greater_equal,
    "in": lambda column, values: pc.is_in(column, value_set=pa.array(values, column.type)),
}


def rows_with(column: str, values: Collection[Any]) -> list[Condition]:
    """Return conditions that select the rows whose `column` is in `values`.

    They include the range of `values`: the reader of Parquet skips row groups by range, not by set.
    """
    if not values:
        return [(column, "in", [])]
    ascending = sorted(values)
    return [(column, ">=", ascending[0]), (column, "<=", ascending[-1]), (column, "in", ascending)]


def may_hold(ranges: Mapping[str, Range], conditions: Sequence[Condition]) -> bool:
    """Return whether rows with these ranges may meet all conditions.

    ranges: by column; a column without a range may hold any value. Values of `in` are ascending.
    """
    return all(
        _MAY_HOLD[operator](*ranges[column], value)
        for column, operator, value in conditions
        if column in ranges
    )


def rows_that_meet(conditions: Sequence[Condition], batch: Rows) -> Rows:
    """Return the rows of a record batch or a table that meet all conditions."""
    for column, operator, value in conditions:
        batch = batch.filter(_MEETS[operator](batch[column], value))
    return batch


def _any_between(low: Any, high: Any, ascending: Sequence[Any]) -> bool:
    place = bisect_left(ascending, low)
    return place < len(ascending) and ascending[place] <= high
