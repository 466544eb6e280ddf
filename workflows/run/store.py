"""Store artifacts: a folder for each stage and fingerprint, complete once it has a manifest.

    out/
      artifacts/<stage>/<fingerprint>/    the stage's files, then manifest.json
      manifest.json                       the last run: every artifact and its files
      runs/<name>.json                    the same of each run that finished
      logs/<stage>/<item>.log             of each work item, its warnings and its traceback

A file gets its name only when it is complete (see `tasks.artifacts.write_table`), and the manifest
is written last. So after a crash, the next run finds finished files and no partial ones.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from neuron_atlas.tasks.artifacts import artifact_of, row_count
from neuron_atlas.tasks.artifacts.location import atomic_file, existing_files, is_uri

MANIFEST = "manifest.json"


@dataclass(frozen=True)
class Manifest:
    """Manifest of a complete stage.

    files: for each artifact its files, relative to the folder. rows: of each artifact.
    seconds: time of each step. content: hash of the rows, for a stage whose result enters later
    fingerprints instead of its own fingerprint. about: facts for later stages, which need not read
    the files for them.
    """

    stage: str
    version: int
    fingerprint: str
    parameters: Mapping[str, Any]
    made_from: Mapping[str, str]
    files: Mapping[str, Sequence[str]]
    rows: Mapping[str, int]
    seconds: Mapping[str, float]
    content: str = ""
    about: Mapping[str, Any] = field(default_factory=dict)

    @property
    def identity(self) -> str:
        """The hash that enters the fingerprints of later stages."""
        return self.content or self.fingerprint


@dataclass(frozen=True)
class Store:
    """The artifacts below one output folder."""

    out: Path
    local_dir: Path | None = None
    """A folder of the driver's machine for open files. None is `out`."""

    @property
    def local(self) -> Path:
        """The folder for files that must be on the driver's disk: the journal and MLflow's runs."""
        return self.out if self.local_dir is None else self.local_dir

    def folder(self, stage: str, fingerprint: str) -> Path:
        """Return the folder of a stage with this fingerprint."""
        return self.out / "artifacts" / stage / fingerprint[:16]

    def logs(self, key: str) -> Path:
        """Return the folder of the log files of a stage's items."""
        return self.out / "logs" / key

    def find(self, stage: str, fingerprint: str) -> Manifest | None:
        """Return the manifest of a stage if it and all its files exist, else None."""
        folder = self.folder(stage, fingerprint)
        manifest = read_manifest(folder)
        if manifest is None or manifest.fingerprint != fingerprint:
            return None
        files = {name for names in manifest.files.values() for name in names}
        return manifest if existing_files(folder, files) == files else None

    def commit(self, manifest: Manifest) -> None:
        """Mark a stage as complete by writing its manifest."""
        folder = self.folder(manifest.stage, manifest.fingerprint)
        write_json(folder / MANIFEST, asdict(manifest))

    def reopen(self, manifest: Manifest) -> None:
        """Mark a stage as incomplete by removing its manifest; its files stay."""
        (self.folder(manifest.stage, manifest.fingerprint) / MANIFEST).unlink(missing_ok=True)

    def paths(self, manifest: Manifest, artifact: str) -> list[Path]:
        """Return the files of one artifact of a complete stage."""
        folder = self.folder(manifest.stage, manifest.fingerprint)
        return [folder / name for name in manifest.files[artifact]]

    def write_run(self, manifests: Sequence[Manifest], **about: Any) -> Path:
        """Write out/manifest.json: every artifact of this run, its fingerprint, rows and files.

        A copy in out/runs/ is named by a hash of the fingerprints, so that it can be opened after
        other runs (see `tasks.atlas`). An artifact of several explainers has their fingerprints
        joined by "+", and all of their rows and files.
        """
        artifacts: dict[str, dict[str, Any]] = {}
        for manifest in manifests:
            for artifact in manifest.files:
                paths = self.paths(manifest, artifact)
                entry = {
                    "stage": manifest.stage,
                    "fingerprint": manifest.fingerprint,
                    "rows": manifest.rows.get(artifact),
                    "files": [path.relative_to(self.out).as_posix() for path in paths],
                }
                if known := artifacts.get(artifact):
                    entry["fingerprint"] = f"{known['fingerprint']}+{entry['fingerprint']}"
                    entry |= {name: known[name] + entry[name] for name in ("rows", "files")}
                artifacts[artifact] = entry
        marks = sorted((name, entry["fingerprint"]) for name, entry in artifacts.items())
        name = hashlib.sha256(json.dumps(marks).encode()).hexdigest()[:12]
        finished = datetime.now(UTC).isoformat(timespec="seconds")
        run = about | {"artifacts": artifacts, "run": name, "finished": finished}
        path = self.out / MANIFEST
        write_json(self.out / "runs" / f"{name}.json", run)
        write_json(path, run)
        return path


def read_manifest(folder: Path) -> Manifest | None:
    """Read a stage's manifest from its folder; None where it is absent, damaged, or of another
    version."""
    try:
        return Manifest(**read_json(folder / MANIFEST))
    except (FileNotFoundError, ValueError, TypeError):
        return None


def count_rows(folder: Path, files: Mapping[str, Sequence[str]]) -> dict[str, int]:
    """Count the rows of each artifact that consists of tables, without reading them."""
    return {
        artifact: sum(row_count(folder / name) for name in names)
        for artifact, names in files.items()
        if all(artifact_of(name) for name in names)
    }


def local_folder(out: str, local_dir: str | None) -> Path:
    """Return the folder for files that must be on the driver's disk.

    It is `local_dir` if given, else `out`. For an object store it is a folder in the user's cache,
    named by a hash of `out`.
    """
    if local_dir is not None:
        return Path(local_dir)
    if not is_uri(out):
        return Path(out)
    caches = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return caches / "neuron-atlas" / hashlib.sha256(out.encode()).hexdigest()[:16]


def fingerprint(
    stage: str, version: int, parameters: Mapping[str, Any], made_from: Mapping[str, str]
) -> str:
    """Return the SHA-256 of everything that determines a stage's content."""
    decisive = {
        "stage": stage,
        "version": version,
        "parameters": parameters,
        "made_from": made_from,
    }
    return hashlib.sha256(json.dumps(decisive, sort_keys=True).encode()).hexdigest()


def read_json(path: Path) -> Any:
    """Read a JSON file."""
    return json.loads(path.read_text(encoding="utf-8"))


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write a JSON file atomically and sync it to disk."""
    with atomic_file(path) as unfinished, unfinished.open("w", encoding="utf-8") as stream:
        json.dump(content, stream, indent=2, sort_keys=True, default=str)
        stream.flush()
        os.fsync(stream.fileno())
