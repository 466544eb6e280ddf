"""List every setting of a call with its value and its meaning, for `neuron-atlas --help`.

The meanings are the comments in conf/: at the end of a setting's line, or above it.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml
from hydra.core.config_loader import ConfigLoader
from hydra.core.global_hydra import GlobalHydra
from hydra.types import RunMode
from omegaconf import OmegaConf

_KEY = re.compile(
    r"^(?P<indent> *)(?P<key>[\w.-]+):"
    r"""(?:\s+(?:'[^']*'|"[^"]*"|[^#\s].*?))?"""
    r"(?:\s+# (?P<meaning>.*))?$"
)
_WIDTH = 110
_MEANING_COLUMN = 46
_NOT_SETTINGS = {"defaults", "hydra", "_target_"}


def settings_help(config_name: str, overrides: Sequence[str]) -> str:
    """Return the settings that a call with these overrides has, a group at a time.

    Call this while Hydra is initialized. The text can stand in Hydra's help template.
    """
    loader = GlobalHydra.instance().config_loader()
    config = loader.load_configuration(config_name, list(overrides), RunMode.RUN)
    meanings = _meanings(loader, config_name, overrides)
    lines: list[str] = []
    # Interpolations stay as they are written: they say where a value comes from.
    groups = OmegaConf.to_container(config, resolve=False)
    assert isinstance(groups, dict)
    for group, value in sorted(groups.items(), key=lambda pair: isinstance(pair[1], dict)):
        if group in _NOT_SETTINGS:
            continue
        if isinstance(value, dict):
            lines += ["", *textwrap.wrap(f"{group}: {meanings.get(group, '')}", _WIDTH)]
        for path, setting in _leaves(group, value):
            lines += _line(f"{path}={_shown(setting)}", meanings.get(path, ""))
    return "\n".join(lines).strip("\n").replace("$", "$$")  # The template's own sign.


def setting_comments(file: str) -> dict[str, str]:
    """Return the comment of each setting in the text of a YAML file, by its path in the file.

    The comment at the top of the file describes the file: its path is "".
    """
    meanings: dict[str, str] = {}
    above: list[str] = []
    parents: list[tuple[int, str]] = []
    for line in file.splitlines():
        if line.lstrip().startswith("# "):
            above.append(line.strip().removeprefix("# "))
            continue
        if above and "" not in meanings:
            meanings[""], above = " ".join(above), []
        if found := _KEY.match(line):
            indent = len(found["indent"])
            parents = [parent for parent in parents if parent[0] < indent]
            parents.append((indent, found["key"]))
            meaning = " ".join([*above, *filter(None, [found["meaning"]])])
            if meaning:
                meanings[".".join(key for _, key in parents)] = meaning
        above = []
    return meanings


def _meanings(loader: ConfigLoader, config_name: str, overrides: Sequence[str]) -> dict[str, str]:
    """Collect the comments of all files that the config is composed of; later files win."""
    folders = [
        Path(element.path.removeprefix("file://"))
        for element in loader.get_search_path().get_path()
        if element.path
    ]
    meanings: dict[str, str] = {}
    chosen = loader.compute_defaults_list(config_name, list(overrides), RunMode.RUN).defaults
    for default in chosen:
        for file in (folder / f"{default.config_path}.yaml" for folder in folders):
            if file.is_file():
                package = default.package or ""
                for path, meaning in setting_comments(file.read_text(encoding="utf-8")).items():
                    meanings[".".join(filter(None, [package, path]))] = meaning
    return meanings


def _leaves(path: str, value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict) and value:
        for key, inner in value.items():
            if key not in _NOT_SETTINGS:
                yield from _leaves(f"{path}.{key}", inner)
    else:
        yield path, value


def _shown(plain: Any) -> str:
    """Return a value as one would type it."""
    text = yaml.safe_dump(plain, default_flow_style=True, width=10_000)
    return str(text.removesuffix("...\n").strip())


def _line(setting: str, meaning: str) -> list[str]:
    """Put the meaning in its column, or below a long setting."""
    indent = " " * _MEANING_COLUMN
    wrapped = textwrap.wrap(
        meaning,
        _WIDTH,
        initial_indent=indent,
        subsequent_indent=indent,
        break_on_hyphens=False,  # An option such as --max-model-len stays whole.
    )
    if not wrapped or len(setting) + 4 > _MEANING_COLUMN:
        return [f"  {setting}", *wrapped]
    return [f"  {setting}".ljust(_MEANING_COLUMN) + wrapped[0].strip(), *wrapped[1:]]
