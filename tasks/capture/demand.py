"""Estimate the memory needed to capture one shard."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from neuron_atlas.tasks.artifacts import ROLES
from neuron_atlas.tasks.capture.memory_plan import (
    Demand,
    MemoryPlan,
    MemoryPlanError,
    plan_memory,
    record_bytes,
)
from neuron_atlas.tasks.capture.observe import observe_backend
from neuron_atlas.tasks.capture.observe_sparse import PEAK_BYTES, samples_together
from neuron_atlas.tasks.capture.record import stored_dtype
from neuron_atlas.tasks.capture.shard_plan import ShardPlan
from neuron_atlas.tasks.subject.batches import PADDING_STEP
from neuron_atlas.tasks.subject.free_memory import free_device_bytes, free_host_bytes
from neuron_atlas.tasks.subject.hook_points import layer_device, neurons_per_layer
from neuron_atlas.tasks.subject.load import Subject
from neuron_atlas.tasks.subject.sae.attach import sae_of
from neuron_atlas.tasks.subject.sae.sae import BLOCK_LATENTS, Sae
from neuron_atlas.tasks.subject.sae.settings import SAE
from neuron_atlas.tasks.subject.settings import HookPoint, SubjectError

_TEMPLATE_TOKENS = 128
"""Estimated tokens of the question and the turn markers, which a shard's plan does not count."""

_RECORDING_BYTES = {"fused": 0, "compiled": 4, "torch": 24}
"""Bytes per activation of one layer that a backend adds: none, a float32 copy, or values, squares,
masks and bins."""

_SAE_BYTES = 12
"""Bytes per latent of an SAE while it encodes: float32 before and after selection, and masks."""

_ACTIVE_BYTES = 160
"""Bytes per active latent of a top-k SAE: its value and place, and what sorts it and adds it up."""


def plan_shard_memory(subject: Subject, shard: ShardPlan, n_processes: int = 1) -> MemoryPlan:
    """Plan the capture of a shard.

    n_processes: processes that capture on this machine and share its memory. Raises SubjectError
    if no plan fits.
    """
    settings = shard.settings
    devices = {layer: layer_device(subject, layer, settings.hook_point) for layer in shard.layers}
    limit = settings.device_memory_gb
    free = {
        str(device): int(limit * 1e9) if limit is not None else _free(device, n_processes)
        for device in {subject.device, *devices.values()}
    }
    try:
        return plan_memory(
            _demand(subject, shard),
            settings.batch_size,
            free,
            {layer: str(device) for layer, device in devices.items()},
        )
    except MemoryPlanError as error:
        raise SubjectError(f"capture: {error}") from error


def _free(device: torch.device, n_processes: int) -> int:
    return free_device_bytes(device) if device.type == "cuda" else free_host_bytes(n_processes)


def _demand(subject: Subject, shard: ShardPlan) -> Demand:
    settings = shard.settings
    neurons = neurons_per_layer(subject, settings.hook_point, shard.layers)
    size, hook_point = settings.batch_size, settings.hook_point
    tokens = shard.max_visual + shard.max_text + _TEMPLATE_TOKENS + PADDING_STEP
    return Demand(
        weights=sum(weight.nbytes for weight in subject.model.parameters()),
        work=_work_bytes(subject, shard.layers, hook_point, size, tokens),
        record=record_bytes(
            neurons,
            settings.top_n,
            settings.top_activations,
            _activation_bytes(subject),
        ),
        layers=len(shard.layers),
    )


def _activation_bytes(subject: Subject) -> int:
    return stored_dtype(subject.device, subject.model.dtype).itemsize


def _work_bytes(
    subject: Subject, layers: Sequence[int], hook_point: HookPoint, batch_size: int, tokens: int
) -> int:
    """Estimate a batch's peak memory: one FFN's activations in the subject's format (gate, up and
    their product), what the backend adds while it records, and the residual stream and its
    attention. The latents of a top-k SAE count by block, and where they are active. The estimate is
    high, not measured; if it is too low, the batch is halved when memory runs out."""
    text = subject.model.config.get_text_config()
    dtype = subject.model.dtype
    all_tokens = batch_size * tokens
    stream = all_tokens * text.hidden_size * 12 * dtype.itemsize
    recording = _RECORDING_BYTES[observe_backend(subject.device, dtype)]
    if hook_point != SAE:
        neurons = neurons_per_layer(subject, hook_point, layers)
        return stream + all_tokens * neurons * (3 * dtype.itemsize + recording)

    def latents(sae: Sae) -> int:
        if not sae.is_sparse:
            return all_tokens * sae.latents * (_SAE_BYTES + dtype.itemsize + recording)
        peaks = min(batch_size, samples_together(sae.latents)) * len(ROLES) * sae.latents
        block = max(BLOCK_LATENTS, sae.latents)
        return block * _SAE_BYTES + peaks * PEAK_BYTES + all_tokens * sae.config.k * _ACTIVE_BYTES

    return stream + max(latents(sae_of(subject, layer)) for layer in layers)
