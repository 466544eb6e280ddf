"""Refuse tables that another version of neuron-atlas wrote, with what to do."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from pathlib import Path


class OldTableError(ValueError):
    """A table lacks columns, because another version of neuron-atlas wrote it."""


def check_columns(path: Path, expected: Iterable[str], found: Collection[str]) -> None:
    """Raise OldTableError if the table in `path`, with columns `found`, lacks an expected one."""
    if missing := [name for name in expected if name not in found]:
        raise OldTableError(f"{path}: {old_table_message(missing)}")


def old_table_message(missing: Collection[str]) -> str:
    """Return what is wrong with a table that lacks columns, and what to do."""
    return (
        f"no column {', '.join(missing)}: another version of neuron-atlas wrote this table. "
        "Run the same command again to write it with this version"
    )
