"""Tells the log probabilities of a prompt as vLLM does, of a model that predicts listed tokens.

A list has a token a line and, behind a tab, a number or a placeholder. At each place of the last
message's list the model has an opinion, a number with a fraction, by whether the token belongs to a
word that the message before puts in quotes; the two whole numbers next to it have the probabilities
that make it up. What else it is told of the scale and the placeholder it reads from the system
message, as a real model would have to.
"""

from __future__ import annotations

import math
import re
from typing import Any

FIELDS = {
    "prompt_logprobs", "return_token_ids", "continue_final_message", "add_generation_prompt",
}  # fmt: skip
"""Of a request that vLLM knows beside those of the protocol."""
TOKENIZERS = {
    # Digits one by one, and a tab by itself, as older tokenizers have it.
    "digits-8b": r" ?[^\W\d_]+| ?[\d]| ?[^\s\w]+|_|\s",
    # Numbers of up to three digits, and what is no letter together with the letters behind it.
    "numbers-8b": r"[^\n\w]?[^\W\d_]+|\d{1,3}| ?(?:[^\s\w]|_)+\n*|\s",
    # A tab together with what is behind it, whatever it is.
    "joined-8b": r"\s?\w+|\s?[^\s\w]+|\s",
}
"""How the prompts of a model are cut, by its name."""
_MOST = 20
_ELSEWHERE = {" the": 0.3, "\n": 0.1, ".": 0.05}
_PLACE = re.compile(r"^(.*)\t(\S+)$", re.MULTILINE)
_WORD = re.compile(r"\w+")
_ids: dict[str, int] = {}


def is_listing(body: dict[str, Any]) -> bool:
    return "prompt_logprobs" in body and body.get("model") in TOKENIZERS


def what_is_wrong(body: dict[str, Any]) -> str:
    """In vLLM's words; empty if nothing is."""
    if body["prompt_logprobs"] > _MOST:
        return (
            f"Requested prompt logprobs of {body['prompt_logprobs']}, which is greater than max "
            f"allowed: {_MOST}"
        )
    if body.get("continue_final_message") and body.get("add_generation_prompt", True):
        return "Cannot set both `continue_final_message` and `add_generation_prompt` to True."
    return ""


def prompt_fields(body: dict[str, Any]) -> dict[str, Any]:
    """What stands in the reply beside the choices."""
    messages = body["messages"]
    head = "".join(f"<{m['role']}>{m['content']}</{m['role']}>" for m in messages[:-1])
    listed = messages[-1]["content"]
    opinions = {
        len(head) + place: opinion for place, opinion in _opinions(messages, listed).items()
    }
    pieces = list(re.finditer(TOKENIZERS[body["model"]], head + listed))
    assert "".join(piece[0] for piece in pieces) == head + listed
    most = body["prompt_logprobs"]
    told = [_told(piece[0], opinions.get(piece.start()), most) for piece in pieces[1:]]
    fields: dict[str, Any] = {"prompt_logprobs": [None, *told]}
    if body.get("return_token_ids"):
        fields["prompt_token_ids"] = [_id_of(piece[0]) for piece in pieces]
    return fields


def _opinions(messages: list[dict[str, Any]], listed: str) -> dict[int, float]:
    """By the place (character) of what stands behind a tab, in the last list."""
    top = int(re.search(r"from 0 .* to (\d+)", messages[0]["content"])[1])  # type: ignore[index]
    wanted = set(re.findall(r'"(\w+)"', messages[-2]["content"]))
    lines = list(_PLACE.finditer(listed))
    text, spans = "", []
    for line in lines:
        spans.append((len(text), len(text) + len(line[1]), line.start(2)))
        text += line[1]
    words = [m.span() for m in _WORD.finditer(text) if m[0].lower() in wanted]
    return {
        place: top * (0.87 if any(a < stop and start < b for a, b in words) else 0.03)
        for start, stop, place in spans
    }


def _told(token: str, opinion: float | None, most: int) -> dict[str, Any]:
    """The likeliest alternatives and the prompt's own token, first, by their ids."""
    chances = dict(_ELSEWHERE)
    if opinion is not None:
        low, share = math.floor(opinion), opinion - math.floor(opinion)
        chances |= {str(low): 0.4 * (1 - share), str(low + 1): 0.4 * share}
    chances.setdefault(token, 0.02)
    ranked = sorted(chances, key=lambda said: -chances[said])
    shown = [token, *(said for said in ranked[:most] if said != token)]
    return {
        str(_id_of(said)): {
            "logprob": math.log(chances[said]),
            "rank": ranked.index(said) + 1,
            "decoded_token": said,
        }
        for said in shown
    }


def _id_of(token: str) -> int:
    return _ids.setdefault(token, len(_ids) + 5)
