"""Find the SAEs of a folder, and identify them by their content. Importable without torch."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path

from neuron_atlas.tasks.subject.sae.config import FORMATS, SaeConfig, format_of, read_config
from neuron_atlas.tasks.subject.settings import SubjectError


def find_saes(path: str, layers: Sequence[int] | None = None) -> dict[int, SaeConfig]:
    """Return the SAEs in a folder and its subfolders by decoder layer, ascending.

    layers: of the run, each of which needs one SAE; None for all that there are. Raises
    SubjectError.
    """
    folder = Path(path).expanduser()
    if not folder.is_dir():
        raise SubjectError(
            f"capture.sae.path: there is no folder {path!r}; download the SAE and name its folder"
        )
    found: dict[int, SaeConfig] = {}
    for one, kind in _folders(folder):
        config = read_config(one.resolve(), kind)
        if config.layer in found and (layers is None or config.layer in layers):
            raise SubjectError(
                f"capture.sae.path: {str(found[config.layer].config.parent)!r} and "
                f"{str(one.resolve())!r} are both SAEs of layer {config.layer}; "
                "name a folder with one SAE for each layer"
            )
        found[config.layer] = config
    if not found:
        raise SubjectError(f"capture.sae.path: {path!r} holds no SAE: {_expected(folder)}")
    missing = [layer for layer in layers or () if layer not in found]
    if missing:
        raise SubjectError(
            f"capture.sae.path: {path!r} holds no SAE of layer {missing[0]}, but of the layers "
            f"{', '.join(map(str, sorted(found)))}; choose these in capture.layers, or name the "
            "folder of the SAE that is missing"
        )
    return {layer: found[layer] for layer in sorted(layers or found)}


def saes_digest(path: str) -> str:
    """Return the content hash of all SAEs in a folder: of their files, and of the names of their
    folders, which may name the layer. Raises SubjectError."""
    folder = Path(path).expanduser()
    digest = hashlib.sha256()
    for one, kind in _folders(folder):
        digest.update(one.resolve().name.encode() + b"\0")
        for name in FORMATS[kind]:
            stat = (one / name).stat()
            digest.update(_file_digest(one / name, stat.st_size, stat.st_mtime_ns))
    return digest.hexdigest()


def _folders(folder: Path) -> Iterator[tuple[Path, str]]:
    """Yield each folder with an SAE, and its format, in order of the names."""
    for one in (folder, *sorted(part for part in folder.rglob("*") if part.is_dir())):
        kind = format_of(one)
        if kind is not None:
            yield one, kind


@lru_cache(maxsize=1024)
def _file_digest(path: Path, _bytes: int, _changed_ns: int) -> bytes:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").digest()


def _expected(folder: Path) -> str:
    """Return what is missing, which files look like parts of an SAE, and what to do."""
    files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    for path in files:
        missing = [
            next(other for other in pair if other != path.name)
            for pair in FORMATS.values()
            if path.name in pair and path.name != "config.json"  # Any model has one.
        ]
        if missing:
            return f"{str(path)!r} has no {' or '.join(missing)} next to it; download the SAE again"
    pairs = " or ".join(f"{config} with {weights}" for config, weights in FORMATS.values())
    others = [path.name for path in files if path.suffix in (".npz", ".pt", ".pth", ".bin")]
    seen = f"; it has {others[0]}, and only safetensors are read" if others else ""
    return f"expected {pairs}{seen}; name a folder with these files"
