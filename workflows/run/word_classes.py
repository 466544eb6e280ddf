"""Learn the word classes of a dataset once, for all parts that an explainer works on."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from neuron_atlas.tasks.explain.explanation import Explainer
from neuron_atlas.workflows.run.context import Context
from neuron_atlas.workflows.run.stage import Item, Step, Worker
from neuron_atlas.workflows.run.store import read_json, write_json

WordClasses = tuple[tuple[str, ...], ...]

_FILE = "word_classes.json"


def word_classes_step(explainer: Explainer) -> Step:
    """Return a step that writes the word classes to its stage's folder, if the explainer uses
    them."""
    return Step("word classes", "", partial(_items, explainer), _learn)


def learned_word_classes(explainer: Explainer, folder: Path) -> WordClasses:
    """Return what the step wrote to a stage's folder; empty if the explainer uses none."""
    if not explainer.uses_background:
        return ()
    return tuple(tuple(words) for words in read_json(folder / _FILE)["classes"])


def _items(explainer: Explainer, context: Context, folder: Path) -> list[Item]:
    if not explainer.uses_background:
        return []
    descriptions = tuple(context.paths("describe", "descriptions"))
    return [Item("word_classes", 1, (_FILE,), (descriptions,))]


def _learn(worker: Worker, descriptions: tuple[Path, ...]) -> None:
    from neuron_atlas.tasks.concepts.word_classes import read_word_classes

    write_json(worker.folder / _FILE, {"classes": read_word_classes(descriptions)})
