"""Change the activations of one layer: many rows and neurons in one indexed write."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch

from neuron_atlas.tasks.subject.settings import SubjectError

How = Literal["zero", "set", "scale", "clamp"]


class InterventionError(SubjectError):
    """An intervention names what does not exist, or its result is not a finite number."""


@dataclass(frozen=True)
class Intervention:
    """What to change in one layer.

    neurons: indices in the layer. how: `zero`; `set` the activation to value; `scale` it by value;
    `clamp` it to at least value (value > 0) or at most value (value <= 0), so that tokens where the
    neuron is stronger stay the same. value: one number for all neurons, or one per neuron; not read
    by `zero`. rows: rows of the batch; None for all. roles: indices into ROLES of the tokens to
    change; None for all tokens.
    """

    layer: int
    neurons: tuple[int, ...]
    how: How = "zero"
    value: float | tuple[float, ...] = 0.0
    rows: tuple[int, ...] | None = None
    roles: tuple[int, ...] | None = None

    @property
    def values(self) -> tuple[float, ...]:
        """One value per neuron."""
        if isinstance(self.value, tuple):
            return self.value
        return (self.value,) * len(self.neurons)


@dataclass(frozen=True)
class Change:
    """Interventions that one indexed write applies.

    neurons: int64 [pairs]. rows: int64 [pairs], the row of each neuron; None for all rows of every
    neuron. values: [pairs], in the activations' format. last_row: highest of rows, -1 without them.
    """

    how: How
    neurons: torch.Tensor
    values: torch.Tensor
    rows: torch.Tensor | None
    roles: tuple[int, ...] | None
    last_row: int


def compile_changes(
    interventions: Sequence[Intervention], device: torch.device, dtype: torch.dtype
) -> list[Change]:
    """Return the changes of the interventions in one layer, in order.

    Neighbors of one kind that share no neuron of a row become one change: a batch that ablates
    another neuron in every row costs one indexed write a layer.
    """
    groups: list[list[Intervention]] = []
    pairs: set[tuple[int | None, int]] = set()
    for one in interventions:
        own = {(row, neuron) for row in _rows(one) for neuron in one.neurons}
        if groups and _kind(groups[-1][0]) == _kind(one) and pairs.isdisjoint(own):
            groups[-1].append(one)
            pairs |= own
        else:
            groups.append([one])
            pairs = own
    return [
        _change(group, device, dtype)
        for group in groups
        if any(one.neurons and _rows(one) for one in group)
    ]


def apply_changes(
    changes: Sequence[Change],
    activations: torch.Tensor,
    roles: torch.Tensor | None,
    in_place: bool = False,
) -> torch.Tensor:
    """Return activations [batch, tokens, neurons] with the changes, as a copy unless in_place.

    roles: int8 [batch, tokens], for changes that name roles. Raises InterventionError for a row
    beyond the batch.
    """
    if not changes:
        return activations
    changed = activations if in_place else activations.clone()
    for change in changes:
        if change.last_row >= len(activations):
            raise InterventionError(
                f"an intervention names row {change.last_row} of a batch of {len(activations)}"
            )
        _apply(change, changed, roles)
    return changed


def _apply(change: Change, activations: torch.Tensor, roles: torch.Tensor | None) -> None:
    """Change activations in place."""
    tokens = None
    if change.roles is not None:
        assert roles is not None
        tokens = torch.isin(roles, torch.tensor(change.roles, device=roles.device).to(roles.dtype))
    if change.rows is None:
        before = activations[:, :, change.neurons]
        after = _changed(change.how, before, change.values)
        if tokens is not None:
            after = torch.where(tokens[:, :, None], after, before)
        activations[:, :, change.neurons] = after
    else:
        # [pairs, tokens]: one row of the batch for each pair.
        before = activations[change.rows, :, change.neurons]
        after = _changed(change.how, before, change.values[:, None])
        if tokens is not None:
            after = torch.where(tokens[change.rows], after, before)
        activations[change.rows, :, change.neurons] = after


def _changed(how: How, before: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
    if how == "zero":
        return torch.zeros_like(before)
    if how == "set":
        return values.expand_as(before)
    if how == "scale":
        return before * values
    return torch.where(values > 0, torch.maximum(before, values), torch.minimum(before, values))


def _rows(one: Intervention) -> Sequence[int | None]:
    return (None,) if one.rows is None else one.rows


def _kind(one: Intervention) -> tuple[object, ...]:
    return one.how, one.roles, one.rows is None


def _change(group: Sequence[Intervention], device: torch.device, dtype: torch.dtype) -> Change:
    neurons = [neuron for one in group for _ in _rows(one) for neuron in one.neurons]
    values = [value for one in group for _ in _rows(one) for value in one.values]
    rows: list[int | None] | None = None
    if group[0].rows is not None:
        rows = [row for one in group for row in _rows(one) for _ in one.neurons]
    return Change(
        how=group[0].how,
        neurons=torch.tensor(neurons, device=device),
        values=torch.tensor(values, dtype=dtype, device=device),
        rows=None if rows is None else torch.tensor(rows, device=device),
        roles=group[0].roles,
        last_row=max((row for one in group for row in one.rows or ()), default=-1),
    )
