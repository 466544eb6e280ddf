"""What identifies a subject's weights, wherever they lie."""

from __future__ import annotations

import hashlib
from pathlib import Path

from tasks.subject.settings import SubjectError, SubjectSettings, model_folder

_DECIDING = (".safetensors", ".json", ".jinja", ".model", ".txt")


def subject_revision(settings: SubjectSettings) -> str:
    """The content hash of a folder, or the commit of a Hugging Face model. Raises SubjectError."""
    folder = model_folder(settings)
    if folder is not None:
        return _folder_hash(folder)
    from huggingface_hub import HfApi, constants
    from huggingface_hub.errors import HfHubHTTPError

    try:
        if not constants.HF_HUB_OFFLINE:
            info = HfApi().model_info(settings.model, revision=settings.revision, timeout=20)
            return str(info.sha)
    except HfHubHTTPError as error:
        raise SubjectError(
            f"subject.model: {settings.model!r} is no folder, and the Hugging Face hub answers: "
            f"{str(error).splitlines()[0]}"
        ) from error
    except Exception:
        # No network, by whatever name the transport calls it: the cache holds what will be loaded.
        pass
    return _cached_commit(settings)


def _folder_hash(folder: Path) -> str:
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path.suffix in _DECIDING:
            digest.update(path.relative_to(folder).as_posix().encode() + b"\0")
            with path.open("rb") as stream:
                digest.update(hashlib.file_digest(stream, "sha256").digest())
    return digest.hexdigest()


def _cached_commit(settings: SubjectSettings) -> str:
    from huggingface_hub import try_to_load_from_cache

    config = try_to_load_from_cache(settings.model, "config.json", revision=settings.revision)
    if not isinstance(config, str):
        raise SubjectError(
            f"subject.model: {settings.model!r} is no folder and is not in the local Hugging Face "
            "cache, and the hub cannot be reached; download it first or name a folder"
        )
    return Path(config).parent.name
