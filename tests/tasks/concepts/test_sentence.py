from itertools import combinations

import numpy as np
import pytest

from neuron_atlas.tasks.concepts.formula import (
    AREAS,
    KINDS,
    SENTENCES,
    STRENGTHS,
    Atom,
    Formula,
    Kind,
    Role,
    Term,
    canonical,
)
from neuron_atlas.tasks.concepts.sentence import (
    can_be_quoted,
    read_explanation,
    read_formula,
    write_explanation,
    write_formula,
)

NAMES = (
    "red",
    "top left",
    "don't",
    ".",
    ",",
    ";",
    "or",
    "and also",
    "(",
    "but not",
    "Éclair",
    "the",
)


def draw_atom(rng: np.random.Generator, kind: Kind) -> Atom:
    choices = {"area": AREAS, "sentence": SENTENCES}.get(kind, NAMES)
    size = rng.integers(1, min(4, len(choices)) + 1)
    return Atom(kind, tuple(sorted(rng.choice(choices, size, replace=False).tolist())))


def draw_formula(rng: np.random.Generator) -> Formula:
    terms = []
    for _ in range(rng.integers(1, 7)):
        role: Role = ("visual", "text")[rng.integers(2)]
        chosen = [kind for kind in KINDS[role] if rng.random() < 0.5] or [KINDS[role][0]]
        required = [draw_atom(rng, kind) for kind in chosen]
        if role == "visual" and "shows" in chosen and rng.random() < 0.3:
            required.append(draw_atom(rng, "shows"))
        excluded = [
            draw_atom(rng, kind) for kind in KINDS[role] if kind != "word" and rng.random() < 0.2
        ]
        strength = int(rng.integers(len(STRENGTHS)))
        terms.append(Term(role, tuple(required), tuple(excluded), strength))
    return canonical(terms)


@pytest.mark.parametrize("seed", range(20))
def test_every_formula_is_read_back_from_its_sentence(seed):
    rng = np.random.default_rng(seed)
    for _ in range(100):
        formula = draw_formula(rng)
        sentence = write_formula(formula)
        assert read_formula(sentence) == formula, sentence
        assert read_explanation(write_explanation(formula, [0.5, -0.1], 33)) == formula


@pytest.mark.parametrize("role", KINDS)
def test_every_term_with_up_to_two_atoms_of_each_side_is_read_back(role):
    atoms = [
        Atom(kind, names)
        for kind, names in {
            "shows": ("a", "b"),
            "edge": ("c",),
            "near": ("d", "e"),
            "area": ("corners", "top row"),
            "word": ("a", "b"),
            "after": ("c",),
            "before": ("d", "e"),
            "sentence": ("first",),
        }.items()
        if kind in KINDS[role]
    ]
    required = [pair for size in (1, 2) for pair in combinations(atoms, size)]
    unwanted = [atom for atom in atoms if atom.kind != "word"]
    excluded = [pair for size in (0, 1, 2) for pair in combinations(unwanted, size)]
    for some in required:
        for others in excluded:
            for strength in range(len(STRENGTHS)):
                formula = canonical([Term(role, some, others, strength)])
                assert read_formula(write_formula(formula)) == formula


@pytest.mark.parametrize(
    "text",
    [
        "",
        "Red circles.",
        "Image regions",
        'Image regions that show "red',
        'The word "red" in the text; and more',
        'The word "red" in the text;',
        'Often: the word "red" in the text',
        "Any word in the text",
    ],
)
def test_other_texts_are_no_formula(text):
    assert read_formula(text) is None
    assert read_explanation(f"{text} (r = 0.50 over 25 samples).") is None


def test_a_text_without_figures_is_free_text():
    assert read_formula('Image regions that show "red"') is not None
    assert read_explanation('Image regions that show "red".') is None


def test_terms_that_differ_in_the_names_of_one_atom_are_one_term():
    small, large = (Term("text", (Atom("word", (name,)),)) for name in ("small", "large"))
    red = Term("text", (Atom("word", ("small",)), Atom("before", ("red",))))
    sentence = write_formula(canonical([small, red, large]))
    assert (
        sentence
        == 'The words "large" or "small" in the text; the word "small" before "red" in the text'
    )


def test_merging_keeps_excluded_names_and_other_strengths_apart():
    one = Term("visual", (Atom("shows", ("red",)),), (Atom("area", ("corners",)),))
    other = Term("visual", (Atom("shows", ("blue",)),))
    weak = Term("visual", (Atom("shows", ("green",)),), strength=2)
    assert len(canonical([one, other, weak]).terms) == 3


@pytest.mark.parametrize(("name", "can"), [("a", True), ("", False), ('"', False), ("\n", False)])
def test_only_names_that_a_sentence_can_quote_are_quoted(name, can):
    assert can_be_quoted(name) is can
