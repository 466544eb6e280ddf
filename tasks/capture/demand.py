"""What a shard asks for of a subject's memory, and the plan that fits."""

from __future__ import annotations

import torch

from neuron_atlas.tasks.capture.batch import PADDING_STEP
from neuron_atlas.tasks.capture.free_memory import device_free, host_free
from neuron_atlas.tasks.capture.memory_plan import (
    Demand,
    DoesNotFit,
    MemoryPlan,
    plan_memory,
    ranking_bytes,
    trace_bytes,
)
from neuron_atlas.tasks.capture.shard_plan import ShardPlan
from neuron_atlas.tasks.subject.hook_points import layer_device, neurons_per_layer
from neuron_atlas.tasks.subject.load import Subject
from neuron_atlas.tasks.subject.settings import SubjectError

_TEMPLATE_TOKENS = 128
"""Room for the question and the turn markers, which a shard's plan does not count."""


def memory_plan(subject: Subject, shard: ShardPlan, sharers: int = 1) -> MemoryPlan:
    """Plan the capture of a shard. sharers: processes that capture on this machine.

    Raises SubjectError where nothing fits.
    """
    settings = shard.settings
    places = {layer: layer_device(subject, layer) for layer in shard.layers}
    host = _given(settings.host_memory_gb) or host_free(sharers)
    on_gpu = subject.device.type == "cuda"
    given = _given(settings.device_memory_gb)
    free = {
        str(device): given or (device_free(device) if on_gpu else host)
        for device in {subject.device, *places.values()}
    }
    try:
        return plan_memory(
            _demand(subject, shard),
            settings.batch_size,
            free,
            {layer: str(device) for layer, device in places.items()},
            host if on_gpu else 0,
        )
    except DoesNotFit as error:
        raise SubjectError(f"capture: {error}") from error


def _given(gigabytes: float | None) -> int | None:
    return None if gigabytes is None else int(gigabytes * 1e9)


def _demand(subject: Subject, shard: ShardPlan) -> Demand:
    neurons = neurons_per_layer(subject)
    settings = shard.settings
    traces = settings.top_n + len(shard.random_ids)
    tokens = shard.max_visual + shard.max_text
    return Demand(
        weights=sum(weight.nbytes for weight in subject.model.parameters()),
        work=_work_bytes(subject, settings.batch_size, tokens + _TEMPLATE_TOKENS + PADDING_STEP),
        ranking=ranking_bytes(neurons, settings.top_n),
        traces={layer: trace_bytes(neurons, traces, tokens) for layer in shard.layers},
    )


def _work_bytes(subject: Subject, batch_size: int, tokens: int) -> int:
    """The most that a batch needs at once: one FFN's activations in the subject's format (gate,
    up and their product) and in float32 while they are recorded (values, their squares, masks and
    bins), beside the residual stream and its attention. A guess from above, not a measurement:
    where it is too low, running out of memory halves the batch."""
    text = subject.model.config.get_text_config()
    width = torch.finfo(subject.model.dtype).bits // 8
    ffn = text.intermediate_size * (3 * width + 24)
    stream = text.hidden_size * 12 * width
    return batch_size * tokens * (ffn + stream)
