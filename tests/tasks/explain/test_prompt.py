from typing import get_args

import pytest
from PIL import Image

from neuron_atlas.tasks.artifacts import TYPES
from neuron_atlas.tasks.explain import prompt
from neuron_atlas.tasks.explain.draw import Render
from neuron_atlas.tasks.explain.prompt import (
    ANSWER_FORMAT,
    MalformedAnswerError,
    ParsedAnswer,
    RenderedExample,
    first_messages,
    prompt_hash,
    read_answer,
)
from neuron_atlas.tasks.models.json_answer import find_objects


@pytest.mark.parametrize(
    "said",
    [
        '{"explanation": "Red things.", "confidence": 0.5}',
        'Sure!\n```json\n{"explanation": "Red things.", "confidence": 1}\n```\nAnything else?',
        'I looked at {"this": 1} first. {"explanation": " Red\\n things. "}',
        "**Explanation:** Red things.",
        "- Explanation: Red things.\n- Evidence for: all\n- Confidence: 80%",
        'Here:\n```\n{\n  "explanation": "Red things.",\n  "confidence": "0.8",\n}\n```',
        '{"explanation": "Red\nthings.", "evidence_for": ["one", "two"]}',
        '{"Explanation": "Red things.", "Evidence For": "one"}',
        '{"explanation": "Red things.", "confidence": "80 %"} and {broken',
        '{"explanation": "Red\\u0000 things.", "confidence": null, "evidence_for": null}',
        '{"evidence_for": "a {{dog}}(9)", "evidence_against": "", "explanation": "Red things."}',
        "Evidence for: all\nEvidence against: none\nExplanation: Red things.\nConfidence: 80%",
    ],
)
def test_an_answer_is_read_leniently(said):
    assert read_answer(said).explanation == "Red things."


@pytest.mark.parametrize(
    ("said", "why"),
    [
        ("Red things.", "no JSON object"),
        ("", "no JSON object"),
        ('{"explanation": ""}', "explanation"),
        ('{"explanation": []}', "explanation"),
        ('{"explanation": ["Red things.", {"more": 1}]}', "explanation"),
        (f'{{"explanation": "{"red " * 600}"}}', "2,399 characters"),
        ('<think>maybe {"explanation": "A draft."}', "no JSON object"),
        ("<think>maybe</think>", "no JSON object"),
        ('{"explanation": ' + "[" * 200_000, "no JSON object"),
        ('{"explanation": "Red things.", "confidence": 90}', "confidence"),
        ('{"explanation": "Red things.", "confidence": "blue"}', "confidence"),
        ('{"explanation": "Red things.", "confidence": "high-blue"}', "confidence"),
        ('{"explanation": "Red things.", "confidence": "7"}', "confidence"),
        ('{"explanation": "Red things.", "confidence": "between 0.2 and 0.9"}', "confidence"),
        ('{"explanation": "Red things.", "confidence": NaN}', "confidence"),
        ('{"explanation": "Red thi', "no JSON object"),
    ],
)
def test_an_answer_without_an_explanation_says_what_it_lacks(said, why):
    with pytest.raises(MalformedAnswerError, match=why):
        read_answer(said)


_DRAFT = 'maybe {"explanation": "WRONG DRAFT", "confidence": 0.1}'
_FINAL = '{"explanation": "Red things.", "confidence": 0.9}'


@pytest.mark.parametrize(
    "said",
    [
        f"<think>{_DRAFT}</think>{_FINAL}",
        f"{_DRAFT} </think>\n\n{_FINAL}",  # The opening tag is part of the model's template.
        f"<thinking>\n{_DRAFT}\n</thinking>\n```json\n{_FINAL}\n```",
        f"<think>{_DRAFT}</think>{_FINAL}<think>{_DRAFT}",
        f"[THINK]{_DRAFT}[/THINK]{_FINAL}",
        f"\u25c1think\u25b7{_DRAFT}\u25c1/think\u25b7{_FINAL}",
        f"<|channel|>analysis<|message|>{_DRAFT}<|end|><|start|>assistant<|channel|>final<|message|>{_FINAL}",
        f"<|START_THINKING|>{_DRAFT}<|END_THINKING|>{_FINAL}",
        f"<unused94>thought {_DRAFT}<unused95>{_FINAL}",
        f"<think>{_DRAFT}</think>Explanation: Red things.\nConfidence: 0.9",
        f"First idea: {_DRAFT[6:]}. On reflection: {_FINAL}",
        f'{{"answer": {_FINAL}}}',
        f"[{_FINAL}]",
        f'{_FINAL} as in the schema {{"type": "object"}}',
    ],
)
def test_what_a_model_thinks_is_never_its_answer(said):
    assert read_answer(said) == ParsedAnswer("Red things.", "", "", 0.9)


def test_a_tag_that_an_explanation_names_is_a_part_of_it():
    said = '<think>so</think>{"explanation": "The token </think> after <think>."}'
    assert read_answer(said).explanation == "The token </think> after <think>."


