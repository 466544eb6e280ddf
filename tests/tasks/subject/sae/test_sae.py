"""SAE latents: against SAELens' own numbers, across formats, hooked, and refused."""

import json
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from neuron_atlas.tasks.effects.gradients import watching
from neuron_atlas.tasks.effects.intervention import Intervention, intervening
from neuron_atlas.tasks.effects.losses import text_losses
from neuron_atlas.tasks.effects.output_tokens import write_directions
from neuron_atlas.tasks.subject.batch import batch_inputs, forward_body
from neuron_atlas.tasks.subject.batches import collate
from neuron_atlas.tasks.subject.encode import TEXT, encode
from neuron_atlas.tasks.subject.hook_points import check_layers, neurons_per_layer, observing
from neuron_atlas.tasks.subject.sae.attach import with_saes
from neuron_atlas.tasks.subject.sae.find import find_saes, saes_digest
from neuron_atlas.tasks.subject.sae.sae import load_sae
from neuron_atlas.tasks.subject.settings import SubjectError

SAVED = Path(__file__).parent / "saved"
"""Written by SAELens 6.54.12: SAEs of 8 inputs and 12 latents with normal weights of deviation 0.5
(thresholds uniform), `torch.manual_seed(0)`, saved by `save_model`. expected.json holds activations
`3 * torch.randn(5, 8)`, the latents of `encode`, and `written`: what `decode` changes by when every
second latent, from the first on, is set to 0."""
DELPHI = Path(__file__).parent / "delphi_cache.json"
"""Written by `LatentCache` of eai-delphi 0.1.3 with eai-sparsify 1.3.3: tokens of two texts, run
through the bundled subject's language model, and the latents of `sparsify(..., num_latents=12)`."""
CPU = torch.device("cpu")
WIDTH, LATENTS, LAYER = 128, 12, 1


def save(folder: Path, config: dict, weights: dict, name: str = "sae.safetensors") -> Path:
    folder.mkdir(parents=True)
    (folder / "cfg.json").write_text(json.dumps(config))
    save_file({key: value.contiguous() for key, value in weights.items()}, folder / name)
    return folder


def random_weights(width: int = WIDTH) -> dict[str, torch.Tensor]:
    torch.manual_seed(3)
    return {
        "encoder.weight": torch.randn(LATENTS, width) / 4,
        "encoder.bias": torch.randn(LATENTS) / 4,
        "W_dec": torch.randn(LATENTS, width) / 4,
        "b_dec": torch.randn(width) / 4,
    }


def sparsify(folder: Path, width: int = WIDTH, **fields: object) -> Path:
    config = {"k": 4, "d_in": width, "num_latents": 0, "expansion_factor": 32} | fields
    return save(folder, config, random_weights(width))


@pytest.fixture
def pictured(subject):
    encoded = encode(subject, [Image.new("RGB", (64, 64), (10, 200, 30))], "There is a green one.")
    return encoded


@pytest.mark.parametrize("name", sorted(path.name for path in SAVED.iterdir()))
def test_latents_and_what_they_write_are_those_of_saelens(name):
    expected = {
        key: torch.tensor(value)
        for key, value in json.loads((SAVED / name / "expected.json").read_text()).items()
    }
    (config,) = find_saes(str(SAVED / name)).values()
    assert (config.layer, config.place) == (1, "output")
    sae = load_sae(config, CPU, 8)
    latents = sae.encode(expected["activations"])
    torch.testing.assert_close(latents, expected["latents"], rtol=1e-5, atol=1e-5)
    change = torch.zeros_like(latents)
    change[:, ::2] = -latents[:, ::2]
    torch.testing.assert_close(
        sae.written(change, expected["activations"]), expected["written"], rtol=1e-4, atol=1e-4
    )


def test_latents_of_a_text_are_those_of_delphis_cache(subject, tmp_path):
    cached = json.loads(DELPHI.read_text())
    tokens = torch.tensor(cached["tokens"])
    expected = torch.zeros(*tokens.shape, LATENTS)
    expected[*torch.tensor(cached["locations"]).T] = torch.tensor(cached["activations"])
    attached = with_saes(subject, str(sparsify(tmp_path / "layers.1")), [LAYER])
    seen: list[torch.Tensor] = []
    with observing(attached, [LAYER], "sae", lambda _, one: seen.append(one)), torch.no_grad():
        forward_body(attached, {"input_ids": tokens})
    torch.testing.assert_close(seen[0], expected, rtol=1e-4, atol=1e-4)


