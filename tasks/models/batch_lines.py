"""The lines of a batch's files: the requests as they are sent, and what came of each."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from neuron_atlas.tasks.models.account.batches import BatchedCall
from neuron_atlas.tasks.models.answer import Answer, one_line, read_message
from neuron_atlas.tasks.models.failures import Failure, Unusable, from_reply
from neuron_atlas.tasks.models.logprobs import KEEP_NUMBERS
from neuron_atlas.tasks.models.prices import Price, cost, price_of
from neuron_atlas.tasks.models.request_file import FiledRequest
from neuron_atlas.tasks.models.settings import ClientSettings

_KNOWN_AS = re.compile(rb'"custom_id"\s*:\s*"([0-9a-f]{64})"')


def write_line(request: FiledRequest, settings: ClientSettings) -> bytes:
    """A request as a line of a batch's input."""
    line = {
        "custom_id": request.request_hash,
        "method": "POST",
        "url": "/chat/completions" if settings.azure else "/v1/chat/completions",
        "body": settings.addressed(request.body()),
    }
    return json.dumps(line).encode() + b"\n"


def parse_line(line: bytes) -> tuple[str, Mapping[str, Any] | None]:
    """Whose line it is, as far as it says so, and what it says; None where it is not whole."""
    try:
        fields = json.loads(line)
        return str(fields["custom_id"]), fields
    except (ValueError, LookupError, TypeError):
        found = _KNOWN_AS.search(line)
        return found[1].decode() if found else "", None


def read_line(
    fields: Mapping[str, Any],
    call: BatchedCall,
    settings: ClientSettings,
    prices: Mapping[str, Price],
    key: str,
    group: str,
) -> Answer | Failure | Unusable:
    """What came of a call, by its line of the output or of the errors; group: see `Calls`.

    An answer that does not say what it took costs what was reserved for it.
    """
    response, error = fields.get("response"), fields.get("error")
    if not isinstance(response, Mapping):
        error = error if isinstance(error, Mapping) else {}
        code = str(error.get("code") or "error")
        said = blotted(f"batch {code}: {error.get('message', '')}", key)
        return Failure("timed_out" if code == "batch_expired" else "failed", said, True)
    body = response.get("body")
    if response.get("status_code") != 200:
        rejection = body.get("error") if isinstance(body, Mapping) else None
        outcome = from_reply(
            int(response.get("status_code") or 500),
            rejection if isinstance(rejection, Mapping) else {},
            settings.model,
            settings.api_key_env,
            group,
        )
        if isinstance(outcome, Unusable):
            return outcome
        outcome = replace(outcome, reason=blotted(outcome.reason, key))
        if outcome.status == "filtered":
            return Answer("filtered", reason=outcome.reason, attempts=1)
        return outcome
    answer = read_message(body, KEEP_NUMBERS)
    if isinstance(answer, Failure):
        return answer
    price = price_of(prices, settings.model)
    usd = cost(prices, settings.model, answer.tokens_in, answer.tokens_out)
    if usd is not None and price is not None:
        usd = usd * price.batch if answer.tokens_in else call.usd
    return replace(answer, usd=usd, attempts=1)


def blotted(text: str, key: str) -> str:
    """What a provider says, on one line and without the key, which some gateways repeat."""
    return one_line(text.replace(key, "***"))
