"""Experts whose tokens a planted router chooses: only these tokens count, and decide the type."""

from pathlib import Path

import numpy as np
import pyarrow.compute as pc
import pytest
import torch

from neuron_atlas.tasks.artifacts import (
    EVIDENCE,
    HISTOGRAMS,
    MOMENTS,
    layer_file,
    read_table,
    slot_values,
)
from neuron_atlas.tasks.artifacts.nonfinite import count_nonfinite
from neuron_atlas.tasks.capture.capture import RecordSpec
from neuron_atlas.tasks.capture.capture import capture as record_samples
from neuron_atlas.tasks.capture.record_tables import layer_tables
from neuron_atlas.tasks.capture.settings import CaptureSettings
from neuron_atlas.tasks.classify.paper import PaperRule
from neuron_atlas.tasks.classify.tested import RateRule
from neuron_atlas.tasks.evidence.wanted import Wanted
from neuron_atlas.tasks.probe.observe import read_peaks
from neuron_atlas.tasks.samples.scenes import Scenes
from neuron_atlas.tasks.subject.encode import VISUAL, encode
from neuron_atlas.tasks.subject.hook_points import decoder_layers
from neuron_atlas.tasks.subject.load import Subject
from neuron_atlas.tasks.subject.settings import DescribeSettings
from tests.one_process import (
    Described,
    capture,
    classify,
    describe,
    read_exemplars,
    replay_evidence,
    types_by_tests,
)
from tests.small_llava import llava_around

WIDTH, SHARED = 16, 12
LOOKS, READS, NEVER, SHARES = (
    slice(start, stop)
    for start, stop in ((0, 16), (16, 32), (32, 48), (3 * WIDTH, 3 * WIDTH + SHARED))
)
"""The neurons of the experts of visual tokens, of text, of none, and of the shared one."""
EVERY_TOKEN = 2.0
MIXTURE = {
    "model_type": "qwen2_moe",
    "num_key_value_heads": 1,
    "decoder_sparse_step": 1,
    "num_experts": 3,
    "num_experts_per_tok": 1,
    "moe_intermediate_size": WIDTH,
    "shared_expert_intermediate_size": SHARED,
}


@pytest.fixture(scope="module")
def planted(subject: Subject, tmp_path_factory: pytest.TempPathFactory) -> Subject:
    """A mixture whose neurons all fire at every token alike, and whose router sends visual tokens
    to the first expert, all other tokens to the second and none to the third."""
    made = llava_around(subject, tmp_path_factory.mktemp("planted"), MIXTURE)
    generator = torch.Generator().manual_seed(0)
    (layer,) = decoder_layers(made)
    projector = made.model.model.multi_modal_projector.linear_2
    embedding = made.model.get_input_embeddings().weight.data
    for rows, mark in ((embedding, -4.0), (projector.bias.data[None], 4.0)):
        rows[:, 0], rows[:, 1] = mark, 4.0
    projector.weight.data[:2] = 0
    layer.self_attn.o_proj.weight.data.zero_()
    mlp = layer.mlp
    mlp.gate.weight.data.zero_()
    mlp.gate.weight.data[0, 0], mlp.gate.weight.data[1, 0] = 10, -10
    for gate in (mlp.experts.gate_up_proj.data[:, :WIDTH], mlp.shared_expert.gate_proj.weight.data):
        gate.normal_(0, 0.2, generator=generator)
        gate[..., 0], gate[..., 1] = 0, EVERY_TOKEN
    return made


@pytest.fixture(scope="module")
def described(planted: Subject, tmp_path_factory: pytest.TempPathFactory) -> Described:
    folder = tmp_path_factory.mktemp("described")
    return describe(planted, Scenes(count=9, seed=3), folder, DescribeSettings(text_source="given"))


def captured_by(planted: Subject, described: Described, folder: Path, **settings) -> Path:
    chosen = CaptureSettings(top_n=4, shards=2, **settings)
    return capture(planted, described, [0], chosen, folder)


@pytest.fixture(scope="module")
def captured(planted: Subject, described: Described, tmp_path_factory) -> Path:
    return captured_by(planted, described, tmp_path_factory.mktemp("captured"), batch_size=8)


def test_an_experts_neurons_have_the_type_of_the_tokens_that_are_routed_to_it(captured, tmp_path):
    types = classify(captured, 0, PaperRule())
    kinds = np.array(types["type"].to_pylist())
    assert (kinds[LOOKS] == "visual").all()
    assert (kinds[READS] == "text").all()
    assert (kinds[NEVER] == "unknown").all()
    assert (kinds[SHARES] == "multi-modal").all()
    assert (types["n_exemplars"].to_numpy()[NEVER] == 0).all()
    assert (types["scale"].to_numpy()[NEVER] == 0).all()
    tested = types_by_tests(captured, [0], RateRule(), tmp_path)
    kinds = np.array(tested["type_tested"].to_pylist())
    # The tests compare roles, and these experts have tokens of one role only.
    assert set(kinds[: NEVER.start]) == {"undecided"}
    assert set(kinds[NEVER]) == {"silent"}
    assert tested["rate_text"].to_pylist()[0] is tested["rate_visual"].to_pylist()[16] is None


