"""Samples that cannot be used: counted by reason, and past a limit they stop the run early."""

from __future__ import annotations

import shutil
from collections import Counter
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from neuron_atlas.tasks.artifacts import DESCRIPTIONS, SAMPLES, write_table
from neuron_atlas.tasks.samples.scenes import Scenes
from neuron_atlas.workflows import atlas
from neuron_atlas.workflows.run.context import Context
from neuron_atlas.workflows.run.errors import RunError
from neuron_atlas.workflows.run.store import Manifest, Store
from neuron_atlas.workflows.run.summary import closing_summary
from neuron_atlas.workflows.stages import describe, samples
from neuron_atlas.workflows.tracking.metrics import read_summary
from tests.workflows.runs import NAMES, Atlas, settings, small_run

GOOD = 12
BROKEN = 11
MISSING = 2


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which every other caption has no usable image."""
    folder = tmp_path_factory.mktemp("photos")
    scenes = Scenes(count=GOOD, seed=5)
    captions = []
    for number, record in enumerate(scenes.records()):
        name = f"good-{number:02d}.png"
        scenes.open_image(record.image).pixels.save(folder / name)
        captions.append((name, record.text))
    for number in range(BROKEN):
        name = f"broken-{number:02d}.png"
        (folder / name).write_bytes(b"\x89PNG no picture")
        captions.append((name, "a broken picture"))
    captions += [(f"missing-{number}.png", "not there") for number in range(MISSING)]
    rows = [f'{name},"{text}"' for name, text in captions]
    (folder / "captions.csv").write_text("\n".join(["image,text", *rows]), encoding="utf-8")
    return folder


def test_too_many_bad_samples_end_the_run_before_describe_with_the_first_ten_named(
    ray_of_two_cores, ended, photos, tmp_path, shared_mlflow
):
    status, err = ended(
        "data=folder", f"data.path={photos}", "describe=given", f"out={tmp_path / 'out'}"
    )
    assert status == 1
    assert "samples    captions from captions.csv for 23 of 23 images\n" in err
    assert "samples    13 of 25 cannot be used (11 unreadable, 2 missing), such as broken-00" in err
    said, *named = err.split("neuron-atlas: ")[1].splitlines()
    assert said == (
        "52.0% of 25 samples cannot be used, and data.max_bad_share is 1.0%; "
        "fix them or raise data.max_bad_share. The first:"
    )
    assert len(named) == 10
    assert named[0].strip().startswith("broken-00.png: unreadable: ")
    assert not (tmp_path / "out" / "artifacts" / "describe").exists()


@pytest.fixture(scope="module")
def completed(
    ray_of_two_cores: None, photos: Path, tmp_path_factory: pytest.TempPathFactory
) -> Context:
    """The same with the limit raised."""
    data = ("data=folder", f"data.path={photos}", "data.max_bad_share=0.6")
    return small_run(tmp_path_factory.mktemp("completed"), "capture.layers=[1]", data=data)


def test_with_the_limit_raised_the_run_completes_and_counts_them_by_reason(completed):
    atlas = Atlas(completed.store.out)
    counted = Counter(atlas.table("samples")["status"].to_pylist())
    assert counted == {"ok": GOOD, "unreadable": BROKEN, "missing": MISSING}
    assert len(atlas.table("descriptions")) == GOOD
    assert len(atlas.table("explanations")) > 0
    failures = {
        (row["table"], row["status"]): row["count"] for row in read_summary(completed)["failures"]
    }
    assert failures["samples", "unreadable"] == BROKEN
    assert failures["samples", "missing"] == MISSING


def test_the_closing_lines_count_the_failures(completed):
    said = closing_summary(completed, "")
    assert f"{BROKEN} samples unreadable" in said
    assert f"{MISSING} samples missing" in said


def test_a_small_dataset_keeps_samples_to_score_and_says_so(completed, capsys):
    """Of 12 usable samples, 12 exemplars would leave none."""
    (table,) = completed.paths("capture", "exemplars")
    assert pq.read_schema(table).field("peak").type.list_size == GOOD // 2
    samples.STAGE.check(completed)
    *_, lowered, held_out = capsys.readouterr().err.splitlines()
    assert lowered == (
        "samples    12 usable samples: capture.top_n is lowered from 12 to 6 "
        "(capture.max_exemplar_share is 0.5)"
    )
    assert held_out == (
        "samples    each neuron has 6 exemplars and about 6 other samples; 2 and 3 of them are "
        "held out to score it"
    )
    assert "ok" in Atlas(completed.store.out).table("scores", ["status"])["status"].to_pylist()


@pytest.mark.parametrize(
    ("overrides", "remedy"),
    [
        (("score.min_samples=10",), "Use at least 36 samples, each with an image of its own"),
        (("capture.max_exemplar_share=1.0",), "lower capture.max_exemplar_share"),
        (("evidence.random_samples=0",), "Raise evidence.random_samples"),
    ],
)
def test_too_few_samples_to_score_are_said_with_the_number_needed_before_the_run(
    completed, capsys, overrides, remedy
):
    given = replace(settings(*overrides), data=completed.settings.data)
    done = {"samples": completed.done["samples"]}
    samples.STAGE.check(Context(given, completed.store, done))
    *_, said = capsys.readouterr().err.splitlines()
    assert said.startswith("samples    too few to score a neuron: ")
    assert remedy in said


def test_a_dataset_that_moved_is_read_again_and_nothing_else_is_redone(
    completed, photos, tmp_path, shared_mlflow
):
    moved = tmp_path / photos.name
    shutil.copytree(photos, moved)
    data = ("data=folder", f"data.path={moved}", "data.max_bad_share=0.6")
    context = small_run(completed.store.out, "capture.layers=[1]", data=data)
    assert context.stats.skipped == [name for name in NAMES if name != "samples"]


def test_an_image_that_disappears_during_the_run_ends_it_in_one_line_and_its_log(
    ray_of_two_cores, ended, photos, tmp_path, shared_mlflow, monkeypatch
):
    here = tmp_path / "photos"
    shutil.copytree(photos, here)
    lose_a_photo = replace(samples.STAGE, check=lambda context: (here / "good-07.png").unlink())
    monkeypatch.setattr(atlas, "BEFORE_EXPLAINING", (lose_a_photo, *atlas.BEFORE_EXPLAINING[1:]))
    status, err = ended(
        *("data=folder", f"data.path={here}", "describe=given", f"out={tmp_path / 'out'}")
    )
    assert status == 1
    assert "Traceback" not in err
    *_, message, log = err.splitlines()
    assert "good-07.png" in message
    assert log.startswith("log: ")


@pytest.mark.parametrize(
    ("statuses", "limit", "message"),
    [
        (("ok", "skipped", "skipped"), 0.0, None),
        (("skipped", "skipped"), 0.0, r"none of 2 samples can be used, such as 0: skipped: why"),
        (("malformed", "malformed"), 1.0, r"none of 2 samples can be used"),
        (("ok", "malformed", "skipped"), 0.4, r"50\.0% of 3 samples cannot be used"),
    ],
)
def test_videos_are_skipped_but_a_run_without_any_sample_ends_early(
    tmp_path, statuses, limit, message
):
    done = Manifest(
        *("samples", 4, "f" * 64, {}, {}),
        files={"samples": ["samples.parquet"]},
        rows={},
        seconds={},
    )
    store = Store(tmp_path)
    context = Context(settings(f"data.max_bad_share={limit}"), store, {"samples": done})
    rows = [
        {"sample_id": number, "source_id": str(number), "images": [], "text": "", "status": status}
        | {"reason": "" if status == "ok" else "why"}
        for number, status in enumerate(statuses)
    ]
    (path,) = store.paths(done, "samples")
    write_table(pa.Table.from_pylist(rows, schema=SAMPLES.schema), SAMPLES, path)
    with nullcontext() if message is None else pytest.raises(RunError, match=message):
        samples.STAGE.check(context)


def test_a_folder_that_is_not_there_is_a_wrong_call(ended, tmp_path, shared_mlflow):
    status, err = ended("data=folder", f"data.path={tmp_path / 'no'}", f"out={tmp_path / 'out'}")
    assert status == 2
    *_, message = err.splitlines()
    assert message.startswith("neuron-atlas: ")
    assert "no such folder" in message


@pytest.mark.parametrize(("limit", "fails"), [(0.2, True), (0.25, False)])
def test_too_many_samples_without_a_description_stop_the_run_before_capture(tmp_path, limit, fails):
    done = Manifest(
        *("describe", 1, "f" * 64, {}, {}),
        files={"descriptions": ["descriptions.parquet"]},
        rows={},
        seconds={},
    )
    given = settings(f"describe.max_failed_share={limit}")
    store = Store(tmp_path)
    context = Context(given, store, {"describe": done})
    rows = [{"sample_id": n, "status": "empty_text" if n == 2 else "ok"} for n in range(4)]
    table = pa.Table.from_pylist(rows, schema=DESCRIPTIONS.schema)
    (path,) = store.paths(done, "descriptions")
    write_table(table, DESCRIPTIONS, path)
    with (
        pytest.raises(RunError, match=r"25.0% of 4 samples have no text")
        if fails
        else (nullcontext())
    ):
        describe.STAGE.check(context)


def test_samples_that_the_subject_cannot_take_are_named_with_their_reason(
    completed, tmp_path, capsys
):
    described = replace(
        completed.done["describe"], files={"descriptions": ["descriptions.parquet"]}
    )
    store = Store(tmp_path)
    (path,) = store.paths(described, "descriptions")
    rows = [
        {"sample_id": one, "status": "not_encoded" if one == 3 else "ok", "reason": "too narrow"}
        for one in range(GOOD)
    ]
    write_table(pa.Table.from_pylist(rows, schema=DESCRIPTIONS.schema), DESCRIPTIONS, path)
    (listed,) = completed.paths("samples", "samples")
    (copied,) = store.paths(completed.done["samples"], "samples")
    copied.parent.mkdir(parents=True)
    shutil.copy(listed, copied)
    done = {"samples": completed.done["samples"], "describe": described}
    describe.STAGE.check(Context(settings("describe.max_failed_share=0.1"), store, done))
    assert "describe   not used: broken-03.png: not_encoded: too narrow" in capsys.readouterr().err
    with pytest.raises(
        RunError, match=r"(?s)8\.3% of 12 .*broken-03\.png: not_encoded: too narrow"
    ):
        describe.STAGE.check(Context(settings("describe.max_failed_share=0.05"), store, done))


def test_cut_texts_are_counted_in_a_line_and_in_the_manifest(tmp_path, capsys):
    done = Manifest(
        *("describe", 1, "f" * 64, {}, {}),
        files={"descriptions": ["descriptions.parquet"]},
        rows={},
        seconds={},
    )
    context = Context(settings("describe=given"), Store(tmp_path), {"describe": done})
    (path,) = context.paths("describe", "descriptions")
    rows = [
        {"sample_id": 0, "text_source": "given", "status": "ok"},
        {"sample_id": 1, "text_source": "given", "status": "truncated", "reason": "9 of 12 tokens"},
        {"sample_id": 2, "text_source": "generated", "status": "truncated"},
    ]
    write_table(pa.Table.from_pylist(rows, schema=DESCRIPTIONS.schema), DESCRIPTIONS, path)
    describe.STAGE.check(context)
    assert capsys.readouterr().err == (
        "describe   texts cut at the subject's context: 1, such as 1: truncated: 9 of 12 tokens\n"
    )
    written = describe.STAGE.finish(context, path.parent, done.files)
    assert written.about == {"statuses": {"ok": 1, "truncated": 2}}
    assert written.files == done.files
