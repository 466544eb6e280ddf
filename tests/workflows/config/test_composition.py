"""The entry point on wrong calls: one line that names the setting, and exit status 2."""

from __future__ import annotations

import shlex
from dataclasses import replace
from pathlib import Path

import hydra
import pytest
from hydra.core.global_hydra import GlobalHydra

from neuron_atlas.tasks.models.called_model import CalledModel
from neuron_atlas.tasks.models.client import Answer, ClientSettings
from neuron_atlas.tasks.models.failures import ProviderError, ProviderStoppedError, from_reply
from neuron_atlas.tasks.models.prices import Price
from neuron_atlas.workflows import atlas
from neuron_atlas.workflows.config.composition import (
    CONF,
    HYDRA_ERRORS,
    expand_explainers,
    explain_hydra_error,
    plain_config,
    register_resolvers,
)
from neuron_atlas.workflows.config.reader import read_settings
from neuron_atlas.workflows.run.errors import ConfigError, RunError
from tests.workflows.runs import settings


def _told_of_another_model() -> str:
    model = CalledModel(ClientSettings(), {}, "explain")
    return model.check_answer(Answer("ok", model="another")).reason


TOP = (
    "analyse, capture, classify, cluster, data, describe, effects, evidence, explain, groups, "
    "image_clusters, local_dir, near_misses, out, report, score, search, simulate, "
    "steering, subject, tracking"
)


def complaint(*overrides: str) -> str:
    """The only line of the message for a wrong call."""
    (line,) = complaints(*overrides)
    return line


def complaints(*overrides: str) -> list[str]:
    """The lines of the message for a call, composed and checked as the entry point does it."""
    register_resolvers()
    GlobalHydra.instance().clear()
    try:
        overrides = tuple(expand_explainers(overrides))
        with hydra.initialize_config_dir(str(CONF), version_base="1.3"):
            read_settings(plain_config(hydra.compose("atlas", overrides=list(overrides))))
    except ConfigError as error:
        return str(error).splitlines()
    except HYDRA_ERRORS as error:
        return str(explain_hydra_error(error, overrides)).splitlines()
    pytest.fail("nothing was wrong with the call")


@pytest.mark.parametrize(
    ("overrides", "named", "allowed"),
    [
        (["captur.layers=1"], "captur: no such setting", TOP),
        (["colour=red"], "colour: no such setting", TOP),
        (
            ["capture.layer=1"],
            "capture.layer: no such setting",
            "hook_point, image_threads, layers",
        ),
        (["data.path=x"], "data.path: no such setting", "count, max_bad_share, seed, size"),
        (["explain.neurons.number=3"], "explain.neurons.number: no such setting", "count, only"),
        (["capture.top_n.most=3"], "capture.top_n", "batch_size"),
        (
            ["explain.client.model=x"],
            "explain.client: no such setting",
            "max_failed_share, max_length, meanings, min_s",
        ),
        (["+capture.colour=1"], "capture.colour: no such setting", "batch_size, device_memory_gb"),
        (["~capture.top_n", "capture.top_n=3"], "capture.top_n", "batch_size"),
        (["client=openai"], "client: no such setting", TOP),
    ],
)
def test_a_wrong_key_is_named_with_what_is_allowed_in_its_place(overrides, named, allowed):
    line = complaint(*overrides)
    assert line.startswith(named)
    assert allowed in line


def test_what_is_allowed_depends_on_the_groups_choice():
    line = complaint("explain=gpt4o", "explain.clients.model=x")
    assert line.startswith("explain.clients: no such setting; allowed here: budget_usd, client, ")
    line = complaint("data=folder", "data.path=.", "data.count=3")
    assert line.startswith(
        "data.count: no such setting; allowed here: captions, image_column, limit, "
    )


@pytest.mark.parametrize(
    ("choice", "choices"),
    [
        (
            "subject=llava",
            "subject: 'llava' is not one of aya-vision-8b, bundled, gemma-3-4b, glm-4.1v-9b, "
            "idefics3-8b, internvl3-8b, llava-1.5-7b, llava-onevision-7b, llava-v1.6-mistral-7b, "
            "ovis2-8b, pretrained, qwen2-vl-7b, qwen2.5-vl-7b, qwen3-vl-8b, smolvlm2-2.2b",
        ),
        ("data=coco", "data: 'coco' is not one of folder, hub, llava_json, scenes"),
        ("describe=both", "describe: 'both' is not one of generated, given"),
        ("explain=gpt5", "explain: 'gpt5' is not one of dissect, gpt4o, gpt4o-azure, several"),
        ("experiment=mine", "experiment: 'mine' is not one of demo, gpt4o, paper"),
    ],
)
def test_a_wrong_choice_is_named_with_the_choices(choice, choices):
    assert complaint(choice) == choices


