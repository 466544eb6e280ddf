"""From a composed Hydra config to checked settings, and from Hydra's errors to one line."""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.plugins import Plugins
from hydra.errors import (
    ConfigCompositionException,
    HydraException,
    MissingConfigException,
    OverrideParseException,
)
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from neuron_atlas.tasks.artifacts.location import is_uri
from neuron_atlas.workflows.config.reader import unknown_key
from neuron_atlas.workflows.run.errors import WrongCall
from neuron_atlas.workflows.run.store import local_folder

PROJECT_ROOT = Path(__file__).resolve().parents[2]
CONF = PROJECT_ROOT / "conf"
_PLUGINS = PROJECT_ROOT / "workflows" / "sweep" / "plugin"

SEVERAL = "several"
"""The choice of `explain` that several explainers are laid into."""

_EXPLAINERS = re.compile(r"explain=\[([\w\s,:-]*)\]")
_PATHS = (
    "out",
    "local",
    "data.annotations",
    "data.images",
    "data.path",
    "data.dataset",
    "subject.model",
)
"""Settings that may name a file or folder: workers run elsewhere, so they are made absolute."""


def register_resolvers() -> None:
    """Make ${project_root:} and ${local_folder:out,local} known to configs."""
    OmegaConf.register_new_resolver("project_root", lambda: str(PROJECT_ROOT), replace=True)
    OmegaConf.register_new_resolver(
        "local_folder", lambda out, local: str(local_folder(out, local)), replace=True
    )


def register_launcher() -> None:
    """Make the launcher of sweeps known to Hydra, which takes plugins from packages of one name."""
    if str(_PLUGINS) not in sys.path:
        sys.path.append(str(_PLUGINS))
    Plugins.instance().register(import_module("hydra_plugins.neuron_atlas").OneCluster)


def side_by_side(overrides: Sequence[str]) -> list[str]:
    """Turn explain=[gpt4o,dissect] into what composes both, each below explain.explainers.

    Hydra itself lays the files of a group's list over each other. name:choice in the list gives a
    choice another name. Other settings of `explain` are then for all explainers that have them,
    which is decided when the settings are read. Raises WrongCall where a name stands twice.
    """
    listed = [found for text in overrides if (found := _EXPLAINERS.fullmatch(text))]
    if not listed:
        return list(overrides)
    chosen = []
    for text in overrides:
        if _EXPLAINERS.fullmatch(text):
            chosen.append(f"explain={SEVERAL}")
        elif text.startswith("explain.") and not text.startswith("explain.explainers."):
            chosen.append(f"++{text}")
        else:
            chosen.append(text)
    names: set[str] = set()
    for item in filter(None, (part.strip() for part in listed[-1][1].split(","))):
        name, _, choice = item.partition(":")
        if name in names:
            raise WrongCall(f"explain: {name!r} is named twice; write NAME:{choice or name}")
        names.add(name)
        chosen.append(f"+explain@explain.explainers.{name}={choice or name}")
    return chosen


def plain_config(config: DictConfig) -> dict[str, Any]:
    """The config as plain data with absolute paths. Raises WrongCall where a value is missing."""
    missing = sorted(OmegaConf.missing_keys(config))
    if missing:
        raise WrongCall(f"{missing[0]}: must be given, such as {missing[0]}=...")
    for path in _PATHS:
        value = OmegaConf.select(config, path)
        if not isinstance(value, str) or is_uri(value):
            continue
        if path in ("out", "local") or Path(value).expanduser().exists():
            OmegaConf.update(config, path, str(Path(value).expanduser().resolve()))
    plain = OmegaConf.to_container(config, resolve=True)
    assert isinstance(plain, dict)
    return {str(key): value for key, value in plain.items()}


def explain_hydra_error(error: Exception, overrides: Sequence[str]) -> WrongCall:
    """The one line that says which setting is wrong and what is allowed."""
    message = str(error)
    if isinstance(error, MissingConfigException):
        return _wrong_choice(message)
    if isinstance(error, OverrideParseException):
        first = message.strip().splitlines()[0]
        return WrongCall(f"{error.override}: cannot be read ({first}); write setting=value")
    absent = re.search(
        r"[Kk]ey '([^']+)' (?:is )?not in struct|Could not override '([^']+)'", message
    )
    cause = error.__cause__
    full_key = getattr(cause, "full_key", None)
    if isinstance(error, ConfigCompositionException | OmegaConfBaseException) and absent:
        key = full_key or next(group for group in absent.groups()[::-1] if group)
        return _wrong_key(str(key), overrides)
    line = " ".join(line.strip() for line in message.splitlines() if line.strip())
    if isinstance(error, OmegaConfBaseException) and error.full_key:
        return WrongCall(f"{error.full_key}: {line.split(' full_key: ')[0]}")
    return WrongCall(
        line if isinstance(error, HydraException) else f"{' '.join(overrides)}: {line}"
    )


HYDRA_ERRORS = (HydraException, OmegaConfBaseException, ValueError)
"""What composing a config raises; ValueError where a group's choice is no name."""


def _wrong_choice(message: str) -> WrongCall:
    wanted = re.search(r"'([^']+)/([^'/]+)'", message)
    if wanted is None:
        return WrongCall(message.splitlines()[0])
    group, choice = wanted.groups()
    return WrongCall(f"{group}: {choice!r} is not one of {', '.join(_choices(group))}")


def _choices(group: str) -> list[str]:
    return sorted(path.stem for path in (CONF / group).glob("*.yaml"))


def _wrong_key(key: str, overrides: Sequence[str]) -> WrongCall:
    """Compose again without the settings below groups, to see what the key's group allows."""
    groups = [text.split("=")[0].lstrip("+~").split("@")[0] for text in overrides]
    choices = [text for text, name in zip(overrides, groups, strict=True) if (CONF / name).is_dir()]
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        config = compose("atlas", overrides=choices)
    parent, _, _ = key.rpartition(".")
    while parent and not isinstance(OmegaConf.select(config, parent), DictConfig):
        key, (parent, _, _) = parent, parent.rpartition(".")
    group = OmegaConf.select(config, parent) if parent else config
    allowed: Mapping[Any, Any] = group if isinstance(group, DictConfig) else {}
    return WrongCall(unknown_key(key, [str(name) for name in allowed if name != "_target_"]))
