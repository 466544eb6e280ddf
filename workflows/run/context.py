"""State that the stages of one run share: settings, store and finished stages."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import pyarrow.compute as pc

from neuron_atlas.tasks.artifacts import SAMPLES, read_table
from neuron_atlas.tasks.capture.settings import CaptureSettings
from neuron_atlas.tasks.settings import identity
from neuron_atlas.tasks.subject.adapter_files import adapter_digest
from neuron_atlas.tasks.subject.folder import chat_template_digest, check_subject_folder
from neuron_atlas.tasks.subject.quantization import subject_quantization
from neuron_atlas.tasks.subject.revision import subject_revision
from neuron_atlas.workflows.config.settings import Settings
from neuron_atlas.workflows.run.store import Manifest, Store


@dataclass
class RunStats:
    """Statistics of a run, for its closing lines, its manifest and MLflow.

    seconds: time of each part of the run. nodes: number of nodes that worked on each part. skipped:
    titles of the stages that were already complete. unfinished: tables of explanations that a stage
    wrote before it failed.
    """

    seconds: dict[str, float] = field(default_factory=dict)
    nodes: dict[str, int] = field(default_factory=dict)
    skipped: list[str] = field(default_factory=list)
    unfinished: list[Path] = field(default_factory=list)


@dataclass
class Context:
    """State that the stages of one run share.

    done: the manifest of each finished stage, by the stage's key: its name, or its name and the
    explainer for a stage that runs for each explainer. stats: see RunStats.
    """

    settings: Settings
    store: Store
    done: dict[str, Manifest] = field(default_factory=dict)
    stats: RunStats = field(default_factory=RunStats)

    def layers(self) -> tuple[int, ...]:
        """Return the captured layers, ascending."""
        return tuple(self.done["capture"].about["layers"])

    def folder(self, stage: str) -> Path:
        """Return the folder of a finished stage that runs once for all explainers."""
        return self.store.folder(stage, self.done[stage].fingerprint)

    def paths(self, stage: str, artifact: str, explainer: str = "") -> list[Path]:
        """Return the files of an artifact of a finished stage, for one explainer or for all."""
        return [
            path
            for manifest in self.manifests_of(stage, explainer)
            for path in self.store.paths(manifest, artifact)
        ]

    def identity(self, stage: str, explainer: str = "") -> str:
        """Return the identity of a finished stage, as hashed into later fingerprints."""
        made = [manifest.identity for manifest in self.manifests_of(stage, explainer)]
        return made[0] if len(made) == 1 else hashlib.sha256("+".join(made).encode()).hexdigest()

    def manifests_of(self, stage: str, explainer: str = "") -> list[Manifest]:
        """Return the manifests of a finished stage: one, or one for each explainer if none is
        named."""
        if explainer and (stage not in self.done):
            return [self.done[f"{stage}/{explainer}"]]
        return [manifest for manifest in self.done.values() if manifest.stage == stage]

    @property
    def capture(self) -> CaptureSettings:
        """Settings of capture, with top_n lowered for a small dataset."""
        settings, listed = self.settings.capture, self.done.get("samples")
        has_samples = listed is not None and "samples" in listed.files
        return settings.for_samples(self._n_samples) if has_samples else settings

    @cached_property
    def _n_samples(self) -> int:
        """Number of usable samples."""
        statuses = read_table(self.paths("samples", "samples"), SAMPLES, ["status"])["status"]
        return pc.sum(pc.equal(statuses, "ok")).as_py() or 0

    def subject_identity(self) -> dict[str, Any]:
        """Return what determines the activations: the subject's weights, dtype, question, chat
        template, geometry, adapter, prompt and quantization."""
        subject = self.settings.subject
        template = chat_template_digest(subject)
        given = {} if template is None else {"chat_template": template}
        if subject.geometry != "known":
            given["geometry"] = subject.geometry
        if self._adapter is not None:
            given["adapter"] = self._adapter
        if subject.prompt is not None:
            given["prompt"] = subject.prompt
        if self._quantization is not None:
            given["quantization"] = self._quantization
        return identity(subject) | {"revision": self._revision} | given

    @cached_property
    def _adapter(self) -> str | None:
        return adapter_digest(self.settings.subject)

    @cached_property
    def _quantization(self) -> str | None:
        return subject_quantization(self.settings.subject)

    @cached_property
    def _revision(self) -> str:
        check_subject_folder(self.settings.subject)  # Before a worker loads it.
        return subject_revision(self.settings.subject)
