"""Read the rows of annotation files; errors name the file, the row and the field."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from neuron_atlas.tasks.samples.source import SourceError


@dataclass(frozen=True)
class Row:
    """One row of a dataset. location: for messages, such as "detail.json, row 3"."""

    fields: Mapping[str, Any]
    location: str

    def string(self, name: str) -> str:
        """Return the string in field `name`; "" if it is absent or null. Raises SourceError."""
        value = self.fields.get(name)
        return "" if value is None else self._checked(name, value)

    def strings(self, name: str) -> tuple[str, ...]:
        """Return the string or list of strings in field `name`; empty if it is absent, null or "".

        Raises SourceError.
        """
        value = self.fields.get(name)
        if value is None or value == "":
            return ()
        values = value if isinstance(value, list) else [value]
        return tuple(self._checked(name, part) for part in values)

    def caption(self, name: str) -> str:
        """Return the string in field `name`, or the first string of its list; "" without one.

        Raises SourceError.
        """
        value = self.fields.get(name)
        if isinstance(value, list):
            value = value[0] if value else None
        return "" if value is None else self._checked(name, value)

    def identity(self, name: str) -> str:
        """Return the id in field `name`, a string or integer, as a string. Raises SourceError."""
        value = self.fields.get(name)
        if isinstance(value, int) and not isinstance(value, bool):
            return str(value)
        if value is None or value == "":
            raise self.error(name, "is missing; give every row a unique id")
        return self._checked(name, value)

    def error(self, name: str, problem: str) -> SourceError:
        """Return a SourceError about field `name` of this row."""
        return SourceError(f'{self.location}: field "{name}" {problem}')

    def _checked(self, name: str, value: object) -> str:
        if not isinstance(value, str):
            raise self.error(name, f"must be a string, not {type(value).__name__}; correct the row")
        try:
            value.encode()
        except UnicodeEncodeError as error:
            # JSON can encode a lone surrogate, which Arrow cannot store.
            raise self.error(name, f"is not Unicode text ({error.reason}); correct it") from error
        return value


def read_annotation_rows(path: Path) -> Iterator[Row]:
    """Yield the rows of a .csv (with header), .jsonl (one object per line) or .json (a list) file.

    Raises SourceError with the file, the row and the remedy.
    """
    readers = {".csv": _read_csv, ".jsonl": _read_lines}
    try:
        yield from readers.get(path.suffix.lower(), _read_list)(path)
    except FileNotFoundError as error:
        raise SourceError(
            f"{path}: no such file; correct data.annotations or data.captions"
        ) from error
    except UnicodeDecodeError as error:
        raise SourceError(f"{path}: not UTF-8 ({error.reason}); save it as UTF-8") from error
    except OSError as error:
        raise SourceError(f"{path}: cannot be read ({error.strerror})") from error


def _read_list(path: Path) -> Iterator[Row]:
    text = path.read_text(encoding="utf-8-sig")
    try:
        rows = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise SourceError(
            f"{path}: not valid JSON ({error}); correct it, or name it .jsonl if it holds one "
            "row per line"
        ) from error
    if not isinstance(rows, list):
        raise SourceError(f"{path}: holds one {type(rows).__name__}; put the rows in a JSON list")
    for number, row in enumerate(rows, start=1):
        yield _row(row, f"{path}, row {number}")


def _read_lines(path: Path) -> Iterator[Row]:
    with path.open(encoding="utf-8-sig") as lines:
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            location = f"{path}, line {number}"
            try:
                row = json.loads(line)
            except (ValueError, RecursionError) as error:
                raise SourceError(
                    f"{location}: not valid JSON ({error}); correct it, or name the file .json if "
                    "it holds one list"
                ) from error
            yield _row(row, location)


def _read_csv(path: Path) -> Iterator[Row]:
    with path.open(encoding="utf-8-sig", newline="") as lines:
        rows = csv.DictReader(lines, strict=True)
        while True:
            try:
                row = next(rows, None)
            except csv.Error as error:
                # The line where the row begins: an open quote fails only at the end of the file.
                raise SourceError(
                    f"{path}, line {rows.line_num + 1}: not valid CSV ({error}); correct the quotes"
                ) from error
            if row is None:
                return
            location = f"{path}, line {rows.line_num}"
            # DictReader stores the fields beyond the header under None.
            if None in row:
                raise SourceError(
                    f"{location}: more fields than the header; put texts with commas in double "
                    "quotes"
                )
            yield Row(row, location)


def _row(value: object, location: str) -> Row:
    if not isinstance(value, dict):
        raise SourceError(f"{location}: is a {type(value).__name__}; make every row an object")
    return Row(value, location)
