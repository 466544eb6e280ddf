"""Turns down what the real provider would turn down, in its words and with its error codes."""

from __future__ import annotations

import base64
import binascii
import io
from dataclasses import dataclass, field
from typing import Any

from PIL import Image

from tests.loopback.listing import FIELDS, TOKENIZERS, is_listing, what_is_wrong

KNOWN_FIELDS = {
    "frequency_penalty",
    "logprobs",
    "max_completion_tokens",
    "max_tokens",
    "messages",
    "model",
    "n",
    "presence_penalty",
    "response_format",
    "seed",
    "stop",
    "temperature",
    "top_logprobs",
    "top_p",
    "user",
}
ROLES = ("system", "developer", "user", "assistant")
DETAILS = ("low", "high", "auto")
PICTURE_FORMATS = {"jpeg": "JPEG", "png": "PNG", "webp": "WEBP", "gif": "GIF"}


@dataclass(eq=False)
class Rejection(Exception):
    """An error reply."""

    status: int
    message: str
    kind: str = "invalid_request_error"
    code: str | None = None
    param: str | None = None
    headers: dict[str, str] = field(default_factory=dict)

    def body(self) -> dict[str, Any]:
        error = {
            "message": self.message,
            "type": self.kind,
            "param": self.param,
            "code": self.code,
        }
        return {"error": error}


def check_key(authorization: str | None, key: str) -> None:
    if not authorization or not authorization.startswith("Bearer "):
        raise Rejection(401, "You didn't provide an API key.", code="invalid_api_key")
    given = authorization.removeprefix("Bearer ")
    if given != key:
        # The real one masks the key. Gateways have been seen to repeat it in full.
        message = f"Incorrect API key provided: {given}."
        raise Rejection(401, message, code="invalid_api_key")


def check_body(body: Any, models: tuple[str, ...]) -> None:
    _demand(isinstance(body, dict), "The request's body must be a JSON object.")
    known = KNOWN_FIELDS | (FIELDS if body.get("model") in TOKENIZERS else set())
    for name in body:
        _demand(name in known, f"Unrecognized request argument supplied: {name}", name)
    if is_listing(body):
        _demand(not what_is_wrong(body), what_is_wrong(body))
    if body.get("model") not in models:
        message = f"The model `{body.get('model')}` does not exist or you do not have access to it."
        raise Rejection(404, message, code="model_not_found")
    messages = body.get("messages")
    _demand(isinstance(messages, list) and messages, "[] is too short - 'messages'", "messages")
    for place, message in enumerate(messages):
        _check_message(message, f"messages[{place}]")
    temperature = body.get("temperature", 1)
    _demand(
        isinstance(temperature, int | float) and 0 <= temperature <= 2,
        "Expected a temperature from 0 to 2.",
        "temperature",
    )
    for name in ("max_completion_tokens", "max_tokens"):
        limit = body.get(name, 1)
        _demand(isinstance(limit, int) and limit >= 1, f"Expected {name} to be at least 1.", name)
    most = body.get("top_logprobs", 0)
    _demand(isinstance(most, int) and 0 <= most <= 20, "Expected 0 to 20.", "top_logprobs")
    _demand(not most or body.get("logprobs") is True, "Needs logprobs.", "top_logprobs")
    if "response_format" in body:
        _check_format(body["response_format"])


def open_picture(url: str) -> Image.Image:
    """The picture in a data URL, which is what the answer looks at."""
    head, _, data = url.partition(";base64,")
    kind = head.removeprefix("data:image/")
    _demand(url.startswith("data:image/") and kind in PICTURE_FORMATS, "Invalid image URL.")
    try:
        picture = Image.open(io.BytesIO(base64.b64decode(data, validate=True)))
        picture.load()
    except (OSError, binascii.Error) as error:
        raise Rejection(400, "You uploaded an unsupported image.", code="invalid_image") from error
    _demand(picture.format == PICTURE_FORMATS[kind], "The image is not of the format it names.")
    return picture


def _check_message(message: Any, where: str) -> None:
    _demand(isinstance(message, dict), "Expected an object.", where)
    _demand(message.get("role") in ROLES, "Invalid value for role.", f"{where}.role")
    content = message.get("content")
    if isinstance(content, str):
        return
    _demand(isinstance(content, list) and content, "Invalid content.", f"{where}.content")
    for place, part in enumerate(content):
        inside = f"{where}.content[{place}]"
        _demand(isinstance(part, dict), "Expected an object.", inside)
        if part.get("type") == "text":
            _demand(isinstance(part.get("text"), str), "Expected a string.", f"{inside}.text")
        elif part.get("type") == "image_url":
            _demand(message["role"] == "user", "Only a user may send an image.", inside)
            image = part.get("image_url")
            _demand(isinstance(image, dict) and "url" in image, "Expected an object.", inside)
            _demand(image.get("detail", "auto") in DETAILS, "Invalid detail.", inside)
            open_picture(image["url"])
        else:
            _demand(False, f"Invalid type: {part.get('type')!r}.", inside)


def _check_format(response_format: Any) -> None:
    where = "response_format"
    _demand(isinstance(response_format, dict), "Expected an object.", where)
    if response_format.get("type") in ("text", "json_object"):
        return
    _demand(response_format.get("type") == "json_schema", "Invalid type.", f"{where}.type")
    named = response_format.get("json_schema")
    _demand(isinstance(named, dict), "Missing json_schema.", f"{where}.json_schema")
    name = named.get("name")
    _demand(
        isinstance(name, str) and 0 < len(name) <= 64 and name.replace("_", "").isalnum(),
        "Invalid schema name.",
        f"{where}.json_schema.name",
    )
    if named.get("strict"):
        _check_strict(named.get("schema"), f"{where}.json_schema.schema")


def _check_strict(schema: Any, where: str) -> None:
    """The rules of strict mode: every object is closed, and every property of it required."""
    if isinstance(schema, dict) and str(schema.get("$ref", "")).startswith("#/$defs/"):
        return
    _demand(isinstance(schema, dict) and "type" in schema, "Invalid schema.", where)
    if schema["type"] != "object":
        return
    closed = schema.get("additionalProperties") is False
    _demand(closed, "'additionalProperties' is required to be supplied and to be false.", where)
    properties = schema.get("properties", {})
    _demand(
        sorted(schema.get("required", [])) == sorted(properties),
        "'required' is required to be an array including every key in properties.",
        where,
    )
    for name, inner in properties.items():
        _check_strict(inner, f"{where}.{name}")


def _demand(holds: object, message: str, param: str | None = None) -> None:
    if not holds:
        raise Rejection(400, message if param is None else f"{message} ({param})", param=param)
