"""The subject of a run with an adapter is opened again with that adapter, and with no other."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from neuron_atlas.tasks.atlas.runs import Run
from neuron_atlas.tasks.probe.errors import ProbeError
from neuron_atlas.tasks.probe.run_subject import open_run_subject
from neuron_atlas.tasks.subject.load import load_subject
from neuron_atlas.tasks.subject.settings import SubjectSettings, source_of
from neuron_atlas.workflows.run.context import Context
from tests.families.building import build
from tests.families.instances import BUILDS
from tests.families.lora import adapter_of_one_neuron

LAYER, NEURON = 1, 7


def run_of(settings: SubjectSettings, out: Path) -> Run:
    """A finished run, as its manifest records its subject."""
    context: Any = Context(SimpleNamespace(subject=settings), None)  # type: ignore[arg-type]
    written = out / "artifacts" / "capture" / ("f" * 16) / "manifest.json"
    written.parent.mkdir(parents=True)
    written.write_text(json.dumps({"parameters": {"subject": context.subject_identity()}}))
    return Run(
        *(out, "first", "", "llava", "scenes"),
        artifacts={"moments": {"stage": "capture", "fingerprint": "f" * 64}},
        subject_source=source_of(settings),
    )


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> SubjectSettings:
    folder = tmp_path_factory.mktemp("probed")
    model = build(BUILDS["llava"], folder / "llava")
    adapter = adapter_of_one_neuron(model, LAYER, NEURON, folder / "adapter")
    return SubjectSettings(model=str(model), adapter=str(adapter))


def gate(model: Any) -> torch.Tensor:
    return model.model.language_model.layers[LAYER].mlp.gate_proj.weight.detach()


def test_the_runs_adapter_is_added_again_and_another_is_refused(settings, tmp_path):
    run = run_of(settings, tmp_path / "adapted")
    plain = load_subject(SubjectSettings(model=settings.model))
    opened = open_run_subject(run, device="cpu")
    changed = (gate(opened.model) != gate(plain.model)).any(1).nonzero()[:, 0].tolist()
    assert changed == [NEURON]

    path = Path(settings.adapter) / "adapter_model.safetensors"
    saved = load_file(path)
    save_file({key: value * 2 for key, value in saved.items()}, path)
    others = run_of(SubjectSettings(model=settings.model), tmp_path / "plain")
    open_run_subject(others, device="cpu")
    with pytest.raises(ProbeError, match=r"subject\.adapter of the run is not what .* holds now"):
        open_run_subject(run, device="cpu")


def test_a_run_without_a_layout_is_opened_without_one(settings, tmp_path):
    run = run_of(SubjectSettings(model=settings.model, geometry="none"), tmp_path)
    assert open_run_subject(run, device="cpu").layout.kind == "none"
