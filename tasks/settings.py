"""Separate the settings that decide a result from those that only decide how it is computed."""

from __future__ import annotations

from dataclasses import MISSING, field, fields, is_dataclass
from typing import Annotated, Any

from annotated_types import Ge, Interval

_NOT_HASHED = "not_hashed"
_PACKAGE = "neuron_atlas"

AtLeastOne = Annotated[int, Ge(1)]
Share = Annotated[float, Interval(ge=0, le=1)]
"""Ranges of settings. The config reader checks them; constructors do not."""


def not_hashed(default: Any = MISSING, *, default_factory: Any = MISSING) -> Any:
    """Return a dataclass field that changes no result (a batch size, a timeout, a path).

    The field stays out of fingerprints, so changing it reruns nothing.
    """
    metadata = {_NOT_HASHED: True}
    if default_factory is not MISSING:
        return field(default_factory=default_factory, metadata=metadata)
    return field(default=default, metadata=metadata)


def identity(settings: Any) -> Any:
    """Return what decides the result as plain data: the class and every field that is hashed."""
    if is_dataclass(settings) and not isinstance(settings, type):
        hashed = {
            spec.name: identity(getattr(settings, spec.name))
            for spec in fields(settings)
            if not spec.metadata.get(_NOT_HASHED)
        }
        return {"class": recorded_name(type(settings))} | hashed
    if isinstance(settings, dict):
        return {str(key): identity(value) for key, value in settings.items()}
    if isinstance(settings, list | tuple):
        return [identity(value) for value in settings]
    return settings


def recorded_name(kind: type) -> str:
    """Return the name of a settings class in fingerprints and manifests.

    Classes of this program are recorded without the package name. Runs from before the package
    had a name therefore keep their fingerprints.
    """
    return f"{kind.__module__}.{kind.__qualname__}".removeprefix(f"{_PACKAGE}.")


def recorded_module(name: str) -> str:
    """Return the importable module name for a recorded module name of this program."""
    return f"{_PACKAGE}.{name}"
