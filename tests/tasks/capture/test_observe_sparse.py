"""Latents of a top-k SAE are recorded without their zeros as they are with them."""

from dataclasses import replace

import numpy as np
import polars as pl
import pyarrow as pa
import pytest
import torch

from neuron_atlas.tasks.artifacts import (
    CHOSEN,
    HISTOGRAMS,
    MOMENTS,
    exemplars_spec,
    layer_file,
    read_table,
)
from neuron_atlas.tasks.capture import observe_sparse, observe_torch
from neuron_atlas.tasks.capture.demand import plan_shard_memory
from neuron_atlas.tasks.capture.record import LayerRecord, empty_record
from neuron_atlas.tasks.capture.record_tables import layer_tables
from neuron_atlas.tasks.capture.settings import CaptureSettings
from neuron_atlas.tasks.capture.shard_plan import plan_shards
from neuron_atlas.tasks.evidence.replay import replay
from neuron_atlas.tasks.subject.batches import Batch
from neuron_atlas.tasks.subject.hook_points import observing
from neuron_atlas.tasks.subject.sae.attach import with_saes
from neuron_atlas.tasks.subject.sae.settings import SaeSettings
from neuron_atlas.tasks.subject.sae.sparse import SparseLatents
from tests.one_process import capture
from tests.tasks.capture.synthetic import CPU, batched, make_sample
from tests.tasks.subject.sae.test_sae import sparsify

LATENTS, K = 40, 3
SAMPLES = [make_sample(sample_id, silent=sample_id % 7 == 0) for sample_id in range(3, 33)]


def sparse_batches(spoilt: float) -> list[tuple[SparseLatents, Batch]]:
    """Latents with many ties and zeros, and some that are not finite."""
    generator = torch.Generator().manual_seed(1)
    found = []
    for _, batch in batched(SAMPLES, 4):
        shape = (*batch.roles.shape, K)
        values = torch.randint(0, 4, shape, generator=generator) / 8
        values[torch.rand(shape, generator=generator) < spoilt] = torch.nan
        values[torch.rand(shape, generator=generator) < spoilt] = torch.inf
        order = torch.rand(*batch.roles.shape, LATENTS, generator=generator).argsort(-1)
        found.append((SparseLatents(values, order[..., :K].contiguous(), LATENTS), batch))
    return found


def dense(latents: SparseLatents) -> torch.Tensor:
    zeros = torch.zeros(*latents.values.shape[:2], latents.count)
    return zeros.scatter_(-1, latents.indices, latents.values)


def assert_close(values: list, wanted: list, name: str) -> None:
    if isinstance(wanted[0], float) or name in ("peak", "visual_top", "text_top"):
        np.testing.assert_allclose(np.array(values), np.array(wanted), rtol=1e-5, atol=1e-6)
    elif name.startswith("visual_sum"):
        np.testing.assert_allclose(np.array(values), np.array(wanted), rtol=1e-5)
    else:
        assert values == wanted, name


def frames_of(record: LayerRecord) -> list[pl.DataFrame]:
    return [pl.DataFrame(table) for _, table in layer_tables(4, record)]


@pytest.mark.parametrize("spoilt", [0, 0.2, 0.9])
@pytest.mark.parametrize(("top_n", "peak_roles"), [(2, (0, 1)), (12, (0, 1)), (12, (1,))])
def test_a_sparse_record_is_the_dense_one(monkeypatch, spoilt, top_n, peak_roles):
    monkeypatch.setattr(observe_sparse, "BLOCK_PEAKS", 3 * LATENTS * 3)  # Three samples at a time.
    mine, plain = (empty_record(LATENTS, top_n, CPU, peak_roles) for _ in range(2))
    for latents, batch in sparse_batches(spoilt):
        observe_sparse.observe(mine, latents, batch)
        observe_torch.observe(plain, dense(latents), batch)
    for values, wanted in zip(frames_of(mine), frames_of(plain), strict=True):
        sums = [name for name in values.columns if name.startswith(("mean", "m2"))]
        assert values.drop(sums).equals(wanted.drop(sums))
        for name in sums:
            np.testing.assert_allclose(values[name], wanted[name], rtol=1e-5, atol=1e-6)


