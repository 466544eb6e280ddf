"""Check the settings of groups against what was captured, and read their file of synonyms."""

from __future__ import annotations

from pathlib import Path

from neuron_atlas.tasks.artifacts import layer_file, row_count
from neuron_atlas.tasks.groups.settings import GroupSettings, parse_range
from neuron_atlas.workflows.run.context import Context
from neuron_atlas.workflows.run.errors import ConfigError


def check_groups(context: Context) -> None:
    """Raise ConfigError for a neuron or a range of layers that was not captured."""
    layers, settings = context.layers(), context.settings.groups
    listed = ", ".join(map(str, layers))
    for text in settings.layers or ():
        first, last = parse_range(text)
        if not any(first <= layer <= last for layer in layers):
            raise ConfigError(
                f"groups.layers: no layer of {text} was captured; captured layers: {listed}"
            )
    for name, named in settings.named_groups.items():
        for layer, neurons in named.by_layer().items():
            where = f"groups.named.{name}.neurons"
            if layer not in layers:
                raise ConfigError(
                    f"{where}: layer {layer} was not captured; captured layers: {listed}"
                )
            count = row_count(context.folder("capture") / layer_file("moments", layer))
            if neurons[-1] >= count:
                raise ConfigError(
                    f"{where}: there is no neuron {layer}:{neurons[-1]}; layer {layer} has neurons "
                    f"0 to {count - 1}"
                )


def read_synonyms(settings: GroupSettings) -> str | None:
    """Return the text of the user's file of synonyms; None without one. Raises ConfigError."""
    if settings.synonyms is None:
        return None
    try:
        return Path(settings.synonyms).expanduser().read_text(encoding="utf-8")
    except (OSError, UnicodeError) as error:
        raise ConfigError(
            f"groups.synonyms: {settings.synonyms} cannot be read ({error})"
        ) from None
