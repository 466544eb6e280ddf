"""Show how to pass a value on the command line that Hydra cannot read without quotes."""

from __future__ import annotations

import re
import shlex

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

_OVERRIDE = re.compile(r"([+~]{0,2}[\w/@.:-]+)=(.*)", re.DOTALL)
_EDGES = "\"'"


def quoted_override(override: str) -> str | None:
    """Return the override in the form that passes its value as text, quoted for a shell.

    None if there is no such form, such as for an override without a value.
    """
    found = _OVERRIDE.fullmatch(override)
    if found is None:
        return None
    key, value = found.groups()
    if len(value) > 1 and value[0] == value[-1] and value[0] in _EDGES:
        value = value[1:-1]  # Quotes around the whole value were meant as quotes.
    for mark in ('"', "'"):
        quoted = f"{key}={mark}{_escaped(value, mark)}{mark}"
        if _value_of(quoted) == value:
            return shlex.quote(quoted)
    return None


def _escaped(value: str, mark: str) -> str:
    """Escape what Hydra and OmegaConf read in quoted text: quotes, and ${ of an interpolation."""
    value = re.sub(rf"(\\*){mark}", lambda found: rf"{found[1]}{found[1]}\{mark}", value)
    value = re.sub(r"(\\+)\Z", r"\1\1", value)
    return value.replace("${", r"\${")


def _value_of(override: str) -> str | None:
    try:
        value = OverridesParser.create().parse_override(override).value()
        resolved = OmegaConf.create({"value": value}).value
    except (HydraException, OmegaConfBaseException):
        return None
    return str(resolved)
