"""The store: what decides a fingerprint, and when an artifact counts as complete."""

from __future__ import annotations

import dataclasses
import json
import shutil
import zlib
from dataclasses import replace
from functools import cache
from pathlib import Path

import pyarrow as pa
import pytest

from neuron_atlas.workflows.atlas import stages_of
from neuron_atlas.workflows.run import lock
from neuron_atlas.workflows.run import store as store_module
from neuron_atlas.workflows.run.context import Context
from neuron_atlas.workflows.run.errors import ConfigError
from neuron_atlas.workflows.run.lock import locked
from neuron_atlas.workflows.run.neurons import neurons_identity
from neuron_atlas.workflows.run.runner import Runner
from neuron_atlas.workflows.run.store import MANIFEST, Manifest, Store, fingerprint, write_json
from tests.workflows.runs import NAMES, settings


def manifest(mark: str = "f" * 64, **given) -> Manifest:
    filled = {
        "stage": "classify",
        "version": 1,
        "fingerprint": mark,
        "parameters": {"t": 2.0},
        "made_from": {"capture": "c"},
        "files": {"types": ["a.parquet", "b.parquet"]},
        "rows": {"types": 3},
        "seconds": {"classify": 0.1},
    }
    return Manifest(**filled | given)


def write_files(store: Store, done: Manifest) -> list[Path]:
    paths = store.paths(done, "types")
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"rows")
    return paths


@pytest.mark.parametrize(
    "other",
    [
        {"stage": "b"},
        {"version": 2},
        {"parameters": {"x": 2}},
        {"parameters": {"y": 1}},
        {"made_from": {"samples": "other"}},
        {"made_from": {}},
    ],
)
def test_a_fingerprint_is_of_stage_version_parameters_and_inputs(other):
    call = {"stage": "a", "version": 1, "parameters": {"x": 1}, "made_from": {"samples": "s"}}
    assert fingerprint(**call) == fingerprint(**call)
    assert fingerprint(**call) != fingerprint(**call | other)


def test_the_manifest_of_a_run_joins_what_several_explainers_left(tmp_path):
    store = Store(tmp_path)
    rows = {"scores": 3}
    given = [
        manifest(mark * 64, stage="score", files={"scores": [f"{mark}.parquet"]}, rows=rows)
        for mark in "ab"
    ]
    path = store.write_run([manifest(files={"types": []}, rows={"types": 0}), *given])
    artifacts = json.loads(path.read_text())["artifacts"]
    assert artifacts["scores"] == {
        "stage": "score",
        "fingerprint": f"{'a' * 64}+{'b' * 64}",
        "rows": 6,
        "files": [f"artifacts/score/{mark * 16}/{mark}.parquet" for mark in "ab"],
    }
    assert artifacts["types"]["fingerprint"] == "f" * 64


def test_a_fingerprint_does_not_depend_on_the_order_of_settings():
    first, second = {"x": 1, "y": {"a": 1, "b": 2}}, {"y": {"b": 2, "a": 1}, "x": 1}
    assert fingerprint("s", 1, first, {}) == fingerprint("s", 1, second, {})


class _AllDone(Store):
    """A store in which every stage is complete, with all layers and all evidence.

    n_concepts: rows of `concepts`.
    """

    def __init__(self, out: Path, n_concepts: int) -> None:
        super().__init__(out)
        self.n_concepts = n_concepts

    def find(self, stage: str, fingerprint: str) -> Manifest:
        about = {"layers": [0, 1, 2, 3], "layers_in_all": 4, "holds": {}, "sayings": {}}
        return manifest(
            fingerprint, stage=stage, files={}, rows={"concepts": self.n_concepts}, about=about
        )


@pytest.fixture(autouse=True)
def files_that_are_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "neuron_atlas.workflows.stages.capture.count_rows", lambda folder, files: {}
    )
    monkeypatch.setattr(
        "neuron_atlas.workflows.stages.evidence.wanted_evidence", lambda context: {}
    )
    monkeypatch.setattr(
        "neuron_atlas.workflows.stages.near_misses.explanation_texts", lambda context, name: {}
    )
    monkeypatch.setattr("neuron_atlas.workflows.stages.sayings._wanted", lambda context: [])
    # As if every call that redoes classify found other types.
    stages = "neuron_atlas.workflows.stages"
    monkeypatch.setattr(
        f"{stages}.explain._chosen",
        lambda explain, context: other_types(context, explain.neurons),
    )
    for name in ("simulate", "score"):
        monkeypatch.setattr(
            f"{stages}.{name}.explained_identity",
            lambda context, explainer: neurons_identity(other_types(context)),
        )


def other_types(context: Context, *selection: object) -> pa.Table:
    """A row of `types` that depends on the fingerprint of classify, and on a selection."""
    number = zlib.crc32(repr((context.done["classify"].fingerprint, *selection)).encode())
    return pa.table({"layer": [0], "neuron": [number], "type": ["text"], "scale": [1.0]})


