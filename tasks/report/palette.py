"""Define the colors of figures and pages, for the light and the dark theme."""

from __future__ import annotations

import re
from collections.abc import Mapping
from types import MappingProxyType

import numpy as np

from neuron_atlas.tasks.artifacts import TESTED_TYPES, TYPES

# The four types remain distinct under color blindness (a test simulates it): two colors for the two
# sources, plum for both together, and gray for unknown. Each light color has one name, because an
# SVG is recolored by it.
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

# From silent to the neuron's maximum, evenly spaced. The low end is nearly black, which dims silent
# patches. The high end is bright and lets the image show through.
_HEAT = ("#121118", "#4a1c6b", "#99306f", "#e0543a", "#f9a63f", "#fde7a3")
_HEAT_OPACITY = (0.42, 0.50, 0.54, 0.54, 0.50, 0.44)


def type_colors(theme: Mapping[str, str] = LIGHT) -> dict[str, str]:
    """Return the color of each neuron type, in the order of `TYPES`."""
    return {name: theme[name] for name in TYPES}


def colors_by_tests(theme: Mapping[str, str] = LIGHT) -> dict[str, str]:
    """Return the color of each type by tests. Undecided has the color of unknown."""
    return {name: theme["unknown" if name == "undecided" else name] for name in TESTED_TYPES}


def color_css() -> str:
    """Return the colors as CSS custom properties (`--visual: #2f7cb8; ...`) of both themes."""
    light, dark = (
        " ".join(f"--{name}: {color};" for name, color in theme.items()) for theme in (LIGHT, DARK)
    )
    return f":root {{ {light} }} @media (prefers-color-scheme: dark) {{ :root {{ {dark} }} }}"


def themed_svg(svg: str) -> str:
    """Make an SVG in the light theme's colors follow the reader's theme.

    Viewers without CSS variables use the light colors, which are the fallback.
    """
    names = {color: name for name, color in LIGHT.items()}
    svg = re.sub("|".join(names), lambda found: f"var(--{names[found[0]]}, {found[0]})", svg)
    style = f"<style>{color_css()}</style>"
    return re.sub(r"(<svg\b[^>]*>)", lambda found: found[0] + style, svg, count=1)


def heat_colors(shares: np.ndarray) -> np.ndarray:
    """Map shares of a neuron's maximum (0-1) to the heat map's colors, uint8 RGBA [..., 4]."""
    stops = np.linspace(0, 1, len(_HEAT))
    ramp = np.array([_channels(color) for color in _HEAT], dtype=np.float64)
    ramp = np.column_stack([ramp, np.array(_HEAT_OPACITY) * 255])
    shares = np.clip(np.nan_to_num(shares), 0, 1)
    mixed = [np.interp(shares, stops, ramp[:, channel]) for channel in range(4)]
    return np.stack(mixed, axis=-1).round().astype(np.uint8)


def heat_gradient() -> str:
    """Return the heat map's colors for a CSS gradient, from silent to strongest."""
    return ", ".join(
        f"rgb({red} {green} {blue} / {opacity})"
        for (red, green, blue), opacity in zip(map(_channels, _HEAT), _HEAT_OPACITY, strict=True)
    )


def _channels(color: str) -> tuple[int, int, int]:
    return int(color[1:3], 16), int(color[3:5], 16), int(color[5:7], 16)
