"""A model with its settings and prices: prepare requests to it, and check its answers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from neuron_atlas.tasks.models.account.session import AccountSession
from neuron_atlas.tasks.models.answer import Answer, from_json
from neuron_atlas.tasks.models.prices import Price, cost
from neuron_atlas.tasks.models.request import Request, request_hash
from neuron_atlas.tasks.models.send import PreparedRequest
from neuron_atlas.tasks.models.settings import ClientSettings
from neuron_atlas.tasks.models.tokens import token_bound


@dataclass(frozen=True)
class CalledModel:
    """A model with its prices. group: see `CallOptions`."""

    settings: ClientSettings
    prices: Mapping[str, Price]
    group: str

    def prepared(self, request: Request, body: Mapping[str, Any]) -> PreparedRequest:
        """Return a request to send with this body."""
        hashed = request_hash(body, self.settings.provider_name)
        bound = token_bound(body, self.settings)
        return PreparedRequest(hashed, body, bound, request.affinity, request.extract)

    async def stored(self, body: Mapping[str, Any], session: AccountSession) -> Answer | None:
        """Return the stored answer to a request with this body, or None."""
        stored = await session.look_up(request_hash(body, self.settings.provider_name))
        return None if stored is None else self.check_answer(from_json(stored))

    def usd(self, tokens_in: int, tokens_out: int) -> float | None:
        """Return the price of a call in USD; None if the model has no price."""
        return cost(self.prices, self.settings.model, tokens_in, tokens_out)

    def max_usd(self, prepared: PreparedRequest) -> float:
        """Return the most that a request can cost in USD; 0 if the model has no price."""
        return self.usd(prepared.bound.tokens_in, prepared.bound.tokens_out) or 0.0

    def check_answer(self, answer: Answer) -> Answer:
        """Return the answer, marked as failed if the configured model did not give it."""
        if self.settings.is_served_by(answer.model):
            return answer
        reason = (
            f"answered by the model {answer.model!r} instead of {self.settings.model!r}; if that "
            f"is another name of it, set {self.group}.client.reply_model_prefix"
        )
        return replace(answer, status="failed", text="", reason=reason)
