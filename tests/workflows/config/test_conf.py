"""Every file of conf/ is a call that works, and names every setting there is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import Any

import hydra
import pytest
from hydra.core.global_hydra import GlobalHydra
from omegaconf import OmegaConf

from neuron_atlas.workflows.config.composition import (
    CONF,
    SEVERAL,
    plain_config,
    register_resolvers,
)
from neuron_atlas.workflows.config.reader import read_settings
from neuron_atlas.workflows.config.settings import Settings
from tests.workflows.runs import composed

SHARED = ("client", "common", "prices", "self_hosted", "servers")
"""Groups that other files include."""
CHOICES = sorted(
    f"{path.parent.name}={path.stem}"
    for path in CONF.glob("*/*.yaml")
    if path.parent.name not in SHARED
    and path.stem not in ("__init__", SEVERAL)  # Which waits for explainers to be named.
)
GIVEN = {"explain.client.azure.endpoint": "https://mine.openai.azure.com"}
FLAT = ("source", "rule", "explainer", "simulator")
"""Settings whose fields are in their group in the config."""


def config_with_mandatory_values(*overrides: str) -> dict[str, Any]:
    register_resolvers()
    GlobalHydra.instance().clear()
    with hydra.initialize_config_dir(str(CONF), version_base="1.3"):
        config = hydra.compose("atlas", overrides=list(overrides))
    for name in OmegaConf.missing_keys(config):
        OmegaConf.update(config, name, GIVEN.get(name, "given"))
    return plain_config(config)


def read_with_mandatory_values(*overrides: str) -> Settings:
    return read_settings(config_with_mandatory_values(*overrides))


def test_there_are_the_choices_that_the_readme_promises():
    assert {
        *("subject=bundled", "subject=llava-1.5-7b", "subject=pretrained"),
        *("subject=llava-v1.6-mistral-7b", "subject=llava-onevision-7b", "subject=qwen2.5-vl-7b"),
        *("subject=internvl3-8b", "subject=smolvlm2-2.2b", "subject=idefics3-8b"),
        "subject=gemma-3-4b",
        *("data=scenes", "data=llava_json", "data=folder", "data=hub"),
        *("describe=generated", "describe=given"),
        *("classify=paper", "classify=tested"),
        *("explain=dissect", "explain=gpt4o", "explain=gpt4o-azure"),
        *("simulate=concept", "simulate=chat", "simulate=vllm"),
        *("simulate=prompt_logprobs", "simulate=clipseg"),
        *("experiment=demo", "experiment=paper", "experiment=gpt4o"),
    } <= set(CHOICES)


@pytest.mark.parametrize("choice", CHOICES)
def test_every_choice_is_accepted_once_its_mandatory_values_are_given(choice):
    assert isinstance(read_with_mandatory_values(choice), Settings)


def test_the_paper_experiment_is_the_papers():
    settings = read_with_mandatory_values("experiment=paper")
    assert settings.subject.model == "llava-hf/llava-1.5-7b-hf"
    assert type(settings.data.source).__name__ == "LlavaJson"
    assert settings.describe.text_source == "generated"
    assert settings.capture.layers is None
    assert (settings.capture.top_n, settings.capture.hook_point) == (50, "gate")
    rule = settings.classify.rule
    assert (rule.n_visual, rule.t_visual, rule.n_text, rule.t_text) == (4, 2.0, 2, 3.0)
    assert settings.explain.explainer.client.model == "gpt-4o"


def test_an_experiment_gives_way_to_what_the_call_says():
    settings = read_with_mandatory_values("experiment=gpt4o", "explain.neurons.count=7")
    assert settings.explain.neurons.count == 7
    settings = read_with_mandatory_values("experiment=paper", "explain=dissect")
    assert type(settings.explain.explainer).__name__ == "Dissect"


@pytest.mark.parametrize("choice", [choice for choice in CHOICES if "experiment" not in choice])
def test_conf_names_every_setting_that_the_program_has(choice):
    group = choice.split("=")[0]
    config = config_with_mandatory_values(choice)
    assert unnamed(getattr(read_settings(config), group), config[group]) == []


def test_the_main_file_names_every_setting_that_belongs_to_no_group():
    config = composed()
    assert unnamed(read_settings(config), config) == []


def unnamed(settings: Any, config: Mapping[str, Any]) -> list[str]:
    """The settings that a person who reads the config does not see."""
    absent = []
    for field in fields(settings):
        value = getattr(settings, field.name)
        if field.name == "other_explainers":
            continue
        if field.name in FLAT:
            absent += unnamed(value, config)
        elif field.name not in config:
            absent.append(field.name)
        elif is_dataclass(value):
            absent += [f"{field.name}.{name}" for name in unnamed(value, config[field.name])]
    return absent