@cache
def marks(*overrides: str, n_concepts: int = 1) -> dict[str, str]:
    """The fingerprint of every stage of a call, by its key."""
    given = settings(*overrides)
    context = Context(given, _AllDone(Path(given.out), n_concepts))
    stages = [replace(stage, check=lambda context: None) for stage in stages_of(given)]
    with Runner(context, stages, lambda metrics, step: None) as runner:
        for stage in stages:
            runner.run(stage)
    return {key: done.fingerprint for key, done in context.done.items()}


def of_one_explainer(found: dict[str, str], explainer: str) -> dict[str, str]:
    """The fingerprints of what runs for each explainer, by stage."""
    return {
        key.partition("/")[0]: mark for key, mark in found.items() if key.endswith(f"/{explainer}")
    }


def changed(*overrides: str, since: tuple[str, ...] = ()) -> list[str]:
    before, after = marks(*since), marks(*since, *overrides)
    return [name for name in NAMES if before[name] != after[name]]


@pytest.mark.parametrize("n_concepts", [0, 1])
def test_explainers_side_by_side_are_each_what_they_are_alone(n_concepts):
    """Also without concepts, where only one of them names image clusters."""
    both = marks("explain=[dissect,gpt4o]", n_concepts=n_concepts)
    for name in ("dissect", "gpt4o"):
        alone = marks(f"explain={name}", n_concepts=n_concepts)
        mine = of_one_explainer(both, name)
        assert set(mine) == {"explain", "near_misses", "simulate", "score"}
        assert mine == {stage: alone[stage] for stage in mine}
        assert both["report"] != alone["report"]


def test_a_setting_of_one_explainer_leaves_the_other_as_it_was():
    before = marks("explain=[dissect,gpt4o]")
    after = marks("explain=[dissect,gpt4o]", "explain.explainers.gpt4o.render=mask")
    assert {key for key in before if before[key] != after[key]} == {
        *("explain/gpt4o", "simulate/gpt4o", "score/gpt4o"),
        "report",
    }


@pytest.mark.parametrize(
    "override",
    [
        "capture.batch_size=1",
        "capture.shards=5",
        "describe.batch_size=2",
        "explain.neurons_per_task=3",
        "explain.max_failed_share=1",
        "data.max_bad_share=0.5",
        "cluster.address=10.0.0.1:6379",
        "cluster.cpus=7",
        "cluster.actors=3",
        "cluster.threads_per_actor=2",
        "tracking.experiment=another",
        "tracking.run_name=another",
        "out=elsewhere",
    ],
)
def test_how_and_where_a_run_is_done_redoes_nothing(override):
    assert changed(override) == []


def test_another_analysis_redoes_itself_and_the_report():
    assert changed("analyse.min_lift=3") == ["analyse", "report"]
    assert changed("search.exemplars=9") == changed("search.neighbors=9") == ["search", "report"]
    assert changed("classify.max_q=0.01", since=("classify=tested",)) == _but_rows_of_neurons(
        NAMES[NAMES.index("classify") :]
    )


@pytest.mark.parametrize(
    "override",
    [
        "explain.client.concurrency=1",
        "explain.client.timeout_s=3",
        "explain.client.max_attempts=1",
        "explain.client.api_key_env=MY_KEY",
    ],
)
def test_how_a_model_is_called_redoes_nothing(override):
    assert changed(override, since=("explain=gpt4o",)) == []


@pytest.mark.parametrize(
    ("override", "first"),
    [
        ("data.count=999", "samples"),
        ("data.seed=1", "samples"),
        ("describe.max_new_tokens=9", "describe"),
        ("subject.question='What is there?'", "describe"),
        ("subject.dtype=bfloat16", "describe"),
        ("capture.layers=[0]", "classify"),  # Of what is captured, another part is read.
        ("capture.hook_point=gate_up", "capture"),
        ("capture.top_n=9", "capture"),
        ("capture.top_activations=9", "capture"),
        ("evidence.random_samples=9", "evidence"),
        ("evidence.seed=1", "evidence"),
        ("evidence.exemplars=9", "evidence"),
        ("explain=gpt4o", "explain"),
        ("near_misses.samples=9", "near_misses"),
        ("near_misses.seed=1", "near_misses"),
        ("simulate.seed=1", "simulate"),
        ("score.resamples=500", "score"),
        ("report.title=another", "report"),
    ],
)
def test_a_setting_that_decides_a_result_redoes_its_stage_and_all_that_follow(override, first):
    assert changed(override) == NAMES[NAMES.index(first) :]


@pytest.mark.parametrize(
    "override", ["classify.t_visual=5", "classify.include_template=true", "classify=tested"]
)
def test_another_rule_redoes_all_that_follows_but_the_evidence_of_neurons(override):
    assert changed(override) == _but_rows_of_neurons(NAMES[NAMES.index("classify") :])


@pytest.mark.parametrize(
    "override", ["evidence.traces=all", "report.site.exemplars_of_unexplained=5"]
)
def test_how_many_traces_are_stored_does_not_name_the_evidence(override):
    assert "evidence" not in changed(override)


