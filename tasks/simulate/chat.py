"""Simulate with a chat model: show it a sample and let it rate all tokens by an explanation."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from functools import lru_cache
from typing import Annotated, Any, Literal

from annotated_types import Ge

from neuron_atlas.tasks.artifacts.regions import finest_grids, map_to_tokens
from neuron_atlas.tasks.models.answer import Answer
from neuron_atlas.tasks.models.call_options import CallOptions
from neuron_atlas.tasks.models.client import (
    ClientSettings,
    Collection,
    Connection,
    ProviderError,
    connect,
    in_parallel,
    read_key,
)
from neuron_atlas.tasks.models.content import data_url
from neuron_atlas.tasks.models.dialogue import Dialogue
from neuron_atlas.tasks.models.logprobs import EXTRACT_NUMBERS, read_token_logprobs
from neuron_atlas.tasks.models.prices import Price, check_price
from neuron_atlas.tasks.models.request import Request
from neuron_atlas.tasks.models.tokens import answer_limit
from neuron_atlas.tasks.samples.catalog import Catalog
from neuron_atlas.tasks.samples.opened import UnopenableError, open_view
from neuron_atlas.tasks.settings import AtLeastOne, not_hashed
from neuron_atlas.tasks.simulate.capabilities import probe_server
from neuron_atlas.tasks.simulate.estimator import ChatCapabilities, probe_estimator
from neuron_atlas.tasks.simulate.grid_drawing import MIN_GRID_PX, draw_grid
from neuron_atlas.tasks.simulate.rating_prompt import (
    prompt_hash,
    rating_messages,
    retry_message,
    sample_parts,
)
from neuron_atlas.tasks.simulate.ratings import Ratings, expected_values, read_ratings
from neuron_atlas.tasks.simulate.sheet import RatingSheet
from neuron_atlas.tasks.simulate.simulator import (
    NO_PREDICTION,
    Capabilities,
    Prediction,
    SimulationRequest,
    Simulator,
)

_CACHED_SAMPLES = 32


@dataclass(frozen=True)
class ChatSimulator(Simulator):
    """Simulator that calls a chat model, with its settings.

    grid: number of rows and columns drawn over each image, or full for the grid of the subject's
    patches, which is also the limit. A visual token's prediction is the mean over the cells that
    its patch lies in (`tasks.artifacts.regions.map_to_tokens`). The model rates the sample as a
    whole last, so that this rating cannot influence the others.

    estimator: integers uses the ratings as written. expected uses the expected value of each rating
    (`tasks.simulate.ratings`) on the scale that the tokenizer allows (`tasks.simulate.scale`); this
    needs a server that returns `top_logprobs`. auto probes the server, and uses integers for an
    answer without log probabilities. Each row names its estimator, and its scale if that is not 0
    to 10.

    image_size: largest width and height (px) of a drawn picture. detail: low, high or auto; it sets
    the price of a picture. max_tokens: limit on the answer; None allows for all ratings. A model
    that may reason gets 4,000 more for its reasoning. temperature, request_seed: None uses the
    provider's default. structured: request the answer by JSON schema, unless the provider has none.
    prices: by model name; a model without a price is refused.
    """

    name: str = "chat"
    client: ClientSettings = field(default_factory=ClientSettings)
    grid: str = "4"
    estimator: Literal["auto", "integers", "expected"] = "auto"
    image_size: Annotated[int, Ge(MIN_GRID_PX)] = 512
    detail: Literal["low", "high", "auto"] = "low"
    temperature: float | None = 0.0
    request_seed: int | None = 0
    max_tokens: AtLeastOne | None = None
    structured: bool = True
    prices: dict[str, Price] = not_hashed(default_factory=dict)

    def __post_init__(self) -> None:
        if self.grid != "full" and not (self.grid.isascii() and self.grid.isdecimal()):
            raise ValueError("grid: must be the number of rows and columns, or full")
        if self.grid == "0":
            raise ValueError("grid: must be at least 1")

    @property
    def prompt_hash(self) -> str:
        """See `Simulator`."""
        return prompt_hash()

    def check(self) -> None:
        """See `Simulator`. Raises ProviderError if the model's price or the API key is missing."""
        check_price(self.prices, self.client.model, "simulate.prices")
        read_key(self.client.api_key_env, "simulate")

    def probe(self, calls: CallOptions) -> Capabilities | None:
        """See `Simulator`: whether answers come with usable log probabilities."""
        found = probe_server(self._probe, self.client, calls, self.prices)
        return None if found is None else _as_plain(found)

    def assumed_capabilities(self) -> Capabilities:
        """See `Simulator`: no log probabilities."""
        return _as_plain(ChatCapabilities("integers"))

    def simulate(
        self,
        requests: Sequence[SimulationRequest],
        catalog: Catalog,
        calls: CallOptions,
        capabilities: Capabilities | None = None,
    ) -> list[Prediction]:
        """See `Simulator`. Runs its own event loop. Raises ProviderError.

        Requests are sorted by image and sample, so that a server's prefix cache can be used.
        """
        check_price(self.prices, self.client.model, "simulate.prices")
        server = None if capabilities is None else ChatCapabilities(**capabilities.details)
        return asyncio.run(self._simulate_all(requests, catalog, calls, server))

    def parameters(self) -> dict[str, Any]:
        """Return the fields that all API requests share."""
        return {"temperature": self.temperature, "seed": self.request_seed}

    async def _probe(self, connection: Connection | Collection) -> ChatCapabilities | Answer:
        if self.estimator == "integers":
            return ChatCapabilities("integers")
        found = await probe_estimator(
            connection, self.parameters(), self.structured, self.client.model
        )
        if self.estimator == "expected" and found == ChatCapabilities("integers"):
            raise ProviderError(
                f"the server of {self.client.model!r} does not return the probabilities of the "
                "numbers that it writes (logprobs, top_logprobs), or they are almost 0: set "
                "simulate.estimator to integers or auto"
            )
        return found

    async def _simulate_all(
        self,
        requests: Sequence[SimulationRequest],
        catalog: Catalog,
        calls: CallOptions,
        server: ChatCapabilities | None,
    ) -> list[Prediction]:
        def by_image(number: int) -> tuple[Any, ...]:
            sample_id = requests[number].sample_id
            return catalog[sample_id].images, sample_id, number

        # One thread draws: calls never wait for it, and sources need not be thread-safe.
        with ThreadPoolExecutor(max_workers=1, thread_name_prefix="draw") as drawing:
            async with connect(self.client, calls, self.prices) as connection:
                found = server or await self._probe(connection)
                if isinstance(found, Answer):
                    undecided = replace(NO_PREDICTION, status=found.status, reason=found.reason)
                    return [undecided] * len(requests)
                rating_calls = _RatingCalls(self, found, catalog, connection, drawing)
                order = sorted(range(len(requests)), key=by_image)
                answers = await in_parallel(
                    rating_calls.simulate,
                    (requests[number] for number in order),
                    self.client.concurrency,
                )
        predictions = dict(zip(order, answers, strict=True))
        return [predictions[number] for number in range(len(requests))]


