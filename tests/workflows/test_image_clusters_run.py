"""A whole run over a folder of images without concepts, whose patches are clustered."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from neuron_atlas.tasks.artifacts import (
    EXPLANATIONS,
    IMAGE_CLUSTER_NAMES,
    IMAGE_CLUSTERS,
    SCORES,
    read_table,
)
from neuron_atlas.tasks.samples.scenes import Scenes
from neuron_atlas.workflows.run.context import Context
from neuron_atlas.workflows.run.store import Store
from neuron_atlas.workflows.stages import image_clusters
from tests.workflows.runs import Atlas, settings, small_run

COUNT = 60
CLUSTERS = 16
FEW = ("capture.layers=[1]", f"image_clusters.count={CLUSTERS}")


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photos")
    scenes = Scenes(count=COUNT, seed=5)
    rows = ["image,text"]
    for number, record in enumerate(scenes.records()):
        scenes.open_image(record.image).pixels.save(folder / f"{number:03d}.png")
        rows.append(f'{number:03d}.png,"{record.text}"')
    (folder / "captions.csv").write_text("\n".join(rows), encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def run(ray_of_two_cores: None, photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Context:
    data = ("data=folder", f"data.path={photos}")
    return small_run(tmp_path_factory.mktemp("clusters"), *FEW, data=data)


def quoted(context: Context) -> set[str]:
    """Clusters that the explanations of a run name."""
    rows = read_table(context.paths("explain", "explanations"), EXPLANATIONS, ["text"])
    texts = rows["text"].to_pylist()
    return {name for text in texts for name in re.findall(r'"([^"]*cluster \d+\)?)"', text)}


def test_every_visual_token_of_every_sample_has_a_named_cluster(run):
    names = read_table(run.paths("image_clusters", "image_cluster_names"), IMAGE_CLUSTER_NAMES)
    rows = read_table(run.paths("image_clusters", "image_clusters"), IMAGE_CLUSTERS).to_pylist()
    assert names["cluster"].to_pylist() == list(range(CLUSTERS))
    assert len(set(names["name"].to_pylist())) == CLUSTERS
    assert [row["sample_id"] for row in rows] == list(range(COUNT))
    described = Atlas(run.store.out).table("descriptions", ["n_visual"])
    assert [len(row["clusters"]) for row in rows] == described["n_visual"].to_pylist()


def test_explanations_name_clusters_and_are_scored(run):
    names = read_table(run.paths("image_clusters", "image_cluster_names"), IMAGE_CLUSTER_NAMES)
    assert quoted(run)
    assert quoted(run) <= set(names["name"].to_pylist())
    assert read_table(run.paths("score", "scores"), SCORES)["status"].to_pylist().count("ok") > 10


def test_without_clusters_no_explanation_names_one(run, photos):
    data = ("data=folder", f"data.path={photos}")
    context = small_run(run.store.out, *FEW, "image_clusters.count=0", data=data)
    assert "capture" in context.stats.skipped
    assert "explain" not in context.stats.skipped
    assert context.done["image_clusters"].files == {}
    assert not quoted(context)


def test_scenes_with_concepts_are_not_clustered_and_no_setting_of_clusters_reruns_a_stage(
    first_run,
):
    assert first_run.done["image_clusters"].files == {}
    context = small_run(first_run.store.out, "image_clusters.seed=7")
    assert set(context.stats.skipped) == set(context.done)


def test_an_explainer_that_names_no_clusters_needs_none(photos, tmp_path):
    chat = settings("explain=gpt4o", "data=folder", f"data.path={photos}", f"out={tmp_path}")
    context = Context(chat, Store(tmp_path, tmp_path))
    assert image_clusters.STAGE.parameters(context) == {"image_clusters": None}
    assert not any(step.items(context, tmp_path) for step in image_clusters.STAGE.steps)


def test_the_page_shows_the_clusters_that_explanations_name(run):
    folder = run.folder("report")
    page = (folder / "index.html").read_text(encoding="utf-8")
    shown = re.findall(r'<section class="cluster" aria-label="([^"]+)"', page)
    assert set(shown) == quoted(run)
    start = page.index('<section class="cluster"')
    images = re.findall(r'src="(images/\d+\.jpg)"', page[start:])
    assert len(images) == 4 * len(shown)
    assert all((folder / image).is_file() for image in images)


def test_the_page_of_scenes_has_no_section_of_clusters(first_run):
    page = (first_run.folder("report") / "index.html").read_text(encoding="utf-8")
    assert "Image clusters" not in page
