"""Lines of a batch's files: write a request, and read a result."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from neuron_atlas.tasks.models.account.batches import BatchedCall
from neuron_atlas.tasks.models.answer import Answer, parse_reply, read_message
from neuron_atlas.tasks.models.clean_text import mask_key, one_line
from neuron_atlas.tasks.models.error_message import has_error
from neuron_atlas.tasks.models.failures import FINAL_STATUSES, Failure, ProviderError, from_reply
from neuron_atlas.tasks.models.logprobs import EXTRACT_NUMBERS
from neuron_atlas.tasks.models.prices import Price, cost, price_of
from neuron_atlas.tasks.models.request_file import FiledRequest
from neuron_atlas.tasks.models.settings import ClientSettings
from neuron_atlas.tasks.models.usage import is_absurd

_KNOWN_AS = re.compile(rb'"custom_id"\s*:\s*"([0-9a-f]{64})"')


def write_line(request: FiledRequest, settings: ClientSettings) -> bytes:
    """Return a request as one line of a batch's input file."""
    line = {
        "custom_id": request.request_hash,
        "method": "POST",
        "url": "/chat/completions" if settings.azure else "/v1/chat/completions",
        "body": settings.body_for_provider(request.body()),
    }
    return json.dumps(line).encode() + b"\n"


def parse_line(line: bytes) -> tuple[str, Mapping[str, Any] | None]:
    """Parse one line of a batch's output.

    Returns the request hash, "" if it cannot be found, and the fields, None if the line is damaged.
    """
    try:
        fields = parse_reply(line.decode())
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
) -> Answer | Failure | ProviderError:
    """Return the outcome of a call from its output or error line; group: see `CallOptions`.

    An answer without token counts costs the amount that was reserved for it.
    """
    response, error = fields.get("response"), fields.get("error")
    if not isinstance(response, Mapping):
        error = error if isinstance(error, Mapping) else {}
        code = str(error.get("code") or "error")
        reason = redact(f"batch {code}: {error.get('message', '')}", key)
        return Failure("timed_out" if code == "batch_expired" else "failed", reason, True)
    body = response.get("body")
    status = response.get("status_code")
    number = None if status == 200 else status if isinstance(status, int) else 500
    if number is not None or has_error(body):
        outcome = from_reply(
            number, {} if body is None else body, settings.model, settings.api_key_env, group, key
        )
        if isinstance(outcome, ProviderError):
            return outcome
        outcome = replace(outcome, reason=redact(outcome.reason, key))
        if outcome.status in FINAL_STATUSES:
            return Answer(outcome.status, reason=outcome.reason, attempts=1)
        return outcome
    answer = read_message(body, EXTRACT_NUMBERS)
    if isinstance(answer, Failure):
        return replace(answer, reason=redact(answer.reason, key))
    price = price_of(prices, settings.model)
    usd = cost(prices, settings.model, answer.tokens_in, answer.tokens_out)
    if usd is not None and price is not None:
        usd *= price.batch
        if is_absurd(usd, call.usd):
            stated = f"prompt_tokens {answer.tokens_in}, completion_tokens {answer.tokens_out}"
            answer = replace(answer, usage_note=f"the reply states {stated}")
        if not answer.tokens_in or answer.usage_note:
            usd = call.usd
    return replace(answer, usd=usd, attempts=1)


def redact(text: str, key: str) -> str:
    """Return a provider's message on one line with the key masked: some gateways repeat it."""
    return one_line(mask_key(text, key))
