"""A simulator that shows a sample to a chat model and has it rate every place by an explanation."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from functools import lru_cache
from typing import Annotated, Any, Literal

from annotated_types import Ge

from neuron_atlas.tasks.artifacts.regions import finest_grids, over_tokens
from neuron_atlas.tasks.models.answer import Answer
from neuron_atlas.tasks.models.calls import Calls
from neuron_atlas.tasks.models.client import (
    ClientSettings,
    Collection,
    Connection,
    Unusable,
    connect,
    in_parallel,
    read_key,
)
from neuron_atlas.tasks.models.content import data_url
from neuron_atlas.tasks.models.dialogue import Dialogue
from neuron_atlas.tasks.models.logprobs import KEEP_NUMBERS, read_odds
from neuron_atlas.tasks.models.prices import Price, check_price
from neuron_atlas.tasks.models.request import Request
from neuron_atlas.tasks.samples.catalog import Catalog
from neuron_atlas.tasks.samples.opened import Unopenable, open_view
from neuron_atlas.tasks.settings import AtLeastOne, runtime
from neuron_atlas.tasks.simulate.capabilities import probe_server
from neuron_atlas.tasks.simulate.estimator import ChatCapabilities, probe_estimator
from neuron_atlas.tasks.simulate.grid_drawing import LEAST_SIZE, draw_grid
from neuron_atlas.tasks.simulate.rating_prompt import ask, ask_again, show_sample, wording
from neuron_atlas.tasks.simulate.ratings import Ratings, expected_values, read_ratings
from neuron_atlas.tasks.simulate.sheet import Sheet
from neuron_atlas.tasks.simulate.simulator import (
    NOTHING,
    Capabilities,
    Prediction,
    SimulationRequest,
    Simulator,
)

_SAMPLES_KEPT = 32


@dataclass(frozen=True)
class ChatSimulator(Simulator):
    """Settings of the simulator, and the simulator.

    grid: rows and columns laid over each image, or full for those of the subject's own patches; a
    finer grid than that is never drawn. A visual token is predicted by the mean over the cells that
    its patch lies in (`tasks.artifacts.regions.over_tokens`). The sample as a whole is rated last,
    so that it cannot sway the places.

    estimator: integers takes the ratings as they are written; expected, for each, the expected
    value over the numbers that might have been written (`tasks.simulate.ratings`), on the scale
    that the model's tokenizer allows (`tasks.simulate.scale`), which needs a server that tells of
    `top_logprobs`; auto finds out whether it does, and takes the integers of an answer that lacks
    them. What was taken, and a scale other than 0 to 10, is in each row.

    image_size: px that a drawn picture has at most on each side. detail: low, high or auto, which
    sets the price of a picture. max_tokens: of the answer; None is enough for as many numbers as
    are asked for. temperature, request_seed: None leaves them to the provider. structured: ask for
    the answer by JSON schema; a provider without it is asked without. prices: by model.
    """

    name: str = "chat"
    client: ClientSettings = field(default_factory=ClientSettings)
    grid: str = "4"
    estimator: Literal["auto", "integers", "expected"] = "auto"
    image_size: Annotated[int, Ge(LEAST_SIZE)] = 512
    detail: Literal["low", "high", "auto"] = "low"
    temperature: float | None = 0.0
    request_seed: int | None = 0
    max_tokens: AtLeastOne | None = None
    structured: bool = True
    prices: dict[str, Price] = runtime(default_factory=dict)

    def __post_init__(self) -> None:
        if self.grid != "full" and not (self.grid.isascii() and self.grid.isdecimal()):
            raise ValueError("grid: must be the number of rows and columns, or full")
        if self.grid == "0":
            raise ValueError("grid: must be at least 1")

    @property
    def wording(self) -> str:
        """See `Simulator`."""
        return wording()

    def check(self) -> None:
        """See `Simulator`: the model's price and the key must be there."""
        check_price(self.prices, self.client.model, "simulate.prices")
        read_key(self.client.api_key_env, "simulate")

    def probe(self, calls: Calls) -> Capabilities | None:
        """See `Simulator`."""
        found = probe_server(self._probe, self.client, calls, self.prices)
        return None if found is None else _shared(found)

    def assumed(self) -> Capabilities:
        """See `Simulator`: the least that a server can do."""
        return _shared(ChatCapabilities("integers"))

    def simulate(
        self,
        questions: Sequence[SimulationRequest],
        catalog: Catalog,
        calls: Calls,
        capabilities: Capabilities | None = None,
    ) -> list[Prediction]:
        """See `Simulator`. Runs an event loop of its own until every question has its outcome.

        All questions about a sample, and all about samples of the same images, follow each other.
        """
        check_price(self.prices, self.client.model, "simulate.prices")
        server = None if capabilities is None else ChatCapabilities(**capabilities.details)
        return asyncio.run(self._simulate_all(questions, catalog, calls, server))

    def parameters(self) -> dict[str, Any]:
        """The fields that all requests have in common."""
        return {"temperature": self.temperature, "seed": self.request_seed}

    async def _probe(self, connection: Connection | Collection) -> ChatCapabilities | Answer:
        if self.estimator == "integers":
            return ChatCapabilities("integers")
        found = await probe_estimator(connection, self.parameters(), self.structured)
        if self.estimator == "expected" and found == ChatCapabilities("integers"):
            raise Unusable(
                f"the server of {self.client.model!r} does not return the probabilities of the "
                "numbers that it writes (logprobs, top_logprobs), or they are next to none: set "
                "simulate.estimator to integers or auto"
            )
        return found

    async def _simulate_all(
        self,
        questions: Sequence[SimulationRequest],
        catalog: Catalog,
        calls: Calls,
        server: ChatCapabilities | None,
    ) -> list[Prediction]:
        def by_image(place: int) -> tuple[Any, ...]:
            sample_id = questions[place].sample_id
            return catalog[sample_id].images, sample_id, place

        # One thread draws, so that drawing holds up no call, and no source has to be thread-safe.
        with ThreadPoolExecutor(max_workers=1, thread_name_prefix="draw") as drawing:
            async with connect(self.client, calls, self.prices) as connection:
                found = server or await self._probe(connection)
                if isinstance(found, Answer):
                    undecided = replace(NOTHING, status=found.status, reason=found.reason)
                    return [undecided] * len(questions)
                rating = _Rating(self, found, catalog, connection, drawing)
                order = sorted(range(len(questions)), key=by_image)
                answers = await in_parallel(
                    rating.simulate, (questions[place] for place in order), self.client.concurrency
                )
        predictions = dict(zip(order, answers, strict=True))
        return [predictions[place] for place in range(len(questions))]