def test_explainers_in_a_list_are_composed_side_by_side():
    told = ["data.count=3", "explain=[gpt4o, mini:gpt4o]", "explain.neurons.count=3"]
    assert expand_explainers([*told, "explain.explainers.mini.render=mask"]) == [
        "data.count=3",
        "explain=several",
        "++explain.neurons.count=3",
        "explain.explainers.mini.render=mask",
        "+explain@explain.explainers.gpt4o=gpt4o",
        "+explain@explain.explainers.mini=gpt4o",
    ]
    alone = ["explain=gpt4o", "explain.neurons.count=3", "--multirun", "capture.layers=[1,2]"]
    assert expand_explainers(alone) == alone


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (
            ["explain=[gpt4o,gpt5]"],
            "explain: 'gpt5' is not one of dissect, gpt4o, gpt4o-azure, several",
        ),
        (
            ["explain=[gpt4o,masks:gpt4o,gpt4o]"],
            "explain: 'gpt4o' is named twice; write NAME:gpt4o",
        ),
        (["explain=[]"], "explain.explainers: must name explainers, such as explain=[gpt4o,"),
        (["explain=several"], "explain.explainers: must name explainers, such as explain=[gpt4o,"),
        (["explain=[gpt4o,dissect]", "explain.color=1"], "explain.color: no such setting; allowed"),
        (
            ["explain=[gpt4o,dissect]", "explain.explainers.dissect.client.model=x"],
            "explain.explainers.dissect.client: no such setting; allowed here: beam, budget_usd,",
        ),
        (
            ["explain=[gpt4o,dissect]", "explain.client.colour=x"],
            "explain.explainers.gpt4o.client.colour: no such setting; allowed here: api_key_env",
        ),
        (
            ["explain=[gpt4o,dissect]", "explain.explainers.gpt4o.render=blur"],
            "explain.explainers.gpt4o.render: 'blur' is not one of heat, mask, crop",
        ),
    ],
)
def test_a_wrong_call_of_several_explainers_is_told_with_its_place(overrides, said):
    assert complaint(*overrides).startswith(said)


@pytest.mark.parametrize(
    ("overrides", "missing"),
    [
        (["data=folder"], ["data.path"]),
        (["data=hub"], ["data.dataset"]),
        (["data=llava_json", "data.images=."], ["data.annotations"]),
        (["subject=pretrained"], ["subject.model"]),
        (["experiment=paper"], ["data.annotations", "data.images"]),
    ],
)
def test_every_mandatory_value_that_is_missing_is_named(overrides, missing):
    assert complaints(*overrides) == [
        f"{name}: must be given, such as {name}=..." for name in missing
    ]


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("capture.layers=[0,1", "capture.layers=[0,1"),
        ("capture.layers", "capture.layers"),
        ("out=${nowhere}", "nowhere"),
        ("out=${nothing:}", "nothing"),
        ("subject.model=${oc.env:NO_SUCH_VARIABLE_}", "NO_SUCH_VARIABLE_"),
    ],
)
def test_a_value_that_cannot_be_read_is_shown(override, said):
    assert said in complaint(override)


def test_paths_are_made_absolute_for_workers_elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos").mkdir()
    register_resolvers()
    with hydra.initialize_config_dir(str(CONF), version_base="1.3"):
        config = plain_config(
            hydra.compose("atlas", overrides=["data=folder", "data.path=photos", "out=new"])
        )
    assert config["data"]["path"] == str(tmp_path / "photos")
    assert config["out"] == str(tmp_path / "new")
    assert Path(config["subject"]["model"]).is_absolute()


def test_a_name_that_is_no_path_stays_a_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    register_resolvers()
    overrides = ["subject=llava-1.5-7b", "data=hub", "data.dataset=owner/name"]
    with hydra.initialize_config_dir(str(CONF), version_base="1.3"):
        config = plain_config(hydra.compose("atlas", overrides=overrides))
    assert config["subject"]["model"] == "llava-hf/llava-1.5-7b-hf"
    assert config["data"]["dataset"] == "owner/name"