@dataclass(frozen=True)
class _SamplePrompt:
    """First part of all prompts about one sample. affinity: see `Request`."""

    sheet: RatingSheet
    parts: list[dict[str, Any]]
    affinity: str


class _RatingCalls:
    """Calls of one `simulate`, with what they share."""

    def __init__(
        self,
        settings: ChatSimulator,
        server: ChatCapabilities,
        catalog: Catalog,
        connection: Connection | Collection,
        drawing: ThreadPoolExecutor,
    ) -> None:
        self._settings, self._server, self._catalog = settings, server, catalog
        self._drawing = drawing
        self._dialogue = Dialogue(connection, settings.structured)
        self._sample_prompt = lru_cache(maxsize=_CACHED_SAMPLES)(self._draw)

    async def simulate(self, request: SimulationRequest) -> Prediction:
        sample = self._catalog[request.sample_id]
        if not sample.n_visual and not sample.tokens:
            return NO_PREDICTION
        loop = asyncio.get_running_loop()
        try:
            prompt = await loop.run_in_executor(
                self._drawing, self._sample_prompt, request.sample_id
            )
        except UnopenableError as error:
            return self._failed("failed", str(error))
        sheet = prompt.sheet
        outcome = await self._dialogue.ask(
            self._request(prompt, request.explanation),
            lambda answer: read_ratings(answer.text, sheet),
            lambda error: retry_message(error, sheet),
        )
        omitted = outcome.answers[-1].omitted
        if outcome.reading is None:
            return self._failed(outcome.status, outcome.reason, omitted)
        values = self._expected(outcome.reading, outcome.answers[-1])
        if values is None and self._settings.estimator == "expected":
            return self._failed(
                "malformed", "the answer has no usable log probabilities of its numbers", omitted
            )
        cells, text, whole = sheet.split(outcome.reading.values if values is None else values)
        return Prediction(
            visual=map_to_tokens(sample.view, cells),
            text=text,
            estimator=self._server.label_of("integers" if values is None else "expected"),
            detected=whole,
            omitted=omitted,
        )

    def _request(self, prompt: _SamplePrompt, explanation: str) -> Request:
        settings = self._settings
        parameters = {
            **settings.parameters(),
            **self._server.parameters(),
            "max_completion_tokens": answer_limit(
                settings.client.model, settings.max_tokens or _answer_tokens(prompt.sheet)
            ),
        }
        return Request(
            rating_messages(prompt.parts, explanation, prompt.sheet),
            parameters,
            prompt.sheet.response_format(),
            affinity=prompt.affinity,
            extract=EXTRACT_NUMBERS if self._server.top_logprobs else None,
        )

    def _draw(self, sample_id: int) -> _SamplePrompt:
        """Return the prompt part of a sample. Raises UnopenableError."""
        settings, sample = self._settings, self._catalog[sample_id]
        view, grids, urls = sample.view, [], []
        whole = open_view(self._catalog, sample_id) if view.panels else None
        for (_, box, left), finest in zip(view.panels, finest_grids(view), strict=True):
            grid = finest
            if settings.grid != "full":
                grid = (min(int(settings.grid), finest[0]), min(int(settings.grid), finest[1]))
            assert whole is not None
            panel = whole.crop((left, 0, left + box[2] - box[0], box[3] - box[1]))
            urls.append(data_url(draw_grid(panel, *grid, settings.image_size)))
            grids.append(grid)
        content = "".join(urls) or sample.text
        return _SamplePrompt(
            RatingSheet(tuple(grids), len(sample.tokens), self._server.top),
            sample_parts(urls, sample.tokens, settings.detail),
            hashlib.sha256(content.encode("utf-8", "surrogatepass")).hexdigest()[:16],
        )

    def _expected(self, ratings: Ratings, answer: Answer) -> list[float] | None:
        """Return the expected values; None if the answer has no usable log probabilities."""
        logprobs = read_token_logprobs(answer.kept)
        if self._server.estimator != "expected" or ratings.spans is None or logprobs is None:
            return None
        return expected_values(answer.text, ratings.spans, logprobs, self._server.top)

    def _failed(self, status: str, reason: str, omitted: str = "") -> Prediction:
        return replace(
            NO_PREDICTION,
            estimator=self._server.label,
            status=status,
            reason=reason,
            omitted=omitted,
        )


def _as_plain(server: ChatCapabilities) -> Capabilities:
    return Capabilities(server.label, asdict(server))


def _answer_tokens(sheet: RatingSheet) -> int:
    """Return a limit that fits an answer with one indented line for each number."""
    return 64 + 4 * sheet.numbers + 10 * len(sheet.fields)
