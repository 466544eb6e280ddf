"""Plant neurons whose function is known into a copy of a subject: the method's ground truth.

A planted neuron's gate row is a linear probe at its layer's FFN input, fitted on drawn scenes whose
concepts are known. Its column of down_proj is zero, so it says nothing to the rest of the model.
A planted latent of an SAE is such a probe at the layer's output, and its decoder row is chosen.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from types import MappingProxyType

import torch
from safetensors.torch import load_file, save_file

from neuron_atlas.tasks.concepts.formula import AREAS
from neuron_atlas.tasks.concepts.presence import patch_coverage, token_words
from neuron_atlas.tasks.concepts.tokens import image_areas
from neuron_atlas.tasks.samples.scenes import Scenes
from neuron_atlas.tasks.subject.batch import batch_inputs, forward_body
from neuron_atlas.tasks.subject.encode import TEXT, VISUAL, encode
from neuron_atlas.tasks.subject.hook_points import decoder_layers
from neuron_atlas.tasks.subject.load import Subject, load_subject
from neuron_atlas.tasks.subject.settings import DescribeSettings, SubjectSettings
from tests.one_process import describe


@dataclass(frozen=True)
class Function:
    """What a planted neuron fires on: patches that show a concept, tokens of a word, or neither.

    patches: one concept, "a or b" for patches that show either, "a and b" for patches that show
    both, "a in the top half" (or another area) for patches of an area.
    word: one word, "a or b" for either, "a before b" for a word that another one follows.
    """

    patches: str | None = None
    word: str | None = None


PLANTS: Mapping[str, Function] = MappingProxyType(
    {
        "red patches": Function(patches="red"),
        "green patches": Function(patches="green"),
        "the word circle": Function(word="circle"),
        "the word square": Function(word="square"),
        "red in both": Function(patches="red", word="red"),
        "blue in both": Function(patches="blue", word="blue"),
        "never": Function(),
    }
)
"""Two of each kind that fires, so that each has a neuron of its own type for a control."""

TYPES: Mapping[str, str] = MappingProxyType(
    {
        "red patches": "visual",
        "green patches": "visual",
        "the word circle": "text",
        "the word square": "text",
        "red in both": "multi-modal",
        "blue in both": "multi-modal",
        "never": "unknown",
    }
)
"""The type of each of PLANTS."""

FITTED_ON = Scenes(count=300, seed=555_000)
_FIRES, _SILENT = 4.0, -2.0
"""What gate_proj(x) is fitted to. Far from 0, where silu is nearly the identity or nearly 0: all
tokens that excite a neuron excite it about equally."""
_NEVER = -6.0
_SHOWS, _SHOWS_NOT = 0.25, 0.02
"""Coverage of a patch above which it shows a concept, and up to which it does not."""
_RANDOM_SIZE = 0.5
"""Deviation of a random latent over the tokens: well below what a planted one is fitted to."""
_RIDGE = 3e-4
_SILENCE = 9
"""Weight of silence over that of firing, where a neuron has two conditions."""
_ROUNDS = 10


@dataclass(frozen=True)
class _Tokens:
    """All tokens of the scenes that are fitted on, and what each of them carries.

    inputs: float64 [tokens, width], what gate_proj, or the SAE, reads. showing, lacking: for each
    concept bool [tokens]. named: for each word bool [tokens]. contribution: float32 [neurons], root
    mean square of what each neuron adds to the residual stream.
    """

    inputs: torch.Tensor
    showing: Mapping[str | None, torch.Tensor]
    lacking: Mapping[str | None, torch.Tensor]
    named: Mapping[str | None, torch.Tensor]
    contribution: torch.Tensor


def plant(
    subject_folder: Path, out_folder: Path, layer: int, plants: Mapping[str, Function] = PLANTS
) -> dict[str, int]:
    """Save a copy of a subject in which neurons of `layer` have the functions of `plants`.

    Returns the neuron of each name. The neurons that are replaced are those that contribute least.
    """
    subject = load_subject(SubjectSettings(model=str(subject_folder)), threads=1)
    tokens = _read(subject, layer, plants)
    quiet = tokens.contribution.argsort()[: len(plants)]
    neurons = dict(zip(plants, sorted(quiet.tolist()), strict=True))
    shutil.copytree(subject_folder, out_folder)
    weights = load_file(out_folder / "model.safetensors")
    stem = f"language_model.model.layers.{layer}.mlp"
    gate = weights[f"{stem}.gate_proj.weight"].float()
    down = weights[f"{stem}.down_proj.weight"].clone()
    for name, neuron in neurons.items():
        gate[neuron] = _probe(tokens, plants[name]).float()
        down[:, neuron] = 0
    weights |= {f"{stem}.gate_proj.weight": gate, f"{stem}.down_proj.weight": down}
    save_file(weights, out_folder / "model.safetensors", metadata={"format": "pt"})
    return neurons


def plant_latents(
    subject: Subject,
    folder: Path,
    layer: int,
    rows: Mapping[str, torch.Tensor],
    latents: int,
    k: int,
) -> dict[str, int]:
    """Save a top-k SAE of a layer's output in `folder`, in sparsify's format. It is random, except
    for a latent of the function of each of PLANTS.

    rows: their decoder rows [width]. Returns the latent of each name.
    """
    tokens = _read(subject, layer, PLANTS, at="output")
    generator = torch.Generator().manual_seed(0)
    width = tokens.inputs.shape[1]
    ones = tokens.inputs.new_ones(len(tokens.inputs), 1)
    encoder = torch.randn(latents, width, generator=generator, dtype=torch.float64)
    encoder *= _RANDOM_SIZE / (tokens.inputs @ encoder.T).std(0)[:, None]
    bias = torch.zeros(latents, dtype=torch.float64)
    decoder = torch.randn(latents, width, generator=generator) / width
    chosen = torch.randperm(latents, generator=generator)[: len(PLANTS)].tolist()
    planted = dict(zip(PLANTS, chosen, strict=True))
    with_ones = replace(tokens, inputs=torch.cat([tokens.inputs, ones], 1))
    for name, latent in planted.items():
        probe = _probe(with_ones, PLANTS[name])
        encoder[latent], bias[latent], decoder[latent] = probe[:-1], probe[-1], rows[name]
    folder = folder / f"layers.{layer}"
    folder.mkdir(parents=True)
    config = {"activation": "topk", "k": k, "d_in": width, "num_latents": latents}
    (folder / "cfg.json").write_text(json.dumps(config), encoding="utf-8")
    weights = {"encoder.weight": encoder, "encoder.bias": bias, "W_dec": decoder}
    saved = {name: one.float().contiguous() for name, one in weights.items()}
    save_file(saved | {"b_dec": torch.zeros(width)}, folder / "sae.safetensors")
    return planted


def plant_in_tower(
    subject_folder: Path, out_folder: Path, layer: int, plants: Mapping[str, Function]
) -> dict[str, int]:
    """Save a copy of a subject in which neurons of a layer of the vision tower have the functions
    of `plants`, of patches only. Returns the neuron of each name."""
    subject = load_subject(SubjectSettings(model=str(subject_folder)), threads=1)
    tokens = _read(subject, layer, plants, at="tower")
    shutil.copytree(subject_folder, out_folder)
    weights = load_file(out_folder / "model.safetensors")
    stem = f"vision_tower.vision_model.encoder.layers.{layer}.mlp"
    parts = {name: weights[f"{stem}.{name}"].clone() for name in ("fc1.weight", "fc1.bias")}
    written = weights[f"{stem}.fc2.weight"].clone()
    neurons = {name: neuron for neuron, name in enumerate(plants, start=5)}
    for name, neuron in neurons.items():
        probe = _probe(tokens, plants[name]).float()
        parts["fc1.weight"][neuron], parts["fc1.bias"][neuron] = probe[:-1], probe[-1]
        written[:, neuron] = 0
    weights |= {f"{stem}.{name}": part for name, part in parts.items()}
    weights[f"{stem}.fc2.weight"] = written
    save_file(weights, out_folder / "model.safetensors", metadata={"format": "pt"})
    return neurons


def _read(subject: Subject, layer: int, plants: Mapping[str, Function], at: str = "ffn") -> _Tokens:
    block = decoder_layers(subject)[layer]
    mlp = block.mlp
    inputs: list[torch.Tensor] = []
    outputs: list[torch.Tensor] = []
    if at == "ffn":
        read = mlp.register_forward_pre_hook(lambda _, args: inputs.append(args[0][0]))
    elif at == "output":
        read = block.register_forward_hook(lambda _, __, out: inputs.append(out[0].flatten(0, -2)))
    else:
        fc1 = subject.body.vision_tower.encoder.layers[layer].mlp.fc1
        read = fc1.register_forward_pre_hook(lambda _, args: inputs.append(args[0][0, 1:]))
    handles = [
        read,
        mlp.down_proj.register_forward_pre_hook(lambda _, args: outputs.append(args[0][0])),
    ]
    concepts = {function.patches for function in plants.values()}
    coverage: dict[str | None, list[torch.Tensor]] = {concept: [] for concept in concepts}
    words: list[tuple[str, str]] = []
    with TemporaryDirectory() as folder, torch.inference_mode():
        described = describe(
            subject, FITTED_ON, Path(folder), DescribeSettings(text_source="given")
        )
        catalog = described.catalog()
        for sample_id, sample in catalog.samples.items():
            encoded = encode(subject, catalog.open_images(sample_id), sample.text)
            forward_body(subject, batch_inputs([encoded], len(encoded.input_ids)))
            if at == "tower":  # A patch and a 1 at its visual token, and 0 elsewhere.
                patches = torch.cat([inputs[-1], inputs[-1].new_ones(len(inputs[-1]), 1)], 1)
                inputs[-1] = patches.new_zeros(len(encoded.roles), patches.shape[1])
                inputs[-1][encoded.roles == VISUAL] = patches
            truths = {truth.name: truth for truth in catalog.concepts(sample_id)}
            for concept, rows in coverage.items():
                rows.append(torch.zeros(len(encoded.roles)))
                covered = {
                    name: torch.tensor(patch_coverage(truth, sample))
                    for name, truth in truths.items()
                }
                covered |= {
                    f"in the {area}": torch.tensor(mask).float()
                    for area, mask in zip(AREAS, image_areas(sample), strict=True)
                }
                if concept is not None:
                    rows[-1][encoded.roles == VISUAL] = _cover(concept, covered, sample.n_visual)
            said = token_words(sample)
            following = iter(zip(said, [*said[1:], ""], strict=True))
            words += [next(following) if role == TEXT else ("", "") for role in encoded.roles]
    for handle in handles:
        handle.remove()
    covered_by = {concept: torch.cat(rows) for concept, rows in coverage.items()}
    wanted = {function.word for function in plants.values()}
    rms = torch.cat(outputs).square().mean(0).sqrt()
    return _Tokens(
        inputs=torch.cat(inputs).double(),
        showing={concept: cover > _SHOWS for concept, cover in covered_by.items()},
        lacking={concept: cover <= _SHOWS_NOT for concept, cover in covered_by.items()},
        named={word: torch.tensor([_is_said(word, *said) for said in words]) for word in wanted},
        contribution=rms * mlp.down_proj.weight.detach().norm(dim=0),
    )


def _cover(concept: str, covered: Mapping[str, torch.Tensor], n_visual: int) -> torch.Tensor:
    nothing = torch.zeros(n_visual)
    one, *place = concept.split(" in ")
    rows = [
        torch.stack([covered.get(name, nothing) for name in part.split(" or ")]).amax(0)
        for part in (*one.split(" and "), *(f"in {area}" for area in place))
    ]
    return torch.stack(rows).amin(0)


def _is_said(wanted: str | None, word: str, following: str) -> bool:
    first, _, second = (wanted or "").partition(" before ")
    return wanted is not None and word in first.split(" or ") and second in ("", following)


def _probe(tokens: _Tokens, function: Function) -> torch.Tensor:
    """The gate row float64 [width] that comes closest to the wanted gate_proj(x).

    Each group of tokens (patches, word, all others) weighs the same, however few they are. Tokens
    that should be silent count only where they are not yet silent enough, which is found in
    rounds: a least-squares fit that asked them all to be equally silent would spend itself on it.
    """
    if function.patches and (" and " in function.patches or " in " in function.patches):
        return _separator(tokens, function.patches)
    firing = [tokens.showing[function.patches], tokens.named[function.word]]
    silent = tokens.lacking[function.patches] & ~tokens.named[function.word]
    aim = _NEVER if function == Function() else _SILENT
    width = tokens.inputs.shape[1]
    row = tokens.inputs.new_zeros(width)
    for _ in range(_ROUNDS):
        loud = silent & (tokens.inputs @ row > aim)
        products, aims = row.new_zeros(width, width), row.new_zeros(width)
        groups = [*((group, _FIRES, group.sum()) for group in firing), (loud, aim, silent.sum())]
        for group, wanted, weight in groups:
            if weight:
                rows = tokens.inputs[group]
                products += rows.T @ rows / weight
                aims += rows.sum(0) * wanted / weight
        ridge = _RIDGE * products.trace() / width
        row = torch.linalg.solve(products + ridge * torch.eye(width), aims)
    return row


def _separator(tokens: _Tokens, patches: str) -> torch.Tensor:
    """The gate row float64 [width] that best tells patches of two conditions from all other tokens.

    Patches that meet only one condition are few and hard, so tokens of either side count only where
    they are on the wrong side of their aim, and silence weighs more than firing.
    """
    firing, silent = tokens.showing[patches], tokens.lacking[patches]
    width = tokens.inputs.shape[1]
    row = tokens.inputs.new_zeros(width)
    for _ in range(_ROUNDS):
        gate = tokens.inputs @ row
        quiet, loud = firing & (gate < _FIRES), silent & (gate > _SILENT)
        products, aims = row.new_zeros(width, width), row.new_zeros(width)
        for group, wanted, weight in (
            (quiet, _FIRES, 1 / firing.sum()),
            (loud, _SILENT, _SILENCE / silent.sum()),
        ):
            rows = tokens.inputs[group]
            products += rows.T @ rows * weight
            aims += rows.sum(0) * wanted * weight
        ridge = _RIDGE / 30 * products.trace() / width
        row = torch.linalg.solve(products + ridge * torch.eye(width), aims)
    return row
