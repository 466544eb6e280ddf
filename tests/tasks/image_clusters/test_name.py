"""Names of clusters: words that the texts of their samples have more often than other texts."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from neuron_atlas.tasks.artifacts import (
    DESCRIPTIONS,
    IMAGE_CLUSTER_NAMES,
    IMAGE_CLUSTERS,
    write_table,
)
from neuron_atlas.tasks.concepts.formula import Atom, Formula, Term
from neuron_atlas.tasks.concepts.sentence import read_formula, write_formula
from neuron_atlas.tasks.image_clusters.name import name_clusters

N = 40


def described(texts: dict[int, str], folder: Path) -> Path:
    rows = [
        {"sample_id": number, "text": text, "status": "ok", "n_visual": 4}
        for number, text in texts.items()
    ]
    path = folder / "descriptions.parquet"
    write_table(pa.Table.from_pylist(rows, schema=DESCRIPTIONS.schema), DESCRIPTIONS, path)
    return path


def clustered(clusters: dict[int, list[int]], folder: Path) -> Path:
    path = folder / "clusters.parquet"
    rows = [{"sample_id": number, "clusters": its} for number, its in clusters.items()]
    write_table(pa.Table.from_pylist(rows, schema=IMAGE_CLUSTERS.schema), IMAGE_CLUSTERS, path)
    return path


@pytest.fixture
def named(tmp_path: Path) -> list[dict]:
    """Cluster 0 is in every image, 1 in those of dogs, 2 in some at random, 3 in none."""
    random = np.random.default_rng(1).permutation(N) % 2
    texts, clusters = {}, {}
    for number in range(N):
        dog = number % 4 == 0
        texts[number] = "The dog of the house barks." if dog else "The cat of the house sleeps."
        clusters[number] = [0, 0, 1 if dog else 0, 2 if random[number] else 0]
    texts[99] = "Dog, a text without an image."
    table = name_clusters(4, [clustered(clusters, tmp_path)], [described(texts, tmp_path)])
    assert table.schema == IMAGE_CLUSTER_NAMES.schema
    return table.to_pylist()


def test_a_name_has_the_characteristic_words_and_the_number(named):
    assert named[1]["words"] == ["barks", "dog"]
    assert named[1]["name"] == "barks, dog (cluster 1)"


def test_a_cluster_without_characteristic_words_has_its_number_alone(named):
    assert [named[one]["name"] for one in (0, 2, 3)] == ["cluster 0", "cluster 2", "cluster 3"]
    assert [named[one]["words"] for one in (0, 2, 3)] == [[], [], []]


def test_samples_and_tokens_of_each_cluster_are_counted(named):
    assert [row["n_samples"] for row in named] == [N, N // 4, N // 2, 0]
    np.testing.assert_allclose(
        [row["share"] for row in named], [0.8125, 0.0625, 0.125, 0], atol=1e-6
    )


def test_the_words_are_those_of_an_odds_ratio_far_above_its_error(tmp_path):
    """Of 200 samples, 60 show the cluster; a word is in the texts of 30 of these and 28 others."""
    counts = {"strong": (30, 28), "weak": (18, 40), "rare": (2, 0)}
    texts = {number: [] for number in range(200)}
    for word, (inside, outside) in counts.items():
        for number in (*range(inside), *range(60, 60 + outside)):
            texts[number].append(word)
    clusters = {number: [1] if number < 60 else [0] for number in texts}
    paths = (
        [clustered(clusters, tmp_path)],
        [described({number: " ".join(words) for number, words in texts.items()}, tmp_path)],
    )
    z = {}
    for word, (inside, outside) in counts.items():
        cells = np.array([inside, 60 - inside, outside, 140 - outside]) + 0.5
        ratio = np.log(cells[0] * cells[3] / (cells[1] * cells[2]))
        z[word] = ratio / np.sqrt((1 / cells).sum())
    assert z["strong"] > 3 > z["weak"]
    assert name_clusters(2, *paths)["words"].to_pylist() == [[], ["strong"]]


def test_a_sentence_quotes_every_name_and_reads_it_back(named):
    terms = tuple(Term("visual", (Atom("shows", (row["name"],)),)) for row in named)
    formula = Formula((Term("visual", (Atom("shows", tuple(r["name"] for r in named)),)), *terms))
    assert read_formula(write_formula(formula)) == formula


def test_no_samples_with_images_give_no_names(tmp_path):
    paths = [clustered({}, tmp_path)], [described({1: "A dog."}, tmp_path)]
    assert len(name_clusters(0, *paths)) == 0
