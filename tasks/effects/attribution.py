"""Attribution of every neuron over some samples, as sums that shards add up to."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import torch

from neuron_atlas.tasks.artifacts import ROLES
from neuron_atlas.tasks.artifacts.effects import ATTRIBUTION, MEASURES, UP_SUMS
from neuron_atlas.tasks.effects.gradients import FirstOrder, watching
from neuron_atlas.tasks.effects.memory import fits_without_checkpoints
from neuron_atlas.tasks.statistics.skewed_means import POWERS
from neuron_atlas.tasks.subject.batches import Batch, batches
from neuron_atlas.tasks.subject.encode import TEXT, VISUAL, EncodedSample
from neuron_atlas.tasks.subject.fit_batch import fit_batch
from neuron_atlas.tasks.subject.hook_points import layer_device
from neuron_atlas.tasks.subject.settings import HookPoint
from neuron_atlas.tasks.subject.subject import Subject

Samples = Callable[[], Iterable[tuple[int, EncodedSample]]]


@dataclass(frozen=True)
class NeuronScales:
    """What the attribution knows of one layer's neurons in advance, float32 [neurons].

    mean: mean activation over visual and text tokens. strong: the lowest activation of a strong
    token; infinite for a neuron that is never active.
    """

    mean: np.ndarray
    strong: np.ndarray


@dataclass(frozen=True)
class _Sums:
    """Sums of one layer, float64 on its device. powers: [measures, 3, neurons]. magnitudes: [roles,
    neurons]. up: [UP_SUMS, neurons]. mean, strong: float32 [neurons], see NeuronScales."""

    powers: torch.Tensor
    magnitudes: torch.Tensor
    up: torch.Tensor
    mean: torch.Tensor
    strong: torch.Tensor


def attribute(
    subject: Subject,
    samples: Samples,
    scales: Mapping[int, NeuronScales],
    hook_point: HookPoint,
    batch_size: int,
    n_processes: int = 1,
    on_batch: Callable[[int], None] = lambda count: None,
) -> pa.Table:
    """Return rows of `attribution` of all neurons of the layers in `scales`.

    Each sample runs forward and backward once. The effect of zeroing a neuron at tokens of a role
    is minus the sum of activation times gradient of the description's mean loss; replacing it by
    its mean adds mean times the sum of the gradients. Layers are checkpointed if a batch of one
    sample does not fit into memory otherwise. on_batch: see `fit_batch`. Raises SubjectError.
    """
    sums: dict[int, _Sums] = {}
    done: list[int] = []

    def attempt(size: int, count: Callable[[int], None]) -> None:
        sums.clear()
        done.clear()
        sums.update({layer: _empty(subject, layer, one) for layer, one in scales.items()})
        for batch in batches(samples(), size):
            _add_batch(subject, batch, sums, hook_point, n_processes)
            done.append(len(batch))
            count(len(batch))

    fit_batch(
        batch_size, attempt, on_batch, "effects", "lower effects.batch_size, or use a larger device"
    )
    tables = [_table(layer, one, sum(done)) for layer, one in sums.items()]
    return pa.concat_tables([ATTRIBUTION.schema.empty_table(), *tables])


def sample_effects(first_order: FirstOrder, mean: torch.Tensor) -> torch.Tensor:
    """Return the effects of each sample, float32 [batch, measures, neurons], in the order of
    MEASURES. mean: float32 [neurons]."""
    zero = -first_order.products
    replaced = zero + mean * first_order.gradients
    return torch.cat([zero, zero.sum(1, keepdim=True), replaced, replaced.sum(1, keepdim=True)], 1)


def _add_batch(
    subject: Subject,
    batch: Batch,
    sums: Mapping[int, _Sums],
    hook_point: HookPoint,
    n_processes: int,
) -> None:
    batch = batch.to(subject.device)
    is_evidence = (batch.roles == VISUAL) | (batch.roles == TEXT)

    def observe_up(layer: int, activations: torch.Tensor, up: torch.Tensor) -> None:
        mine = sums[layer]
        chosen = is_evidence.to(activations.device)
        values, up = activations[chosen].float(), up[chosen].float()
        is_strong = (values >= mine.strong).float()
        weight = values.clamp(min=0)
        mine.up.add_(
            torch.stack(
                [(is_strong * up).sum(0), is_strong.sum(0), (weight * up).sum(0), weight.sum(0)]
            ).double()
        )

    checkpoints = not fits_without_checkpoints(subject, batch, n_processes)
    with watching(subject, list(sums), hook_point, observe_up, checkpoints) as run:
        for layer, first_order in run(batch).items():
            mine = sums[layer]
            effects = sample_effects(first_order, mine.mean).double()
            power = effects
            for number in range(POWERS):
                mine.powers[:, number] += power.sum(0)
                power = power * effects
            mine.magnitudes.add_(effects[:, : len(ROLES)].abs().sum(0))


def _empty(subject: Subject, layer: int, scales: NeuronScales) -> _Sums:
    device = layer_device(subject, layer)
    neurons = len(scales.mean)

    def zeros(*shape: int) -> torch.Tensor:
        return torch.zeros(*shape, neurons, dtype=torch.float64, device=device)

    return _Sums(
        zeros(len(MEASURES), POWERS),
        zeros(len(ROLES)),
        zeros(len(UP_SUMS)),
        torch.from_numpy(scales.mean.astype(np.float32)).to(device),
        torch.from_numpy(scales.strong.astype(np.float32)).to(device),
    )


def _table(layer: int, sums: _Sums, n_samples: int) -> pa.Table:
    neurons = sums.mean.shape[0]
    columns: dict[str, pa.Array] = {
        "layer": np.full(neurons, layer),
        "neuron": np.arange(neurons),
        "n_samples": np.full(neurons, n_samples),
    }
    for name, values in (
        ("powers", sums.powers.flatten(0, 1)), ("magnitudes", sums.magnitudes), ("up", sums.up)
    ):  # fmt: skip
        flat = pa.array(values.T.reshape(-1).cpu().numpy())
        columns[name] = pa.FixedSizeListArray.from_arrays(flat, len(values))
    return pa.table(columns).cast(ATTRIBUTION.schema)


def read_sums(tables: Sequence[pa.Table]) -> tuple[int, np.ndarray, np.ndarray, np.ndarray]:
    """Add up rows of one layer from several shards, all in the order of the neurons.

    Returns the number of samples, powers [3, measures, neurons], magnitudes [roles, neurons] and
    up sums [UP_SUMS, neurons].
    """
    n_samples = sum(table["n_samples"][0].as_py() for table in tables)
    arrays = []
    for name in ("powers", "magnitudes", "up"):
        size = ATTRIBUTION.schema.field(name).type.list_size
        parts = [
            table[name].combine_chunks().flatten().to_numpy().reshape(-1, size) for table in tables
        ]
        arrays.append(np.sum(parts, axis=0).T)
    powers = arrays[0].reshape(len(MEASURES), POWERS, -1).transpose(1, 0, 2)
    return n_samples, powers, arrays[1], arrays[2]
