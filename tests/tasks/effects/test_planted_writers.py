"""Neurons with a planted write: every measure of an effect finds what was planted."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch

from neuron_atlas.tasks.analyse.words import list_words
from neuron_atlas.tasks.artifacts import read_table, write_table
from neuron_atlas.tasks.artifacts.effects import ATTRIBUTION, EFFECTS
from neuron_atlas.tasks.effects.ablation import Ablation, loss_changes
from neuron_atlas.tasks.effects.attribution import NeuronScales, attribute, read_sums
from neuron_atlas.tasks.effects.effect_rows import decide_effects, effect_rows
from neuron_atlas.tasks.effects.faithfulness import Explained, faithfulness_rows
from neuron_atlas.tasks.effects.output_tokens import output_tokens
from neuron_atlas.tasks.effects.settings import EffectsSettings
from neuron_atlas.tasks.effects.words import Texts
from neuron_atlas.tasks.samples.scenes import Scenes
from neuron_atlas.tasks.subject.encode import VISUAL, EncodedSample
from neuron_atlas.tasks.subject.encoded import encoded_samples
from neuron_atlas.tasks.subject.load import Subject
from neuron_atlas.tasks.subject.settings import DescribeSettings
from tests.one_process import Described, describe
from tests.tasks.effects.writers import copied, plant, reserve

LAST, EARLY = 3, 1
RED, READER, LOOKER, AGAINST = 7, 8, 9, 10
"""Neurons: one of the last layer that pushes "red", one that writes nothing, one of an early layer
that fires and writes at visual tokens only, and one of the last layer that pushes against "red".
The last is the stronger one: without the first, "red" is missing. A subject that is certain of its
words has no gradient, and would not miss what one neuron adds."""


@pytest.fixture(scope="module")
def scenes(subject: Subject, tmp_path_factory: pytest.TempPathFactory) -> Described:
    """Scenes of which 14 name something red."""
    folder = tmp_path_factory.mktemp("scenes")
    return describe(
        subject, Scenes(count=32, seed=7986), folder, DescribeSettings(text_source="given")
    )


@pytest.fixture(scope="module")
def samples(subject: Subject, scenes: Described) -> list[tuple[int, EncodedSample]]:
    catalog = scenes.catalog()
    return list(encoded_samples(subject, sorted(catalog.samples), catalog, None, 2))


@pytest.fixture(scope="module")
def planted(subject: Subject, samples) -> Subject:
    changed = copied(subject)
    shown = [encoded for _, encoded in samples]
    nothing = torch.zeros(128)
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(128, generator=generator)
    red = reserve(changed, "red")
    plant(changed, LAST, RED, shown, None, 0.25 * red)
    plant(changed, LAST, AGAINST, shown, None, -0.375 * red)
    plant(changed, LAST, READER, shown, None, nothing)
    plant(changed, EARLY, LOOKER, shown, VISUAL, 0.3 * noise)
    return changed


@pytest.fixture(scope="module")
def words(scenes: Described) -> Texts:
    return Texts.from_table(list_words(scenes.catalog()))


@pytest.fixture(scope="module")
def shard(planted: Subject, samples, tmp_path_factory: pytest.TempPathFactory) -> dict[int, Path]:
    scales = NeuronScales(np.zeros(512, np.float32), np.full(512, 2, np.float32))
    table = attribute(planted, lambda: iter(samples), {LAST: scales, EARLY: scales}, "gate", 8)
    folder = tmp_path_factory.mktemp("shard")
    for layer in (LAST, EARLY):
        rows = table.filter(np.array(table["layer"]) == layer)
        write_table(rows, ATTRIBUTION, folder / f"attribution-layer-{layer:03d}.arrow")
    return {layer: folder / f"attribution-layer-{layer:03d}.arrow" for layer in (LAST, EARLY)}


@pytest.fixture(scope="module")
def effects(shard, tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[int, int], dict]:
    folder = tmp_path_factory.mktemp("effects")
    merged, written = ([folder / f"{name}-{one}.parquet" for one in shard] for name in "ab")
    for (layer, path), into in zip(shard.items(), merged, strict=True):
        write_table(effect_rows(layer, [path], np.zeros(512)), EFFECTS, into)
    decide_effects(merged, written, EffectsSettings())
    rows = read_table(written, EFFECTS).to_pylist()
    return {(row["layer"], row["neuron"]): row for row in rows}


@pytest.fixture(scope="module")
def tokens(planted: Subject, shard) -> list[dict]:
    up = read_sums([read_table(shard[LAST], ATTRIBUTION)])[3]
    return output_tokens(planted, LAST, up, "gate", 5).to_pylist()


def test_the_pushed_word_is_the_first_output_token(tokens):
    assert tokens[RED]["promoted"][0] == " red"
    assert tokens[RED]["write"] == pytest.approx(1, abs=0.2)
    assert tokens[RED]["n_strong"] > 100
    assert tokens[RED]["promoted_logits"][0] > 2 * tokens[RED]["promoted_logits"][1]
    assert tokens[READER]["promoted_logits"] == [0.0] * 5


def test_a_neuron_with_a_negative_up_projection_suppresses_what_its_column_promotes(planted, shard):
    up = read_sums([read_table(shard[LAST], ATTRIBUTION)])[3].copy()
    up[[0, 2]] *= -1
    row = output_tokens(planted, LAST, up, "gate", 5).to_pylist()[RED]
    assert row["suppressed"][0] == " red"


def test_output_tokens_are_a_product_of_column_and_unembedding(planted, shard, tokens):
    up = read_sums([read_table(shard[LAST], ATTRIBUTION)])[3]
    decoder = planted.model.model.language_model
    column = decoder.layers[LAST].mlp.down_proj.weight.detach()[:, 100]
    unembedding = planted.model.lm_head.weight.detach()[: len(planted.processor.tokenizer)]
    logits = unembedding @ (decoder.norm.weight.detach() * column)
    logits *= up[0, 100] / up[1, 100] if up[1, 100] else up[2, 100] / up[3, 100]
    logits -= logits.mean()
    np.testing.assert_allclose(tokens[100]["promoted_logits"], logits.topk(5).values, rtol=1e-3)
    np.testing.assert_allclose(
        tokens[100]["suppressed_logits"], -(-logits).topk(5).values, rtol=1e-3
    )
    assert tokens[100]["sharpness"] == pytest.approx((logits.max() / logits.std()).item(), rel=1e-3)


def test_ablating_the_writer_costs_the_word_red_and_no_other(planted, samples, words):
    ablations = [Ablation(sample_id, LAST, RED) for sample_id, _ in samples]
    changes = loss_changes(planted, ablations, lambda: iter(samples), "gate", 8)
    by_word: dict[str, list[float]] = {}
    for (sample_id, _), change in zip(samples, changes, strict=True):
        for word, value in zip(words.words[sample_id], change, strict=True):
            by_word.setdefault(word, []).append(float(value))
    means = {word: np.mean(values) for word, values in by_word.items()}
    assert means.pop("red") > 0.5
    assert max(means.values()) < 0.02


def test_exact_ablation_is_row_by_row_what_one_neuron_alone_gives(planted, samples):
    shown = samples[:3]
    ablations = [
        Ablation(sample_id, layer, neuron, value)
        for sample_id, _ in shown
        for layer, neuron, value in ((LAST, RED, 0.0), (EARLY, LOOKER, 0.0), (EARLY, 5, 1.5))
    ]
    together = loss_changes(planted, ablations, lambda: iter(shown), "gate", 5)
    for one, change in zip(ablations, together, strict=True):
        (alone,) = loss_changes(
            planted, [one], lambda one=one: (s for s in shown if s[0] == one.sample_id), "gate", 2
        )
        np.testing.assert_allclose(change, alone, atol=2e-5)


def test_a_reader_that_writes_nothing_has_no_effect(effects):
    row = effects[LAST, READER]
    assert row["effect_low"] <= 0 <= row["effect_high"]
    assert row["p"] == 1
    assert row["causal_type"] == "none"


def test_the_writer_acts_through_text_and_the_looker_through_visual_tokens(effects):
    """In the last layer, tokens act on their own prediction only."""
    assert effects[LAST, RED]["causal_type"] == "text"
    assert effects[LAST, RED]["magnitude_visual"] == 0
    looker = effects[EARLY, LOOKER]
    assert looker["causal_type"] == "visual"
    assert looker["magnitude_visual"] > 10 * looker["magnitude_text"]
    assert looker["q_visual"] < 0.05


def explained(neuron: int, text: str, promoted: tuple[str, ...] = (), **more) -> Explained:
    known = {"is_ok": True, "seen": frozenset(), "write": 1.0, "is_chosen": True} | more
    return Explained(neuron, text, promoted=promoted, **known)


def faithful(planted: Subject, samples, words: Texts, given: list[Explained]) -> list[dict]:
    encoded = dict(samples)
    rows: pa.Table = faithfulness_rows(
        planted, LAST, "dissect", given, words,
        lambda wanted: ((one, encoded[one]) for one in encoded if one in wanted),
        "gate", EffectsSettings(),
    )  # fmt: skip
    return rows.to_pylist()


def test_faithfulness_is_called_where_the_explanation_is_what_the_neuron_writes(
    planted, samples, words
):
    red, blue, idle = faithful(
        planted, samples, words,
        [
            explained(RED, 'The word "red" in the text (r = 0.90 over 25 samples).'),
            explained(RED + 10, 'The word "blue" in the text (r = 0.90 over 25 samples).'),
            explained(READER, "Names of red things."),
        ],
    )  # fmt: skip
    assert red["faithfulness"] > 0.3
    assert red["p"] < 0.01
    assert red["agreement"] > 0.99
    assert red["words"] == ["red"]
    assert blue["p"] > 0.01
    assert idle["faithfulness"] == 0
    assert idle["p"] == 1
    assert idle["words"] == ["red"]


def test_a_row_says_why_there_is_no_faithfulness(planted, samples, words):
    rows = faithful(
        planted, samples, words,
        [
            explained(0, "", is_ok=False),
            explained(1, "Locomotives."),
            explained(2, "Locomotives.", (" red", " r")),
            explained(3, "Red things.", is_chosen=False),
            explained(4, "Red things.", seen=frozenset(words.words)),
        ],
    )  # fmt: skip
    assert [row["status"] for row in rows] == [
        "no_explanation", "no_words", "ok", "not_ablated", "too_few_samples"
    ]  # fmt: skip
    assert (rows[2]["words"], rows[2]["words_from"]) == (["red"], "promoted")
    assert rows[3]["agreement"] is not None
