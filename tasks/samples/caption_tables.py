"""Find the tables in a folder that hold captions of its images."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import Any

from neuron_atlas.tasks.samples.columns import IMAGE_COLUMNS, TEXT_COLUMNS, find_column
from neuron_atlas.tasks.samples.files import TABLE_STEMS
from neuron_atlas.tasks.samples.media import media_kind
from neuron_atlas.tasks.samples.rows import Row, list_rows, read_annotation_rows, read_json
from neuron_atlas.tasks.samples.source import SourceError

_MUST_BE_TABLES = TABLE_STEMS[:2]
_EMPTY = "no rows"
_ROWS_LOOKED_AT = 100
_LISTED = 5


@dataclass(frozen=True)
class CaptionTable:
    """A file of captions. name: relative to the folder of images. image_column, text_column: its
    columns with the image and the caption."""

    name: str
    path: Path
    image_column: str
    text_column: str

    def rows(self) -> Iterator[Row]:
        """Yield its rows. Raises SourceError."""
        return _rows(self.path)


@dataclass(frozen=True)
class _Candidate:
    name: str
    path: Path
    columns: tuple[str, ...] = ()
    image_column: str | None = None
    text_column: str | None = None
    problem: str = ""

    @property
    def stem(self) -> str:
        return PurePosixPath(self.name).stem.casefold()

    @property
    def table(self) -> CaptionTable | None:
        if self.image_column is None or self.text_column is None:
            return None
        return CaptionTable(self.name, self.path, self.image_column, self.text_column)

    def __str__(self) -> str:
        return f"{self.name} ({self.problem or 'columns ' + ', '.join(self.columns)})"


def find_tables(
    root: Path, names: Sequence[str], image_column: str | None, text_column: str | None
) -> tuple[list[CaptionTable], list[str]]:
    """Return the tables of captions among files, and descriptions of the other tables seen.

    names: of the files, relative to `root`. A table is named captions or metadata, or is the only
    one with an image and a text column. Tables of subfolders count only if `root` has none.
    image_column, text_column: None to take columns with obvious names. Raises SourceError if a
    folder has several such tables, or a file named captions lacks the columns.
    """
    columns = (image_column, text_column)
    seen: list[str] = []
    found: list[CaptionTable] = []
    folders: dict[str, list[str]] = {}
    for name in sorted(names, key=lambda name: "/" in name):
        folders.setdefault(str(PurePosixPath(name).parent), []).append(name)
    for folder, inside in folders.items():
        if folder != "." and any("/" not in table.name for table in found):
            break
        candidates = [_look_at(root, name, *columns) for name in inside]
        taken = _choose(root, candidates)
        found += [taken] if taken else []
        seen += [str(one) for one in candidates if taken is None or one.name != taken.name]
    return found, seen[:_LISTED] + (["..."] if len(seen) > _LISTED else [])


def open_table(
    root: Path, name: str, image_column: str | None, text_column: str | None
) -> CaptionTable:
    """Return the table that the user named. Raises SourceError."""
    return _require(_look_at(root, name, image_column, text_column))


def _look_at(
    root: Path, name: str, image_column: str | None, text_column: str | None
) -> _Candidate:
    path = root / name
    try:
        rows = list(islice(_rows(path), _ROWS_LOOKED_AT))
    except SourceError as error:
        return _Candidate(name, path, problem=str(error).removeprefix(f"{path}: "))
    # JSON rows may lack a field, such as the caption of one image.
    columns = tuple(dict.fromkeys(column for row in rows for column in row.fields))
    return _Candidate(
        name,
        path,
        columns,
        _column(columns, image_column, IMAGE_COLUMNS),
        _column(columns, text_column, TEXT_COLUMNS),
        "" if columns else _problem(rows[0]) if rows else _EMPTY,
    )


def _problem(row: Row) -> str:
    return f"{row.location.rpartition(', ')[2]}: {row.problem or 'has no fields'}"


def _column(columns: Iterable[str], chosen: str | None, obvious: Sequence[str]) -> str | None:
    if chosen is None:
        return find_column(columns, obvious)
    return chosen if chosen in columns else None


def _choose(root: Path, candidates: Sequence[_Candidate]) -> CaptionTable | None:
    """Return the table of captions of one folder; None without one. Raises SourceError."""
    for one in candidates:
        if one.stem in _MUST_BE_TABLES and one.problem != _EMPTY:
            _require(one)
    complete = [one for one in candidates if one.table is not None]
    tables = [one for one in complete if one.stem in TABLE_STEMS] or complete
    if len(tables) > 1:
        names = ", ".join(one.name for one in tables)
        raise SourceError(
            f"{root}: several caption tables ({names}); set data.captions to one of them"
        )
    return tables[0].table if tables else None


def _require(candidate: _Candidate) -> CaptionTable:
    """Return the candidate's table. Raises SourceError if it has none."""
    if candidate.table is not None:
        return candidate.table
    if candidate.problem:
        raise SourceError(f"{candidate.path}: {candidate.problem}")
    what = "image" if candidate.image_column is None else "text"
    raise SourceError(
        f"{candidate.path}: no {what} column; its columns are {', '.join(candidate.columns)}. Set "
        f"data.{what}_column to one of them"
    )


def _rows(path: Path) -> Iterator[Row]:
    if path.suffix.lower() != ".json":
        return read_annotation_rows(path)
    content = read_json(path)
    return list_rows(_as_list(content, path), path.name)


def _as_list(content: Any, path: Path) -> Sequence[Any]:
    """Return the rows of a JSON file: a list, captions by image, or COCO's images and annotations.

    Raises SourceError for any other layout.
    """
    if isinstance(content, list):
        return content
    if isinstance(content, dict):
        images, captions = content.get("images"), content.get("annotations")
        if isinstance(images, list) and isinstance(captions, list):
            return _join(images, captions)
        if content and all(media_kind(name) == "image" for name in content):
            return [_captioned(name, value) for name, value in content.items()]
    raise SourceError(
        f"{path}: holds one {type(content).__name__}; put the rows in a JSON list, or an object of "
        "captions by image"
    )


def _join(images: Sequence[Any], captions: Sequence[Any]) -> list[Any]:
    names = {str(image.get("id")): image for image in images if isinstance(image, dict)}
    return [
        {
            "image": names.get(str(row.get("image_id")), {}).get("file_name"),
            "text": row.get("caption"),
        }
        if isinstance(row, dict)
        else row
        for row in captions
    ]


def _captioned(name: str, value: Any) -> Mapping[str, Any]:
    return {"image": name} | (value if isinstance(value, dict) else {"text": value})
