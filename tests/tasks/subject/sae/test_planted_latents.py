"""Latents planted in a random SAE come out of capture and classify as what they are."""

import json

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from neuron_atlas.tasks.artifacts import exemplars_spec, layer_file, read_table
from neuron_atlas.tasks.capture.settings import CaptureSettings
from neuron_atlas.tasks.classify.paper import PaperRule
from neuron_atlas.tasks.subject.batch import batch_inputs, forward_body
from neuron_atlas.tasks.subject.encode import TEXT, VISUAL, encode
from neuron_atlas.tasks.subject.sae.attach import with_saes
from neuron_atlas.tasks.subject.sae.settings import SaeSettings
from tests.one_process import capture, classify

LAYER, LATENTS, TOP_N = 1, 12, 6
PLANTED = {"visual": 2, "text": 5, "multi-modal": 7, "unknown": 9}
"""The latent of each type."""
STRONG, SILENT = 4.0, -2.0


@pytest.fixture(scope="module")
def read(subject, scenes):
    """What layer 1 gives at the tokens of each sample, float64, and their roles; read by hand."""
    found: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}
    outputs: list[torch.Tensor] = []
    handle = subject.decoder.layers[LAYER].register_forward_hook(
        lambda _, __, out: outputs.append(out[0] if isinstance(out, tuple) else out)
    )
    catalog = scenes.catalog()
    with torch.inference_mode():
        for sample_id, sample in catalog.samples.items():
            encoded = encode(subject, catalog.open_images(sample_id), sample.text)
            forward_body(subject, batch_inputs([encoded], len(encoded.input_ids)))
            values = outputs.pop().reshape(len(encoded.roles), -1).double().clone()
            found[sample_id] = (values, encoded.roles)
    handle.remove()
    return found


@pytest.fixture(scope="module")
def weights(read):
    """Random latents, and a least-squares probe of the roles in the place of four of them."""
    torch.manual_seed(0)
    values = torch.cat([one for one, _ in read.values()])
    roles = torch.cat([one for _, one in read.values()])
    encoder, bias = torch.randn(LATENTS, values.shape[1]) / 50, torch.zeros(LATENTS)
    design = torch.cat([values, torch.ones(len(values), 1, dtype=torch.float64)], 1)
    fires = {"visual": (VISUAL,), "text": (TEXT,), "multi-modal": (VISUAL, TEXT)}
    for name, chosen in fires.items():
        is_wanted = torch.isin(roles, torch.tensor(chosen))
        aims = torch.where(is_wanted, STRONG, SILENT).double()
        probe = torch.linalg.lstsq(design, aims[:, None]).solution[:, 0]
        encoder[PLANTED[name]], bias[PLANTED[name]] = probe[:-1].float(), probe[-1]
    bias[PLANTED["unknown"]] = -1e4
    return encoder, bias


def test_planted_latents_have_their_types_and_exemplars(subject, scenes, read, weights, tmp_path):
    encoder, bias = weights
    folder = tmp_path / "layers.1"
    folder.mkdir()
    width = encoder.shape[1]
    (folder / "cfg.json").write_text(json.dumps({"d_in": width, "k": LATENTS}))
    saved = {"encoder.weight": encoder, "encoder.bias": bias, "W_dec": encoder.clone()}
    save_file(saved | {"b_dec": torch.zeros(width)}, folder / "sae.safetensors")
    settings = CaptureSettings(
        layers=(LAYER,), hook_point="sae", sae=SaeSettings(str(folder)), top_n=TOP_N
    )
    attached = with_saes(subject, str(folder), [LAYER])
    captured = capture(attached, scenes, [LAYER], settings, tmp_path / "captured")

    types = classify(captured, LAYER, PaperRule()).to_pylist()
    assert len(types) == LATENTS
    assert {name: types[latent]["type"] for name, latent in PLANTED.items()} == {
        name: name for name in PLANTED
    }
    path = captured / layer_file("exemplars", LAYER)
    rows = read_table(path, exemplars_spec(TOP_N)).to_pylist()
    for name in ("visual", "text", "multi-modal"):
        latent = PLANTED[name]
        row = (encoder[latent].double(), float(bias[latent]))
        peaks = {
            sample_id: float((values @ row[0] + row[1])[(roles == VISUAL) | (roles == TEXT)].max())
            for sample_id, (values, roles) in read.items()
        }
        expected = sorted(peaks, key=lambda one: -peaks[one])[:TOP_N]
        (mine,) = (one for one in rows if one["neuron"] == latent)
        assert mine["sample_id"] == expected
        np.testing.assert_allclose(mine["peak"], [peaks[one] for one in expected], rtol=1e-3)