def test_equivalent_weights_of_each_format_read_to_the_same_latents(tmp_path):
    weights = random_weights(8)
    encoder, bias, decoder, b_dec = weights.values()
    one = sparsify(tmp_path / "model.layers.3", 8)
    two = save(
        tmp_path / "lens",
        {"architecture": "standard", "activation_fn_str": "topk", "activation_fn_kwargs": {"k": 4},
         "d_in": 8, "hook_name": "blocks.3.hook_resid_post", "dtype": "torch.float32"},
        {"W_enc": encoder.T, "b_enc": bias, "W_dec": decoder, "b_dec": b_dec},
        "sae_weights.safetensors",
    )  # fmt: skip
    values = torch.randn(6, 8)
    preacts = ((values - b_dec) @ encoder.T + bias).relu()
    kept = preacts >= preacts.sort(-1, descending=True).values[:, 3:4]
    for folder in (one, two):
        (config,) = find_saes(str(folder)).values()
        assert (config.layer, config.place) == (3, "output")
        torch.testing.assert_close(load_sae(config, CPU, 8).encode(values), preacts * kept)


def test_gemma_scope_reads_without_the_decoders_bias(tmp_path):
    encoder, bias, decoder, b_dec = random_weights(8).values()
    folder = tmp_path / "layer_2_width_12_l0_small"
    folder.mkdir()
    fields = {"architecture": "jump_relu", "hf_hook_point_in": "model.layers.2.output"}
    (folder / "config.json").write_text(json.dumps(fields))
    names = ("w_enc", "b_enc", "w_dec", "b_dec", "threshold")
    tensors = (encoder.T, bias, decoder, b_dec, torch.full((LATENTS,), 0.5))
    saved = {name: one.contiguous() for name, one in zip(names, tensors, strict=True)}
    save_file(saved, folder / "params.safetensors")
    (config,) = find_saes(str(tmp_path)).values()
    values = torch.randn(6, 8)
    preacts = values @ encoder.T + bias
    latents = load_sae(config, CPU, 8).encode(values)
    torch.testing.assert_close(latents, torch.where(preacts > 0.5, preacts, 0.0))


@pytest.mark.parametrize("place", ["layers.1", "layers.1.mlp"])
def test_latents_are_read_where_the_sae_was_trained(subject, tmp_path, pictured, place):
    attached = with_saes(subject, str(sparsify(tmp_path / place)), [LAYER])
    read: list[torch.Tensor] = []
    block = subject.decoder.layers[LAYER]
    part = block.mlp if place.endswith("mlp") else block
    handle = part.register_forward_hook(
        lambda _, __, out: read.append(out[0] if isinstance(out, tuple) else out)
    )
    seen: list[torch.Tensor] = []
    inputs = batch_inputs([pictured], len(pictured.input_ids))
    with observing(attached, [LAYER], "sae", lambda _, one: seen.append(one)), torch.no_grad():
        forward_body(attached, inputs)
    handle.remove()
    torch.testing.assert_close(seen[0], attached.saes[LAYER].encode(read[0]))
    assert neurons_per_layer(attached, "sae", [LAYER]) == LATENTS
    assert (seen[0] > 0).sum(-1).max() <= 4


