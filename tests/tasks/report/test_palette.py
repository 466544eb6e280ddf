from itertools import combinations

import numpy as np
import pytest

from neuron_atlas.tasks.artifacts import TYPES
from neuron_atlas.tasks.report.palette import DARK, LIGHT, heat_colors, themed_svg, type_colors

# Machado, Oliveira and Fernandes (2009), severity 1, on linear RGB.
SIGHT = {
    "full": np.eye(3),
    "protanopia": np.array(
        [
            [0.152286, 1.052583, -0.204868],
            [0.114503, 0.786281, 0.099216],
            [-0.003882, -0.048116, 1.051998],
        ]
    ),
    "deuteranopia": np.array(
        [
            [0.367322, 0.860646, -0.227968],
            [0.280085, 0.672501, 0.047413],
            [-0.011820, 0.042940, 0.968881],
        ]
    ),
    "tritanopia": np.array(
        [
            [1.255528, -0.076749, -0.178779],
            [-0.078411, 0.930809, 0.147602],
            [0.004733, 0.691367, 0.303900],
        ]
    ),
}


def linear(color: str) -> np.ndarray:
    channels = np.array([int(color[at : at + 2], 16) for at in (1, 3, 5)]) / 255
    return np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)


def lab(rgb: np.ndarray) -> np.ndarray:
    to_xyz = np.array(
        [[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]
    )
    xyz = to_xyz @ np.clip(rgb, 0, 1) / np.array([0.9505, 1, 1.089])
    f = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


def contrast(one: str, other: str) -> float:
    dim, bright = sorted(linear(color) @ [0.2126, 0.7152, 0.0722] for color in (one, other))
    return float((bright + 0.05) / (dim + 0.05))


@pytest.mark.parametrize("sight", SIGHT)
@pytest.mark.parametrize("theme", [LIGHT, DARK], ids=["light", "dark"])
def test_types_can_be_told_apart_by_every_sight(theme, sight):
    seen = {name: lab(SIGHT[sight] @ linear(color)) for name, color in type_colors(theme).items()}
    assert tuple(seen) == TYPES
    for one, other in combinations(TYPES, 2):
        assert np.linalg.norm(seen[one] - seen[other]) > 20, (one, other)


@pytest.mark.parametrize("theme", [LIGHT, DARK], ids=["light", "dark"])
def test_words_are_legible_on_what_they_are_written_on(theme):
    for words in ("ink", "muted", "score", "control"):
        assert contrast(theme[words], theme["paper"]) >= 4.5, words
        assert words in ("score", "control") or contrast(theme[words], theme["panel"]) >= 4.5
    for name in TYPES:
        assert contrast(theme[f"on-{name}"], theme[name]) >= 4, name


def test_both_themes_name_the_same_colours_and_a_light_colour_is_used_once():
    assert LIGHT.keys() == DARK.keys()
    assert len(set(LIGHT.values())) == len(LIGHT)


def test_an_svg_follows_the_theme_and_keeps_its_light_colours_as_fallback():
    svg = themed_svg(f'<svg width="9"><path style="fill: {LIGHT["visual"]}"/></svg>')
    assert f'style="fill: var(--visual, {LIGHT["visual"]})"' in svg
    assert svg.startswith('<svg width="9"><style>')
    assert f"--visual: {DARK['visual']};" in svg
    assert "prefers-color-scheme: dark" in svg


def test_heat_brightens_with_activation_on_any_ground():
    for ground in (0.0, 0.5, 1.0):
        pixels = heat_colors(np.linspace(0, 1, 21)) / 255
        opacity = pixels[:, 3:]
        seen = pixels[:, :3] * opacity + ground * (1 - opacity)
        brightness = seen @ [0.2126, 0.7152, 0.0722]
        assert (np.diff(brightness[4:]) > 0).all(), ground
        assert brightness[-1] > brightness[0] + 0.25


def test_heat_clips_what_lies_outside_and_takes_nan_as_silent():
    silent, _, strongest = heat_colors(np.array([0.0, 0.5, 1.0]))
    below, above, nothing = heat_colors(np.array([-3.0, 7.0, np.nan]))
    assert (below == silent).all()
    assert (above == strongest).all()
    assert (nothing == silent).all()
