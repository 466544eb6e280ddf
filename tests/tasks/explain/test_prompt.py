import pytest

from tasks.explain.prompt import Malformed, read_answer


@pytest.mark.parametrize(
    "said",
    [
        '{"explanation": "Red things.", "confidence": 0.5}',
        'Sure!\n```json\n{"explanation": "Red things.", "confidence": 1}\n```\nAnything else?',
        'I looked at {"this": 1} first. {"explanation": " Red\\n things. "}',
        "**Explanation:** Red things.",
        '{"explanation": "Red\\u0000 things.", "confidence": null, "evidence_for": null}',
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
        ('{"explanation": ["Red things."]}', "explanation"),
        ('{"explanation": "Red things.", "confidence": 90}', "confidence"),
        ('{"explanation": "Red things.", "confidence": "high"}', "confidence"),
        ('{"explanation": "Red things.", "confidence": NaN}', "confidence"),
        ('{"explanation": "Red thi', "no JSON object"),
    ],
)
def test_an_answer_without_an_explanation_says_what_it_lacks(said, why):
    with pytest.raises(Malformed, match=why):
        read_answer(said)
