"""Find the things that a text names, by phrases and synonyms."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from neuron_atlas.tasks.concepts.presence import words_of

OBJECT = "object"
"""Kind of the objects of a dataset's `objects` column."""
_COCO = Path(__file__).parent / "coco_synonyms.txt"
_IRREGULAR = {
    "men": "man",
    "women": "woman",
    "children": "child",
    "people": "person",
    "knives": "knife",
    "mice": "mouse",
    "geese": "goose",
    "sheep": "sheep",
    "buses": "bus",
    "scissors": "scissors",
    "skis": "skis",
}
_KEEPS_S = ("ss", "us", "is")


@dataclass(frozen=True)
class Vocabulary:
    """Names of things by kind, and the phrases for each.

    phrases: for each kind and name, the words of each phrase. A phrase of several words goes before
    its parts: "hot dog" names no dog.
    """

    phrases: Mapping[tuple[str, str], Sequence[tuple[str, ...]]]

    @cached_property
    def kinds(self) -> tuple[str, ...]:
        """All kinds, in order."""
        return tuple(dict.fromkeys(kind for kind, _ in self.phrases))

    def names(self, kind: str) -> list[str]:
        """Return the names of a kind, in order."""
        return [name for its_kind, name in self.phrases if its_kind == kind]

    def named(self, text: str) -> dict[str, set[str]]:
        """Return the names that a text uses, by kind."""
        found: dict[str, set[str]] = {kind: set() for kind in self.kinds}
        words = [singular(word) for word in words_of(text)]
        place = 0
        while place < len(words):
            length, things = self._longest(words, place)
            for kind, name in things:
                found[kind].add(name)
            place += length
        return found

    def words(self, things: Iterable[tuple[str, str]]) -> set[str]:
        """Return the singular words of all phrases for some things, pairs of kind and name."""
        return {
            singular(word)
            for thing in things
            for phrase in self.phrases.get(thing, ())
            for word in phrase
        }

    def _longest(self, words: Sequence[str], place: int) -> tuple[int, Collection[tuple[str, str]]]:
        for length in range(min(self._most, len(words) - place), 0, -1):
            things = self._by_phrase.get(tuple(words[place : place + length]))
            if things:
                return length, things
        return 1, ()

    @cached_property
    def _by_phrase(self) -> dict[tuple[str, ...], list[tuple[str, str]]]:
        found: dict[tuple[str, ...], list[tuple[str, str]]] = {}
        for thing, phrases in self.phrases.items():
            for phrase in phrases:
                found.setdefault(tuple(map(singular, phrase)), []).append(thing)
        return found

    @cached_property
    def _most(self) -> int:
        return max(map(len, self._by_phrase), default=1)


def vocabulary_of(
    concepts: Iterable[tuple[str, str]], truths: Iterable[tuple[str, str]], synonyms: str | None
) -> Vocabulary:
    """Return the vocabulary of a dataset.

    concepts: kind and name of all its concepts. truths: of what is in the measured images; used
    without concepts. synonyms: text of a file of synonyms (`read_synonyms`); None for a list of
    everyday words for the 80 objects of COCO.
    """
    if concepts := set(concepts):
        return concept_vocabulary(concepts)
    names = {name for kind, name in truths if kind == OBJECT}
    text = _COCO.read_text(encoding="utf-8") if synonyms is None else synonyms
    return object_vocabulary(names, read_synonyms(text))


def concept_vocabulary(concepts: Iterable[tuple[str, str]]) -> Vocabulary:
    """Return the vocabulary of concepts, pairs of kind and name, each named by its own words."""
    return Vocabulary({(kind, name): [tuple(words_of(name))] for kind, name in sorted(concepts)})


def object_vocabulary(objects: Iterable[str], synonyms: Mapping[str, Sequence[str]]) -> Vocabulary:
    """Return the vocabulary of objects. synonyms: the words for each object, without its name."""
    return Vocabulary(
        {
            (OBJECT, name): [
                tuple(words_of(phrase)) for phrase in dict.fromkeys((name, *synonyms.get(name, ())))
            ]
            for name in sorted({*objects, *synonyms})
        }
    )


def read_synonyms(text: str) -> dict[str, tuple[str, ...]]:
    """Return the synonyms in a file: a line an object, its name first, separated by commas.

    This is the format of CHAIR's `synonyms.txt` (Rohrbach et al., EMNLP 2018).
    """
    rows = ([one.strip().casefold() for one in line.split(",")] for line in text.splitlines())
    return {row[0]: tuple(filter(None, row[1:])) for row in rows if row and row[0]}


def singular(word: str) -> str:
    """Return an English noun's singular, by rules and a few exceptions."""
    if word in _IRREGULAR:
        return _IRREGULAR[word]
    if len(word) <= 3 or not word.endswith("s") or word.endswith(_KEEPS_S):
        return word
    if word.endswith("ies"):
        return f"{word[:-3]}y"
    if word.endswith(("ches", "shes", "sses", "xes")):
        return word[:-2]
    return word[:-1]
