"""The tokens that every neuron promotes and suppresses, from the weights."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import torch

from neuron_atlas.tasks.artifacts.effects import OUTPUT_TOKENS
from neuron_atlas.tasks.subject.dense_weight import dense_weight
from neuron_atlas.tasks.subject.hook_points import (
    check_layers,
    decoder_layers,
    final_norm,
    write_columns,
)
from neuron_atlas.tasks.subject.sae.attach import NORMS_AFTER_FFN, sae_of
from neuron_atlas.tasks.subject.sae.settings import SAE
from neuron_atlas.tasks.subject.settings import HookPoint
from neuron_atlas.tasks.subject.subject import Subject

_MOST_LOGITS = {"cuda": 2**28, "cpu": 2**23}
"""Logits of a block of neurons: 1 GB of float32 on a GPU, and what fits a core's cache on a CPU."""
_CANDIDATES = 4
"""In a format narrower than float32, this many times as many tokens are ranked again in float32."""


@dataclass(frozen=True)
class _Block:
    """Tokens of some neurons, strongest first: ids and logits [neurons, k]; sharpness [neurons]."""

    promoted: tuple[torch.Tensor, torch.Tensor]
    suppressed: tuple[torch.Tensor, torch.Tensor]
    sharpness: torch.Tensor


def output_tokens(
    subject: Subject, layer: int, up: np.ndarray, hook_point: HookPoint, k: int
) -> pa.Table:
    """Return rows of `output_tokens` of one layer.

    up: the layer's UP_SUMS over the samples of the attribution [4, neurons]. A neuron that never
    has a positive activation there has no direction that it writes. Raises SubjectError.
    """
    check_layers(subject, [layer], hook_point)
    write, n_strong = _write(up, hook_point)
    with torch.inference_mode():
        directions = write_directions(subject, layer, hook_point)
        unembedding = _unembedding(subject)
        scale = torch.from_numpy(np.nan_to_num(write)).float().to(directions.device)
        size = max(1, _MOST_LOGITS.get(directions.device.type, 2**23) // len(unembedding))
        blocks = [
            _block(
                directions[start : start + size] * scale[start : start + size, None], unembedding, k
            )
            for start in range(0, len(directions), size)
        ]
    pieces = _pieces(subject, len(unembedding))
    columns: dict[str, object] = {
        "layer": np.full(len(write), layer),
        "neuron": np.arange(len(write)),
        "write": pa.array(write, from_pandas=True),
        "n_strong": n_strong.astype(np.int64),
    }
    for name in ("promoted", "suppressed"):
        ids, logits = (torch.cat([getattr(one, name)[part] for one in blocks]) for part in (0, 1))
        columns[name] = _lists(
            pa.array(pieces).take(pa.array(ids.flatten().cpu().numpy())), ids.shape[1]
        )
        columns[f"{name}_logits"] = _lists(pa.array(logits.flatten().cpu().numpy()), ids.shape[1])
    sharpness = torch.cat([one.sharpness for one in blocks]).cpu().numpy()
    finite = np.isfinite(sharpness)
    status = np.where(np.isnan(write), "never_active", np.where(finite, "ok", "nonfinite"))
    is_ok = pa.array(status == "ok")
    for name in ("promoted", "promoted_logits", "suppressed", "suppressed_logits"):
        columns[name] = _where(is_ok, columns[name])
    reasons = {
        "ok": "",
        "never_active": "no activation above 0 in the samples of effects.samples",
        "nonfinite": "a logit is infinite or NaN",
    }
    columns |= {
        "sharpness": pa.array(np.where(status == "ok", sharpness, np.nan), from_pandas=True),
        "status": status,
        "reason": [reasons[one] for one in status],
    }
    return pa.table(columns).select(OUTPUT_TOKENS.schema.names).cast(OUTPUT_TOKENS.schema)


def write_directions(
    subject: Subject, layer: int, hook_point: HookPoint = "gate_up"
) -> torch.Tensor:
    """Return what one unit at the input of down_proj, or of a latent, adds to the logits, before
    the unembedding: float32 [neurons, width], on the layer's device.

    The output column times the weight of the final norm, and of the norm after the FFN where a
    family has one. The division by the length of the residual stream is left out: it changes no
    order of tokens.
    """
    block = decoder_layers(subject)[layer]
    if hook_point == SAE:
        sae = sae_of(subject, layer)
        columns, has_norm = sae.decoder.float(), sae.config.place == "ffn_module"
    else:
        columns, has_norm = write_columns(subject, layer), True
    norms = [part for name, part in block.named_children() if has_norm and name in NORMS_AFTER_FFN]
    if (last := final_norm(subject)) is not None:
        norms.append(last)
    for norm in norms:
        columns = _normed(norm, columns)
    return columns


def token_logits(subject: Subject, directions: torch.Tensor, ids: Sequence[int]) -> torch.Tensor:
    """Return the logits that directions [neurons, width] give to some tokens: float32 [neurons,
    ids], minus the mean over the vocabulary."""
    unembedding = _unembedding(subject).to(directions.device)
    chosen = unembedding[list(ids)].float() - unembedding.float().mean(0)
    return directions @ chosen.T


def _write(up: np.ndarray, hook_point: HookPoint) -> tuple[np.ndarray, np.ndarray]:
    """Return what a unit of activation multiplies the output column by, NaN if unknown, and the
    number of strong tokens it is from."""
    strong_up, n_strong, weighted_up, weight = up
    if hook_point != "gate":
        return np.where(weight > 0, 1.0, np.nan), n_strong
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(n_strong > 0, strong_up / n_strong, weighted_up / weight), n_strong


def _block(directions: torch.Tensor, unembedding: torch.Tensor, k: int) -> _Block:
    """Rank the tokens of some neurons. directions: float32 [neurons, width]."""
    unembedding = unembedding.to(directions.device)
    logits = (directions.to(unembedding.dtype) @ unembedding.T).float()
    k = min(k, logits.shape[1])
    mean = logits.mean(1, keepdim=True)
    spread = logits.std(1)
    found = []
    for sign in (1, -1):
        if unembedding.dtype == torch.float32:
            values, ids = (sign * logits).topk(k)
        else:
            ids = (sign * logits).topk(min(_CANDIDATES * k, logits.shape[1])).indices
            exact = torch.bmm(unembedding[ids].float(), directions[:, :, None])[..., 0]
            values, order = (sign * exact).topk(k)
            ids = ids.gather(1, order)
        found.append((ids, sign * values - mean))
    promoted, suppressed = found
    return _Block(
        promoted, suppressed, promoted[1][:, 0] / spread.where(spread > 0, torch.ones_like(spread))
    )


def _unembedding(subject: Subject) -> torch.Tensor:
    """Return the rows of tokens that the tokenizer has, [tokens, width]; models pad the others."""
    weight = dense_weight(subject.model.get_output_embeddings(), subject.model.dtype)
    return weight[: min(len(weight), len(subject.processor.tokenizer))]


def _normed(norm: torch.nn.Module, columns: torch.Tensor) -> torch.Tensor:
    """Return columns [neurons, width] with what a norm does apart from its division and its bias:
    it subtracts their mean, or does not, and scales them, however it stores the scale."""
    weight = next(norm.parameters())
    ones = torch.ones(columns.shape[1], dtype=weight.dtype, device=weight.device)
    signs = ones.clone()
    signs[1::2] = -1
    is_centered = torch.equal(*norm(torch.stack([ones, -ones])))
    if is_centered:
        columns = columns - columns.mean(1, keepdim=True)
    plus, minus = norm(torch.stack([signs, -signs])).float()
    return columns * (signs.float() * (plus - minus) / 2).to(columns.device)


def _pieces(subject: Subject, count: int) -> list[str]:
    """Return each token as text; as the tokenizer writes it where it is no text of its own."""
    tokenizer = subject.processor.tokenizer
    names = tokenizer.convert_ids_to_tokens(list(range(count)))
    texts = tokenizer.batch_decode([[one] for one in range(count)])
    return [
        str(name) if not text.strip() or "\ufffd" in text else text
        for name, text in zip(names, texts, strict=True)
    ]


def _lists(values: pa.Array, size: int) -> pa.Array:
    offsets = pa.array(np.arange(0, len(values) + 1, size, dtype=np.int32))
    return pa.ListArray.from_arrays(offsets, values)


def _where(kept: pa.Array, lists: object) -> pa.Array:
    """Return the lists, empty where they are not kept."""
    empty = pa.scalar([], type=lists.type)  # type: ignore[attr-defined]
    return pa.compute.if_else(kept, lists, empty)