@dataclass(frozen=True)
class _Shown:
    """The beginning of all questions about a sample; affinity: see `Request`."""

    sheet: Sheet
    parts: list[dict[str, Any]]
    affinity: str


class _Rating:
    """The calls of one `simulate`."""

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
        self._show = lru_cache(maxsize=_SAMPLES_KEPT)(self._draw)

    async def simulate(self, question: SimulationRequest) -> Prediction:
        sample = self._catalog[question.sample_id]
        if not sample.n_visual and not sample.tokens:
            return NOTHING
        loop = asyncio.get_running_loop()
        try:
            shown = await loop.run_in_executor(self._drawing, self._show, question.sample_id)
        except Unopenable as error:
            return self._failed("failed", str(error))
        sheet = shown.sheet
        outcome = await self._dialogue.ask(
            self._request(shown, question.explanation),
            lambda answer: read_ratings(answer.text, sheet),
            lambda complaint: ask_again(complaint, sheet),
        )
        if outcome.reading is None:
            return self._failed(outcome.status, outcome.reason)
        values = self._expected(outcome.reading, outcome.answers[-1])
        if values is None and self._settings.estimator == "expected":
            return self._failed("malformed", "its numbers come without their probabilities")
        cells, text, whole = sheet.split(outcome.reading.values if values is None else values)
        return Prediction(
            visual=over_tokens(sample.view, cells),
            text=text,
            estimator=self._server.label_of("integers" if values is None else "expected"),
            detected=whole,
        )

    def _request(self, shown: _Shown, explanation: str) -> Request:
        settings = self._settings
        parameters = {
            **settings.parameters(),
            **self._server.parameters(),
            "max_completion_tokens": settings.max_tokens or _answer_tokens(shown.sheet),
        }
        return Request(
            ask(shown.parts, explanation, shown.sheet),
            parameters,
            shown.sheet.response_format(),
            affinity=shown.affinity,
            keep=KEEP_NUMBERS if self._server.top_logprobs else None,
        )

    def _draw(self, sample_id: int) -> _Shown:
        """Raises Unopenable."""
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
        told = "".join(urls) or sample.text
        return _Shown(
            Sheet(tuple(grids), len(sample.tokens), self._server.top),
            show_sample(urls, sample.tokens, settings.detail),
            hashlib.sha256(told.encode("utf-8", "surrogatepass")).hexdigest()[:16],
        )

    def _expected(self, ratings: Ratings, answer: Answer) -> list[float] | None:
        """The expected values, or None where they are not to be had of this answer."""
        odds = read_odds(answer.kept)
        if self._server.estimator != "expected" or ratings.spans is None or odds is None:
            return None
        return expected_values(answer.text, ratings.spans, odds, self._server.top)

    def _failed(self, status: str, reason: str) -> Prediction:
        return replace(NOTHING, estimator=self._server.label, status=status, reason=reason)


def _shared(server: ChatCapabilities) -> Capabilities:
    return Capabilities(server.label, asdict(server))


def _answer_tokens(sheet: Sheet) -> int:
    """Enough for an answer that is written with a line and its indent for each number."""
    return 64 + 4 * sheet.numbers + 10 * len(sheet.fields)
