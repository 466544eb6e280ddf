"""Settings: checked in full before anything runs, each complaint one line with the setting."""

from __future__ import annotations

import math
from copy import deepcopy
from dataclasses import dataclass, field
from functools import cache
from typing import Annotated, Any

import pytest
from annotated_types import Ge

from neuron_atlas.tasks.explain.dissect import Dissect
from neuron_atlas.tasks.explain.explanation import Explainer
from neuron_atlas.tasks.models.failures import ProviderError
from neuron_atlas.tasks.models.settings import ClientSettings
from neuron_atlas.tasks.samples.folder import Folder
from neuron_atlas.workflows.config.reader import read_settings
from neuron_atlas.workflows.config.settings import Settings
from neuron_atlas.workflows.run.errors import ConfigError
from tests.workflows.runs import composed


@cache
def default_config() -> dict[str, Any]:
    return composed("explain=gpt4o")


def config_with(path: str, value: Any) -> dict[str, Any]:
    config = deepcopy(default_config())
    *groups, name = path.split(".")
    place = config
    for group in groups:
        place = place[group]
    place[name] = value
    return config


def complaint(path: str, value: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        read_settings(config_with(path, value))
    line = str(caught.value)
    assert "\n" not in line
    return line


def read(path: str, value: Any) -> Settings:
    return read_settings(config_with(path, value))


@pytest.mark.parametrize(
    ("path", "value", "allowed"),
    [
        ("capture.batch_size", "many", "must be a whole number, not 'many'"),
        ("capture.batch_size", 2.5, "must be a whole number, not 2.5"),
        ("capture.batch_size", True, "must be a whole number, not True"),
        ("capture.batch_size", None, "must be a whole number, not None"),
        ("classify.t_visual", "high", "must be a number, not 'high'"),
        ("classify.include_template", 1, "must be true or false, not 1"),
        ("out", None, "must be text, not None"),
        (
            "report.title",
            ["a"],
            "must be text, not ['a']; quote text: 'report.title=\"...\"'",
        ),
        (
            "capture.hook_point",
            "middle",
            "'middle' is not one of gate, gate_up, sae, vision, projector, module:PATH",
        ),
        ("describe.text_source", "mine", "'mine' is not one of generated, given"),
        ("subject.dtype", "int8", "'int8' is not one of float32, bfloat16, float16, auto"),
        ("cluster", 3, "must be a group of settings, not 3"),
        ("explain.prices", 3, "must be a mapping, not 3"),
        ("explain.client.model", None, "must be text, not None"),
    ],
)
def test_a_value_of_the_wrong_kind_is_told_with_the_right_one(path, value, allowed):
    assert complaint(path, value) == f"{path}: {allowed}"


@pytest.mark.parametrize(
    ("path", "value", "allowed"),
    [
        ("capture.top_n", 0, "must be at least 1"),
        ("capture.top_activations", 0, "must be at least 1"),
        ("capture.shards", 0, "must be at least 1"),
        ("capture.layers", [-1], "give at least one layer, each 0 or above, or null for all"),
        ("capture.layers", [], "give at least one layer, each 0 or above, or null for all"),
        ("capture.layers", [1, 2, 1], "give each layer once"),
        ("describe.batch_size", 0, "must be at least 1"),
        ("data.max_bad_share", 1.5, "must be at most 1, not 1.5"),
        ("data.max_bad_share", math.nan, "must be a finite number, not nan"),
        ("explain.budget_usd", -1.0, "must be at least 0, not -1.0"),
        ("explain.budget_usd", math.nan, "must be a finite number, not nan"),
        ("explain.budget_usd", math.inf, "must be a finite number, not inf"),
        ("simulate.budget_usd", -1.0, "must be at least 0"),
        ("simulate.max_failed_share", 2.0, "must be at most 1"),
        ("explain.max_failed_share", -0.1, "must be at least 0"),
        ("explain.neurons_per_task", 0, "must be at least 1"),
        ("explain.neurons.count", 0, "must be at least 1"),
        ("explain.neurons.per_layer_and_type", 0, "must be at least 1"),
        ("explain.neurons.only", ["7"], "'7' is not layer:neuron, such as 3:417"),
        ("explain.client.concurrency", 0, "must be at least 1"),
        ("explain.client.timeout_s", 0.0, "must be above 0"),
        ("explain.client.timeout_s", math.inf, "must be a finite number"),
        ("explain.client.backoff_s", -1.0, "must be at least 0"),
        ("explain.client.max_backoff_s", math.nan, "must be a finite number"),
        ("explain.client.batch.poll_s", 0.0, "must be above 0"),
        ("explain.prices.gpt-4o.output", -1.0, "must be at least 0"),
        ("explain.prices.gpt-4o.output", math.nan, "must be a finite number"),
        ("explain.exemplars", 0, "must be at least 1"),
        ("explain.contrasts", -1, "must be at least 0"),
        ("explain.lower_share", 1.1, "must be at most 1"),
        ("explain.image_size", 100, "must be at least 128"),
        ("explain.max_tokens", 0, "must be at least 1"),
        ("classify.n_visual", 0, "must be at least 1"),
        ("classify.t_text", -1.0, "must be at least 0"),
        ("classify.t_visual", 10.0, "must be below 10"),
        ("classify.top_n", 0, "must be at least 1"),
        ("describe.max_new_tokens", 0, "must be at least 1"),
        ("report.site.image_quality", 101, "must be at most 100"),
        ("score.resamples", 1, "must be at least 100"),
        ("score.min_samples", 1, "must be at least 2"),
        ("score.min_tokens", 1, "must be at least 2"),
        ("score.t_visual", 10, "must be below 10"),
        ("score.t_text", -1, "must be at least 0"),
        ("score.max_q", 1, "must be below 1"),
        ("score.max_q", 0, "must be above 0"),
        ("cluster.cpus", 0, "must be at least 1"),
        ("cluster.actors", -1, "must be at least 1"),
        ("cluster.threads_per_actor", 0, "must be at least 1"),
    ],
)
def test_a_value_out_of_range_is_told_with_the_range(path, value, allowed):
    assert complaint(path, value).startswith(f"{path}: {allowed}")


@pytest.mark.parametrize(
    ("choice", "setting", "allowed"),
    [
        ("classify=tested", "classify.quantile=0.0", "must be above 0"),
        ("classify=tested", "classify.max_q=1.0", "must be below 1"),
        ("classify=tested", "classify.min_high=0", "must be at least 1"),
        ("explain=dissect", "explain.min_samples=0", "must be at least 1"),
        ("simulate=chat", "simulate.image_size=100", "must be at least 128"),
        ("simulate=chat", "simulate.grid=-1", "must be the number of rows and columns, or full"),
        ("simulate=clipseg", "simulate.batch_size=0", "must be at least 1"),
        ("simulate=clipseg", "simulate.feature_cache_gb=-0.1", "must be at least 0"),
        ("simulate=prompt_logprobs", "simulate.top_logprobs=0", "must be at least 1"),
        ("simulate=prompt_logprobs", "simulate.examples=3", "must be at most 2"),
        ("simulate=vllm", "simulate.servers.count=0", "must be at least 1"),
        ("simulate=vllm", "+simulate.servers.unhealthy_s=60", "no such setting; allowed here: "),
        ("simulate=vllm", "simulate.base_urls=['gpu-1:80']", "'gpu-1:80' is not a complete"),
        ("explain=gpt4o-azure", "explain.client.azure.deployment=''", "must be given"),
    ],
)
def test_a_plug_ins_value_out_of_range_is_told_with_the_range(choice, setting, allowed):
    azure = "explain.client.azure.endpoint=https://mine.openai.azure.com"
    with pytest.raises(ConfigError) as caught:
        read_settings(composed(choice, *([azure] if "azure" in choice else []), setting))
    assert str(caught.value).startswith(f"{setting.split('=')[0].lstrip('+')}: {allowed}")


def test_all_wrong_settings_are_told_at_once_each_in_a_line_of_its_own():
    config = composed("explain=[gpt4o,mini:gpt4o]", "+capture.colour=1", "capture.top_n=0")
    config["explain"]["explainers"]["mini"]["client"]["concurrency"] = True
    config["data"]["seed"] = "one"
    del config["out"]
    with pytest.raises(ConfigError) as caught:
        read_settings(config)
    assert sorted(line.split(";")[0] for line in str(caught.value).splitlines()) == [
        "capture.colour: no such setting",
        "capture.top_n: must be at least 1, not 0",
        "data.seed: must be a whole number, not 'one'",
        "explain.explainers.mini.client.concurrency: must be a whole number, not True",
        "out: must be given",
    ]


@pytest.mark.parametrize(
    "rule",
    [
        ["classify.top_n=60"],
        ["classify=tested", "classify.paper.top_n=60"],
        ["classify.top_n=60", "explain=[gpt4o,dissect]"],
    ],
)
def test_more_exemplars_cannot_vote_than_are_captured(rule):
    with pytest.raises(ConfigError, match=r"^classify: top_n \(60\) exceeds capture\.top_n \(50\)"):
        read_settings(composed(*rule))


@pytest.mark.parametrize(
    ("overrides", "setting"),
    [
        (["classify.n_visual=9"], r"n_visual \(9\)"),
        (["classify.n_text=9"], r"n_text \(9\)"),
        (["classify=tested", "classify.paper.n_text=9"], r"paper\.n_text \(9\)"),
    ],
)
def test_a_type_cannot_need_more_activations_than_are_captured(overrides, setting):
    expected = rf"^classify: {setting} exceeds capture\.top_activations \(8\)\. Raise capture"
    with pytest.raises(ConfigError, match=expected):
        read_settings(composed(*overrides))
    read_settings(composed(*overrides, "capture.top_activations=9"))


def test_evidence_of_more_exemplars_than_are_captured_is_refused():
    with pytest.raises(
        ConfigError, match=r"^evidence: exemplars \(60\) exceeds capture\.top_n \(50\)"
    ):
        read_settings(composed("evidence.exemplars=60"))
    assert read_settings(composed("evidence.exemplars=50")).evidence.exemplars == 50


def test_effects_of_the_outputs_of_a_module_are_refused():
    module = "capture.hook_point=module:mlp"
    with pytest.raises(ConfigError, match=r"^effects: .*'module:mlp'\. Set effects=none"):
        read_settings(composed(module, "effects=all"))
    assert read_settings(composed(module)).capture.hook_point == "module:mlp"
    for path in ("module:", "modules:mlp"):
        with pytest.raises(
            ConfigError, match="is not one of gate, gate_up, sae, vision, projector, mod"
        ):
            read_settings(composed(f"capture.hook_point='{path}'"))


def test_a_wrong_value_within_a_list_or_a_table_is_told_with_its_place():
    assert complaint("capture.layers", [0, "one"]).startswith("capture.layers[1]: ")
    assert complaint("explain.neurons.types", ["visual", "loud"]) == (
        "explain.neurons.types[1]: 'loud' is not one of visual, text, multi-modal, unknown"
    )
    assert complaint("explain.prices.gpt-4o.input", "much").startswith(
        "explain.prices.gpt-4o.input: must be a number"
    )


@pytest.mark.parametrize(
    ("path", "some_allowed"),
    [
        ("colour", "capture, classify, cluster"),
        ("capture.colour", "batch_size, device_memory_gb, hook_point"),
        ("data.colour", "count, max_bad_share, seed, size"),
        ("report.site.colour", "exemplars, exemplars_of_unexplained, held_out"),
        ("explain.neurons.colour", "count, only, per_layer_and_type, types"),
        ("explain.client.colour", "api_key_env, azure, backoff_s"),
    ],
)
def test_a_setting_that_does_not_exist_is_told_with_those_that_do(path, some_allowed):
    line = complaint(path, 1)
    assert line.startswith(f"{path}: no such setting; allowed here: ")
    assert some_allowed in line


def test_a_setting_without_a_default_must_be_given():
    config = deepcopy(default_config())
    del config["out"]
    with pytest.raises(ConfigError, match=r"^out: must be given$"):
        read_settings(config)


def test_a_setting_that_is_left_out_has_its_default():
    config = deepcopy(default_config())
    del config["capture"]["top_n"]
    assert read_settings(config).capture.top_n == 50


def test_one_value_serves_where_a_list_is_asked_for():
    assert read("capture.layers", 3).capture.layers == (3,)
    assert read("explain.neurons.types", "visual").explain.neurons.types == ("visual",)


def test_numbers_become_what_is_asked_for_so_that_spelling_changes_no_fingerprint():
    rule = read("classify.t_visual", 2).classify.rule
    assert isinstance(rule.t_visual, float)
    assert read("report.title", 2024).report.title == "2024"


def test_the_class_that_is_named_gets_the_fields_of_its_group():
    data = {
        "_target_": "neuron_atlas.tasks.samples.folder.Folder",
        "path": "photos",
        "max_bad_share": 0.5,
    }
    settings = read("data", data)
    assert settings.data.source == Folder("photos")
    assert settings.data.max_bad_share == 0.5
    explain = {"_target_": "neuron_atlas.tasks.explain.dissect.Dissect", "min_samples": 3}
    assert read("explain", explain).explain.explainer == Dissect(min_samples=3)


def several(*overrides: str) -> Settings:
    return read_settings(composed("explain=[gpt4o,mini:gpt4o,dissect]", *overrides))


def test_several_explainers_are_read_in_order_each_by_its_own_name():
    explain = several("explain.explainers.mini.client.model=gpt-4o-mini").explain
    assert explain.names == ("gpt4o", "mini", "dissect")
    assert [type(one.explainer).__name__ for one in explain.each_explainer] == [
        "Chat",
        "Chat",
        "Dissect",
    ]
    assert [one.explainer.client.model for one in explain.each_explainer[:2]] == [
        "gpt-4o",
        "gpt-4o-mini",
    ]
    assert [one.neurons.count for one in explain.each_explainer] == [100, 100, None]
    assert all(one.other_explainers == () for one in explain.each_explainer)


def test_one_explainer_of_several_is_read_as_it_is_alone():
    alone = read_settings(composed("explain=gpt4o")).explain
    assert several().explain.each_explainer[0] == alone == alone.each_explainer[0]


def test_a_setting_for_all_explainers_goes_to_those_that_have_it():
    explain = several("explain.neurons.count=7", "explain.client.timeout_s=9").explain
    assert [one.neurons.count for one in explain.each_explainer] == [7, 7, 7]
    assert [one.neurons.types for one in explain.each_explainer] == [explain.neurons.types] * 3
    assert [one.explainer.client.timeout_s for one in explain.each_explainer[:2]] == [9, 9]


def test_an_experiments_setting_goes_to_all_explainers_too():
    explain = several("experiment=gpt4o").explain
    assert [one.neurons.count for one in explain.each_explainer] == [30, 30, 30]


def test_what_every_explainer_needs_is_asked_of_all(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "a-key")
    explain = several("explain.explainers.mini.client.api_key_env=NO_SUCH_KEY").explain
    with pytest.raises(ProviderError, match="NO_SUCH_KEY"):
        explain.check()


def test_a_simulator_that_no_batch_can_answer_is_not_asked_by_batch():
    config = composed("simulate=prompt_logprobs", "simulate.mode=batch")
    with pytest.raises(
        ConfigError, match=r"^simulate\.mode: prompt_logprobs cannot use the batch API; set live"
    ):
        read_settings(config)
    read_settings(composed("simulate=chat", "simulate.mode=batch"))


@pytest.mark.parametrize(
    ("target", "said"),
    [
        (None, "must name a class, such as "),
        ("Folder", "must name a class, such as "),
        (
            "neuron_atlas.tasks.samples.nowhere.Folder",
            "cannot import 'neuron_atlas.tasks.samples.nowhere.Folder'",
        ),
        (
            "neuron_atlas.tasks.samples.folder.Nothing",
            "cannot import 'neuron_atlas.tasks.samples.folder.Nothing'",
        ),
        ("neuron_atlas.tasks.samples.media.IMAGE_SUFFIXES", "is not a settings class"),
        ("os.system", "is not a settings class"),
        ("tasks.samples.folder.Folder", "write neuron_atlas.tasks.samples.folder.Folder"),
    ],
)
def test_a_class_that_cannot_be_used_is_told_by_name(target, said):
    line = complaint("data._target_", target)
    assert line.startswith("data._target_: ")
    assert said in line


@dataclass(frozen=True)
class DryRun(Dissect):
    """An explainer with a setting that its group has too."""

    dry_run: int = 0


@dataclass(frozen=True)
class Mine(Explainer):
    """An explainer of a user's own."""

    name: str = "mine"
    client: ClientSettings = field(default_factory=ClientSettings)
    size: Annotated[int, Ge(1)] = 1


def test_a_class_with_a_setting_of_its_group_is_refused():
    target = f"{DryRun.__module__}.{DryRun.__qualname__}"
    with pytest.raises(ConfigError, match=r"the group explain both have a setting named 'dry_run'"):
        read_settings(config_with("explain", {"_target_": target}))


def test_an_explainer_from_elsewhere_takes_what_its_neighbours_share(tmp_path):
    (tmp_path / "explain").mkdir()
    (tmp_path / "explain" / "mine.yaml").write_text(
        "defaults:\n"
        "  - /common@_here_: explain\n"
        "  - /client@client: openai\n"
        f"_target_: {Mine.__module__}.{Mine.__qualname__}\n"
        "size: 3\n"
    )
    found = f"hydra.searchpath=[file://{tmp_path}]"
    explain = read_settings(composed(found, "explain=mine", "explain.client.concurrency=2")).explain
    assert explain.explainer == Mine(size=3, client=explain.explainer.client)
    assert explain.explainer.client.concurrency == 2
    assert explain.neurons_per_task == 128
    with pytest.raises(ConfigError, match=r"^explain\.size: must be at least 1, not 0$"):
        read_settings(composed(found, "explain=mine", "explain.size=0"))
