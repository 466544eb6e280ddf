"""Read the text of a sample from a caption, a list of captions, or a conversation."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from neuron_atlas.tasks.samples.media import find_image_field
from neuron_atlas.tasks.samples.rows import Row

_ANSWERS = ("gpt", "assistant", "model", "bot", "chatbot")
_QUESTIONS = (
    *("human", "user", "system", "developer"),
    *("tool", "function", "function_call", "observation"),
)
"""Roles of the turns of a conversation."""
_ROLE_FIELDS = (("from", "value"), ("role", "content"))
_PAIR_FIELDS = (("user", "assistant"), ("question", "answer"))
"""Fields of a turn: who speaks and what; or a question and its answer."""
_PLACEHOLDER = "<image>"


@dataclass
class SampleText:
    """What the text field of a row holds.

    text: the first caption or answer. images: references in the turns. n_placeholders: images that
    the questions mention without a reference. other_media: kind of a video or audio in the turns.
    """

    text: str = ""
    images: list[str] = field(default_factory=list)
    n_placeholders: int = 0
    other_media: str = ""


def read_text(row: Row, name: str) -> SampleText:
    """Read a caption, a list whose first caption counts, or a conversation. Raises SampleError."""
    value = row.fields.get(name)
    if isinstance(value, list) and not (value and isinstance(value[0], dict)):
        value = value[0] if value else None
        row = Row({name: value}, row.location)
    if value is None or isinstance(value, str):
        return SampleText(row.string(name))
    if not isinstance(value, list | dict):
        return SampleText(row.string(name))  # Raises the error of a wrong type.
    return read_chat(row, name)


def read_chat(row: Row, name: str) -> SampleText:
    """Read a conversation: its text is the first answer, or "" without one.

    A turn is `{from, value}`, `{role, content}` or `{user, assistant}`. Content is a string, or a
    list of parts `{type, text}` and `{type: image, image}`. Raises SampleError, also if there is no
    answer and a role is unknown.
    """
    read = SampleText()
    roles: dict[str, None] = {}
    answer = None
    for role, content in _turns(row, name):
        text = _read_content(content, read)
        roles[role] = None
        if role not in _ANSWERS:
            read.n_placeholders += text.count(_PLACEHOLDER)
        elif answer is None:
            answer = text
    if answer is None and not roles.keys() <= set(_QUESTIONS):
        raise row.error(
            name,
            f"has no answer: its roles are {', '.join(roles)}, and an answer's role is one of "
            f"{', '.join(_ANSWERS)}; rename the role",
        )
    read.text = answer or ""
    return read


def check_images(row: Row, name: str, read: SampleText, n_images: int) -> None:
    """Raise SampleError if images of a row would be lost. read: the row's conversation in field
    `name`. n_images: number of images found."""
    if not n_images and (field := find_image_field(row.fields, {name, "id"})):
        raise row.error(
            field, 'seems to hold images, but they are read from "image" or "images"; rename it'
        )
    if read.n_placeholders > n_images:
        raise row.error(
            name,
            f"mentions {read.n_placeholders} images ({_PLACEHOLDER}), but the row has {n_images}; "
            "correct the row",
        )


def _turns(row: Row, name: str) -> Iterator[tuple[str, Row]]:
    """Yield the role of each turn, and a row with the only field "content"."""
    turns = row.fields.get(name)
    if isinstance(turns, dict) and all(isinstance(value, list) for value in turns.values()):
        # A column of lists, one for each field of a turn.
        columns = zip(*turns.values(), strict=False)
        turns = [dict(zip(turns, values, strict=False)) for values in columns]
    if not isinstance(turns, list):
        raise row.error(name, "must be a list of {from, value}; correct the row")
    for number, turn in enumerate(turns, start=1):
        location = f"{row.location}, turn {number}"
        fields: Mapping[str, Any] = turn if isinstance(turn, dict) else {}
        if pair := next((pair for pair in _PAIR_FIELDS if pair[1] in fields), None):
            yield _QUESTIONS[0], Row({pair[0]: fields.get(pair[0])}, location)
            yield _ANSWERS[0], Row({pair[1]: fields[pair[1]]}, location)
            continue
        found = next((pair for pair in _ROLE_FIELDS if pair[0] in fields), None)
        if found is None:
            raise row.error(name, f'has no "from" or "role" in turn {number}; correct the row')
        role = str(fields[found[0]]).strip().casefold()
        yield role, Row({found[1]: fields.get(found[1])}, location)


def _read_content(content: Row, read: SampleText) -> str:
    """Return the text of a turn, and add its images to `read`."""
    ((name, value),) = content.fields.items()
    if not isinstance(value, list | dict):
        return content.string(name)
    texts = []
    for part in value if isinstance(value, list) else [value]:
        if isinstance(part, str):
            texts.append(part)
            continue
        if not isinstance(part, dict):
            raise content.error(name, "must be a string or a list of parts; correct the row")
        if isinstance(text := part.get("text"), str):
            texts.append(text)
        _read_part(part, read)
    return "\n".join(texts)


def _read_part(part: Mapping[str, Any], read: SampleText) -> None:
    kind = str(part.get("type") or "").casefold()
    for other in ("video", "audio"):
        if kind.startswith(other) or part.get(other):
            read.other_media = other
    if kind.startswith("image") or part.get("image"):
        reference = image_reference(part)
        if reference:
            read.images.append(reference)
        else:
            read.n_placeholders += 1


def image_reference(value: object) -> str:
    """Return the path or URL of an image in a row: a string, or an object that holds it; "" if it
    holds none."""
    if isinstance(value, str):
        return value.removeprefix("file://")
    if isinstance(value, dict):
        for name in ("image", "path", "file_name", "url", "image_url"):
            if reference := image_reference(value.get(name)):
                return reference
    return ""
