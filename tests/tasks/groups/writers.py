"""Plant neurons that write a word: what ablating and steering them does is known."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from neuron_atlas.tasks.samples.scenes import COLORS, Scenes
from neuron_atlas.tasks.subject.batch import batch_inputs, forward_body
from neuron_atlas.tasks.subject.encode import TEXT, encode
from neuron_atlas.tasks.subject.hook_points import decoder_layers
from neuron_atlas.tasks.subject.load import Subject, load_subject
from neuron_atlas.tasks.subject.settings import SubjectSettings

LAYER = 3
WRITERS = (5, 17, 40, 77)
WORD = "red"
_FIRES, _HESITATES, _SILENT = 6.0, 2.0, -6.0
"""Pre-activations where the word comes next, where another color does, and elsewhere."""
_LOGITS = 12.0
"""What the subject loses of the word's logit where a color comes next, and what the writers add
where the word does."""


@dataclass(frozen=True)
class _Tokens:
    """All tokens that predict a text token. inputs: float64 [tokens, width], of the FFN. hidden:
    the same after the final norm. scales: root mean square of the residual stream. following: ids
    of the tokens that come next."""

    inputs: torch.Tensor
    hidden: torch.Tensor
    scales: torch.Tensor
    following: torch.Tensor


def plant_writers(folder: Path) -> Subject:
    """A subject that hardly says "red" by itself, and in which WRITERS of LAYER supply what is
    missing: they fire before the word, half-heartedly before another color, and write along the
    word's row of the unembedding."""
    subject = load_subject(SubjectSettings(model=str(folder)), threads=1)
    mlp = decoder_layers(subject)[LAYER].mlp
    norm = subject.model.model.get_decoder().norm
    tokens = _read(subject, mlp, norm)
    ids = {name: _id(subject, name) for name in COLORS}
    is_word = tokens.following == ids[WORD]
    is_color = torch.isin(tokens.following, torch.tensor(list(ids.values())))
    groups = [(is_word, _FIRES), (is_color & ~is_word, _HESITATES), (~is_color, _SILENT)]
    gate, up = (_fit(tokens.inputs, some) for some in (groups, [(is_word | ~is_word, 1.0)]))
    head = subject.model.get_output_embeddings().weight
    with torch.no_grad():
        before_color = tokens.hidden[is_color].mean(0)
        others = torch.stack([head[one] for name, one in ids.items() if name != WORD]).mean(0)
        written = (head[ids[WORD]] - others) * norm.weight
        head[ids[WORD]] -= _LOGITS * before_color / before_color.square().sum()
        raised = written @ (head[ids[WORD]] * norm.weight) / tokens.scales[is_color].median()
        firing = len(WRITERS) * torch.nn.functional.silu(torch.tensor(_FIRES))
        for neuron in WRITERS:
            mlp.gate_proj.weight[neuron] = gate
            mlp.up_proj.weight[neuron] = up
            mlp.down_proj.weight[:, neuron] = written * _LOGITS / (raised * firing)
    return subject


def _read(subject: Subject, mlp: torch.nn.Module, norm: torch.nn.Module) -> _Tokens:
    inputs: list[torch.Tensor] = []
    streams: list[torch.Tensor] = []
    outputs: list[torch.Tensor] = []
    following: list[torch.Tensor] = []
    handles = [
        mlp.register_forward_pre_hook(lambda _, args: inputs.append(args[0][0])),
        norm.register_forward_pre_hook(lambda _, args: streams.append(args[0][0])),
        norm.register_forward_hook(lambda _, args, output: outputs.append(output[0])),
    ]
    source = Scenes(count=120, seed=777_000)
    with torch.inference_mode():
        for record in source.records():
            encoded = encode(subject, [source.open_image(record.image).pixels], record.text)
            forward_body(subject, batch_inputs([encoded], len(encoded.input_ids)))
            is_text = encoded.roles[1:] == TEXT
            for some in (inputs, streams, outputs):
                some[-1] = some[-1][:-1][is_text]
            following.append(encoded.input_ids[1:][is_text])
    for handle in handles:
        handle.remove()
    scales = torch.cat(streams).square().mean(1).sqrt()
    return _Tokens(torch.cat(inputs).double(), torch.cat(outputs), scales, torch.cat(following))


def _fit(inputs: torch.Tensor, groups: list[tuple[torch.Tensor, float]]) -> torch.Tensor:
    """The row that comes closest to the wanted products; each group weighs the same."""
    width = inputs.shape[1]
    products, aims = inputs.new_zeros(width, width), inputs.new_zeros(width)
    for mask, aim in groups:
        rows = inputs[mask]
        products += rows.T @ rows / len(rows)
        aims += rows.sum(0) * aim / len(rows)
    ridge = 1e-4 * products.trace() / width
    return torch.linalg.solve(products + ridge * torch.eye(width).double(), aims).float()


def _id(subject: Subject, word: str) -> int:
    (token,) = subject.processor.tokenizer(f" {word}", add_special_tokens=False)["input_ids"][-1:]
    return int(token)