def _but_rows_of_neurons(names: list[str]) -> list[str]:
    """Without the stages whose rows depend on no type, and whose folders all choices of neurons
    and explanations share."""
    return [name for name in names if name not in ("evidence", "search", "near_misses")]


@pytest.mark.parametrize("override", ["explain.min_samples=3", "explain.neurons.count=9"])
def test_other_explanations_add_near_misses_to_those_of_earlier_runs(override):
    assert changed(override) == _but_rows_of_neurons(NAMES[NAMES.index("explain") :])


@pytest.mark.parametrize(
    "override",
    ["explain.client.model=gpt-5", "explain.exemplars=3", "explain.client.base_url=http://x/v1"],
)
def test_another_model_or_another_question_explains_again(override):
    following = _but_rows_of_neurons(NAMES[NAMES.index("explain") :])
    assert changed(override, since=("explain=gpt4o",)) == following


def test_the_subject_counts_by_its_content_not_by_its_place(tmp_path):
    here = Path(settings().subject.model)
    there = tmp_path / here.name
    shutil.copytree(here, there)
    assert changed(f"subject.model={there}") == []
    config = there / "config.json"
    config.write_text(config.read_text(encoding="utf-8") + " ", encoding="utf-8")
    marks.cache_clear()
    assert changed(f"subject.model={there}") == NAMES[NAMES.index("describe") :]


def test_what_was_committed_is_found_again_as_it_was(tmp_path):
    store = Store(tmp_path)
    done = manifest(about={"layers": [0, 3]}, content="abc")
    write_files(store, done)
    assert store.find("classify", done.fingerprint) is None
    store.commit(done)
    assert store.find("classify", done.fingerprint) == done


def test_an_artifact_is_complete_only_while_all_its_files_are_there(tmp_path):
    store = Store(tmp_path)
    done = manifest()
    _, second = write_files(store, done)
    store.commit(done)
    second.unlink()
    assert store.find("classify", done.fingerprint) is None


def test_fingerprints_that_share_a_folder_name_are_told_apart(tmp_path):
    store = Store(tmp_path)
    done = manifest("a" * 64)
    write_files(store, done)
    store.commit(done)
    other = "a" * 63 + "b"
    assert store.folder("classify", other) == store.folder("classify", done.fingerprint)
    assert store.find("classify", other) is None


@pytest.mark.parametrize("damaged", ["", "{", "[]", '{"stage": "classify"}', '{"new_field": 1}'])
def test_a_manifest_that_cannot_be_read_counts_as_absent(tmp_path, damaged):
    store = Store(tmp_path)
    done = manifest()
    write_files(store, done)
    store.commit(done)
    (store.folder("classify", done.fingerprint) / MANIFEST).write_text(damaged, encoding="utf-8")
    assert store.find("classify", done.fingerprint) is None


def test_later_fingerprints_follow_the_content_where_a_stage_states_it():
    assert manifest().identity == manifest().fingerprint
    assert manifest(content="rows").identity == "rows"


def test_json_is_written_whole_or_not_at_all(tmp_path, monkeypatch):
    path = tmp_path / "below" / "some.json"
    write_json(path, {"a": 1})

    def power_cut(*_):
        raise OSError("power cut")

    with monkeypatch.context() as patch:
        patch.setattr(store_module.os, "replace", power_cut)
        with pytest.raises(OSError, match="power cut"):
            write_json(path, {"a": 2})
    assert json.loads(path.read_text(encoding="utf-8")) == {"a": 1}
    write_json(path, {"a": 3})
    assert json.loads(path.read_text(encoding="utf-8")) == {"a": 3}
    assert [file.name for file in path.parent.iterdir() if file.suffix == ".json"] == ["some.json"]


def test_the_runs_manifest_maps_artifacts_to_files_below_the_output_folder(tmp_path):
    store = Store(tmp_path)
    done = manifest()
    paths = write_files(store, done)
    other = dataclasses.replace(done, stage="score", files={"scores": []}, rows={})
    written = json.loads(store.write_run([done, other], note=1).read_text(encoding="utf-8"))
    assert written["note"] == 1
    types = written["artifacts"]["types"]
    assert [tmp_path / name for name in types["files"]] == paths
    assert (types["stage"], types["fingerprint"], types["rows"]) == ("classify", "f" * 64, 3)
    assert written["artifacts"]["scores"]["files"] == []


def test_one_run_at_a_time_holds_an_output_folder(tmp_path):
    with (
        locked(tmp_path),
        pytest.raises(ConfigError, match=r"^out: another run is writing to "),
        locked(tmp_path),
    ):
        pytest.fail("two runs hold one folder")
    with locked(tmp_path):
        pass


def test_a_file_system_without_locks_is_no_hindrance(tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError("no locks here")

    monkeypatch.setattr(lock.fcntl, "flock", refuse)
    with locked(tmp_path):
        pass
