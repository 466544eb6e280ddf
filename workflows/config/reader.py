"""Read a composed config into the dataclasses of `settings`; report all errors together."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import is_dataclass
from typing import Any, get_args, get_type_hints

from pydantic import ValidationError

from neuron_atlas.workflows.config.plug_in import field_names, import_class, validate
from neuron_atlas.workflows.config.renamed import renamed_message
from neuron_atlas.workflows.config.settings import (
    ClassifySettings,
    DataSettings,
    ExplainSettings,
    Settings,
    SimulateSettings,
)
from neuron_atlas.workflows.run.errors import ConfigError

_GROUPS: dict[str, tuple[type, str]] = {
    "data": (DataSettings, "source"),
    "classify": (ClassifySettings, "rule"),
    "explain": (ExplainSettings, "explainer"),
    "simulate": (SimulateSettings, "simulator"),
}
"""Settings class and plug-in field of each group with a plug-in.

A config has the plug-in's fields directly in the group."""
_PLUG_INS = {field for _, field in _GROUPS.values()}

_MESSAGES = {
    "missing": "must be given",
    "string_too_short": "must be given",
    "bool_type": "must be true or false, not {input!r}",
    "int_type": "must be a whole number, not {input!r}",
    "float_type": "must be a number, not {input!r}",
    "finite_number": "must be a finite number, not {input!r}",
    "string_type": "must be text, not {input!r}",
    "tuple_type": "must be a list, not {input!r}",
    "dict_type": "must be a mapping, not {input!r}",
    "dataclass_type": "must be a group of settings, not {input!r}",
    "greater_than_equal": "must be at least {ge:g}, not {input!r}",
    "greater_than": "must be above {gt:g}, not {input!r}",
    "less_than_equal": "must be at most {le:g}, not {input!r}",
    "less_than": "must be below {lt:g}, not {input!r}",
}
"""Messages for pydantic's error types."""


def read_settings(config: Mapping[str, Any]) -> Settings:
    """Return the settings of a composed config. Raises ConfigError with one line for each error."""
    _check_texts(config, "")
    nested = json.loads(json.dumps(config))
    explainers = _list_explainers(nested)
    for name, (kind, field) in _GROUPS.items():
        if isinstance(nested.get(name), dict):
            nested[name] = _nest(kind, field, nested[name], name)
    while True:
        try:
            return validate(Settings, nested)
        except ValidationError as error:
            problems = error.errors()
        if not any(_coerce(nested, problem) for problem in problems):
            lines = [_line(nested, problem, explainers) for problem in problems]
            raise ConfigError("\n".join(lines))


def check_text(where: str, text: str) -> None:
    """Raise ConfigError for text that no file, database or request can hold.

    where: its setting. Such text comes from file names in another encoding than UTF-8.
    """
    try:
        text.encode()
        if "\0" not in text:
            return
        problem = "a null character"
    except UnicodeEncodeError as error:
        problem = f"the byte or character {text[error.start]!a}, which is not valid UTF-8"
    remedy = "rename the file or folder"
    if (encoding := sys.getfilesystemencoding()) != "utf-8":
        remedy = f"this shell's locale has the encoding {encoding}: set PYTHONUTF8=1"
    raise ConfigError(f"{where}: {text!a} contains {problem}; {remedy}")


def _check_texts(config: Any, where: str) -> None:
    if isinstance(config, str):
        check_text(where, config)
    elif isinstance(config, Mapping):
        for key, value in config.items():
            _check_texts(value, f"{where}.{key}".lstrip("."))
    elif isinstance(config, Sequence):
        for number, value in enumerate(config):
            _check_texts(value, f"{where}[{number}]")


def unknown_key(where: str, allowed: Iterable[str]) -> str:
    """Return the message for a setting that does not exist: its new name, or what is allowed."""
    return (
        renamed_message(where)
        or f"{where}: no such setting; allowed here: {', '.join(sorted(allowed))}"
    )


