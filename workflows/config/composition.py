"""Turn a composed Hydra config into plain data, and Hydra's errors into one line."""

from __future__ import annotations

import re
import shlex
import sys
from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.plugins import Plugins
from hydra.errors import (
    HydraException,
    MissingConfigException,
    OverrideParseException,
)
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import MarkedYAMLError, YAMLError

from neuron_atlas.tasks.artifacts.location import is_uri
from neuron_atlas.workflows.config.quoting import quoted_override
from neuron_atlas.workflows.config.reader import check_text, unknown_key
from neuron_atlas.workflows.config.renamed import renamed_group_message, renamed_message
from neuron_atlas.workflows.config.settings_help import settings_help
from neuron_atlas.workflows.run.errors import ConfigError
from neuron_atlas.workflows.run.store import local_folder

PROJECT_ROOT = Path(__file__).resolve().parents[2]
CONF = PROJECT_ROOT / "conf"
_PLUGINS = PROJECT_ROOT / "workflows" / "sweep" / "plugin"

SEVERAL = "several"
"""The choice of `explain` for several explainers."""

_EXPLAINERS = re.compile(r"^explain=\[([\w\s,:-]*)\]$")
_PATHS = (
    "out",
    "local_dir",
    "data.annotations",
    "data.images",
    "data.path",
    "data.dataset",
    "subject.model",
    "subject.chat_template",
    "subject.adapter",
)
"""Settings that may be paths. They become absolute, because workers run in other folders."""


def register_resolvers() -> None:
    """Register the resolvers ${project_root:}, ${local_folder:out,local_dir} and
    ${settings_help:}."""
    OmegaConf.register_new_resolver("project_root", lambda: str(PROJECT_ROOT), replace=True)
    OmegaConf.register_new_resolver(
        "local_folder", lambda out, local_dir: str(local_folder(out, local_dir)), replace=True
    )
    OmegaConf.register_new_resolver("settings_help", _settings_help, replace=True)


def _settings_help() -> str:
    overrides = [text for text in sys.argv[1:] if re.match(r"[+~]*[\w/@.]+=", text)]
    return settings_help("atlas", overrides)


def register_launcher() -> None:
    """Register the sweep launcher. Hydra loads plugins only from packages named hydra_plugins."""
    if str(_PLUGINS) not in sys.path:
        sys.path.append(str(_PLUGINS))
    Plugins.instance().register(import_module("hydra_plugins.neuron_atlas").OneCluster)


def expand_explainers(overrides: Sequence[str]) -> list[str]:
    """Turn explain=[gpt4o,dissect] into overrides that put each one below explain.explainers.

    Hydra itself would merge the files of a list into one group. NAME:CHOICE in the list gives a
    choice another name. Other settings of `explain` are added with ++; the reader passes them to
    every explainer that has them. Raises ConfigError if two explainers have the same name, or if
    an override is not valid text.
    """
    for text in overrides:
        check_text(text.partition("=")[0], text)
    listed = [found[1] for text in overrides if (found := _EXPLAINERS.fullmatch(text))]
    if not listed:
        return list(overrides)
    expanded = [_EXPLAINERS.sub(f"explain={SEVERAL}", text) for text in overrides]
    expanded = [re.sub(r"^explain\.(?!explainers\.)", "++explain.", text) for text in expanded]
    items = [item.strip() for item in listed[-1].split(",") if item.strip()]
    explainers: dict[str, str] = {}
    for name, _, choice in (item.partition(":") for item in items):
        if name in explainers:
            raise ConfigError(f"explain: {name!r} is named twice; write NAME:{choice or name}")
        explainers[name] = choice or name
    return expanded + [
        f"+explain@explain.explainers.{name}={choice}" for name, choice in explainers.items()
    ]


def plain_config(config: DictConfig) -> dict[str, Any]:
    """Return the config as plain data with absolute paths.

    Raises ConfigError for missing values, and for text that cannot be resolved.
    """
    try:
        return _plain(config)
    except OmegaConfBaseException as error:
        raise explain_hydra_error(error, ()) from error


def _plain(config: DictConfig) -> dict[str, Any]:
    if missing := sorted(OmegaConf.missing_keys(config)):
        raise ConfigError(
            "\n".join(f"{name}: must be given, such as {name}=..." for name in missing)
        )
    for path in _PATHS:
        value = OmegaConf.select(config, path)
        if not isinstance(value, str) or is_uri(value):
            continue
        check_text(path, value)
        if not value.strip():  # As a path it would be the current folder.
            raise ConfigError(f"{path}: must be given, such as {path}=FOLDER")
        try:
            if path in ("out", "local_dir") or Path(value).expanduser().exists():
                OmegaConf.update(config, path, str(Path(value).expanduser().resolve()))
        except (OSError, RuntimeError) as error:  # RuntimeError: a loop of links, or no home.
            reason = getattr(error, "strerror", None) or error
            raise ConfigError(f"{path}: {value!r} cannot be found: {reason}") from error
    plain = OmegaConf.to_container(config, resolve=True)
    assert isinstance(plain, dict)
    return {str(key): value for key, value in plain.items()}


