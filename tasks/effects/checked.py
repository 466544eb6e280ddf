"""Check the attribution: ablate a stratified sample of neurons exactly, on the same samples."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import pyarrow as pa
import torch

from neuron_atlas.tasks.artifacts.effects import ABLATIONS, ABLATIONS_OF, MEASURES
from neuron_atlas.tasks.effects.ablation import Ablation, Samples, loss_changes
from neuron_atlas.tasks.effects.attribution import sample_effects
from neuron_atlas.tasks.effects.choose import ChosenNeuron
from neuron_atlas.tasks.effects.gradients import watching
from neuron_atlas.tasks.effects.memory import fits_without_checkpoints
from neuron_atlas.tasks.subject.batches import batches
from neuron_atlas.tasks.subject.settings import HookPoint
from neuron_atlas.tasks.subject.subject import Subject


def check_attribution(
    subject: Subject,
    chosen: Sequence[ChosenNeuron],
    sample_ids: Sequence[int],
    samples: Samples,
    hook_point: HookPoint,
    batch_size: int,
    on_batch: Callable[[int], None] = lambda count: None,
) -> pa.Table:
    """Return rows of `ablations`: each neuron zeroed and set to its mean, on each sample, with the
    first-order effect on the same sample. Raises as `loss_changes` does."""
    ablations = [
        Ablation(sample_id, one.layer, one.neuron, 0.0 if set_to == "zero" else one.mean)
        for set_to in ABLATIONS_OF
        for one in chosen
        for sample_id in sample_ids
    ]
    first_order = _first_order(subject, chosen, samples, hook_point)
    changes = loss_changes(subject, ablations, samples, hook_point, batch_size, on_batch)
    keys = [
        (one.layer, one.neuron, set_to, sample_id)
        for set_to in ABLATIONS_OF
        for one in chosen
        for sample_id in sample_ids
    ]
    rows = [
        {
            "layer": key[0],
            "neuron": key[1],
            "set_to": key[2],
            "sample_id": key[3],
            "change": float(change.mean(dtype=float)) if len(change) else None,
            "first_order": first_order[key],
            "token_changes": change,
        }
        for key, change in zip(keys, changes, strict=True)
    ]
    rows.sort(key=lambda row: tuple(row[name] for name in ABLATIONS.key))
    return pa.Table.from_pylist(rows, schema=ABLATIONS.schema)


def _first_order(
    subject: Subject, chosen: Sequence[ChosenNeuron], samples: Samples, hook_point: HookPoint
) -> Mapping[tuple[int, int, str, int], float]:
    """Return the effects by layer, neuron, what the neuron is set to, and sample."""
    by_layer: dict[int, list[ChosenNeuron]] = {}
    for one in chosen:
        by_layer.setdefault(one.layer, []).append(one)
    found = {}
    for batch in batches(samples(), 1):
        batch = batch.to(subject.device)
        checkpoints = not fits_without_checkpoints(subject, batch)
        with watching(subject, sorted(by_layer), hook_point, checkpoints=checkpoints) as run:
            sums = run(batch)
        for layer, mine in by_layer.items():
            neurons = [one.neuron for one in mine]
            mean = torch.zeros(sums[layer].products.shape[-1], device=sums[layer].products.device)
            mean[neurons] = torch.tensor([one.mean for one in mine], device=mean.device)
            effects = sample_effects(sums[layer], mean)[0][:, neurons].cpu().numpy()
            for set_to in ABLATIONS_OF:
                for one, value in zip(mine, effects[MEASURES.index(set_to)].tolist(), strict=True):
                    found[(layer, one.neuron, set_to, batch.ids[0])] = value
    return found
