"""Groups of neurons in a run: the tables, what is repeated, and what the page shows."""

from __future__ import annotations

from pathlib import Path

import pytest

from neuron_atlas.tasks.artifacts import TableSpec, grouped, read_table
from neuron_atlas.workflows.run.context import Context
from neuron_atlas.workflows.run.errors import ConfigError
from tests.workflows.runs import Atlas, small_run

pytestmark = pytest.mark.slow

SPECS = {spec.name: spec for spec in vars(grouped).values() if isinstance(spec, TableSpec)}
SETTINGS = (
    "groups.samples=8",
    "groups.types=[visual,text]",
    "groups.described=2",
    "groups.ablation=mean",
    'groups.named={mine:{neurons:["1:3","3:5"],words:[red]}}',
    "groups.max_new_tokens=16",
    "groups.resamples=100",
    "steering.types=[visual]",
    "steering.alphas=[4.0]",
    "steering.max_new_tokens=16",
    "report.site.write=true",
)


def grouped_run(out: Path, *overrides: str) -> Context:
    return small_run(out, *SETTINGS, "steering.neurons_per_type=1", *overrides)


@pytest.fixture(scope="module")
def out(ray_of_two_cores: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("groups") / "out"
    grouped_run(out)
    return out


def rows(out: Path, name: str) -> list[dict]:
    return read_table(Atlas(out).files(name), SPECS[name]).to_pylist()


def test_every_table_is_as_its_schema_says(out):
    for name in SPECS:
        assert rows(out, name), name
    samples = {row["sample_id"]: row for row in rows(out, "group_samples")}
    measured = {one for one, row in samples.items() if row["use"] == "measured"}
    assert {row["sample_id"] for row in rows(out, "group_losses")} == measured
    assert sum(row["described"] for row in samples.values()) == 2
    conditions = {(row["group"], row["draw"]) for row in rows(out, "group_losses")}
    assert len(conditions) == 1 + 3 * 21
    effects = {(row["group"], row["measure"]): row for row in rows(out, "group_effects")}
    assert {group for group, _ in effects} == {"visual", "text", "mine"}
    assert "yes_no_correct" not in {measure for _, measure in effects}
    assert effects["mine", "visual_words"]["n_neurons"] == 2
    assert all(row["n_random"] == 20 for row in effects.values())
    (first, second) = rows(out, "dissociations")
    assert (first["group"], first["other"]) == ("visual", "text")
    assert (first["other_measure"], second["other_measure"]) == ("text_alone", "function_words")
    chosen = [row for row in rows(out, "steering_effects") if row["group"] == "mine"]
    assert {row["half"] for row in chosen} == {"choose", "report"}


def test_the_same_call_repeats_nothing_and_more_neurons_only_add_theirs(out):
    first = {row["neuron"]: row for row in rows(out, "sayings")}
    assert {"groups", "sayings"} <= set(grouped_run(out).stats.skipped)
    losses = Atlas(out).files("group_losses")
    before = [path.stat().st_mtime_ns for path in losses]
    context = small_run(out, *SETTINGS, "steering.neurons_per_type=2")
    assert "groups" in context.stats.skipped
    assert "sayings" not in context.stats.skipped
    assert [path.stat().st_mtime_ns for path in losses] == before
    more = {row["neuron"]: row for row in rows(out, "sayings")}
    assert len(more) > len(first)
    assert {neuron: more[neuron] for neuron in first} == first


def test_the_page_shows_groups_and_what_a_clamped_neuron_says(out):
    report = next((out / "artifacts" / "report").glob("*/index.html"))
    page = report.read_text(encoding="utf-8")
    assert "Groups of neurons" in page
    assert "With the neuron clamped at" in page
    assert (report.parent / "figures" / "group_ablation.svg").is_file()
    assert (report.parent / "figures" / "group_steering.svg").is_file()
    site = report.parent / "site"
    assert any('"says"' in path.read_text(encoding="utf-8") for path in site.rglob("*.js"))


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ('groups.named={mine:{neurons:["1:512"]}}', "there is no neuron 1:512; layer 1 has"),
        ('groups.named={mine:{neurons:["2:0"]}}', "layer 2 was not captured"),
        ("groups.layers=[4-7]", "no layer of 4-7 was captured"),
    ],
)
def test_what_was_not_captured_is_named_in_one_line(out, override, said):
    with pytest.raises(ConfigError, match=said):
        grouped_run(out, override)