def test_moments_count_the_tokens_that_were_routed(captured, described):
    moments = read_table(captured / layer_file("moments", 0), MOMENTS)
    visual, text = (
        pc.sum(described.descriptions[f"n_{role}"]).as_py() for role in ("visual", "text")
    )
    expected = ((LOOKS, visual, 0), (READS, 0, text), (NEVER, 0, 0), (SHARES, visual, text))
    for mine, *counts in expected:
        for role, count in zip(("visual", "text"), counts, strict=True):
            assert (moments[f"n_{role}"].to_numpy()[mine] == count).all()
            assert np.isnan(moments[f"max_{role}"].to_numpy()[mine]).all() == (count == 0)
            # All activations are far above 0: a token that was not routed would lower them.
            assert (moments[f"positive_{role}"].to_numpy()[mine] == (count > 0)).all()
            assert ((moments[f"mean_{role}"].to_numpy()[mine] > 1) == (count > 0)).all()
            histogram = read_table(captured / layer_file("histograms", 0), HISTOGRAMS)[role]
            binned = histogram.combine_chunks().flatten().to_numpy().reshape(len(moments), -1)
            assert (binned.sum(1)[mine] == count).all()
    assert count_nonfinite(captured / layer_file("moments", 0)) == (
        0, (WIDTH + SHARED) * (visual + text)
    )  # fmt: skip


def test_an_experts_exemplars_are_found_among_its_tokens(planted, described, monkeypatch):
    """With a router that sends some visual and some text tokens to each expert, as real ones do."""
    router = decoder_layers(planted)[0].mlp.gate.weight
    random = torch.randn(3, 8, generator=torch.Generator().manual_seed(1))
    random[:, :2] = 0  # What tells visual tokens from text.
    monkeypatch.setattr(router, "data", random)
    catalog = described.catalog()
    samples = [
        (one, encode(planted, catalog.open_images(one), catalog[one].text)) for one in range(9)
    ]
    records = record_samples(planted, lambda: iter(samples), RecordSpec([0], "gate", 4), 4)
    (_, exemplars), (_, moments), _ = layer_tables(0, records[0])
    for role, total in (("visual", "n_visual"), ("text", "n_text")):
        counts = moments[f"n_{role}"].to_numpy()[: SHARES.start]
        assert counts.reshape(3, -1)[:, 0].sum() == sum(getattr(one, total) for _, one in samples)
        assert len(set(counts)) == 3
        assert min(counts) > 0
    read = {one: read_peaks(planted, encoded, [0], "gate")[0] for one, encoded in samples}
    values = np.stack([read[one].values for one in range(9)])  # [samples, roles, neurons]
    best = np.sort(values.max(1), axis=0)[::-1][:4].T
    ids, tokens, roles, peaks, text = (
        slot_values(exemplars, name)
        for name in ("sample_id", "peak_token", "peak_role", "peak", "text_peak_token")
    )
    np.testing.assert_allclose(peaks, np.where(np.isfinite(best), best, np.nan), rtol=1e-4)
    for neuron, slot in zip(*np.nonzero(ids >= 0), strict=True):
        found = read[ids[neuron, slot]]
        assert tokens[neuron, slot] == found.tokens[roles[neuron, slot], neuron]
        has_text = np.isfinite(found.values[1, neuron])
        assert text[neuron, slot] == (found.tokens[1, neuron] if has_text else -1)


def test_rows_do_not_depend_on_the_batch(captured, planted, described, tmp_path):
    alone = captured_by(planted, described, tmp_path, batch_size=1)
    mine, other = (read_exemplars(path, 0) for path in (captured, alone))
    for name in ("sample_id", "peak_role", "peak_token", "text_peak_token", "visual_active"):
        assert mine[name].equals(other[name]), name
    for name in ("peak", "visual_top", "text_top", "visual_sum", "visual_sum_sq"):
        np.testing.assert_allclose(
            *(slot_values(table, name) for table in (mine, other)), rtol=1e-4, atol=1e-5
        )
    mine, other = (
        read_table(path / layer_file("moments", 0), MOMENTS) for path in (captured, alone)
    )
    for name in MOMENTS.schema.names:
        np.testing.assert_allclose(
            *(table[name].to_numpy() for table in (mine, other)), rtol=1e-4, atol=1e-3
        )


def test_a_trace_is_0_at_tokens_that_went_elsewhere(captured, planted, described):
    catalog = described.catalog()
    (captured / "samples.parquet").write_bytes((described.folder / "samples.parquet").read_bytes())
    path = replay_evidence(planted, catalog, captured, 0, Wanted((3, WIDTH + 2)))
    rows = read_table(path, EVIDENCE)
    assert set(rows["neuron"].to_pylist()) == {3, WIDTH + 2}
    for row in rows.to_pylist():
        own, other = ("visual", "text") if row["neuron"] == 3 else ("text", "visual")
        assert min(row[own]) > 1
        assert set(row[other]) == {0}
        assert len(row["visual"]) == catalog[row["sample_id"]].n_visual


def test_template_tokens_go_to_an_expert_too(captured, planted, described):
    moments = read_table(captured / layer_file("moments", 0), MOMENTS)
    catalog = described.catalog()
    encoded = [encode(planted, catalog.open_images(one), catalog[one].text) for one in range(9)]
    total = sum(len(one.roles) for one in encoded)
    visual = sum(int((one.roles == VISUAL).sum()) for one in encoded)
    counts = [moments[f"n_{role}"].to_numpy() for role in ("visual", "text", "template")]
    assert sum(counts)[READS.start] == total - visual
    assert counts[2][LOOKS.start] == 0
