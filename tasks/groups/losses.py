"""Measure the loss of each sample's words under many conditions of the subject."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from neuron_atlas.tasks.artifacts.grouped import GROUP_LOSSES
from neuron_atlas.tasks.effects.intervention import InterventionError, intervening
from neuron_atlas.tasks.groups.conditions import Condition
from neuron_atlas.tasks.groups.words import TokenClasses
from neuron_atlas.tasks.samples.catalog import Catalog
from neuron_atlas.tasks.subject.batch import forward_body
from neuron_atlas.tasks.subject.batches import Batch, batches
from neuron_atlas.tasks.subject.encode import TEXT, EncodedSample, encode
from neuron_atlas.tasks.subject.fit_batch import fit_batch
from neuron_atlas.tasks.subject.load import Subject
from neuron_atlas.tasks.subject.settings import HookPoint

_CLASSES = ("visual", "function", "other")
_ALONE = "alone"


@dataclass
class _Sums:
    """Summed losses by condition, class and sample, and the number of tokens.

    losses: float64 [conditions, classes, samples], NaN where the output overflows. tokens: int64
    [classes, samples].
    """

    losses: np.ndarray
    tokens: np.ndarray


def measure_losses(
    subject: Subject,
    sample_ids: Sequence[int],
    catalog: Catalog,
    classes: Mapping[int, TokenClasses],
    conditions: Sequence[Condition],
    hook_point: HookPoint,
    batch_size: int,
    on_batch: Callable[[int], None] = lambda count: None,
) -> pa.Table:
    """Return rows of `group_losses`: each condition on each sample, with the image and without.

    The texts are teacher-forced. The image is encoded once for all conditions: only the language
    model runs again. on_batch: called with the number of samples of each batch. Raises
    SubjectError and SampleError.
    """
    names = (*_CLASSES, _ALONE)
    place = {sample_id: number for number, sample_id in enumerate(sample_ids)}
    encoded = [
        (one, encode(subject, catalog.open_images(one), catalog[one].text)) for one in sample_ids
    ]
    alone = [(one, encode(subject, [], catalog[one].text)) for one in sample_ids]
    every = {
        one: np.stack([getattr(classes[one], name) for name in _CLASSES]) for one in sample_ids
    }
    shape = (len(conditions), len(names), len(sample_ids))
    sums = _Sums(np.zeros(shape), np.zeros(shape[1:], np.int64))

    def attempt(size: int, count: Callable[[int], None]) -> None:
        for samples, masks, rows in (
            (encoded, every, slice(0, len(_CLASSES))),
            (
                alone,
                {one: np.ones((1, len(every[one][0])), bool) for one in every},
                slice(-1, None),
            ),
        ):
            for batch, losses in _batch_losses(subject, samples, conditions, hook_point, size):
                for sample_id, of_tokens in zip(batch.ids, losses, strict=True):
                    at = place[sample_id]
                    mask = masks[sample_id].astype(np.float64)
                    sums.losses[:, rows, at] = of_tokens @ mask.T
                    sums.tokens[rows, at] = masks[sample_id].sum(1)
                if rows.start == 0:
                    count(len(batch))

    fit_batch(
        batch_size,
        attempt,
        on_batch,
        "groups",
        "set groups.samples=0, or use a device with more memory",
    )
    return _table(sums, conditions, sample_ids, names)


def _batch_losses(
    subject: Subject,
    samples: Iterable[tuple[int, EncodedSample]],
    conditions: Sequence[Condition],
    hook_point: HookPoint,
    size: int,
) -> Iterator[tuple[Batch, list[np.ndarray]]]:
    """Yield each batch with the losses of its samples: float64 [conditions, text tokens] each."""
    by_length = sorted(samples, key=lambda one: len(one[1].input_ids), reverse=True)
    for batch in batches(by_length, size):
        with torch.inference_mode(), _decoder_calls(subject) as calls:
            forward_body(subject, batch.inputs)
        (call,) = calls
        is_text = (batch.roles == TEXT)[:, 1:]
        targets = batch.inputs["input_ids"][:, 1:]
        losses = np.stack(
            [_losses(subject, call, one, hook_point, is_text, targets) for one in conditions]
        )
        stops = np.cumsum(is_text.sum(1).numpy())
        yield batch, np.split(losses, stops[:-1], axis=1)


def _losses(
    subject: Subject,
    call: tuple[tuple[Any, ...], dict[str, Any]],
    condition: Condition,
    hook_point: HookPoint,
    is_text: torch.Tensor,
    targets: torch.Tensor,
) -> np.ndarray:
    """Return the loss of all text tokens of a batch, row by row: float64 [tokens]; NaN if the
    output overflows."""
    decoder = subject.decoder
    args, kwargs = call
    try:
        with torch.inference_mode(), intervening(subject, condition.interventions(), hook_point):
            hidden = decoder(*args, **kwargs)[0]
    except InterventionError:
        return np.full(int(is_text.sum()), np.nan)
    with torch.inference_mode():
        found = hidden[:, :-1][is_text.to(hidden.device)]
        logits = subject.model.get_output_embeddings()(found).float()
        softcap = getattr(subject.model.config.get_text_config(), "final_logit_softcapping", None)
        if softcap:
            logits = softcap * torch.tanh(logits / softcap)
        wanted = targets[is_text].to(logits.device)
        loss = torch.nn.functional.cross_entropy(logits, wanted, reduction="none")
    return loss.double().cpu().numpy()


@contextmanager
def _decoder_calls(subject: Subject) -> Iterator[list[tuple[tuple[Any, ...], dict[str, Any]]]]:
    """Record the arguments with which the language model's decoder is called."""
    calls: list[tuple[tuple[Any, ...], dict[str, Any]]] = []
    handle = subject.decoder.register_forward_pre_hook(
        lambda _module, args, kwargs: calls.append((args, kwargs)), with_kwargs=True
    )
    try:
        yield calls
    finally:
        handle.remove()


def _table(
    sums: _Sums, conditions: Sequence[Condition], sample_ids: Sequence[int], names: Sequence[str]
) -> pa.Table:
    is_finite = np.isfinite(sums.losses).all(1)
    columns: dict[str, Any] = {}
    count = len(sample_ids)
    for name in conditions[0].key:
        columns[name] = [one.key[name] for one in conditions for _ in range(count)]
    columns["sample_id"] = np.tile(np.asarray(sample_ids, np.int32), len(conditions))
    for number, name in enumerate(names):
        columns[f"{name}_loss"] = sums.losses[:, number].ravel()
        columns[f"{name}_tokens"] = np.tile(sums.tokens[number], len(conditions)).astype(np.int32)
    columns["status"] = np.where(is_finite, "ok", "overflow").ravel()
    schema = GROUP_LOSSES.schema
    return pa.table(
        {name: pa.array(columns[name], schema.field(name).type) for name in schema.names}
    )
