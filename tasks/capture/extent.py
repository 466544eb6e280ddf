"""Say how large a subject is, and which neurons belong to which expert."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from neuron_atlas.tasks.artifacts import EXPERTS, layer_file, write_table
from neuron_atlas.tasks.subject.hook_points import expert_layouts, layers_of
from neuron_atlas.tasks.subject.settings import HookPoint
from neuron_atlas.tasks.subject.subject import Subject


def write_experts(subject: Subject, hook_point: HookPoint, folder: Path) -> dict[str, Any]:
    """Write the table `experts` of every layer with experts. Return these layers (`with_experts`),
    the number of layers that have the hook point, and of the subject's parameters (`layers`,
    `parameters`)."""
    layouts = expert_layouts(subject, hook_point)
    for layer, layout in layouts.items():
        write_table(layout.table(layer), EXPERTS, folder / layer_file(EXPERTS, layer))
    return {
        "layers": len(layers_of(subject, hook_point)),
        "parameters": sum(weight.numel() for weight in subject.model.parameters()),
        "with_experts": list(layouts),
    }
