"""Settings of a model client: model, address, rate limits and retries."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from annotated_types import Ge, Gt, MinLen

from neuron_atlas.tasks.models.failures import ProviderError
from neuron_atlas.tasks.settings import AtLeastOne, not_hashed

OPENAI_URL = "https://api.openai.com/v1"
_MINUTE_S = 60.0
_VARIABLE = re.compile(r"[A-Za-z_]\w*", re.ASCII)
_Given = Annotated[str, MinLen(1)]
_Seconds = Annotated[float, Gt(0)]
_Wait = Annotated[float, Ge(0)]


@dataclass(frozen=True)
class LimitSettings:
    """Limits of a provider's account, shared by all workers and programs that use it.

    requests_per_minute, tokens_per_minute: as the provider's page of limits shows; None for no
    limit.
    concurrency: calls in flight at a time. counted_tokens: the tokens of a call that count per
    minute: requested (its prompt, and the longest answer it allows), as at OpenAI, or used (the
    tokens it used, once known). account: programs with the same name share the limits; None is the
    provider and the model.
    """

    requests_per_minute: AtLeastOne | None = not_hashed(None)
    tokens_per_minute: AtLeastOne | None = not_hashed(None)
    concurrency: AtLeastOne = not_hashed(512)
    counted_tokens: Literal["requested", "used"] = not_hashed("requested")
    account: str | None = not_hashed(None)

    def hours(self, requests: int, tokens: int) -> float:
        """Return the hours that so many requests and tokens take at least; 0 without limits."""
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
                "endpoint: must be a complete address, such as https://NAME.openai.azure.com"
            )


@dataclass(frozen=True)
class BatchSettings:
    """Batch mode: the size limits of a batch, and the polling interval.

    max_requests, max_bytes: OpenAI's limits are 50,000 and 200 MB. poll_s: seconds between polls.
    """

    max_requests: AtLeastOne = not_hashed(50_000)
    max_bytes: AtLeastOne = not_hashed(190_000_000)
    poll_s: _Seconds = not_hashed(30.0)


@dataclass(frozen=True)
class ClientSettings:
    """Model, address, limits and retries of a client. The key itself is never a setting.

    base_url: address of an OpenAI-compatible API; None is OpenAI. azure: an Azure deployment,
    instead of base_url. provider: part of a request's hash. None is the host (and port) of
    base_url; set it if the same model is served from changing addresses. reply_model_prefix:
    required prefix of the model name in a reply, else the answer counts as failed. None requires
    `model` or a dated version of it (gpt-4o-2024-08-06), and nothing on Azure; "" allows every
    name. api_key_env: the environment variable with the key. image_tokens: maximum tokens of an
    image, for a model whose rule is unknown. concurrency: calls in flight at a time in one process.
    timeout_s: of one attempt, from connecting to the last byte. max_attempts: attempts of one
    request. The wait between attempts doubles from backoff_s to max_backoff_s (s), with jitter
    drawn from `jitter_seed`. A wait that the provider requests is used instead; if it exceeds
    max_backoff_s, the request fails.
    """

    model: str = "gpt-4o"
    base_url: str | None = None
    provider: str | None = None
    azure: AzureSettings | None = None
    reply_model_prefix: str | None = not_hashed(None)
    api_key_env: str = not_hashed("OPENAI_API_KEY")
    limits: LimitSettings = not_hashed(LimitSettings())
    batch: BatchSettings = not_hashed(BatchSettings())
    image_tokens: AtLeastOne = not_hashed(1536)
    concurrency: AtLeastOne = not_hashed(16)
    timeout_s: _Seconds = not_hashed(120.0)
    max_attempts: AtLeastOne = not_hashed(6)
    backoff_s: _Wait = not_hashed(0.5)
    max_backoff_s: _Wait = not_hashed(60.0)
    jitter_seed: int = not_hashed(0)

    def __post_init__(self) -> None:
        if self.base_url is not None and self.azure is not None:
            raise ValueError("azure: cannot be combined with base_url; remove one of them")
        if self.base_url is not None and not _host(self.base_url):
            raise ValueError("base_url: must be a complete address, such as http://HOST:PORT/v1")
        # The message omits the value, which is probably the key itself.
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
        """Address of the API."""
        return self.azure.endpoint if self.azure else self.base_url or OPENAI_URL

    @property
    def provider_name(self) -> str:
        """Name of the provider, as part of a request's hash."""
        return self.provider or _host(self.url)

    @property
    def qualified_model(self) -> str:
        """Provider and model, as `provider/model`."""
        return f"{self.provider_name}/{self.model}"

    @property
    def limits_account(self) -> str:
        """Name of the account whose limits apply."""
        return self.limits.account or self.qualified_model

    def body_for_provider(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """Return a request's body for this provider. On Azure, the model is the deployment."""
        return dict(body) if self.azure is None else {**body, "model": self.azure.deployment}

    def is_served_by(self, model: str) -> bool:
        """Return whether `model`, a model name in a reply, is the configured model."""
        if not model or (self.reply_model_prefix is None and self.azure):
            return True
        if self.reply_model_prefix is not None:
            return model.startswith(self.reply_model_prefix)
        named = re.escape(_plain_name(self.model)) + r"(-\d.*)?"
        return re.fullmatch(named, _plain_name(model)) is not None


def read_key(api_key_env: str, group: str) -> str:
    """Return the key in an environment variable; group: see `CallOptions`. Raises ProviderError
    if it is missing or malformed; the message does not contain it."""
    key = os.environ.get(api_key_env, "").strip()
    if not key:
        raise ProviderError(
            f"the environment variable {api_key_env} is not set: put the provider's key there, or "
            f"name another in {group}.client.api_key_env (a server that needs no key takes any)"
        )
    if not key.isascii() or not key.isprintable() or " " in key:
        raise ProviderError(
            f"the environment variable {api_key_env} does not hold a key: it has spaces, line "
            "breaks or special characters within"
        )
    return key


def _plain_name(model: str) -> str:
    """Return a model's name without what only some servers put before or after it, such as
    models/gemini-2.5-pro and llava:latest."""
    return model.rstrip("/").rpartition("/")[2].removesuffix(":latest").lower()


def _host(url: str) -> str:
    return urlsplit(url).netloc.rpartition("@")[2].lower()
