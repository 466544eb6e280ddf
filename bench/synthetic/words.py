"""Compose synthetic explanations and texts from word lists."""

from __future__ import annotations

import numpy as np


def random_explanation(rng: np.random.Generator) -> str:
    """Return a random explanation in a model's style, one of several million."""
    thing, other = rng.choice(len(THINGS), 2, replace=False)
    look, place, text = (rng.integers(len(words)) for words in (_LOOKS, _PLACES, _TEXTS))
    return (
        f"Image regions that show {_LOOKS[look]} {THINGS[thing]} {_PLACES[place]}, less often "
        f"{THINGS[other]}; in the text, {_TEXTS[text]}."
    )


def _list(words: str) -> list[str]:
    return words.split(", ")


THINGS = _list(
    "dogs, cats, horses, birds, elephants, zebras, giraffes, sheep, cows, bears, children, "
    "women, men, crowds, skateboards, surfboards, bicycles, motorcycles, buses, trains, "
    "aeroplanes, boats, cars, traffic-lights, signs, letters, numbers, clocks, windows, "
    "doors, chairs, tables, sofas, beds, lamps, televisions, laptops, phones, keyboards, "
    "books, bottles, cups, plates, forks, knives, spoons, bowls, bananas, apples, oranges, "
    "pizzas, cakes, sandwiches, carrots, broccoli, hot-dogs, donuts, trees, grass, flowers, "
    "leaves, branches, mountains, beaches, waves, snow, sand, clouds, skies, roads, bridges, "
    "towers, churches, fences, walls, umbrellas, handbags, ties, suitcases, kites, balls, "
    "bats, gloves, rackets, helmets, hats, shirts, shoes"
)
_LOOKS = _list(
    "red, green, blue, yellow, white, black, brown, gray, orange, pink, striped, spotted, "
    "shiny, blurred, bright, dark, round, square, long, thin, wooden, metallic, furry, wet, "
    "open, closed, small, large, distant, crowded"
)
_PLACES = _list(
    "in the foreground, in the background, near the left edge, near the right edge, along the "
    "horizon, in the lower half, at the center, next to people, on a table, in a street, on "
    "the water, indoors"
)
_TEXTS = _list(
    "the words that name them, verbs of motion next to them, prepositions that place them, "
    "adjectives of color, the first word of a sentence, counts such as two or several"
)
