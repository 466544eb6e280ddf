"""The simulators that ask a model, against a real vLLM that the program starts.

The model is the bundled subject, which describes scenes of colored shapes and knows nothing else:
its ratings mean nothing. What is tested is the protocol: that vLLM does what is asked of it by
structured output, `top_logprobs` and `prompt_logprobs`.
"""

from __future__ import annotations

import asyncio
import json
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest

from neuron_atlas.tasks.models.call_options import CallOptions
from neuron_atlas.tasks.simulate.chat import ChatSimulator
from neuron_atlas.tasks.simulate.estimator import ChatCapabilities
from neuron_atlas.tasks.simulate.prompt_logprobs import PromptLogprobs
from neuron_atlas.tasks.simulate.simulator import Capabilities, SimulationRequest
from neuron_atlas.workflows.models.model_server import ModelServer
from tests.tasks.explain.colored_patches import catalog
from tests.vllm.running import MODEL, PYTHON, processes, served
from tests.vllm.servable import VOCABULARY, make_servable
from tests.workflows.runs import settings

pytestmark = [pytest.mark.vllm, pytest.mark.timeout(1800)]

_CLAIMS = ("red regions of a picture", "the word circle in the text", "")


@pytest.fixture(scope="module", autouse=True)
def environment() -> None:
    assert Path(PYTHON).is_file(), f"there is no {PYTHON}: make vllm"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_servable(tmp_path_factory.mktemp("model") / MODEL)


@pytest.fixture(scope="module")
def server(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ModelServer]:
    """A server run by this process, without Ray."""
    servers = settings(*served(model)).simulate.servers
    assert servers is not None
    log = tmp_path_factory.mktemp("log") / "server.log"
    begun = time.monotonic()
    server = ModelServer(servers, 0, log)
    try:
        asyncio.run(server.ready())
        print(f"vLLM answered after {time.monotonic() - begun:.0f} s")
        yield server
    finally:
        server.close()
    assert server.key not in log.read_text(encoding="utf-8", errors="replace")
    assert processes(model) == []


def simulator(model: Path, **changes: Any) -> ChatSimulator:
    composed = settings(*served(model)).simulate.simulator
    assert isinstance(composed, ChatSimulator)
    return replace(composed, **changes)


def at(server: ModelServer) -> CallOptions:
    return CallOptions(servers=server, group="simulate")


def test_the_server_wants_its_key(server: ModelServer) -> None:
    request = urllib.request.Request(f"{server.choose('')}/models")
    with pytest.raises(urllib.error.HTTPError, match="401"):
        urllib.request.urlopen(request, timeout=30)


@pytest.mark.parametrize("estimator", ["integers", "expected"])
def test_every_sample_is_rated_in_the_form_that_was_asked_for(
    server: ModelServer, model: Path, estimator: Literal["integers", "expected"]
) -> None:
    questions = [SimulationRequest(claim, sample) for claim in _CLAIMS for sample in range(4)]
    rating = simulator(model, estimator=estimator)
    # Given, and not probed: this model writes no 10 when it is asked for one.
    capable = ChatCapabilities(estimator, 20 if estimator == "expected" else 0)
    found = Capabilities(estimator, asdict(capable))
    predictions = rating.simulate(questions, catalog(), at(server), found)
    for prediction in predictions:
        assert prediction.status == "ok", prediction.reason
        assert prediction.estimator == estimator
        assert prediction.visual.shape == (36,)
        assert prediction.text.shape == (6,)
        assert prediction.visual.min() >= 0
        assert max(prediction.visual.max(), prediction.text.max(), prediction.detected) <= 10
    values = np.concatenate([prediction.text for prediction in predictions])
    are_whole = np.equal(values, values.round()).all()
    assert are_whole == (estimator == "integers")


def test_numbers_are_read_by_their_probabilities_where_the_server_is_left_to_say(
    server: ModelServer, model: Path
) -> None:
    """The subject writes numbers for the schema's sake alone, and no 10. vLLM tells the
    probabilities of what the schema leaves, so numbers have all of it."""
    assert simulator(model, estimator="auto").probe(at(server)).estimator == "expected 0-9"


def test_the_log_probability_of_every_prompt_token_is_told(server: ModelServer) -> None:
    body = {
        "model": MODEL,
        "messages": [{"role": "user", "content": "a\t0\nred\t10\ncircle\t"}],
        "max_completion_tokens": 1,
        "prompt_logprobs": 20,
    }
    request = urllib.request.Request(
        f"{server.choose('')}/chat/completions", json.dumps(body).encode()
    )
    request.add_header("Authorization", f"Bearer {server.key}")
    request.add_header("Content-Type", "application/json")
    reply = json.load(urllib.request.urlopen(request, timeout=120))
    told = reply["prompt_logprobs"]
    assert len(told) == reply["usage"]["prompt_tokens"]
    assert told[0] is None
    for options in told[1:]:
        assert len(options) >= 20
        assert all(option["logprob"] <= 0 for option in options.values())


def test_all_text_tokens_are_read_off_one_pass(server: ModelServer, model: Path) -> None:
    """The subject knows no lists of numbers, which are among the least likely of all it could say:
    so all of its vocabulary has to be told of."""
    client = simulator(model).client
    lister = PromptLogprobs(
        client=client, top_logprobs=VOCABULARY, examples=1, prices=simulator(model).prices
    )
    found = lister.probe(at(server))
    assert found is not None
    # Its tokenizer spells out the words that scenes lack.
    assert found.details == {"top": 9, "placeholder": "unknown"}
    questions = [SimulationRequest(claim, sample) for claim in _CLAIMS for sample in range(4)]
    predictions = lister.simulate(questions, catalog(), at(server), found)
    for prediction in predictions:
        assert prediction.status == "ok", prediction.reason
        assert prediction.visual is None
        assert prediction.text.shape == (6,)
        assert 0 < prediction.text.min() < prediction.text.max() < 9
    (few,) = replace(lister, top_logprobs=20).simulate(questions[:1], catalog(), at(server))
    assert few.status == "malformed"
    assert few.reason.startswith("no number is among the alternatives")
