"""Find out which optional fields of a request a model's server refuses, and leave them out.

Servers of OpenAI's protocol refuse what they do not support with a status of 400, in words of their
own. The field that such an error names is left out, and the request is sent again. After an error
that names none, the request is tried once without the response format, most often the cause. What
is found holds for all later requests to the model.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from neuron_atlas.tasks.models.content import text_part
from neuron_atlas.tasks.models.failures import Failure

_LIMITS = ("max_completion_tokens", "max_tokens")
"""Two names of one limit: a server that refuses one may take the other."""
_NAMED = {
    "response_format": re.compile(
        r"response[_ ]?format|json[_ ]?(?:schema|object|mode|validate)|schema|guided|grammar|"
        r"structured|\boutlines\b|generate json|valid json"
    ),
    "temperature": re.compile(r"temperature"),
    "seed": re.compile(r"\bseed\b"),
    **dict.fromkeys(
        _LIMITS,
        re.compile(
            r"max_(?:completion_|output_|new_)?tokens|max_model_len|"
            r"max(?:imum)? (?:completion|output|new) tokens|maxoutputtokens|"
            r"context (?:length|window)"
        ),
    ),
    "detail": re.compile(r"\bdetail\b"),
    "system": re.compile(
        r"system (?:role|message|prompt|instruction)|developer instruction|roles must alternate"
    ),
    "logprobs": re.compile(r"log_?prob"),
}
"""Optional features of a request, and how errors name them (in lower case)."""
ALL_FEATURES = frozenset(_NAMED)
_NAMING_STATUSES = (None, 400, 404, 415, 422, 500, 501)
_UNSURE_STATUSES = (400, 422, 501)


@dataclass(frozen=True)
class ServerFeatures:
    """What is known of a model's server. works, refused: names of features, which are fields of a
    request, `detail` (of its images), or
    `system` (the role)."""

    works: frozenset[str] = frozenset()
    refused: frozenset[str] = frozenset()

    def updated(self, other: ServerFeatures) -> ServerFeatures:
        """Return this, with what is known from `other`."""
        works = self.works | other.works
        return ServerFeatures(works, (self.refused | other.refused) - works)


def present_features(body: Mapping[str, Any]) -> frozenset[str]:
    """Return the names of the optional features that a request's body uses."""
    found = {name for name in _NAMED if name in body and body[name] is not False}
    if any("detail" in part["image_url"] for part in _image_parts(body)):
        found.add("detail")
    if body["messages"][0].get("role") == "system" and len(body["messages"]) > 1:
        found.add("system")
    return frozenset(found)


def without_features(body: Mapping[str, Any], refused: frozenset[str]) -> dict[str, Any]:
    """Return a request's body without refused features. A limit on the answer's tokens gets its
    other name, unless that is refused too."""
    fitted = {name: value for name, value in body.items() if name not in refused}
    if "logprobs" in refused:
        fitted.pop("top_logprobs", None)
    for name, other in (_LIMITS, _LIMITS[::-1]):
        if name in body and name in refused and other not in refused:
            fitted[other] = body[name]
    if "detail" in refused and any(_image_parts(body)):
        fitted["messages"] = [_without_detail(message) for message in body["messages"]]
    if "system" in refused:
        fitted["messages"] = _without_system(fitted["messages"])
    return fitted


def refused_feature(
    failure: Failure,
    features: frozenset[str],
    known: ServerFeatures,
    required: frozenset[str] = frozenset(),
) -> str | None:
    """Return the feature to leave out after a failure; None if the failure is about something else.

    features: those of the request that may be left out. required: those that may not. An error that
    names none of either may be about the response format, unless that is known to work.
    """
    if (named := named_feature(failure, features)) is not None:
        return named
    is_unsure = (
        failure.status == "failed"
        and failure.number in _UNSURE_STATUSES
        and named_feature(failure, required) is None
    )
    may_be_format = "response_format" in features - known.works
    return "response_format" if is_unsure and may_be_format else None


def named_feature(failure: Failure, features: frozenset[str]) -> str | None:
    """Return the first of some features that the words of a failure name, or None."""
    if failure.status != "failed" or failure.said is None:
        return None
    if failure.number not in _NAMING_STATUSES:
        return None
    words = failure.said.searched
    return next((name for name in _NAMED if name in features and _NAMED[name].search(words)), None)


def _without_system(messages: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Return messages whose first user message begins with the text of the system message."""
    if messages[0].get("role") != "system":
        return list(messages)
    (system, user), rest = messages[:2], messages[2:]
    content = user["content"]
    parts = [text_part(content)] if isinstance(content, str) else list(content)
    return [{**user, "content": [text_part(system["content"]), *parts]}, *rest]


def _image_parts(body: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return [
        part
        for message in body["messages"]
        if not isinstance(message["content"], str)
        for part in message["content"]
        if part.get("type") == "image_url"
    ]


def _without_detail(message: Mapping[str, Any]) -> Mapping[str, Any]:
    if isinstance(message["content"], str):
        return message
    parts = []
    for part in message["content"]:
        if part.get("type") == "image_url":
            image = {name: value for name, value in part["image_url"].items() if name != "detail"}
            part = {**part, "image_url": image}
        parts.append(part)
    return {**message, "content": parts}
