"""Read the rows of annotation files; errors name the file, the row and the field."""

from __future__ import annotations

import codecs
import csv
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from neuron_atlas.tasks.samples.columns import count_obvious
from neuron_atlas.tasks.samples.source import SampleError, SourceError

_DELIMITERS = ",;\t|"
# The default limit of 131,072 characters is below the length of some texts.
csv.field_size_limit(2**31 - 1)


@dataclass(frozen=True)
class Row:
    """One row of a dataset. location: for messages, such as "detail.json, row 3". problem: why the
    row cannot be read as it is written; empty for a good row."""

    fields: Mapping[str, Any]
    location: str
    problem: str = ""

    def check(self) -> None:
        """Raise SampleError if the row has a problem."""
        if self.problem:
            raise SampleError("malformed", f"{self.location}: {self.problem}")

    def string(self, name: str) -> str:
        """Return the string in field `name`; "" if it is absent or null. Raises SampleError."""
        value = self.fields.get(name)
        if value is None:
            return ""
        if not isinstance(value, str):
            raise self.error(name, f"must be a string, not {type(value).__name__}; correct the row")
        return value

    def identity(self, name: str) -> str:
        """Return the id in field `name`, a string or integer, as a string; "" if it is absent.

        Raises SampleError.
        """
        value = self.fields.get(name)
        if isinstance(value, int) and not isinstance(value, bool):
            return str(value)
        return self.string(name)

    def error(self, name: str, problem: str) -> SampleError:
        """Return a SampleError about field `name` of this row."""
        return SampleError("malformed", f'{self.location}: field "{name}" {problem}')


def read_annotation_rows(path: Path) -> Iterator[Row]:
    """Yield the rows of a .jsonl file (one object per line), a .json file (a list), or a table with
    a header (.csv, .tsv, .txt), whose delimiter is a comma, semicolon, tab or vertical bar.

    Raises SourceError, with the file and the remedy, if the file as a whole cannot be read.
    """
    suffix = path.suffix.lower()
    if suffix in (".csv", ".tsv", ".txt"):
        return _read_csv(path)
    if suffix in (".jsonl", ".ndjson"):
        return _read_lines(path)
    content = read_json(path)
    if not isinstance(content, list):
        raise SourceError(
            f"{path}: holds one {type(content).__name__}; put the rows in a JSON list"
        )
    return list_rows(content, path.name)


def read_json(path: Path) -> Any:
    """Return the content of a JSON file. Raises SourceError."""
    with _source_errors(path):
        text = path.read_text(encoding=_encoding(path))
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise SourceError(
            f"{path}: not valid JSON ({error}); correct it, or name it .jsonl if it holds one "
            "row per line"
        ) from error


def list_rows(values: Sequence[object], file: str) -> Iterator[Row]:
    """Yield the rows of a JSON list. file: its name, for messages."""
    for number, value in enumerate(values, start=1):
        yield _row(value, f"{file}, row {number}")


def _read_lines(path: Path) -> Iterator[Row]:
    with _source_errors(path), path.open(encoding=_encoding(path)) as lines:
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            location = f"{path.name}, line {number}"
            try:
                value = json.loads(line)
            except (ValueError, RecursionError) as error:
                yield Row(
                    {},
                    location,
                    f"not valid JSON ({error}); correct it, or name the file .json if it holds one "
                    "list",
                )
            else:
                yield _row(value, location)


def _read_csv(path: Path) -> Iterator[Row]:
    with _source_errors(path), path.open(encoding=_encoding(path), newline="") as lines:
        delimiter = _find_delimiter(lines.readline())
        lines.seek(0)
        rows = csv.reader(lines, delimiter=delimiter, strict=True)
        header: list[str] = []
        while True:
            begin = rows.line_num + 1
            try:
                cells = next(rows, None)
            except csv.Error as error:
                problem = f"not valid CSV ({error}); correct the quotes"
                if not header or "end of data" in str(error):
                    # An open quote fails only at the end of the file, and hides the rows between.
                    raise SourceError(f"{path}, line {begin}: {problem}") from error
                yield Row(dict.fromkeys(header), f"{path.name}, line {begin}", problem)
                continue
            if cells is None:
                return
            if not header:
                header = [name.strip() for name in cells]
            elif cells:
                problem = ""
                if len(cells) > len(header):
                    problem = "more fields than the header; put texts with commas in double quotes"
                    problem = problem.replace("commas", _DELIMITERS_IN_WORDS[delimiter])
                location = f"{path.name}, line {rows.line_num}"
                yield Row(dict(zip(header, cells, strict=False)), location, problem)


_DELIMITERS_IN_WORDS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "vertical bars"}


def _find_delimiter(header: str) -> str:
    """Return the delimiter that gives the most columns with an obvious name, then the most."""

    def columns(delimiter: str) -> tuple[int, int]:
        names = next(csv.reader([header], delimiter=delimiter), [])
        return count_obvious(names), len(names)

    return max(_DELIMITERS_IN_WORDS, key=columns)


def _row(value: object, location: str) -> Row:
    if not isinstance(value, dict):
        return Row({}, location, f"is a {type(value).__name__}; make every row an object")
    return Row(value, location)


@contextmanager
def _source_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError as error:
        raise SourceError(
            f"{path}: no such file; correct data.annotations or data.captions"
        ) from error
    except UnicodeError as error:
        raise SourceError(f"{path}: not UTF-8 ({error}); save it as UTF-8") from error
    except OSError as error:
        raise SourceError(f"{path}: cannot be read ({error.strerror})") from error


def _encoding(path: Path) -> str:
    """Return UTF-16 for a file with its byte order mark, as spreadsheets write; else UTF-8."""
    with path.open("rb") as file:
        begin = file.read(2)
    return "utf-16" if begin in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE) else "utf-8-sig"
