"""Which model is asked, where, under which limits, and how hard it is tried."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from annotated_types import Ge, Gt, MinLen

from neuron_atlas.tasks.models.failures import Unusable
from neuron_atlas.tasks.settings import AtLeastOne, not_hashed

OPENAI_URL = "https://api.openai.com/v1"
_MINUTE_S = 60.0
_VARIABLE = re.compile(r"[A-Za-z_]\w*", re.ASCII)
_Given = Annotated[str, MinLen(1)]
_Seconds = Annotated[float, Gt(0)]
_Wait = Annotated[float, Ge(0)]


@dataclass(frozen=True)
class LimitSettings:
    """What the provider permits an account, over all workers and programs that use it.

    requests_per_minute, tokens_per_minute: as its page of limits says, None for no limit.
    concurrency: calls in flight at once. counted: what of a call's tokens counts for a minute: what
    was asked for (its prompt, and the most that the answer may have), as OpenAI does, or what was
    used once it is known. account: whoever names the same one shares the limits; None is the
    provider and the model.
    """

    requests_per_minute: AtLeastOne | None = not_hashed(None)
    tokens_per_minute: AtLeastOne | None = not_hashed(None)
    concurrency: AtLeastOne = not_hashed(512)
    counted: Literal["asked", "used"] = not_hashed("asked")
    account: str | None = not_hashed(None)

    def hours(self, requests: int, tokens: int) -> float:
        """How long so many requests and tokens take at least; 0 without limits."""
        minutes = 0.0
        if self.requests_per_minute is not None:
            minutes = requests / self.requests_per_minute
        if self.tokens_per_minute is not None:
            minutes = max(minutes, tokens / self.tokens_per_minute)
        return minutes / _MINUTE_S


@dataclass(frozen=True)
class AzureSettings:
    """A model of Azure OpenAI: its resource's address, the deployment's name, the API's version."""

    endpoint: _Given
    deployment: _Given
    api_version: _Given = not_hashed()

    def __post_init__(self) -> None:
        if not _host(self.endpoint):
            raise ValueError(
                "endpoint: must be a whole address, such as https://NAME.openai.azure.com"
            )


@dataclass(frozen=True)
class BatchSettings:
    """Batch mode: what fits a batch, and how often its state is asked for.

    max_requests, max_bytes: of OpenAI's limits of 50,000 and 200 MB. poll_s: seconds.
    """

    max_requests: AtLeastOne = not_hashed(50_000)
    max_bytes: AtLeastOne = not_hashed(190_000_000)
    poll_s: _Seconds = not_hashed(30.0)


@dataclass(frozen=True)
class ClientSettings:
    """Which model to ask, where, and how hard to try. The key itself is never a setting.

    base_url: where the protocol is spoken; None is OpenAI. azure: instead, a deployment of Azure.
    provider: whose model it is, part of a request's hash. None is the host (and port) of
    base_url; name it where the same model is served from changing addresses. served_as: what the
    name of the model that answers must begin with, else the answer is no outcome of this model;
    None is `model` itself or a dated version of it (gpt-4o-2024-08-06), or nothing on Azure, and
    "" allows every name.
    image_tokens: the most that a picture counts for a model whose rule is not known here.
    concurrency: calls in flight at once in one process. timeout_s: of one attempt, from connecting
    to the last byte. Between attempts it waits from first_wait_s (s) up to max_wait_s, doubling,
    with jitter drawn from `seed`; a provider that asks for a wait gets it, unless it is over
    max_wait_s.
    """

    model: str = "gpt-4o"
    base_url: str | None = None
    provider: str | None = None
    azure: AzureSettings | None = None
    served_as: str | None = not_hashed(None)
    api_key_env: str = not_hashed("OPENAI_API_KEY")
    limits: LimitSettings = not_hashed(LimitSettings())
    batch: BatchSettings = not_hashed(BatchSettings())
    image_tokens: AtLeastOne = not_hashed(1536)
    concurrency: AtLeastOne = not_hashed(16)
    timeout_s: _Seconds = not_hashed(120.0)
    max_attempts: AtLeastOne = not_hashed(6)
    first_wait_s: _Wait = not_hashed(0.5)
    max_wait_s: _Wait = not_hashed(60.0)
    seed: int = not_hashed(0)

    def __post_init__(self) -> None:
        if self.base_url is not None and self.azure is not None:
            raise ValueError("azure: cannot be given beside base_url; drop one")
        if self.base_url is not None and not _host(self.base_url):
            raise ValueError("base_url: must be a whole address, such as http://HOST:PORT/v1")
        # Without repeating it: whoever gets this wrong has put a key there.
        if not _VARIABLE.fullmatch(self.api_key_env):
            raise ValueError(
                "api_key_env: must be the name of an environment variable (letters, digits and _); "
                "the key itself goes into that variable"
            )
        address = urlsplit(self.url)
        if address.query or address.fragment:
            raise ValueError(
                f"{'endpoint' if self.azure else 'base_url'}: must end with its path: keep what "
                "follows ? or # out of the settings, and put the key into the environment variable "
                f"{self.api_key_env}"
            )
        if "@" in address.netloc:
            raise ValueError(
                "base_url: holds a user name or password: keep them out of the settings and "
                f"put the key into the environment variable {self.api_key_env}"
            )

    @property
    def url(self) -> str:
        """Where the protocol is spoken."""
        return self.azure.endpoint if self.azure else self.base_url or OPENAI_URL

    @property
    def known_as(self) -> str:
        """Whose model it is."""
        return self.provider or _host(self.url)

    @property
    def model_at(self) -> str:
        """The model and whose it is: what a request's hash is made from beside the request."""
        return f"{self.known_as}/{self.model}"

    @property
    def account(self) -> str:
        """Whose limits hold."""
        return self.limits.account or self.model_at

    def addressed(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """A request's body as this provider expects it: Azure is told the deployment."""
        return dict(body) if self.azure is None else {**body, "model": self.azure.deployment}

    def is_served_by(self, model: str) -> bool:
        """Whether an answer of `model`, as the provider names it, is one of the model asked."""
        if not model or (self.served_as is None and self.azure):
            return True
        if self.served_as is not None:
            return model.startswith(self.served_as)
        return re.fullmatch(re.escape(self.model) + r"(-\d.*)?", model) is not None


def read_key(api_key_env: str, group: str) -> str:
    """The key in an environment variable, which `group`.client names. Raises Unusable, without the
    key, where it is none."""
    key = os.environ.get(api_key_env, "").strip()
    if not key:
        raise Unusable(
            f"the environment variable {api_key_env} is not set: put the provider's key there, or "
            f"name another in {group}.client.api_key_env (a server that needs no key takes any)"
        )
    if not key.isascii() or not key.isprintable() or " " in key:
        raise Unusable(
            f"the environment variable {api_key_env} does not hold a key: it has spaces, line "
            "breaks or special characters within"
        )
    return key


def _host(url: str) -> str:
    return urlsplit(url).netloc.rpartition("@")[2].lower()
