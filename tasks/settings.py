"""What of a settings dataclass decides a result, and what only decides how it is computed."""

from __future__ import annotations

from dataclasses import MISSING, field, fields, is_dataclass
from typing import Annotated, Any

from annotated_types import Ge, Interval

_NOT_HASHED = "not_hashed"
_PACKAGE = "neuron_atlas"

AtLeastOne = Annotated[int, Ge(1)]
Share = Annotated[float, Interval(ge=0, le=1)]
"""Ranges of settings. They are checked where a config is read, not by a class's constructor."""


def not_hashed(default: Any = MISSING, *, default_factory: Any = MISSING) -> Any:
    """A dataclass field that changes no result (a batch size, a timeout, a path).

    It stays out of fingerprints, so changing it redoes nothing.
    """
    metadata = {_NOT_HASHED: True}
    if default_factory is not MISSING:
        return field(default_factory=default_factory, metadata=metadata)
    return field(default=default, metadata=metadata)


def identity(settings: Any) -> Any:
    """Plain data of all that decides the result: class, and every field not marked `not_hashed`."""
    if is_dataclass(settings) and not isinstance(settings, type):
        decisive = {
            spec.name: identity(getattr(settings, spec.name))
            for spec in fields(settings)
            if not spec.metadata.get(_NOT_HASHED)
        }
        return {"class": recorded_name(type(settings))} | decisive
    if isinstance(settings, dict):
        return {str(key): identity(value) for key, value in settings.items()}
    if isinstance(settings, list | tuple):
        return [identity(value) for value in settings]
    return settings


def recorded_name(kind: type) -> str:
    """The name of a settings class in fingerprints and manifests.

    Classes of this program go without the name of its package, so runs that were made before it
    had one are still found.
    """
    return f"{kind.__module__}.{kind.__qualname__}".removeprefix(f"{_PACKAGE}.")


def recorded_module(name: str) -> str:
    """The module to import for a recorded module name of this program."""
    return f"{_PACKAGE}.{name}"
