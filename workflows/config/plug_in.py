"""Build the class that a config names with `_target_`: a source, rule, explainer or simulator."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from importlib import import_module
from typing import Any, TypeVar

from pydantic import ConfigDict, PlainValidator, TypeAdapter

T = TypeVar("T")

_CONFIG = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)
_MOVED = "tasks."
"""Former prefix of `_target_`."""


def validate(kind: type[T], config: Any) -> T:
    """Build a settings class from plain data. Raises pydantic.ValidationError with all errors."""
    # As JSON, because only there does strict mode accept lists as tuples and mappings as classes.
    optional: Any = kind | None  # pydantic accepts no config with a bare dataclass.
    return TypeAdapter(optional, config=_CONFIG).validate_json(json.dumps(config))


def import_class(target: Any) -> type:
    """Import the settings class that a `_target_` names. Raises ValueError if there is none."""
    if not isinstance(target, str) or "." not in target:
        raise ValueError(
            "_target_: must name a class, such as neuron_atlas.tasks.samples.folder.Folder"
        )
    if target.startswith(_MOVED):
        raise ValueError(f"_target_: {target!r} has moved; write neuron_atlas.{target}")
    module, name = target.rsplit(".", 1)
    try:
        kind = getattr(import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise ValueError(f"_target_: cannot import {target!r}: {error}") from error
    if not (isinstance(kind, type) and is_dataclass(kind)):
        raise ValueError(f"_target_: {target!r} is not a settings class (a dataclass)")
    return kind


def field_names(kind: Any) -> set[str]:
    """Return the names of a settings class's fields."""
    return {spec.name for spec in fields(kind)}


def _build(config: Mapping[str, Any]) -> Any:
    values = {key: value for key, value in config.items() if key != "_target_"}
    return validate(import_class(config.get("_target_")), values)


PLUG_IN = PlainValidator(_build)
"""Annotation of a field whose class the config names by `_target_`."""
