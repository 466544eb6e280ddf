"""Old names of settings: refused with exit status 2 and the new name, wherever they are set."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import hydra
import pytest
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import HydraException
from omegaconf import OmegaConf

from neuron_atlas.workflows.config.composition import (
    CONF,
    explain_hydra_error,
    register_resolvers,
)
from neuron_atlas.workflows.config.reader import read_settings
from neuron_atlas.workflows.config.renamed import RENAMED, RENAMED_GROUPS
from neuron_atlas.workflows.run.errors import ConfigError
from tests.workflows.runs import command, composed

GROUPS = {
    "classify": ("classify=tested",),
    "client": ("explain=gpt4o",),
    "explain.seed": ("explain=gpt4o",),
    "simulate.alternatives": ("simulate=prompt_logprobs",),
    "simulate.features_gb": ("simulate=clipseg",),
    "simulate.servers": ("simulate=vllm",),
}
"""The choices that have the settings."""


def full(path: str) -> str:
    return f"explain.{path}" if path.startswith("client.") else path


def choices(old: str) -> tuple[str, ...]:
    return next((made for start, made in GROUPS.items() if old.startswith(start)), ())


def refusal(*overrides: str) -> str:
    register_resolvers()
    GlobalHydra.instance().clear()
    with (
        hydra.initialize_config_dir(str(CONF), version_base="1.3"),
        pytest.raises(HydraException) as raised,
    ):
        hydra.compose("atlas", overrides=list(overrides))
    return str(explain_hydra_error(raised.value, overrides))


@pytest.mark.parametrize(("old", "new"), RENAMED.items())
def test_an_old_name_is_refused_with_the_new_one(old, new):
    said = f"{full(old)}: is now {full(new)}; write the new name in "
    assert refusal(*choices(old), f"{full(old)}=1").startswith(said)
    # A YAML file and an override with + add the setting, so that only the reader finds it.
    with pytest.raises(ConfigError) as raised:
        read_settings(composed(*choices(old), f"+{full(old)}=1"))
    assert str(raised.value).startswith(said)


@pytest.mark.parametrize(("old", "new"), RENAMED.items())
def test_the_new_name_exists_and_the_old_one_does_not(old, new):
    config = OmegaConf.create(dict(composed(*choices(old))))
    found = [OmegaConf.select(config, full(name), default="none") for name in (old, new)]
    assert found[0] == "none"
    assert found[1] != "none"


def test_an_old_name_is_refused_for_one_of_several_explainers_and_for_a_simulator():
    several = ("explain=several", "+explain@explain.explainers.a=gpt4o")
    for key, old, new in (
        ("explain.explainers.a.client.first_wait_s", "client.first_wait_s", "client.backoff_s"),
        ("explain.client.max_wait_s", "client.max_wait_s", "client.max_backoff_s"),
        ("explain.explainers.a.seed", "seed", "request_seed"),
    ):
        found = f"explain.explainers.a.{old}: is now explain.explainers.a.{new};"
        with pytest.raises(ConfigError, match=re.escape(found)):
            read_settings(composed(*several, f"++{key}=1"))
    with pytest.raises(ConfigError, match=r"^explain\.seed: is now explain\.request_seed;"):
        read_settings(composed(*several, "++explain.seed=1"))
    said = refusal("simulate=chat", "simulate.client.served_as=x")
    assert said.startswith("simulate.client.served_as: is now simulate.client.reply_model_prefix;")


@pytest.mark.parametrize(("old", "new"), RENAMED_GROUPS.items())
def test_an_old_group_is_refused_with_the_new_one(old, new):
    said = f"{old}: this group is now {new}; write the new name"
    assert refusal(f"{old}@simulate=vllm") == refusal(f"+{old}@simulate=vllm") == said
    assert (CONF / new).is_dir()
    assert not (CONF / old).exists()


@pytest.mark.parametrize(
    ("call", "where"),
    [
        (("{own}",), "{folder}/experiment/mine.yaml"),
        (("--multirun", "{own}", "score.seed=0,1"), "{folder}/experiment/mine.yaml"),
        (("+score.q=0.1",), "the override +score.q"),
        (("--multirun", "score.q=0.1,0.2"), "the override or YAML file that sets it"),
        (("--multirun", "+score.q=0.1,0.2"), "the override +score.q"),
    ],
    ids=["file", "file in a sweep", "override", "swept", "swept override"],
)
def test_an_own_file_or_override_or_sweep_with_an_old_name_ends_with_status_2(
    tmp_path, ended, call, where
):
    experiment = tmp_path / "experiment" / "mine.yaml"
    experiment.parent.mkdir()
    experiment.write_text("# @package _global_\nscore:\n  q: 0.1\n", encoding="utf-8")
    own = ("--config-dir", str(tmp_path), "experiment=mine")
    words = [word for one in call for word in (own if one == "{own}" else (one,))]
    if "--multirun" in call:  # A sweep looks at the words that its process was called with.
        swept = _call(*words, cwd=tmp_path)
        status, said = swept.returncode, swept.stderr
    else:
        status, said = ended(*words)
    assert status == 2, said
    is_now = "neuron-atlas: score.q: is now score.max_q; write the new name in"
    assert said.startswith(f"{is_now} {where.format(folder=tmp_path)}")


def test_an_own_choice_with_a_group_of_an_old_name_ends_with_status_2(tmp_path):
    choice = tmp_path / "simulate" / "mine.yaml"
    choice.parent.mkdir()
    choice.write_text("defaults:\n  - chat\n  - /served@_here_: vllm\n", encoding="utf-8")
    ended = _call("--config-dir", str(tmp_path), "simulate=mine", cwd=tmp_path)
    said = "neuron-atlas: served: this group is now self_hosted; write the new name\n"
    assert (ended.returncode, ended.stderr) == (2, said)


def _call(*overrides: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command(*overrides), cwd=cwd, capture_output=True, text=True, check=False)