def test_rows_of_a_pair_are_its_latent_at_all_tokens():
    latents, _ = sparse_batches(0.1)[0]
    sample = torch.arange(4).repeat_interleave(LATENTS)
    latent = torch.arange(LATENTS).repeat(4)
    expected = dense(latents)[sample, :, latent]
    torch.testing.assert_close(latents.rows(sample, latent), expected, equal_nan=True)
    assert torch.equal(latents.n_active(sample, latent), (expected != 0).sum(1))


@pytest.mark.parametrize("activation", ["topk", "groupmax"])
def test_an_sae_in_blocks_of_tokens_captures_the_rows_of_a_dense_one(
    monkeypatch, subject, scenes, tmp_path, activation
):
    path = sparsify(tmp_path / "layers.1", activation=activation)
    attached = with_saes(subject, str(path))
    settings = CaptureSettings(layers=(1,), hook_point="sae", sae=SaeSettings(str(path)), top_n=5)
    sparse = capture(attached, scenes, [1], settings, tmp_path / "sparse")
    monkeypatch.setattr("neuron_atlas.tasks.subject.sae.sae.BLOCK_LATENTS", 7 * 12)
    in_blocks = capture(attached, scenes, [1], settings, tmp_path / "blocks")
    monkeypatch.setattr("neuron_atlas.tasks.capture.capture.observing_active", observing)
    expected = capture(attached, scenes, [1], settings, tmp_path / "dense")
    for spec in (exemplars_spec(5), HISTOGRAMS, MOMENTS):
        mine, other, wanted = (
            read_table(folder / layer_file(spec.name, 1), spec).to_pydict()
            for folder in (sparse, in_blocks, expected)
        )
        for name in mine:
            for values in (mine[name], other[name]):
                assert_close(values, wanted[name], name)


def test_replayed_traces_are_those_of_the_dense_latents(monkeypatch, subject, scenes, tmp_path):
    path = sparsify(tmp_path / "layers.1")
    attached = with_saes(subject, str(path))
    catalog = scenes.catalog()
    ids = sorted(catalog.samples)[:5]
    same = {"layer": 1, "purpose": "scorer", "stratum": "exemplar", "weight": 1.0}
    rows = [
        same | {"neuron": neuron, "sample_id": one, "rank": rank}
        for neuron in range(12)
        for rank, one in enumerate(ids)
    ]
    chosen = pa.Table.from_pylist(rows, CHOSEN.schema)
    mine = replay(attached, chosen, catalog, "sae", 4)
    monkeypatch.setattr("neuron_atlas.tasks.evidence.replay.observing_active", observing)
    assert mine.equals(replay(attached, chosen, catalog, "sae", 4))
    assert max(map(max, mine["visual"].to_pylist())) > 0


def test_the_plan_of_a_wide_sparse_sae_does_not_grow_with_latents_at_all_tokens(
    subject, scenes, tmp_path
):
    path = sparsify(tmp_path / "layers.1")
    attached = with_saes(subject, str(path))
    settings = CaptureSettings(layers=(1,), hook_point="sae", sae=SaeSettings(str(path)), top_n=5)
    (shard, *_) = plan_shards(scenes.descriptions, [1], settings, LATENTS)

    def work(architecture: str, latents: int) -> int:
        sae = attached.saes[1]
        config = replace(sae.config, architecture=architecture)
        wide = replace(sae, config=config, encoder=torch.empty(128, latents, device="meta"))
        planned = plan_shard_memory(replace(attached, saes={1: wide}), shard)
        return planned.demand.work

    assert work("topk", 2**17) < 2e9 < 9e9 < work("standard", 2**17)