def explain_hydra_error(error: Exception, overrides: Sequence[str]) -> ConfigError:
    """Return a Hydra error as one line: which setting is wrong, and what is allowed."""
    message = str(error)
    if isinstance(error, MissingConfigException):
        return _wrong_choice(message, error.missing_cfg_file)
    if isinstance(error, OverrideParseException):
        return ConfigError(_unreadable(error.override or "", message.strip().splitlines()[0]))
    if ambiguous := re.search(
        r"Ambiguous value for argument '(.*?)'\s+1\. To use", message, re.DOTALL
    ):
        return ConfigError(_several_values(ambiguous[1]))
    if isinstance(error, YAMLError):
        return ConfigError(_wrong_yaml(error))
    if isinstance(error, OSError):
        return ConfigError(f"{error.filename or ' '.join(overrides)}: {error.strerror or message}")
    if unknown := re.search(r"Could not override '([^']+)'", message):
        return _wrong_key(unknown[1], overrides)
    unknown_group = re.search(r"config group '([^']+)' does not exist", message)
    if unknown_group and (renamed := renamed_group_message(unknown_group[1])):
        return ConfigError(renamed)
    line = " ".join(line.strip() for line in message.splitlines() if line.strip())
    if isinstance(error, OmegaConfBaseException) and error.full_key:
        return ConfigError(f"{error.full_key}: {line.split(' full_key: ')[0]}")
    return ConfigError(
        line if isinstance(error, HydraException) else f"{' '.join(overrides)}: {line}"
    )


HYDRA_ERRORS = (HydraException, OmegaConfBaseException, ValueError, YAMLError, OSError)
"""Errors of composing a config. ValueError: a group's choice is not a name. OSError: a YAML file
cannot be opened."""


def _is_group(override: str) -> bool:
    name = override.partition("=")[0].lstrip("+~").split("@")[0]
    return bool(name) and not name.startswith("/") and (CONF / name).is_dir()


def _unreadable(override: str, reason: str) -> str:
    """Return the message for an override that Hydra cannot parse, with the form that it can."""
    quoted = None if _is_group(override) else quoted_override(override)
    if quoted is None:
        return f"{override}: cannot be read ({reason}); write setting=value"
    if override.partition("=")[2][:1] in ("[", "{"):
        return f"{override}: cannot be read ({reason}); if it is text, write {quoted}"
    return f"{override}: needs quotes, which the shell must pass on; write {quoted}"


def _several_values(override: str) -> str:
    """Return the message for an override with commas in a call that is no sweep."""
    key, _, value = override.partition("=")
    forms = [] if _is_group(override) else [f"for a list, write {shlex.quote(f'{key}=[{value}]')}"]
    if forms and (quoted := quoted_override(override)):
        forms.insert(0, f"for one text, write {quoted}")
    forms.append("to run once for each value, add --multirun")
    return f"{override}: has several values; {'; '.join(forms)}"


def _wrong_yaml(error: YAMLError) -> str:
    if not isinstance(error, MarkedYAMLError) or error.problem_mark is None:
        return f"a YAML file cannot be read: {' '.join(str(error).split())}"
    mark = error.problem_mark
    remedy = "; indent with spaces, not tabs" if "'\\t'" in (error.problem or "") else ""
    return f"{mark.name}: line {mark.line + 1}: {error.problem}{remedy}"


def _wrong_choice(message: str, missing: str | Sequence[str] | None) -> ConfigError:
    if not isinstance(missing, str) or "/" not in missing:
        return ConfigError(message.splitlines()[0])
    group, _, choice = missing.rpartition("/")
    if renamed := renamed_group_message(group):
        return ConfigError(renamed)
    return ConfigError(f"{group}: {choice!r} is not one of {', '.join(_choices(group))}")


def _choices(group: str) -> list[str]:
    return sorted(path.stem for path in (CONF / group).glob("*.yaml"))


def _wrong_key(key: str, overrides: Sequence[str]) -> ConfigError:
    """Compose again with group choices only, to list the settings of the unknown key's group."""
    if renamed := renamed_message(key) or renamed_group_message(key):
        return ConfigError(renamed)
    choices = [text for text in overrides if "=" in text and _is_group(text)]
    choices = [text for text in choices if text.split("=")[0].lstrip("+~").split("@")[0] != key]
    GlobalHydra.instance().clear()
    try:
        with initialize_config_dir(str(CONF), version_base="1.3"):
            config = compose("atlas", overrides=choices)
    except HydraException:  # Several overrides are wrong, or a choice is in another folder.
        return ConfigError(f"{key}: no such setting or group")
    parent, _, _ = key.rpartition(".")
    while parent and not isinstance(OmegaConf.select(config, parent), DictConfig):
        key, (parent, _, _) = parent, parent.rpartition(".")
    group = OmegaConf.select(config, parent) if parent else config
    allowed: Mapping[Any, Any] = group if isinstance(group, DictConfig) else {}
    return ConfigError(unknown_key(key, [str(name) for name in allowed if name != "_target_"]))