@pytest.mark.parametrize(
    ("override", "said"),
    [
        (
            "captur.layers=1",
            "neuron-atlas: captur: no such setting; allowed here: analyse, capture, ",
        ),
        ("explain=gpt5", "neuron-atlas: explain: 'gpt5' is not one of dissect, gpt4o, gpt4o-azure"),
        ("capture.top_n=many", "neuron-atlas: capture.top_n: must be a whole number, not 'many'"),
        (
            "explain=[gpt4o,gpt4o]",
            "neuron-atlas: explain: 'gpt4o' is named twice; write NAME:gpt4o",
        ),
        ("capture.top_n=0", "neuron-atlas: capture.top_n: must be at least 1"),
        ("data=folder", "neuron-atlas: data.path: must be given, such as data.path=..."),
    ],
)
def test_the_program_says_one_line_and_ends_with_status_2(ended, override, said):
    status, err = ended(override)
    assert status == 2
    assert err.startswith(said)
    assert err.count("\n") == 1


def test_a_run_that_failed_ends_with_status_1_and_its_reason(ended, monkeypatch):
    def fail(config):
        raise RunError("because of this")

    monkeypatch.setattr(atlas, "run_atlas", fail)
    assert ended() == (1, "neuron-atlas: because of this\n")


@pytest.mark.parametrize(("kind", "status"), [(ProviderStoppedError, 1), (ProviderError, 2)])
def test_a_provider_that_stops_a_run_under_way_is_no_wrong_call(ended, monkeypatch, kind, status):
    def stop(config):
        raise kind("because of this")

    monkeypatch.setattr(atlas, "run_atlas", stop)
    assert ended() == (status, "neuron-atlas: because of this\n")


def test_an_unforeseen_error_ends_with_status_1_and_where_it_happened(ended, monkeypatch):
    def fail(config):
        raise ZeroDivisionError("by chance")

    monkeypatch.setattr(atlas, "run_atlas", fail)
    status, err = ended()
    assert status == 1
    assert "ZeroDivisionError: by chance" in err
    assert err.splitlines()[-1].startswith("neuron-atlas: unexpected error (traceback above)")


@pytest.mark.parametrize("override", ["explain=null", "data=5"])
def test_a_choice_that_is_no_name_is_told(ended, override):
    status, err = ended(override)
    assert status == 2
    assert err.startswith(f"neuron-atlas: {override}: ")


def test_an_interrupted_run_ends_with_status_130_and_says_how_to_go_on(ended, monkeypatch):
    def interrupt(config):
        raise KeyboardInterrupt

    monkeypatch.setattr(atlas, "run_atlas", interrupt)
    status, err = ended()
    assert status == 130
    assert "the same command goes on from there" in err


def test_an_output_folder_that_cannot_be_one_is_a_wrong_call(ended, tmp_path):
    (tmp_path / "file").touch()
    status, err = ended(f"out={tmp_path / 'file'}")
    assert status == 2
    assert err.startswith("neuron-atlas: out: cannot write below ")


def test_every_call_of_several_explainers_in_the_docs_can_be_made(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "a-key")
    page = (CONF.parent / "docs" / "calls.md").read_text(encoding="utf-8")
    calls = [line for line in page.splitlines() if line.startswith("neuron-atlas 'explain=[")]
    assert calls
    for call in calls:
        settings(*shlex.split(call)[1:]).explain.check()


@pytest.mark.parametrize("model", ["my-model", "meta/llama:7b", "a model (old), v=2 [x]{y}"])
def test_the_remedy_for_a_model_without_a_price_can_be_given_as_it_is_printed(model, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "a-key")
    explainer = settings("explain=gpt4o").explain.explainer
    asked = replace(explainer, client=replace(explainer.client, model=model))
    with pytest.raises(ProviderError) as raised:
        asked.check()
    (remedy,) = [part for part in shlex.split(str(raised.value)) if part.startswith("+explain")]
    composed = settings("explain=gpt4o", remedy.rstrip(",")).explain.explainer
    assert composed.prices[model] == Price(input=2.5, output=10, date="2026-04-05")
    replace(asked, prices=composed.prices).check()


@pytest.mark.parametrize(
    ("said", "remedy"),
    [
        (
            str(from_reply(404, {}, "gpt-4o", "KEY", "explain")),
            "explain.client.base_url=http://127.0.0.1:1/v1",
        ),
        (_told_of_another_model(), "explain.client.reply_model_prefix=another"),
        (
            str(from_reply(404, {}, "gpt-4o", "KEY", "simulate")),
            "simulate.client.base_url=http://127.0.0.1:1/v1",
        ),
        (str(from_reply(401, {}, "m", "KEY", "simulate")), "simulate.client.api_key_env=KEY"),
    ],
)
def test_a_setting_that_an_error_names_exists(said, remedy):
    assert f" {remedy.split('=')[0]}" in said
    settings("explain=gpt4o", "simulate=chat", remedy)
