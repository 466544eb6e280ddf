"""What an explainer sees of each meaning of a neuron, and what it may use besides."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import pytest

from neuron_atlas.tasks.evidence.evidence import ActivationRecord, Evidence
from neuron_atlas.tasks.explain.chat import Chat
from neuron_atlas.tasks.explain.dissect import Dissect
from neuron_atlas.tasks.explain.explanation import Background, Explainer, Explanation
from neuron_atlas.tasks.explain.meanings import explain_meanings
from neuron_atlas.tasks.models.call_options import CallOptions
from neuron_atlas.tasks.models.client import ClientSettings
from neuron_atlas.tasks.models.prices import Price
from neuron_atlas.tasks.samples.catalog import Catalog
from tests.tasks.report.synthetic import catalog as made_catalog
from tests.tasks.report.synthetic import sample

WORDS = ("lion", "stapler")
SHOWN, HELD_OUT = range(16), range(16, 32)
MEMBERS = {
    neuron: {meaning: frozenset(range(meaning - 1, 32, 2)) for meaning in (1, 2)}
    for neuron in (7, 9)
}


@pytest.fixture(scope="module")
def catalog() -> Catalog:
    """Texts with either word in turn, and as many with neither."""
    texts = [(" a", f" {WORDS[n % 2]}" if n < 32 else " cup", f" word{n}") for n in range(64)]
    return made_catalog(*(sample(n, tokens=text, grid=(1, 1)) for n, text in enumerate(texts)))


def evidence(neuron: int, numbers: Sequence[int]) -> Evidence:
    """It fires at both words, and never in the random samples."""
    records = [
        ActivationRecord(n, np.zeros(1, np.float32), np.array([0, 3 * (n < 32), 0], np.float32))
        for n in (*numbers, *(n + 32 for n in numbers))
    ]
    return Evidence(
        1, neuron, "text", 3.0, tuple(records[: len(numbers)]), tuple(records[len(numbers) :])
    )


@dataclass(frozen=True)
class Noting(Explainer):
    """Notes what it is given."""

    name: str = "noting"
    uses_background: bool = False
    calls: list[tuple[Background, Sequence[Evidence]]] = field(default_factory=list)

    def explain(self, evidence, catalog, calls) -> list[Explanation]:
        return self.explain_with(Background(), evidence, catalog, calls)

    def explain_with(self, background, evidence, catalog, calls) -> list[Explanation]:
        self.calls.append((background, evidence))
        return [Explanation(f"{one.neuron}: {sorted(_ids(one))}") for one in evidence]


def _ids(one: Evidence) -> set[int]:
    return {each.sample_id for each in one.exemplars}


def explained(explainer: Explainer, catalog: Catalog, held_out: Sequence[int] = HELD_OUT):
    background = Background([evidence(n, held_out) for n in MEMBERS], (("cat", "lion"),))
    shown = [evidence(n, SHOWN) for n in MEMBERS]
    return explain_meanings(explainer, background, shown, MEMBERS, catalog, 0.5, CallOptions())


def test_all_meanings_are_given_at_once_to_an_explainer_without_a_background(catalog):
    explainer = Noting()
    meanings, texts = explained(explainer, catalog)
    assert [(one.evidence.neuron, one.meaning) for one in meanings] == [
        (7, 1),
        (7, 2),
        (9, 1),
        (9, 2),
    ]
    assert [one.text.split(":")[0] for one in texts] == ["7", "7", "9", "9"]
    ((background, given),) = explainer.calls
    assert background == Background()
    assert [_ids(one) for one in given] == [set(SHOWN[::2]), set(SHOWN[1::2])] * 2


def test_the_calibration_samples_of_a_meaning_are_its_own(catalog):
    explainer = Noting(uses_background=True)
    meanings, texts = explained(explainer, catalog)
    assert len(explainer.calls) == 2
    for place, (background, given) in enumerate(explainer.calls):
        assert background.word_classes == (("cat", "lion"),)
        for part, numbers in ((given, SHOWN), (background.calibration, HELD_OUT)):
            assert [one.neuron for one in part] == [7, 9]
            assert all(_ids(one) == set(numbers[place::2]) for one in part)
    for one, text in zip(meanings, texts, strict=True):
        assert text.text == f"{one.evidence.neuron}: {sorted(_ids(one.evidence))}"


def test_a_meaning_without_a_calibration_exemplar_has_no_calibration_samples(catalog):
    explainer = Noting(uses_background=True)
    explained(explainer, catalog, held_out=HELD_OUT[::2])
    assert [len(background.calibration) for background, _ in explainer.calls] == [2, 0]


@pytest.mark.parametrize("held_out", [HELD_OUT, HELD_OUT[::2]])
def test_dissect_names_the_word_of_each_meaning(catalog, held_out):
    _, texts = explained(Dissect(), catalog, held_out)
    for word, one in zip(WORDS * 2, texts, strict=True):
        assert one.text.startswith(f'The word "{word}" in the text (r = 1.00')


def test_a_chat_model_explains_each_meaning_by_its_own_exemplars(catalog, provider):
    client = ClientSettings(base_url=provider.base_url)
    prices = {"gpt-4o": Price(input=2.5, output=10.0, date="2026-04-01")}
    _, texts = explained(Chat(client=client, prices=prices), catalog)
    for word, one in zip(WORDS * 2, texts, strict=True):
        assert one.text == f'The neuron responds to the word "{word}" in a text.'
        assert one.cost > 0
    # Both neurons have the same evidence, and the same request is sent once.
    assert len(provider.requests()) == len(WORDS)
