import base64
from typing import Any

import pytest

from neuron_atlas.tasks.models.request import Request, request_hash


def ask(text: str = "what?", image: bytes = b"pixels", **parameters: Any) -> dict[str, Any]:
    url = "data:image/png;base64," + base64.b64encode(image).decode()
    content = [
        {"type": "text", "text": text},
        {"type": "image_url", "image_url": {"url": url, "detail": "low"}},
    ]
    return Request([{"role": "user", "content": content}], parameters).body("gpt-4o")


def test_the_same_request_has_the_same_hash_in_any_order_of_its_fields():
    body = ask(seed=1)
    assert request_hash(dict(reversed(body.items())), "p") == request_hash(body, "p")


@pytest.mark.parametrize(
    "other",
    [
        ask(text="who?"),
        ask(image=b"other pixels"),
        ask(temperature=0.5),
        ask() | {"model": "gpt-4o-mini"},
        ask() | {"response_format": {"type": "json_object"}},
    ],
    ids=["words", "picture", "parameter", "model", "schema"],
)
def test_whatever_decides_the_answer_changes_the_hash(other):
    assert request_hash(other, "p") != request_hash(ask(), "p")


def test_the_same_name_at_another_provider_is_another_model():
    assert request_hash(ask(), "one") != request_hash(ask(), "two")


def test_a_parameter_that_is_left_to_the_provider_is_not_sent():
    assert ask(seed=None) == ask()