def _list_explainers(config: dict[str, Any]) -> list[str]:
    """Replace `explain.explainers` by the first explainer's group; nest the others under
    `other_explainers`.

    A setting next to `explainers` applies to every explainer that has it. Returns the explainers'
    names; an empty list if the config has a single explainer. Raises ConfigError.
    """
    explain = config.get("explain")
    if not isinstance(explain, dict) or "explainers" not in explain:
        return []
    groups = explain.pop("explainers")
    if not isinstance(groups, dict) or not groups:
        raise ConfigError(
            "explain.explainers: must name explainers, such as explain=[gpt4o,dissect]"
        )
    for name, group in groups.items():
        if not isinstance(group, dict):
            raise ConfigError(
                f"explain.explainers.{name}: must be a group of settings, not {group!r}"
            )
    known = {key for group in groups.values() for key in group}
    if unknown := sorted(explain.keys() - known):
        raise ConfigError(unknown_key(f"explain.{unknown[0]}", known - {"_target_", "name"}))
    first, *other_explainers = (
        _merged(group, {key: value for key, value in explain.items() if key in group})
        | {"name": name}
        for name, group in groups.items()
    )
    config["explain"] = first | {"other_explainers": other_explainers}
    return list(groups)


def _merged(group: Mapping[str, Any], overrides: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(group)
    for key, value in overrides.items():
        both = isinstance(value, dict) and isinstance(merged.get(key), dict)
        merged[key] = _merged(merged[key], value) if both else value
    return merged


def _nest(kind: type, field: str, group: dict[str, Any], where: str) -> dict[str, Any]:
    """Move the plug-in's settings (all but the group's own) below the plug-in's field.

    Raises ConfigError if the group and the plug-in have a setting of the same name.
    """
    own = field_names(kind) - {field}
    try:
        both = own & field_names(import_class(group.get("_target_")))
    except ValueError:
        both = set()  # Building the plug-in reports this error, together with all others.
    if both:
        raise ConfigError(
            f"{where}: {group['_target_']} and the group {where} both have a setting named "
            f"{min(both)!r}; rename the setting of the class"
        )
    nested = {key: value for key, value in group.items() if key in own}
    if isinstance(listed := nested.get("other_explainers"), list):
        nested["other_explainers"] = [_nest(kind, field, one, where) for one in listed]
    return nested | {field: {key: value for key, value in group.items() if key not in own}}


def _coerce(config: Any, problem: Mapping[str, Any]) -> bool:
    """Convert a value that YAML reads as the wrong type; return whether it was one.

    Such values are a name like 2024, and a list with one value.
    """
    value, kind = problem["input"], problem["type"]
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if kind == "string_type" and is_number:
        value = str(value)
    elif kind == "tuple_type" and (is_number or isinstance(value, str)):
        value = [value]
    else:
        return False
    *groups, name = problem["loc"]
    for key in groups:
        config = config[key]
    config[name] = value
    return True


def _line(config: Any, problem: Mapping[str, Any], explainers: Sequence[str]) -> str:
    where, details = _path(problem["loc"], explainers), problem.get("ctx", {})
    if problem["type"] == "value_error":
        return f"{where}.{details['error']}".lstrip(".")
    if problem["type"] == "unexpected_keyword_argument":
        return unknown_key(where, _allowed(config, problem["loc"]))
    if problem["type"] == "literal_error":
        allowed = details["expected"].replace(" or ", ", ").replace("'", "")
        return f"{where}: {problem['input']!r} is not one of {allowed}"
    if problem["type"] not in _MESSAGES:
        return f"{where}: {problem['msg']}"
    message = _MESSAGES[problem["type"]].format(input=problem["input"], **details)
    if problem["type"] == "string_type" and isinstance(problem["input"], list | dict | bool):
        message += f"; quote text: '{where}=\"...\"'"
    return f"{where}: {message}"


def _path(loc: Sequence[Any], explainers: Sequence[str]) -> str:
    """Return a setting's path as in the config."""
    if explainers and loc[:1] == ("explain",):
        number, loc = (loc[2] + 1, loc[3:]) if loc[1:2] == ("other_explainers",) else (0, loc[1:])
        loc = ("explain", "explainers", explainers[number], *loc)
    keys = (
        f"[{key}]" if isinstance(key, int) else f".{key}" for key in loc if key not in _PLUG_INS
    )
    return "".join(keys).lstrip(".")


def _allowed(config: Any, loc: Sequence[Any]) -> set[str]:
    """Return the names of the settings in the group of an unknown one."""
    kind: Any = Settings
    names = field_names(kind)
    for key in loc[:-1]:
        config = config[key]
        if key in _PLUG_INS:
            kind = import_class(config["_target_"])
            names = names - {key, "other_explainers"} | field_names(kind)
        elif key in names:
            kind = _settings_in(get_type_hints(kind)[key])
            names = field_names(kind)
    return names


def _settings_in(hint: Any) -> Any:
    """Return the settings class in a type such as `AzureSettings | None` or `dict[str, Price]`."""
    if is_dataclass(hint):
        return hint
    return next(filter(None, map(_settings_in, get_args(hint))), None)
