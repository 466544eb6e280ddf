"""Reads a composed config into the dataclasses of `settings`, every value checked by its type."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import MISSING, fields, is_dataclass, replace
from importlib import import_module
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from neuron_atlas.workflows.config.settings import ExplainSettings, Settings
from neuron_atlas.workflows.run.errors import WrongCall


def read_settings(config: Mapping[str, Any]) -> Settings:
    """Check a composed config against the dataclasses. Raises WrongCall with one line."""
    return _build(Settings, config, "")


def _explain_settings(config: Mapping[str, Any], path: str) -> ExplainSettings:
    """Several explainers, each a whole group of settings below its name in `explainers`.

    What stands beside `explainers` holds for every one of them that has such a setting.
    """
    named, where = config["explainers"], f"{path}.explainers"
    if not isinstance(named, Mapping) or not named:
        raise WrongCall(f"{where}: must name explainers, such as explain=[gpt4o,dissect]")
    groups = {str(name): group for name, group in named.items()}
    for name, group in groups.items():
        if not isinstance(group, Mapping):
            raise WrongCall(f"{where}.{name}: must be a group of settings, not {group!r}")
    shared = {key: value for key, value in config.items() if key != "explainers"}
    known = {key for group in groups.values() for key in group}
    for key in shared.keys() - known:
        raise WrongCall(unknown_key(f"{path}.{key}", known - {"_target_", "name"}))
    built = [
        _build(
            ExplainSettings,
            _merged(group, {key: value for key, value in shared.items() if key in group})
            | {"name": name},
            f"{where}.{name}",
        )
        for name, group in groups.items()
    ]
    return replace(built[0], beside=tuple(built[1:]))


def _merged(group: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(group)
    for key, value in over.items():
        both = isinstance(value, Mapping) and isinstance(merged.get(key), Mapping)
        merged[key] = _merged(merged[key], value) if both else value
    return merged


def _build(kind: Any, config: Any, path: str) -> Any:
    """An instance of the dataclass `kind` from a mapping, every value checked by its type hint."""
    if not isinstance(config, Mapping):
        raise WrongCall(f"{path}: must be a group of settings, not {config!r}")
    if kind is ExplainSettings and "explainers" in config:
        return _explain_settings(config, path)
    hints = get_type_hints(kind)
    known = {spec.name: spec for spec in fields(kind)}
    values: dict[str, Any] = {}
    remaining = dict(config)
    for name, spec in known.items():
        where = f"{path}.{name}" if path else name
        if name in remaining:
            values[name] = _convert(hints[name], remaining.pop(name), where)
        elif name in _PLUGS:
            continue
        elif spec.default is MISSING and spec.default_factory is MISSING:
            raise WrongCall(f"{where}: must be given")
    for name in _PLUGS & known.keys():
        values[name] = _plug_in(remaining, path)
        remaining = {}
    if remaining:
        raise WrongCall(unknown_key(f"{path}.{min(remaining)}" if path else min(remaining), known))
    try:
        return kind(**values)
    except ValueError as error:
        raise WrongCall(f"{path}.{error}" if path else str(error)) from error


_PLUGS = {"source", "rule", "explainer", "simulator"}
"""Settings whose class the config names with `_target_`, their own fields flat beside the group's:
the places where the program is meant to be extended with a file and a line of YAML."""


def _plug_in(config: dict[str, Any], path: str) -> Any:
    target = config.pop("_target_", None)
    if not isinstance(target, str) or "." not in target:
        raise WrongCall(
            f"{path}._target_: must name a class, such as neuron_atlas.tasks.samples.folder.Folder"
        )
    module, name = target.rsplit(".", 1)
    try:
        kind = getattr(import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise WrongCall(f"{path}._target_: cannot import {target!r}: {error}") from error
    if not (isinstance(kind, type) and is_dataclass(kind)):
        raise WrongCall(f"{path}._target_: {target!r} is no class of settings (a dataclass)")
    return _build(kind, config, path)


def unknown_key(where: str, allowed: Any) -> str:
    """The one line for a setting that does not exist."""
    return f"{where}: no such setting; allowed here: {', '.join(sorted(allowed))}"


def _convert(hint: Any, value: Any, where: str) -> Any:
    if hasattr(hint, "__dataclass_fields__"):
        return _build(hint, value, where)
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in (Union, UnionType):
        return _optional(arguments, value, where)
    if origin is Literal:
        if value not in arguments:
            raise WrongCall(f"{where}: {value!r} is not one of {', '.join(map(str, arguments))}")
        return value
    if origin is tuple:
        items = value if isinstance(value, list | tuple) else [value]
        return tuple(_convert(arguments[0], item, f"{where}[{i}]") for i, item in enumerate(items))
    if origin in (dict, Mapping):
        if not isinstance(value, Mapping):
            raise WrongCall(f"{where}: must be a mapping, not {value!r}")
        return {key: _convert(arguments[1], item, f"{where}.{key}") for key, item in value.items()}
    return _plain(hint, value, where)


def _optional(arguments: tuple[Any, ...], value: Any, where: str) -> Any:
    if value is None and NoneType in arguments:
        return None
    (hint,) = [argument for argument in arguments if argument is not NoneType]
    return _convert(hint, value, where)


_PLAIN: dict[type, tuple[str, Callable[[Any], bool]]] = {
    bool: ("true or false", lambda value: isinstance(value, bool)),
    int: ("a whole number", lambda value: isinstance(value, int) and not isinstance(value, bool)),
    float: ("a number", lambda v: isinstance(v, int | float) and not isinstance(v, bool)),
    str: ("text", lambda value: isinstance(value, str)),
}


def _plain(hint: Any, value: Any, where: str) -> Any:
    if hint not in _PLAIN:
        return value
    expected, fits = _PLAIN[hint]
    if hint is str and isinstance(value, int | float) and not isinstance(value, bool):
        return str(value)  # A name such as 2024 reads as a number in YAML.
    if not fits(value):
        raise WrongCall(f"{where}: must be {expected}, not {value!r}")
    return hint(value)
