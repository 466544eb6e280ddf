"""Open the subject of a finished run again, and refuse any other."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from neuron_atlas.tasks.probe.errors import ProbeError
from neuron_atlas.tasks.subject.adapter_files import adapter_digest
from neuron_atlas.tasks.subject.folder import chat_template_digest, check_subject_folder
from neuron_atlas.tasks.subject.load import Subject, load_subject
from neuron_atlas.tasks.subject.revision import subject_revision
from neuron_atlas.tasks.subject.sae.attach import with_saes
from neuron_atlas.tasks.subject.sae.find import saes_digest
from neuron_atlas.tasks.subject.sae.settings import SAE
from neuron_atlas.tasks.subject.settings import SubjectError, SubjectSettings, model_folder

if TYPE_CHECKING:
    from neuron_atlas.tasks.atlas.runs import Run

_SHOWN = 12
"""Characters of a fingerprint in a message."""


def open_run_subject(run: Run, model: str | None = None, device: str | None = None) -> Subject:
    """Load the subject of a run, with the run's weights, number format, question and template.

    model: its folder, if it has moved, or its Hugging Face id; None for the place that the run
    recorded. device: a device of torch, or "auto" to spread the layers over all GPUs; None for a
    GPU if there is one. The last subject stays loaded in this process. Raises ProbeError if the
    weights, or the SAEs, are others than the run's, and SubjectError if they cannot be loaded.
    """
    recorded = run.parameter("capture", "subject")
    if not recorded:
        raise ProbeError(f"the manifest of the run {run.name} does not describe its subject")
    place = model or run.subject_source.get("model")
    if not place:
        raise ProbeError(
            f"the run {run.name} does not record where its subject {run.subject!r} is; name its "
            "folder or Hugging Face id with --model (in Python: model=)"
        )
    if device is None:
        device = "cuda" if torch.cuda.is_available() else "cpu"
    template = run.subject_source.get("chat_template") if "chat_template" in recorded else None
    adapter = run.subject_source.get("adapter") if "adapter" in recorded else None
    subject = _load(json.dumps(dict(recorded), sort_keys=True), place, template, adapter, device)
    captured = run.parameter("capture", "capture") or {}
    if captured.get("hook_point") != SAE:
        return subject
    saes = run.subject_source.get("sae") or ""
    if not Path(saes).is_dir() or saes_digest(saes) != captured["sae"]:
        raise ProbeError(
            f"capture.sae.path of the run is not what {saes!r} holds now; restore the folder"
        )
    return with_saes(subject, saes, run.layers)


@lru_cache(maxsize=1)
def _load(
    recorded_json: str, model: str, template: str | None, adapter: str | None, device: str
) -> Subject:
    recorded = json.loads(recorded_json)
    settings = SubjectSettings(
        model=model,
        dtype=recorded["dtype"],
        question=recorded["question"],
        chat_template=template,
        geometry=recorded.get("geometry", "known"),
        adapter=adapter,
        prompt=recorded.get("prompt"),
    )
    _check_place(settings, recorded["revision"])
    if chat_template_digest(settings) != recorded.get("chat_template"):
        raise ProbeError(
            f"subject.chat_template of the run is not what {template!r} holds now; restore the file"
        )
    if adapter_digest(settings) != recorded.get("adapter"):
        raise ProbeError(
            f"subject.adapter of the run is not what {adapter!r} holds now; restore its files"
        )
    if model_folder(settings) is None:
        # A commit: the id may point to other weights today.
        settings = replace(settings, revision=recorded["revision"])
    return load_subject(settings, device)


def _check_place(settings: SubjectSettings, expected: str) -> None:
    """Raise ProbeError if the model is gone, or is not the one with the revision `expected`."""
    try:
        is_folder = model_folder(settings) is not None
    except SubjectError as error:
        raise ProbeError(
            f"there is no folder {settings.model!r} with the run's subject; name where it is with "
            "--model (in Python: model=)"
        ) from error
    if not is_folder:
        return
    check_subject_folder(settings)
    found = subject_revision(settings)
    if found != expected:
        raise ProbeError(
            f"{settings.model!r} is another subject than the run's: its files have the fingerprint "
            f"{found[:_SHOWN]}, those of the run {expected[:_SHOWN]}"
        )
