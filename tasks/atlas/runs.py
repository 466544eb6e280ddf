"""List and read the finished runs of an output folder, from their manifests."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from neuron_atlas.tasks.artifacts.files import layer_of
from neuron_atlas.tasks.artifacts.location import existing_files

MANIFEST = "manifest.json"
RUNS = "runs"


class RunNotFoundError(LookupError):
    """No such finished run; the message lists the runs of the folder, if any."""


@dataclass(frozen=True, repr=False)
class Run:
    """One finished run. name: opens the run in `Atlas.open`. finished: time of its end, in UTC.

    subject_source: where the run found its subject: `model`, a folder or a Hugging Face id, and
    `chat_template`, a file or None, and, if it has them, `adapter` and `sae`, the folder of its
    SAEs. Fields that the manifest of an older version lacks are empty.
    """

    out: Path
    name: str
    finished: str
    subject: str
    dataset: str
    artifacts: Mapping[str, Mapping[str, Any]]
    subject_source: Mapping[str, str | None] = field(default_factory=dict)

    def __str__(self) -> str:
        return f"{self.name}  {self.finished}  {self.title}"

    def __repr__(self) -> str:
        return f"<Run {self}>"

    @property
    def title(self) -> str:
        """What was run, in words: subject, dataset, layers and explainer."""
        layers = ", ".join(map(str, self.layers))
        words = f"layer{'s' if len(self.layers) != 1 else ''} {layers or '?'}"
        explainer = self.parameter("explain", "explainer").get("name", "?")
        return f"{self.subject} on {self.dataset}, {words}, explained by {explainer}"

    @cached_property
    def layers(self) -> tuple[int, ...]:
        """Layers of this run, ascending.

        From the names of its own files. The manifest of the capture stage names all layers that any
        run captured in the same folder.
        """
        for artifact in ("types", "exemplars"):
            files = self.artifacts.get(artifact, {}).get("files", ())
            found = {layer for layer in map(layer_of, files) if layer is not None}
            if found:
                return tuple(sorted(found))
        return tuple(self.stage_manifest("capture").get("about", {}).get("layers", ()))

    @property
    def page(self) -> Path | None:
        """The run's page; None if the run wrote none."""
        names = self.artifacts.get("report", {}).get("files", ())
        return next((self.out / name for name in names if name.endswith("/index.html")), None)

    def paths(self, artifact: str) -> list[Path]:
        """Return the files of an artifact. Raises KeyError."""
        return [self.out / name for name in self.artifacts[artifact]["files"]]

    def stage_manifest(self, stage: str) -> Mapping[str, Any]:
        """Return a stage's manifest (the first explainer's, if several), or an empty mapping."""
        return self._stages.get(stage, {})

    def parameter(self, stage: str, name: str) -> Mapping[str, Any]:
        """Return a group of settings that decided a stage's result; empty if unknown."""
        return self.stage_manifest(stage).get("parameters", {}).get(name, {})

    @cached_property
    def _stages(self) -> dict[str, Mapping[str, Any]]:
        fingerprints = {
            entry["stage"]: entry["fingerprint"].split("+")[0] for entry in self.artifacts.values()
        }
        manifests = {
            stage: f"artifacts/{stage}/{fingerprint[:16]}/{MANIFEST}"
            for stage, fingerprint in fingerprints.items()
        }
        existing = existing_files(self.out, list(manifests.values()))
        return {
            stage: json.loads((self.out / name).read_text(encoding="utf-8"))
            for stage, name in manifests.items()
            if name in existing
        }


def find_run(out: Path, name: str | None = None) -> Run:
    """Return the last run in `out`, or the one whose name starts with `name`. Raises
    RunNotFoundError."""
    if name is None:
        return _last(out)
    found = [run for run in list_runs(out) if run.name.startswith(name)]
    if len(found) != 1:
        listed = "\n  ".join(map(str, list_runs(out)))
        problem = "several runs begin with" if found else "there is no run"
        raise RunNotFoundError(f"{str(out)!r}: {problem} {name!r}; there are:\n  {listed}")
    return found[0]


def list_runs(out: Path) -> list[Run]:
    """Return all finished runs in `out`, first to last. Raises RunNotFoundError if there is
    none."""
    last = _last(out)
    runs = {
        run.name: run for run in (_read(out, path) for path in sorted((out / RUNS).glob("*.json")))
    }
    runs.setdefault(last.name, last)
    return sorted(runs.values(), key=lambda run: (run.finished, run.name == last.name))


def _last(out: Path) -> Run:
    path = out / MANIFEST
    if not path.is_file():
        raise RunNotFoundError(
            f"{str(out)!r} holds no finished run: there is no {MANIFEST}; name the folder that was "
            "given as out=..."
        )
    return _read(out, path)


def _read(out: Path, path: Path) -> Run:
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
        name, finished, subject, dataset = (
            manifest.get(key, "") for key in ("run", "finished", "subject", "dataset")
        )
        source = manifest.get("subject_source") or {}
        return Run(out, name, finished, subject, dataset, manifest["artifacts"], dict(source))
    except (ValueError, KeyError, TypeError) as error:
        raise RunNotFoundError(f"{str(path)!r} is not the manifest of a run: {error!r}") from error