@pytest.mark.parametrize(
    ("said", "confidence"),
    [
        ('"high"', 0.8),
        ('"Very High"', 0.95),
        ('"medium-high"', 0.65),
        ('"low to medium"', 0.375),
        ('"high confidence"', 0.8),
        ('"8/10"', 0.8),
        ('"80 %"', 0.8),
        ('["0.8"]', 0.8),
        ('"about 0.8"', 0.8),
        ('"80% (high)"', 0.8),
        ('"0.8, since most fit"', 0.8),
        ('"1 (certain)"', 1.0),
        ('""', None),
    ],
)
def test_a_confidence_in_words_is_read_where_it_is_clear(said, confidence):
    answer = read_answer(f'{{"explanation": ["Red things.", "circles"], "confidence": {said}}}')
    assert answer.explanation == "Red things.; circles"
    assert answer.confidence == (confidence if confidence is None else pytest.approx(confidence))


def test_all_that_is_asked_for_is_read():
    said = """{"explanation": "Red things.", "evidence_for": ["the first", " the  third"],
    "evidence_against": "the last", "confidence": "85%"}"""
    assert read_answer(said) == ParsedAnswer(
        "Red things.", "the first; the third", "the last", 0.85
    )
    lines = "**Explanation**: Red things.\nEvidence for: the first\nConfidence: **0.4**"
    assert read_answer(lines) == ParsedAnswer("Red things.", "the first", "", 0.4)


def shown(*peaks: int) -> list[RenderedExample]:
    return [RenderedExample(Image.new("RGB", (4, 4)), "{{a}}(3) word", peak) for peak in peaks]


def told(kind: str, *peaks: int, render: Render = "heat") -> tuple[str, list[str]]:
    system, user = first_messages(kind, shown(*peaks), "low", render)
    return system["content"], [part.get("text", part["type"]) for part in user["content"]]


@pytest.mark.parametrize("kind", TYPES)
def test_a_question_counts_its_samples_and_asks_by_type(kind):
    _, parts = told(kind, 10, 7, 0)
    assert "2 " in parts[0]
    assert "$" not in parts[0]
    assert parts[1] == "<sample, peak 10>\n{{a}}(3) word"
    assert ("tokens" in parts[0]) == (kind != "visual")
    assert ("under the heat" in parts[0]) == (kind != "text")


@pytest.mark.parametrize("kind", ["multi-modal", "unknown"])
def test_a_question_about_both_kinds_does_not_say_that_they_have_anything_in_common(kind):
    assert "share" not in told(kind, 10)[1][0]


@pytest.mark.parametrize("kind", TYPES)
def test_the_prompt_has_one_example_whose_answer_is_read_as_any_other(kind):
    for render in get_args(Render):
        system, _ = told(kind, 10, 0, render=render)
        _, _, example = system.partition("say nothing of yours. ")
        (answer,) = find_objects(example)
        assert list(answer.value) == list(ANSWER_FORMAT["json_schema"]["schema"]["properties"])
        assert read_answer(example).confidence == answer.value["confidence"]
        assert len(answer.value["evidence_for"].split()) <= 60
        assert ("{{" in example) == (kind != "visual")


def test_the_system_prompt_tells_only_how_to_read_what_is_sent():
    assert "{{" not in told("visual", 10)[0]
    assert "heat" not in told("text", 10)[0]
    assert "<contrast>" not in told("visual", 10)[0]
    both = told("multi-modal", 10, 0)[0]
    assert all(words in both for words in ("{{token}}(n)", "legend", "<contrast>"))
    assert "$" not in both


@pytest.mark.parametrize("render", get_args(Render))
def test_every_rendering_is_told_and_asked_about_in_its_own_words(render):
    others = [other for other in get_args(Render) if other != render]
    system, parts = told("visual", 10, render=render)
    for other in others:
        assert told("visual", 10, render=other)[0] != system
        assert told("visual", 10, render=other)[1][0] != parts[0]


def test_contrasts_stand_in_tags_of_their_own():
    _, parts = told("multi-modal", 10, 0)
    assert parts[-3:] == ["<contrast>\n{{a}}(3) word", "image_url", "</contrast>"]


def test_the_wording_has_a_name_for_what_it_is_made_of():
    names = {
        prompt_hash(render, contrasts) for render in get_args(Render) for contrasts in (True, False)
    }
    assert len(names) == 2 * len(get_args(Render))


def test_another_prompt_file_is_another_wording_only_where_it_is_used(monkeypatch):
    before = {render: prompt_hash(render, False) for render in get_args(Render)}
    monkeypatch.setitem(prompt._PROMPTS, "format-mask", "another")
    after = {render: prompt_hash(render, False) for render in get_args(Render)}
    assert [render for render in before if before[render] != after[render]] == ["mask"]
    monkeypatch.setitem(prompt._PROMPTS, "visual", "another")
    assert prompt_hash("heat", False) != before["heat"]


def test_the_answer_is_asked_for_in_a_closed_schema():
    schema = ANSWER_FORMAT["json_schema"]
    assert schema["strict"] is True
    assert set(schema["schema"]["required"]) == {
        "explanation", "evidence_for", "evidence_against", "confidence",
    }  # fmt: skip
    assert list(schema["schema"]["properties"]) == [
        "evidence_for", "evidence_against", "explanation", "confidence",
    ]  # fmt: skip
    assert schema["schema"]["required"] == list(schema["schema"]["properties"])
    assert "one sentence" in schema["schema"]["properties"]["explanation"]["description"]
