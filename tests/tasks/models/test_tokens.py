import base64
import io
import threading

import pytest
from PIL import Image

from neuron_atlas.tasks.models import tokens
from neuron_atlas.tasks.models.settings import ClientSettings
from neuron_atlas.tasks.models.tokens import image_tokens, text_tokens, token_bound


def picture(width: int, height: int, detail: str = "high") -> dict[str, str]:
    encoded = io.BytesIO()
    Image.new("RGB", (width, height)).save(encoded, "PNG")
    data = base64.b64encode(encoded.getvalue()).decode()
    return {"url": f"data:image/png;base64,{data}", "detail": detail}


@pytest.mark.parametrize(
    ("width", "height", "detail", "expected"),
    [
        # The examples of OpenAI's guide, and the borders of a tile.
        (1024, 1024, "high", 765),
        (2048, 4096, "high", 1105),
        (4096, 8192, "low", 85),
        (512, 512, "high", 255),
        (513, 512, "high", 425),
        (512, 252, "auto", 255),
    ],
)
def test_a_picture_counts_by_the_rule_that_the_provider_publishes(width, height, detail, expected):
    assert image_tokens("gpt-4o", picture(width, height, detail), 1) == expected


def test_each_family_of_models_has_its_own_rule():
    assert image_tokens("gpt-4o-mini", picture(512, 512, "low"), 1) == 2833
    assert image_tokens("gpt-4o-2024-08-06", picture(512, 512), 1) == 255
    assert image_tokens("gpt-4.1-mini", picture(1024, 1024), 1) == 1659  # 1,024 patches x 1.62
    assert image_tokens("my-own", picture(512, 512), 777) == 777


def test_text_is_counted_by_its_bytes_where_there_is_no_encoding():
    assert text_tokens("a model that nobody knows", "ärger") == 6


def test_a_request_counts_its_words_its_pictures_its_schema_and_its_longest_answer():
    body = {
        "messages": [
            {"role": "system", "content": "x" * 100},
            {
                "role": "user",
                "content": [
                    {"type": "text", "text": "y" * 50},
                    {"type": "image_url", "image_url": picture(512, 512, "low")},
                ],
            },
        ],
        "response_format": {"type": "json_schema"},
        "max_completion_tokens": 400,
    }
    settings = ClientSettings(model="gpt-4o-of-no-encoding")
    bound = token_bound(body, settings)
    assert bound.tokens_in == 100 + 50 + 85 + len('{"type": "json_schema"}') + 2 * 8
    assert bound.tokens_out == 400
    assert bound.total == bound.tokens_in + 400


@pytest.mark.parametrize(
    ("model", "longest"),
    [
        ("gpt-4o-2024-08-06", 16_384),
        ("gpt-4.1-mini", 32_768),
        ("o3", 100_000),
        ("gpt-5-nano", 128_000),
        ("my-own", 131_072),
    ],
)
def test_an_answer_without_a_limit_counts_as_the_longest_that_the_model_gives(model, longest):
    body = {"messages": [{"role": "user", "content": "?"}]}
    assert token_bound(body, ClientSettings(model=model)).tokens_out == longest
    limited = body | {"max_completion_tokens": 30}
    assert token_bound(limited, ClientSettings(model=model)).tokens_out == 30


def test_an_encoding_that_cannot_be_loaded_is_told_once_and_holds_up_nothing(monkeypatch, caplog):
    import tiktoken

    asked = threading.Event()

    def unreachable(model: str) -> None:
        asked.set()
        raise ConnectionError("no network")

    monkeypatch.setattr(tiktoken, "encoding_for_model", unreachable)
    monkeypatch.setattr(tokens, "_loading", {})
    assert not tokens.load_encoding("gpt-4o", wait_s=5)
    assert asked.is_set()
    assert not tokens.load_encoding("gpt-4o", wait_s=5)
    assert text_tokens("gpt-4o", "words") == 5
    (line,) = [record.getMessage() for record in caplog.records]
    assert "could not load the encoding of 'gpt-4o' (ConnectionError)" in line


def test_an_encoding_that_is_at_hand_counts(monkeypatch):
    import tiktoken

    class Words:
        def encode(self, text: str, disallowed_special: tuple[()]) -> list[str]:
            return text.split()

    monkeypatch.setattr(tiktoken, "encoding_for_model", lambda model: Words())
    monkeypatch.setattr(tokens, "_loading", {})
    assert tokens.load_encoding("gpt-4o", wait_s=5)
    assert text_tokens("gpt-4o", "three short words") == 3
