import logging
import sqlite3
from dataclasses import replace
from pathlib import Path

import pytest

from neuron_atlas.tasks.models.account.account import LocalAccount
from neuron_atlas.tasks.models.client import ClientSettings, ProviderError
from neuron_atlas.tasks.models.settings import AzureSettings
from tests.loopback.provider import DEPLOYMENT
from tests.tasks.models.asking import ask, quick


def test_a_missing_key_is_noticed_before_anything_is_sent(provider, monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY")
    with pytest.raises(ProviderError, match="OPENAI_API_KEY is not set"):
        ask(quick(provider))
    monkeypatch.setenv("OPENAI_API_KEY", "two\nlines")
    with pytest.raises(ProviderError, match="does not hold a key"):
        ask(quick(provider))
    assert provider.requests() == []


def test_a_key_in_the_address_is_refused_before_it_is_logged_anywhere():
    with pytest.raises(ValueError, match="OPENAI_API_KEY") as raised:
        ClientSettings(base_url="http://user:hush@127.0.0.1/v1")
    assert "hush" not in str(raised.value)


@pytest.mark.parametrize("rest", ["?api-key=hush", "#hush", "/v1?hush"])
def test_a_key_behind_the_address_is_refused_before_it_is_logged_anywhere(rest):
    with pytest.raises(ValueError, match=r"base_url: .*OPENAI_API_KEY") as raised:
        ClientSettings(base_url=f"http://127.0.0.1{rest}")
    assert "hush" not in str(raised.value)
    with pytest.raises(ValueError, match="endpoint: ") as raised:
        ClientSettings(azure=AzureSettings(f"https://mine.openai.azure.com{rest}", "a", "2024"))
    assert "hush" not in str(raised.value)


@pytest.mark.parametrize("wrong", ["sk-proj-hush", "hush hush", "1hush", ""])
def test_a_key_in_the_place_of_its_variable_is_refused_without_repeating_it(wrong):
    with pytest.raises(ValueError, match=r"api_key_env: .*name of an environment") as raised:
        ClientSettings(api_key_env=wrong)
    assert "hush" not in str(raised.value)


@pytest.mark.parametrize(
    ("served", "is_it"),
    [
        ("gpt-4o", True),
        ("gpt-4o-2024-08-06", True),
        ("gpt-4o-mini-2024-07-18", False),
        ("gpt-4o-audio-preview", False),
        ("gpt-4", False),
    ],
)
def test_a_model_is_served_by_itself_and_by_its_dated_versions_only(served, is_it):
    assert ClientSettings(model="gpt-4o").is_served_by(served) == is_it
    assert ClientSettings(model="gpt-4o", reply_model_prefix="gpt-4").is_served_by(served)


@pytest.mark.parametrize(
    ("model", "served", "is_it"),
    [
        ("gpt-4o", "openai/gpt-4o-2024-08-06", True),
        ("llava", "llava:latest", True),
        ("gemini-2.5-pro", "models/gemini-2.5-pro", True),
        ("accounts/x/models/Llava-1.5", "llava-1.5", True),
        ("gpt-4o", "openai/gpt-4o-mini", False),
        ("llava:7b", "llava:13b", False),
    ],
)
def test_what_a_server_puts_before_or_after_a_name_is_no_other_model(model, served, is_it):
    assert ClientSettings(model=model).is_served_by(served) == is_it


def test_the_key_is_nowhere_but_in_the_request(provider, tmp_path, monkeypatch, caplog):
    secret = "sk-a-wrong-but-secret-key"
    monkeypatch.setenv("OPENAI_API_KEY", secret)
    caplog.set_level(logging.DEBUG)
    account = LocalAccount(tmp_path / "journal.db")
    settings = quick(provider)
    with pytest.raises(ProviderError) as raised:
        ask(settings, account)
    shown = [str(raised.value), repr(settings), caplog.text, provider.log.read_text()]
    linked: BaseException | None = raised.value
    while linked is not None:
        shown.append(repr(linked) + repr(vars(linked)))
        linked = linked.__cause__ or linked.__context__
    account.close()
    monkeypatch.setenv("OPENAI_API_KEY", provider.key)
    account = LocalAccount(tmp_path / "journal.db")
    assert ask(settings, account).status == "ok"
    account.close()
    with sqlite3.connect(tmp_path / "journal.db") as database:
        shown.append("\n".join(database.iterdump()))
    kept = b"".join(path.read_bytes() for path in Path(tmp_path).rglob("*") if path.is_file())
    for key in (secret, provider.key):
        assert not any(key in text for text in shown)
        assert key.encode() not in kept


def test_a_key_that_a_gateway_repeats_in_its_error_is_blotted_out(provider):
    provider.misbehave("repeats_key")
    answer = ask(quick(provider))
    assert answer.status == "failed"
    assert answer.reason.endswith("Bearer ***")
    assert provider.key[:6] not in answer.reason


def test_azure_is_asked_by_deployment_with_its_own_key(provider, monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY")
    monkeypatch.setenv("AZURE_OPENAI_API_KEY", provider.key)
    azure = AzureSettings(provider.root, DEPLOYMENT, "2024-10-21")
    settings = quick(provider, base_url=None, azure=azure, api_key_env="AZURE_OPENAI_API_KEY")
    assert ask(settings).status == "ok"
    assert provider.requests()[0]["body"]["model"] == DEPLOYMENT
    with pytest.raises(ProviderError, match="HTTP 404"):
        ask(replace(settings, azure=replace(azure, deployment="no-such")))


def test_azure_settings_that_cannot_work_are_turned_down():
    with pytest.raises(ValueError, match="endpoint: must be a complete address"):
        AzureSettings("mine", "a", "2024-10-21")
