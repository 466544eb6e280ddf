import pytest

from neuron_atlas.tasks.groups.naming import (
    OBJECT,
    concept_vocabulary,
    object_vocabulary,
    read_synonyms,
    singular,
)
from neuron_atlas.tasks.groups.settings import (
    GroupSettings,
    NamedGroup,
    SteeringSettings,
    parse_range,
)
from neuron_atlas.tasks.groups.speech import Question, draw_questions, read_answer
from neuron_atlas.tasks.groups.words import classify_tokens
from neuron_atlas.tasks.samples.catalog import Sample

SYNONYMS = read_synonyms("dog, puppy\nhot dog, hotdog\ntv, television\n\nperson, man, woman\n")


def test_a_phrase_goes_before_its_parts_and_synonyms_and_plurals_count():
    objects = object_vocabulary(["bear", "teddy bear", "baseball", "baseball bat"], SYNONYMS)

    def named(text):
        return objects.named(text)[OBJECT]

    assert named("Two men eat hot dogs near a television.") == {"person", "hot dog", "tv"}
    assert named("A puppy and a hotdog") == {"dog", "hot dog"}
    assert named("A teddy bear") == {"teddy bear"}
    assert named("A baseball bat") == {"baseball bat"}
    assert named("Carpet, beard and scoreboard") == set()


def test_concepts_are_named_by_kind():
    concepts = concept_vocabulary([("color", "red"), ("position", "top left"), ("shape", "star")])
    found = concepts.named("There is a large red star at the top right, left of it nothing.")
    assert found == {"color": {"red"}, "position": set(), "shape": {"star"}}


@pytest.mark.parametrize(
    ("plural", "one"),
    [("cats", "cat"), ("buses", "bus"), ("boxes", "box"), ("ponies", "pony"), ("grass", "grass"),
     ("children", "child"), ("benches", "bench"), ("his", "his"), ("vases", "vase")],
)  # fmt: skip
def test_singular(plural, one):
    assert singular(plural) == one


def test_visual_words_count_where_the_text_first_has_them():
    tokens = (
        "There",
        " is",
        " a",
        " red",
        " circle",
        ".",
        " The",
        " red",
        " circle",
        " is",
        " big",
    )
    sample = Sample(0, "", (), "".join(tokens), tokens, (), 0, 0)
    found = classify_tokens(sample, {"red", "circle"})
    assert [tokens[at].strip() for at in found.visual.nonzero()[0]] == ["red", "circle"]
    assert found.other.nonzero()[0].tolist() == [0, 1, 2, 5, 6, 9, 10]
    names = [tokens[at].strip() for at in found.function.nonzero()[0]]
    assert names == ["There", "is", "a", "The", "is"]
    unknown = classify_tokens(sample, None)
    assert [tokens[at].strip() for at in unknown.visual.nonzero()[0]] == ["red", "circle", "big"]


def test_questions_ask_as_often_about_what_is_there_as_about_what_is_not():
    asked = draw_questions(3, ["star", "circle"], ["square", "cross", "orange"], 4, 0)
    assert [one.is_there for one in asked] == [True, True, False, False]
    assert len({one.name for one in asked}) == 4
    assert len(draw_questions(3, ["star"], ["square", "cross"], 4, 0)) == 2
    assert draw_questions(3, [], ["square"], 2, 0) == []
    assert Question(0, "orange", True).text == "Is there an orange in the image?"


def test_answers_are_read_from_their_first_word():
    found = [read_answer(one) for one in ("Yes, there is.", "no", "There is no dog", "", None)]
    assert found == [True, False, None, None, None]


def test_settings_that_cannot_be_used_say_what_to_write():
    assert [parse_range(one) for one in ("0-7", "3")] == [(0, 7), (3, 3)]
    for build, said in (
        (lambda: parse_range("7-0"), "'7-0' is no range"),
        (lambda: NamedGroup(("12-3",)), "'12-3' is no neuron"),
        (lambda: NamedGroup(()), "at least one neuron"),
        (lambda: GroupSettings(shares=()), "at least one share"),
        (lambda: GroupSettings(named={"text": NamedGroup(("0:1",))}), "'text' is a type"),
        (lambda: SteeringSettings(alphas=(1.0,)), "1 is no factor"),
        (lambda: SteeringSettings(alphas=(float("inf"),)), "inf is no factor"),
    ):
        with pytest.raises(ValueError, match=said):
            build()
