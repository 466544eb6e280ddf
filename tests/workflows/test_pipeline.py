"""The stages on Ray, from drawn scenes to the page: what they leave, skip and redo."""

from __future__ import annotations

import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow.compute as pc
import pytest

from neuron_atlas.tasks.artifacts import (
    CLAIMS,
    LEVELS,
    SCORE_AGGREGATES,
    TESTED_TYPES,
    TOKENS,
    TYPES,
)
from neuron_atlas.tasks.score.aggregate import aggregate_scores
from neuron_atlas.tasks.score.settings import ScoreSettings
from neuron_atlas.tasks.score.significance import add_significance
from neuron_atlas.workflows.atlas import stages_of
from neuron_atlas.workflows.cluster.actor_pool import ActorPool
from neuron_atlas.workflows.run import runner
from neuron_atlas.workflows.run.context import Context
from neuron_atlas.workflows.run.runner import Runner
from neuron_atlas.workflows.run.store import Store
from tests.workflows.runs import (
    LAYERS,
    NAMES,
    SCENES,
    SMALL,
    SPECS,
    TOP_N,
    Atlas,
    settings,
    small_run,
)

KEY = ("layer", "neuron")


def test_every_stage_ran_and_took_its_time(first_run):
    assert list(first_run.done) == NAMES
    assert first_run.stats.skipped == []
    assert set(NAMES) <= set(first_run.stats.seconds)


def test_the_manifest_maps_every_artifact_to_files_that_exist(atlas):
    artifacts = atlas.manifest["artifacts"]
    assert set(SPECS) | {"report"} == set(artifacts)
    for name, artifact in artifacts.items():
        assert artifact["files"], name
        assert all((atlas.out / file).is_file() for file in artifact["files"]), name


@pytest.mark.parametrize("name", SPECS)
def test_an_artifact_has_its_columns_its_statuses_and_one_row_for_each_key(atlas, name):
    spec = SPECS[name]
    table = atlas.table(name)
    assert len(table) == atlas.manifest["artifacts"][name]["rows"] > 0
    assert len(table.group_by(list(spec.key)).aggregate([])) == len(table)
    if spec.statuses:
        assert set(table["status"].unique().to_pylist()) <= set(spec.statuses)


def test_there_is_a_row_for_every_sample_and_every_neuron(atlas):
    assert atlas.table("samples")["sample_id"].to_pylist() == list(range(150))
    assert atlas.table("descriptions")["sample_id"].to_pylist() == list(range(150))
    neurons = atlas.table("types", ["type"])
    assert set(neurons["layer"].to_pylist()) == set(LAYERS)
    assert set(neurons["type"].to_pylist()) <= set(TYPES)
    for name in ("exemplars", "moments"):
        assert atlas.table(name, []).equals(neurons.select(["layer", "neuron"]))
    evidence = atlas.table("evidence", ["stratum"])
    explained = set(
        zip(*(atlas.table("explanations", [])[key].to_pylist() for key in KEY), strict=True)
    )
    exemplars = evidence.filter(pc.equal(evidence["stratum"], "exemplar"))
    counts = Counter(zip(*(exemplars[key].to_pylist() for key in KEY), strict=True))
    assert {key: counts[key] for key in explained} == dict.fromkeys(explained, TOP_N)
    # Without a site, only neurons on the page are shown in addition.
    assert set(counts.values()) <= {TOP_N, 2}


def test_words_know_the_visual_tokens_of_their_sample_and_responses_how_concentrated_they_are(
    atlas,
):
    keys = ["sample_id", "n_visual"]
    described = dict(
        zip(*(atlas.table("descriptions")[key].to_pylist() for key in keys), strict=True)
    )
    words = dict(zip(*(atlas.table("words")[key].to_pylist() for key in keys), strict=True))
    assert words
    assert words == {sample_id: described[sample_id] for sample_id in words}
    assert set(words.values()) != {0}
    responses = atlas.table("responses")
    measured = responses.filter(pc.greater(responses["n_visual_exemplars"], 0))["concentration"]
    assert len(measured) > 0
    assert measured.null_count == 0
    assert 0 <= pc.min(measured).as_py() <= pc.max(measured).as_py() <= 1


def test_what_is_explained_is_simulated_and_scored(atlas):
    explained = atlas.table("explanations", ["type"])
    keys = ["layer", "neuron"]
    scores = atlas.table("scores")
    for tokens in TOKENS:
        over_them = scores.filter(pc.equal(scores["tokens"], tokens))
        assert explained.select(keys).equals(over_them.select(keys))
    assert atlas.table("simulations").group_by(keys).aggregate([]).num_rows == len(explained)
    counts = Counter(
        zip(explained["layer"].to_pylist(), explained["type"].to_pylist(), strict=True)
    )
    assert max(counts.values()) == 10
    assert "unknown" not in {kind for _, kind in counts}


