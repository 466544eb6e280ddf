"""What the provider answers: a chat completion by looking at the request, or a spoilt one."""

from __future__ import annotations

import hashlib
import json
import time
from typing import Any

from tests.loopback.listing import is_listing, prompt_fields
from tests.loopback.looking import look
from tests.loopback.protocol import open_picture
from tests.loopback.rating import (
    DIGITS,
    WHOLE_NUMBERS,
    held_to_it,
    is_about_ratings,
    rate,
    rate_plainly,
    with_odds,
)


def completion(body: dict[str, Any], text: str, fault: str, plain: bool) -> dict[str, Any]:
    """The answer; plain: without looking, for measurements of speed."""
    opinions: dict[int, float] = {}
    if plain:
        said = _plainly(body)
    elif is_listing(body):
        said = "\n"
    elif is_about_ratings(body):
        rated = rate(body, fault)
        said, opinions = rated.text, rated.opinions
    else:
        said = json.dumps(look(body))
    message: dict[str, Any] = {"role": "assistant", "content": said, "refusal": None}
    finish = "stop"
    model = f"{body['model']}-2024-08-06"
    if fault == "refusal":
        message |= {"content": None, "refusal": "I'm sorry, I can't assist with that."}
    elif fault == "length":
        message["content"], finish = said[: len(said) // 2], "length"
    elif fault == "content_filter":
        message["content"], finish = "", "content_filter"
    elif fault == "prose" or (fault == "unruly" and "response_format" not in body):
        message["content"], opinions = "It seems to like all sorts of things.", {}
    elif fault == "empty":
        message["content"] = ""
    elif fault == "wrong_model":
        model = "another-model-1"
    elif fault == "line_separators":
        message["content"] = f"{said}\u2028\u2029\x85"
    elif fault == "many_lines":
        answer = look(body)
        answer["explanation"] = answer["explanation"].replace(" ", "\n\t", 2)
        message["content"] = json.dumps(answer)
    elif "response_format" not in body:
        before = "Here is what I found:\n```json\n"
        message["content"] = f"{before}{said}\n```\nLet me know!"
        opinions = {len(before) + place: opinion for place, opinion in opinions.items()}
    odds = None
    if body.get("logprobs") and fault != "without_logprobs" and message["content"]:
        most = 1 if fault == "own_logprobs" else body.get("top_logprobs") or 0
        cut = DIGITS if fault == "digits" else WHOLE_NUMBERS
        odds = {"content": with_odds(message["content"], opinions, most, cut), "refusal": None}
        if fault == "reluctant":
            for one in odds["content"]:
                held_to_it(one)
    tokens_in = prompt_tokens(body)
    tokens_out = len(message["content"] or "") // 4 + 1
    usage = {
        "prompt_tokens": tokens_in,
        "completion_tokens": tokens_out,
        "total_tokens": tokens_in + tokens_out,
    }
    listed: dict[str, Any] = {}
    if is_listing(body):
        finish, model = "length", body["model"]
        listed = {} if fault == "without_prompt_logprobs" else prompt_fields(body)
    return {
        "id": f"chatcmpl-{hashlib.sha256(text.encode()).hexdigest()[:24]}",
        "object": "chat.completion",
        "created": int(time.time()),
        "model": model,
        "choices": [{"index": 0, "message": message, "logprobs": odds, "finish_reason": finish}],
        "usage": None if fault == "no_usage" else usage,
        **listed,
    }


def _plainly(body: dict[str, Any]) -> str:
    if body.get("response_format", {}).get("json_schema", {}).get("name") == "sample_ratings":
        return rate_plainly(body)
    return '{"explanation": "The neuron responds to nothing."}'


def prompt_tokens(body: dict[str, Any]) -> int:
    """Four characters a token, and 85 tokens a picture as for detail low."""
    pictures, characters = 0, 0
    for message in body["messages"]:
        content = message["content"]
        for part in [{"text": content}] if isinstance(content, str) else content:
            pictures += "image_url" in part
            characters += len(part.get("text", ""))
    return characters // 4 + 85 * pictures


def asked_tokens(body: Any) -> int:
    """What a request counts against a limit on tokens."""
    if not isinstance(body, dict) or not isinstance(body.get("messages"), list):
        return 0
    try:
        most = body.get("max_completion_tokens") or body.get("max_tokens") or 0
        return prompt_tokens(body) + int(most)
    except (KeyError, TypeError):
        return 0


def without_pictures(value: Any) -> Any:
    """For the log: a picture is named by its hash, its size and its format."""
    if isinstance(value, dict):
        return {name: without_pictures(part) for name, part in value.items()}
    if isinstance(value, list):
        return [without_pictures(part) for part in value]
    if isinstance(value, str) and value.startswith("data:image/"):
        picture = open_picture(value)
        digest = hashlib.sha256(value.encode()).hexdigest()
        return f"{picture.format} {picture.width}x{picture.height} {digest[:16]}"
    return value
