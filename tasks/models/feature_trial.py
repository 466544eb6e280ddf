"""Negotiate the features of requests over one connection; see `negotiation`."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

from neuron_atlas.tasks.models.account.messages import FeatureReport
from neuron_atlas.tasks.models.account.session import AccountSession
from neuron_atlas.tasks.models.failures import Failure
from neuron_atlas.tasks.models.negotiation import (
    ServerFeatures,
    named_feature,
    present_features,
    refused_feature,
    without_features,
)

_MOST_ALONE = 3
"""Requests that are sent one by one while it is open what the server takes."""


class FeatureTrial:
    """Attempts at one request, with ever fewer features.

    body: to send now. omitted: features that it leaves out. n_refused: how many of them this
    request found to be refused.
    """

    def __init__(
        self, body: Mapping[str, Any], required: frozenset[str], known: ServerFeatures
    ) -> None:
        self._full, self._required, self.known = body, required, known
        present = present_features(body) - required
        self.omitted: frozenset[str] = frozenset()
        self.n_refused = 0
        self._fit(present & known.refused)

    @property
    def found(self) -> ServerFeatures:
        """What an answer to the current body shows about the server."""
        return ServerFeatures(present_features(self.body), self.omitted - self.known.works)

    def is_refused(self, failure: Failure) -> bool:
        """Return whether a failure names a feature of the request: then a retry changes nothing."""
        return named_feature(failure, self._features()) is not None

    def leave_out(self, failure: Failure) -> bool:
        """Leave out the feature that the server refuses; return whether there is one to try
        without."""
        name = refused_feature(failure, self._features(), self.known, self._required)
        if name is None:
            return False
        self.n_refused += 1
        self._fit(self.omitted | {name})
        return True

    def _features(self) -> frozenset[str]:
        return present_features(self.body) - self._required - self.omitted

    def _fit(self, omitted: frozenset[str]) -> None:
        self.omitted = omitted
        self.body = without_features(self._full, omitted) if omitted else dict(self._full)


class FeatureNegotiation:
    """What is known of one model's server, over one connection. server: provider and model."""

    def __init__(self, server: str, session: AccountSession) -> None:
        self._server, self._session = server, session
        self._known: ServerFeatures | None = None
        self._alone = asyncio.Lock()
        self._n_alone = 0

    def begin(self, body: Mapping[str, Any], required: frozenset[str]) -> FeatureTrial:
        """Return the first attempt at a request."""
        return FeatureTrial(body, required, self._known or ServerFeatures())

    async def load(self) -> None:
        """Load what is known, once. Call before all other methods."""
        if self._known is None:
            await self._report(ServerFeatures())

    @asynccontextmanager
    async def turn(self, body: Mapping[str, Any]) -> AsyncIterator[None]:
        """Wait until a request may be sent: the first one goes alone, so that what its server
        refuses is found out once and not by every request in flight."""
        if self._is_open(body):
            async with self._alone:
                if self._is_open(body):
                    self._n_alone += 1
                    yield
                    return
        yield

    async def learn(self, trial: FeatureTrial) -> None:
        """Store what the answer to a request showed."""
        assert self._known is not None
        if self._known.updated(trial.found) != self._known:
            await self._report(trial.found)

    def _is_open(self, body: Mapping[str, Any]) -> bool:
        assert self._known is not None
        decided = self._known.works | self._known.refused
        return self._n_alone < _MOST_ALONE and not present_features(body) <= decided

    async def _report(self, found: ServerFeatures) -> None:
        known = await self._session.features(FeatureReport(self._server, found))
        self._known = known if self._known is None else self._known.updated(known)