def test_every_claim_is_simulated_on_the_same_exemplars_and_as_many_random_samples(atlas):
    used = atlas.table("simulations", ["purpose", "stratum", "status"])
    used = used.filter(pc.equal(used["status"], "ok")).to_pylist()
    drawn: dict[tuple, dict[str, set]] = {}
    for row in used:
        part = drawn.setdefault((row["layer"], row["neuron"], row["purpose"]), {})
        part.setdefault(row["explanation"], set()).add((row["stratum"], row["sample_id"]))
    for (_, _, purpose), claims in drawn.items():
        # Not every explanation has a broader and a narrower claim.
        made = set(claims) - set(LEVELS)
        assert made == (set(CLAIMS) if purpose == "scorer" else {"own"})
        assert all(samples == claims["own"] for samples in claims.values())
        draws = Counter(draw for draw, _ in claims["own"])
        assert draws["exemplar"] == draws["random"]


def test_scores_are_judged_among_all_neurons_and_gathered(atlas):
    scores = atlas.table("scores")
    judged = add_significance(scores)
    for name in ("p", "q"):
        assert scores[name].equals(judged[name])
        assert scores[name].null_count < len(scores)
    gathered = aggregate_scores(scores, ScoreSettings(resamples=100))
    keys = [(name, "ascending") for name in SCORE_AGGREGATES.key]
    assert atlas.table("score_aggregates").equals(gathered.sort_by(keys))


def test_no_score_rests_on_a_sample_that_the_explainer_saw(atlas):
    seen = atlas.table("explanations", ["exemplar_ids"]).to_pylist()
    seen_by = {(row["layer"], row["neuron"]): set(row["exemplar_ids"]) for row in seen}
    used = atlas.table("simulations", ["status"])
    used = used.filter(pc.equal(used["status"], "ok")).to_pylist()
    assert used
    assert all(row["sample_id"] not in seen_by[row["layer"], row["neuron"]] for row in used)


def test_capture_leaves_no_shards_once_it_is_merged(first_run):
    assert not (first_run.folder("capture") / "shards").exists()


def test_nothing_is_left_half_written(atlas):
    assert list(atlas.out.rglob("*.tmp")) == []


@pytest.fixture
def no_cluster(monkeypatch):
    """Starting Ray fails."""

    def refuse(_):
        raise AssertionError("Ray was started")

    monkeypatch.setattr(runner, "cluster", refuse)


def test_the_same_call_again_does_nothing_starts_nothing_and_says_so(
    first_run, atlas, no_cluster, capsys
):
    before = {path: path.stat().st_mtime_ns for path in atlas.out.rglob("*.parquet")}
    first = atlas.manifest["artifacts"]
    again = small_run(atlas.out)
    assert again.stats.skipped == NAMES
    assert atlas.manifest["artifacts"] == first
    assert atlas.manifest["already_done"] == NAMES
    assert {path: path.stat().st_mtime_ns for path in atlas.out.rglob("*.parquet")} == before
    said = capsys.readouterr().err
    assert said.count("already done (") == len(NAMES)
    assert "seconds    none: everything was already done" in said


@pytest.mark.parametrize(
    "override",
    ["capture.batch_size=3", "capture.shards=4", "cluster.actors=2", "explain.neurons_per_task=7"],
)
def test_another_way_of_doing_the_same_redoes_nothing(
    first_run, atlas, no_cluster, shared_mlflow, override
):
    assert small_run(atlas.out, override).stats.skipped == NAMES


def test_another_threshold_redoes_the_types_and_what_rests_on_them(first_run, atlas, shared_mlflow):
    context = small_run(atlas.out, "classify.paper.t_visual=5")
    assert context.stats.skipped == ["samples", "describe", "image_clusters", "capture", "search"]
    assert context.done["classify"].fingerprint != first_run.done["classify"].fingerprint
    visual = pc.sum(atlas.table("types", ["share_visual"])["share_visual"]).as_py()
    small_run(atlas.out)  # Back, and nothing is lost.
    assert pc.sum(atlas.table("types", ["share_visual"])["share_visual"]).as_py() > visual


def test_by_the_papers_rule_alone_the_types_are_the_same_and_nothing_is_tested(
    first_run, atlas, shared_mlflow
):
    types = atlas.table("types")
    tested = atlas.table("tested_types", ["type_tested"])
    context = small_run(atlas.out, "classify=paper")
    assert atlas.table("types").equals(types)
    assert "tested_types" not in atlas.manifest["artifacts"]
    assert len(atlas.table("type_agreement")) == 0
    # What was explained, simulated and scored rests on the types, which are the same.
    redone = {"classify", "analyse", "report"}
    assert context.stats.skipped == [name for name in NAMES if name not in redone]
    small_run(atlas.out)  # Back, and nothing is lost.
    assert atlas.table("tested_types", ["type_tested"]).equals(tested)