def test_ablation_subtracts_the_decoder_row_and_attribution_is_its_slope(
    subject, tmp_path, pictured
):
    attached = with_saes(subject, str(sparsify(tmp_path / "layers.1")), [LAYER])
    batch = collate([0], [pictured])
    with watching(attached, [LAYER], "sae") as run:
        first_order = run(batch)[LAYER]
    latent = int(first_order.products[0].abs().sum(0).argmax())
    sae = attached.saes[LAYER]

    def mean_loss(scale: float | None, ours: bool) -> torch.Tensor:
        def by_hand(_module, _args, out):
            values = out[0] if isinstance(out, tuple) else out
            part = sae.encode(values)[..., latent, None] * sae.decoder[latent]
            new = values + (scale - 1) * part
            return (new, *out[1:]) if isinstance(out, tuple) else new

        handle = None
        if not ours and scale is not None:
            handle = subject.decoder.layers[LAYER].register_forward_hook(by_hand)
        changes = [Intervention(LAYER, (latent,), "scale", scale)] if ours else []
        with torch.no_grad(), intervening(attached, changes, "sae", in_place=True):
            found = text_losses(attached, batch).double().sum() / (batch.roles == TEXT).sum()
        if handle is not None:
            handle.remove()
        return found

    torch.testing.assert_close(mean_loss(0.0, True), mean_loss(0.0, False), rtol=1e-5, atol=1e-6)
    step = 0.02
    slope = (mean_loss(1 + step, True) - mean_loss(1 - step, True)) / (2 * step)
    attributed = first_order.products[0, :, latent].sum()
    assert abs(float(attributed)) > 1e-4
    assert float(attributed) == pytest.approx(float(slope), rel=0.05, abs=1e-4)


def test_output_directions_are_decoder_rows_under_the_final_norm(subject, tmp_path):
    attached = with_saes(subject, str(sparsify(tmp_path / "layers.1")), [LAYER])
    expected = random_weights()["W_dec"] * subject.decoder.norm.weight.detach()
    torch.testing.assert_close(write_directions(attached, LAYER, "sae"), expected)


def test_bad_saes_are_one_line_with_file_field_and_remedy(subject, tmp_path):
    refused = [
        (sparsify(tmp_path / "a" / "layers.1", 64), r"cfg.json.*d_in is 64; .* width 128; name an"),
        (sparsify(tmp_path / "b" / "layers.9"), r"cfg.json.* layer 9; .* has layers 0 to 3; name"),
        (sparsify(tmp_path / "c" / "layers.1", activation="x"), r"activation is 'x'; topk and"),
        (sparsify(tmp_path / "d" / "layers.1", transcode=True), r"transcode is True; "),
        (sparsify(tmp_path / "e" / "other"), r"the folder's name is 'other'; an SAE must read"),
        (sparsify(tmp_path / "f" / "layers.1.self_attn"), r"'layers.1.self_attn'; an SAE must"),
        (tmp_path / "nowhere", r"there is no folder .*; download the SAE"),
    ]
    for folder, message in refused:
        with pytest.raises(SubjectError, match=r"^capture\.sae\.path: .*" + message) as caught:
            with_saes(subject, str(folder))
        assert "\n" not in str(caught.value)
    lens = {"architecture": "temporal", "d_in": WIDTH, "hook_name": "blocks.1.hook_resid_post"}
    unknown = save(tmp_path / "g", lens, random_weights(), "sae_weights.safetensors")
    with pytest.raises(SubjectError, match="architecture is 'temporal'; gated, jumprelu, standard"):
        find_saes(str(unknown))
    (unknown / "sae_weights.safetensors").unlink()
    half = r"cfg\.json' has no sae_weights\.safetensors or sae\.safetensors next to it; download"
    with pytest.raises(SubjectError, match=half):
        find_saes(str(unknown))
    (unknown / "cfg.json").rename(unknown / "params.npz")
    other = (
        r"no SAE: expected cfg\.json with .*; it has params\.npz, and only safetensors are read;"
    )
    with pytest.raises(SubjectError, match=other + " name a folder"):
        find_saes(str(unknown))
    good = sparsify(tmp_path / "h" / "layers.1")
    with pytest.raises(SubjectError, match="no SAE of layer 2, but of the layers 1; choose these"):
        find_saes(str(good), [2])
    with pytest.raises(SubjectError, match=r"there is no SAE of layer 2; .* layers 1; choose"):
        check_layers(with_saes(subject, str(good)), [2], "sae")
    sparsify(tmp_path / "h" / "model.layers.1")
    with pytest.raises(SubjectError, match="are both SAEs of layer 1"):
        find_saes(str(tmp_path / "h"))


def test_the_digest_is_of_the_content(tmp_path):
    first = sparsify(tmp_path / "one" / "layers.1")
    second = sparsify(tmp_path / "two" / "layers.1")
    before = saes_digest(str(first))
    assert before == saes_digest(str(second))
    weights = load_file(second / "sae.safetensors")
    weights["b_dec"][0] += 1
    save_file(weights, second / "sae.safetensors")
    assert saes_digest(str(second)) != before
