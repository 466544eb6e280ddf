"""Read the peaks of all neurons, and the traces of some, on one encoded sample."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from neuron_atlas.tasks.evidence.evidence import ActivationRecord
from neuron_atlas.tasks.subject.batch import forward_body
from neuron_atlas.tasks.subject.batches import collate
from neuron_atlas.tasks.subject.encode import TEXT, VISUAL, EncodedSample
from neuron_atlas.tasks.subject.hook_points import Observe, observing
from neuron_atlas.tasks.subject.settings import HookPoint
from neuron_atlas.tasks.subject.subject import Subject
from neuron_atlas.tasks.subject.truncate import truncated

_SAMPLE = 0


@dataclass(frozen=True)
class Peaks:
    """Peaks of one layer's neurons on one sample, over visual (row 0) and text tokens (row 1).

    values: float32 [2, neurons], -inf without a finite activation. tokens: int64 [2, neurons],
    index of the peak among the tokens of its role.
    """

    values: np.ndarray
    tokens: np.ndarray


def read_peaks(
    subject: Subject, encoded: EncodedSample, layers: Sequence[int], hook_point: HookPoint
) -> dict[int, Peaks]:
    """Return the peaks of every neuron of some layers, from one forward pass."""
    peaks: dict[int, Peaks] = {}
    of_role = _tokens_of_roles(encoded)

    def observe(layer: int, activations: torch.Tensor) -> None:
        found = [_peaks(activations[0], tokens.to(activations.device)) for tokens in of_role]
        values, tokens = zip(*found, strict=True)
        peaks[layer] = Peaks(np.stack(values), np.stack(tokens))

    # Experts to which a token was not routed have no activation there.
    _run(subject, encoded, layers, hook_point, observe, absent=-np.inf)
    return peaks


def read_traces(
    subject: Subject,
    encoded: EncodedSample,
    neurons: Mapping[int, Sequence[int]],
    hook_point: HookPoint,
) -> dict[tuple[int, int], ActivationRecord]:
    """Return the activations of some neurons, by layer and neuron, at every visual and text token.

    neurons: by layer.
    """
    traces: dict[tuple[int, int], ActivationRecord] = {}
    visual, text = _tokens_of_roles(encoded)

    def observe(layer: int, activations: torch.Tensor) -> None:
        chosen = torch.tensor(neurons[layer], device=activations.device)
        values = activations[0][:, chosen].float().cpu()
        for column, neuron in enumerate(neurons[layer]):
            trace = values[:, column]
            record = ActivationRecord(_SAMPLE, trace[visual].numpy(), trace[text].numpy())
            traces[layer, neuron] = record

    if neurons:
        _run(subject, encoded, sorted(neurons), hook_point, observe)
    return traces


def _run(
    subject: Subject,
    encoded: EncodedSample,
    layers: Sequence[int],
    hook_point: HookPoint,
    observe: Observe,
    absent: float = 0.0,
) -> None:
    # Padded as in capture, so that a sample of the dataset has the same activations again.
    batch = collate([_SAMPLE], [encoded])
    with (
        truncated(subject, max(layers)),
        observing(subject, layers, hook_point, observe, absent=absent),
        torch.inference_mode(),
    ):
        forward_body(subject, batch.inputs)


def _tokens_of_roles(encoded: EncodedSample) -> tuple[torch.Tensor, torch.Tensor]:
    visual, text = ((encoded.roles == role).nonzero()[:, 0] for role in (VISUAL, TEXT))
    return visual, text


def _peaks(activations: torch.Tensor, tokens: torch.Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Return the highest finite activation of each neuron over some tokens, and its index."""
    neurons = activations.shape[1]
    if not len(tokens):
        return np.full(neurons, -np.inf, np.float32), np.zeros(neurons, np.int64)
    values = activations[tokens].float()
    highest, token = values.masked_fill(~values.isfinite(), -torch.inf).max(0)
    return highest.cpu().numpy(), token.cpu().numpy()