def test_a_setting_of_the_types_that_changes_no_row_redoes_the_types_alone(
    first_run, atlas, shared_mlflow
):
    context = small_run(atlas.out, "classify.quantile=0.9")  # Read for another threshold.
    assert context.done["classify"].fingerprint != first_run.done["classify"].fingerprint
    assert context.stats.skipped == [name for name in NAMES if name != "classify"]
    small_run(atlas.out)


def test_a_tested_neuron_has_q_over_all_layers(atlas):
    tested = atlas.table("tested_types")
    for name in ("exact", "block", "both"):
        p, q = (tested[f"{kind}_{name}"].to_numpy() for kind in "pq")
        known = ~np.isnan(p)
        assert known.sum() > 0.9 * len(p)
        np.testing.assert_array_equal(np.isnan(q), ~known)
        # The largest p of all layers is its own q; within a layer alone the others' would differ.
        assert q[known].max() == p[known].max()
    assert set(tested["type_tested"].to_pylist()) <= set(TESTED_TYPES)


def test_the_tests_of_single_layers_are_gone_once_they_are_gathered(first_run):
    assert [path.name for path in first_run.folder("classify").iterdir() if path.is_dir()] == []


def test_another_title_redoes_the_page_only(first_run, atlas, shared_mlflow):
    context = small_run(atlas.out, "report.title=Another")
    assert context.stats.skipped == NAMES[:-1]
    page = (context.folder("report") / "index.html").read_text(encoding="utf-8")
    assert "Another" in page


def test_a_lost_file_is_made_again_as_it_was(first_run, atlas, shared_mlflow):
    (path,) = [path for path in atlas.files("types") if f"{LAYERS[0]:03d}" in path.name]
    before = path.read_bytes()
    path.unlink()
    context = small_run(atlas.out)
    assert context.stats.skipped == [name for name in NAMES if name != "classify"]
    assert path.read_bytes() == before


def test_describing_again_loads_all_actors_early_and_leaves_the_cores_to_the_stages_that_follow(
    first_run, atlas, shared_mlflow, monkeypatch
):
    loaded: list[ActorPool] = []
    monkeypatch.setattr(ActorPool, "load", lambda pool: loaded.append(pool))
    for path in [*atlas.files("descriptions"), *atlas.files("types")]:
        path.unlink()
    context = small_run(atlas.out, "cluster.actors=2")
    assert {"describe", "classify"} & set(context.stats.skipped) == set()
    assert "capture" in context.stats.skipped
    assert len(loaded) == 1


def test_another_cut_of_the_neurons_does_not_confuse_the_stages_after_explaining(
    first_run, atlas, shared_mlflow
):
    scores = atlas.table("scores", ["correlation"])
    context = small_run(atlas.out, "explain.neurons_per_task=3", "simulate.seed=1")
    assert context.stats.skipped == NAMES[: NAMES.index("simulate")]
    assert atlas.table("scores", ["correlation"]).equals(scores)


def test_a_kill_between_commit_and_tidying_leaves_no_shards_for_good(
    first_run, atlas, no_cluster, shared_mlflow
):
    shards = first_run.folder("capture") / "shards"
    (shards / "shard-of-26-GB").mkdir(parents=True)
    small_run(atlas.out)
    assert not shards.exists()


def captured_again(first_run: Context, out: Path, *overrides: str) -> Atlas:
    """Capture and classify as a new run whose samples are described already."""
    given = settings(SCENES, *SMALL, *overrides)
    context = Context(given, Store(out))
    for stage in ("samples", "describe"):
        folder = context.store.folder(stage, first_run.done[stage].fingerprint)
        shutil.copytree(first_run.folder(stage), folder)
    stages = stages_of(given)[: NAMES.index("classify") + 1]
    with Runner(context, stages, lambda metrics, step: None) as runs:
        for stage in stages:
            runs.run(stage)
    assert context.stats.skipped == ["samples", "describe"]
    context.store.write_run(list(context.done.values()))
    return Atlas(out)


@pytest.mark.parametrize(
    "overrides",
    [
        ("capture.shards=2", "capture.batch_size=1"),
        ("capture.shards=5", "capture.batch_size=16", "cluster.actors=2"),
    ],
)
def test_shards_batches_and_actors_change_no_exemplar_and_no_type(
    first_run, atlas, tmp_path, overrides
):
    other = captured_again(first_run, tmp_path, *overrides)
    columns = ["sample_id", "peak_role", "peak_token"]
    assert other.table("exemplars", columns).equals(atlas.table("exemplars", columns))
    mine, theirs = (side.table("exemplars", ["peak"])["peak"] for side in (other, atlas))
    np.testing.assert_allclose(
        mine.combine_chunks().flatten().to_numpy(),
        theirs.combine_chunks().flatten().to_numpy(),
        rtol=1e-4,
        atol=1e-5,
    )
    assert other.table("types", ["type"]).equals(atlas.table("types", ["type"]))
    for share in ("share_visual", "share_text", "share_multimodal", "share_unknown"):
        assert other.table("types", [share]).equals(atlas.table("types", [share]))
