"""Locate saved models, identify their weights, and explain why one cannot be loaded. Importable
without torch."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection
from pathlib import Path

_LONGEST = 300
"""Longest reason (characters) in a message."""
_DECIDING = (".safetensors", ".json", ".jinja", ".model", ".txt")


class ModelError(Exception):
    """A saved model cannot be found or used; the message names it and the remedy."""


def saved_folder(model: str, setting: str) -> Path | None:
    """Return the folder that `model` names, or None if it is a Hugging Face id.

    setting: the setting that names the model, for messages. Raises ModelError if `model` is a path
    to no folder.
    """
    folder = Path(model).expanduser()
    if folder.is_dir():
        return folder
    if model.startswith((".", "/", "~")) or model.count("/") != 1:
        raise ModelError(
            f"{setting}: there is no folder {model!r}; "
            "name a folder with a saved model, or a Hugging Face id such as owner/name"
        )
    return None


def weights_revision(model: str, revision: str | None, setting: str) -> str:
    """Return a folder's content hash or a Hugging Face model's commit. Raises ModelError."""
    folder = saved_folder(model, setting)
    if folder is not None:
        return _folder_hash(folder)
    from huggingface_hub import HfApi, constants
    from huggingface_hub.errors import HfHubHTTPError

    try:
        if not constants.HF_HUB_OFFLINE:
            info = HfApi().model_info(model, revision=revision, timeout=20)
            return str(info.sha)
    except HfHubHTTPError as error:
        raise ModelError(
            f"{setting}: {model!r} is no folder, and the Hugging Face hub answers: "
            f"{str(error).splitlines()[0]}"
        ) from error
    except Exception:
        # No network; the exception depends on the HTTP library. The cached model will be loaded.
        pass
    return _cached_commit(model, revision, setting)


def check_folder(model: str, kind: str | Collection[str], setting: str) -> None:
    """Raise ModelError if `model` is a folder without a safetensors model of this kind, or of one
    of these (`model_type`). Fails early: the model may be loaded hours later on another node."""
    folder = saved_folder(model, setting)
    if folder is None:
        return
    try:
        found = json.loads((folder / "config.json").read_text("utf-8")).get("model_type")
    except (OSError, ValueError, AttributeError) as error:
        raise ModelError(
            f"{setting}: {str(folder)!r} holds no model: its config.json cannot be read "
            f"({first_line(error)})"
        ) from error
    check_kind(str(folder), found, kind, setting)
    if not list(folder.glob("*.safetensors")):
        raise ModelError(
            f"{setting}: {str(folder)!r} holds no weights in safetensors, and others are not read; "
            "save or download the model so"
        )


def check_kind(model: str, found: str | None, kind: str | Collection[str], setting: str) -> None:
    """Raise ModelError if a model's kind (`found`) is not the expected one, or one of these."""
    kinds = [kind] if isinstance(kind, str) else list(kind)
    if found not in kinds:
        raise ModelError(
            f"{setting}: {model!r} is a {found!r} model; name one of the kind "
            f"{' or '.join(map(repr, kinds))}"
        )


def why_not_loaded(model: str, setting: str, error: Exception) -> str:
    """Return one line on why transformers could not load a saved model."""
    folder = saved_folder(model, setting)
    damaged = None if folder is None else damaged_file(folder)
    if damaged is not None:
        path, reason = damaged
        return f"{setting}: {path} is damaged ({reason}); save or download it again"
    return f"{setting}: {str(folder or model)!r} cannot be loaded: {first_lines(error)}"


def check_complete(model: str, setting: str, missing: Collection[str]) -> None:
    """Raise ModelError if weights are missing: transformers would initialize them at random without
    an error."""
    if missing:
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise ModelError(
            f"{setting}: the weights of {model!r} lack {min(missing)!r}{more}; save or "
            "download the model again"
        )


def first_line(error: Exception) -> str:
    """Return the first line of an error's message, or its type if it has none."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def first_lines(error: Exception) -> str:
    """Return the first two lines of an error's message as one line, cut if it is long.

    In errors of transformers, the second line often holds the reason.
    """
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    message = " ".join(lines[:2])
    if not message or isinstance(error, KeyError):
        message = f"{type(error).__name__} {message}".strip()
    return message if len(message) <= _LONGEST else f"{message[:_LONGEST]} ..."


def damaged_file(folder: Path) -> tuple[Path, str] | None:
    """Return the first JSON, Jinja or safetensors file of a folder that cannot be read, and why."""
    from safetensors import safe_open

    for path in sorted(folder.iterdir()):
        try:
            if path.suffix == ".json":
                json.loads(path.read_text("utf-8"))
            elif path.suffix == ".jinja":
                path.read_text("utf-8")
            elif path.suffix == ".safetensors":
                with safe_open(path, "numpy"):
                    pass
        except Exception as error:
            return path, first_line(error)
    return None


def _folder_hash(folder: Path) -> str:
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path.suffix in _DECIDING:
            digest.update(path.relative_to(folder).as_posix().encode() + b"\0")
            with path.open("rb") as stream:
                digest.update(hashlib.file_digest(stream, "sha256").digest())
    return digest.hexdigest()


def _cached_commit(model: str, revision: str | None, setting: str) -> str:
    from huggingface_hub import try_to_load_from_cache

    config = try_to_load_from_cache(model, "config.json", revision=revision)
    if not isinstance(config, str):
        raise ModelError(
            f"{setting}: {model!r} is no folder and is not in the local Hugging Face "
            "cache, and the hub cannot be reached; download it first or name a folder"
        )
    return Path(config).parent.name
