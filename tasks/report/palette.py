"""The colours of the report: one set for figures and page, on light paper and on dark."""

from __future__ import annotations

import re
from collections.abc import Mapping
from types import MappingProxyType

import numpy as np

from neuron_atlas.tasks.artifacts import TESTED_TYPES, TYPES

# The four types stay apart for the colour-blind too (a test simulates it): blue and ochre are
# the two sources, plum what comes of both, and grey stands back.
# Each light colour is used once, as an SVG is re-coloured by it.
LIGHT: Mapping[str, str] = MappingProxyType(
    {
        "visual": "#2f7cb8",
        "text": "#c4820e",
        "multi-modal": "#742a5c",
        "unknown": "#a19c92",
        "silent": "#cdc7ba",
        "on-visual": "#ffffff",
        "on-text": "#211703",
        "on-multi-modal": "#fffffe",
        "on-unknown": "#21201e",
        "paper": "#fcfbf8",
        "panel": "#f3f1eb",
        "ink": "#1d1b18",
        "muted": "#67625a",
        "hairline": "#dcd8cf",
        "score": "#1f5c57",
        "control": "#b4553a",
    }
)
DARK: Mapping[str, str] = MappingProxyType(
    {
        "visual": "#7cc0f2",
        "text": "#e9b54a",
        "multi-modal": "#b04a9a",
        "unknown": "#77736d",
        "silent": "#4b4842",
        "on-visual": "#06202f",
        "on-text": "#2a1c02",
        "on-multi-modal": "#ffffff",
        "on-unknown": "#ffffff",
        "paper": "#161513",
        "panel": "#201e1b",
        "ink": "#ebe7df",
        "muted": "#a39d92",
        "hairline": "#38352f",
        "score": "#6cc2b6",
        "control": "#e5906f",
    }
)

# From "silent" to "as strong as this neuron ever is", evenly spaced. It starts near black, so
# what leaves a neuron cold steps back, and it ends clear, so that what excites it is seen.
_HEAT = ("#121118", "#4a1c6b", "#99306f", "#e0543a", "#f9a63f", "#fde7a3")
_HEAT_OPACITY = (0.42, 0.50, 0.54, 0.54, 0.50, 0.44)


def type_colours(theme: Mapping[str, str] = LIGHT) -> dict[str, str]:
    """The colour of each neuron type, in the order of `TYPES`."""
    return {name: theme[name] for name in TYPES}


def colours_by_tests(theme: Mapping[str, str] = LIGHT) -> dict[str, str]:
    """The colour of each type that tests give; undecided is drawn as what the paper's rule does
    not know."""
    return {name: theme["unknown" if name == "undecided" else name] for name in TESTED_TYPES}


def colour_style() -> str:
    """The colours as CSS custom properties (`--visual: #2f7cb8; ...`), for light and for dark."""
    light, dark = (
        " ".join(f"--{name}: {colour};" for name, colour in theme.items())
        for theme in (LIGHT, DARK)
    )
    return f":root {{ {light} }} @media (prefers-color-scheme: dark) {{ :root {{ {dark} }} }}"


def themed_svg(svg: str) -> str:
    """An SVG drawn in the light theme's colours, made to follow the reader's light or dark.

    A viewer that knows no CSS variables still finds the light colour as their fallback.
    """
    names = {colour: name for name, colour in LIGHT.items()}
    svg = re.sub("|".join(names), lambda found: f"var(--{names[found[0]]}, {found[0]})", svg)
    style = f"<style>{colour_style()}</style>"
    return re.sub(r"(<svg\b[^>]*>)", lambda found: found[0] + style, svg, count=1)


def heat_colours(shares: np.ndarray) -> np.ndarray:
    """The heat map's colours: shares of a neuron's maximum, 0-1, to uint8 RGBA [..., 4]."""
    stops = np.linspace(0, 1, len(_HEAT))
    ramp = np.array([_channels(colour) for colour in _HEAT], dtype=np.float64)
    ramp = np.column_stack([ramp, np.array(_HEAT_OPACITY) * 255])
    shares = np.clip(np.nan_to_num(shares), 0, 1)
    mixed = [np.interp(shares, stops, ramp[:, channel]) for channel in range(4)]
    return np.stack(mixed, axis=-1).round().astype(np.uint8)


def heat_gradient() -> str:
    """The heat map's colours as CSS colours for a gradient, from silent to strongest."""
    return ", ".join(
        f"rgb({red} {green} {blue} / {opacity})"
        for (red, green, blue), opacity in zip(map(_channels, _HEAT), _HEAT_OPACITY, strict=True)
    )


def _channels(colour: str) -> tuple[int, int, int]:
    return int(colour[1:3], 16), int(colour[3:5], 16), int(colour[5:7], 16)
