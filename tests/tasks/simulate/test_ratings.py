"""Ratings, read by hand and worked out by hand."""

import json
import math

import numpy as np
import pytest

from neuron_atlas.tasks.models.dialogue import MalformedAnswerError
from neuron_atlas.tasks.models.logprobs import TokenLogprobs
from neuron_atlas.tasks.simulate.ratings import (
    expected_value,
    expected_values,
    find_numbers,
    read_ratings,
)
from neuron_atlas.tasks.simulate.scale import top_of_scale
from neuron_atlas.tasks.simulate.sheet import RatingSheet

SHEET = RatingSheet(((2, 2),), 3)
GOOD = {"row 1": [0, 1], "row 2": [2, 10], "line 1": [3, 0, 7], "sample": 9}


def logprobs(token: str, chances: dict[str, float], start: int = 0) -> TokenLogprobs:
    return TokenLogprobs(start, token, tuple((text, math.log(p)) for text, p in chances.items()))


def test_the_expected_value_is_over_the_numbers_alone_and_neither_the_written_nor_the_likeliest():
    """0.4 of 2, 0.3 of 7 and 0.1 of 8 are 0.8 in all: (0.8 + 2.1 + 0.8) / 0.8. It wrote 7."""
    given = logprobs("7", {"2": 0.4, "7": 0.3, "8": 0.1, "the": 0.2})
    assert expected_value(given) == pytest.approx(4.625)


def test_where_ten_is_one_token_it_counts_as_ten_and_one_as_one():
    assert expected_value(logprobs("9", {"10": 0.5, "1": 0.1, "9": 0.4})) == pytest.approx(8.7)


def test_where_ten_is_two_tokens_one_is_parted_by_what_may_follow_it():
    """Of 0.8 for "1", a quarter goes on with "0": 0.6 of 1, 0.2 of 10, 0.2 of 5."""
    first, second = logprobs("1", {"1": 0.8, "5": 0.2}), logprobs(",", {"0": 0.25, "3": 0.3}, 1)
    assert expected_value(first, second) == pytest.approx(0.6 + 2.0 + 1.0)
    written = logprobs("0", {"0": 0.25}, 1)
    assert expected_value(first, written) == pytest.approx(3.6)


def test_where_another_number_was_written_what_stands_behind_it_says_nothing_of_one():
    assert expected_value(logprobs("5", {"1": 0.5, "5": 0.5}), logprobs(",", {"0": 0.9}, 1)) == 3.0


def test_on_a_scale_that_ends_with_nine_a_ten_is_no_number_and_one_is_one():
    assert expected_value(logprobs("9", {"9": 0.4, "10": 0.5, "7": 0.1}), top=9) == pytest.approx(
        8.6
    )
    assert (
        expected_value(logprobs("1", {"1": 0.5, "3": 0.5}), logprobs("0", {"0": 1.0}, 1), 9) == 2.0
    )


@pytest.mark.parametrize("is_cut", [False, True])
def test_the_more_active_a_place_is_held_to_be_the_higher_is_its_expected_value(is_cut):
    """Opinions from nothing to all, each by the two numbers next to it, of a model that writes a 10
    in one token and of one that writes it in two."""
    top = top_of_scale("1" if is_cut else "10")
    values = []
    for share in np.linspace(0, 1, 101):
        low, part = divmod(share * top, 1)
        chances = {str(int(low)): 1 - part, str(int(low) + 1): part}
        if is_cut and "10" in chances:
            chances["1"] = chances.pop("10")
        written = max(chances, key=lambda said: chances[said])
        given = {said: chance for said, chance in chances.items() if chance > 0}
        values.append(expected_value(logprobs(written, given), top=top))
    np.testing.assert_allclose(np.array(values) / top, np.linspace(0, 1, 101), atol=1e-9)


def test_numbers_with_a_space_before_them_are_the_same_numbers():
    assert expected_value(logprobs(" 3", {" 3": 0.25, "3": 0.25, "5": 0.5})) == pytest.approx(4.0)


def test_without_a_number_among_the_alternatives_there_is_no_expected_value():
    assert expected_value(logprobs("x", {"x": 1.0})) is None
    assert expected_value(logprobs("11", {"11": 1.0})) is None


def test_each_number_gets_the_odds_at_its_place_however_tokens_are_cut():
    said = "[10, 3]"
    told = [
        logprobs("1", {"1": 0.9}, 1),
        logprobs("0", {"0": 1.0}, 2),
        logprobs(" 3", {" 3": 0.5, " 4": 0.5}, 4),
    ]
    assert expected_values(said, [(1, 3), (5, 6)], told) == pytest.approx([10.0, 3.5])
    assert expected_values(said, [(1, 3), (5, 6)], told[:2]) is None


def test_an_answer_is_read_in_the_order_of_the_sheet():
    said = json.dumps(dict(reversed(GOOD.items())))
    ratings = read_ratings(said, SHEET)
    assert ratings.values == (0, 1, 2, 10, 3, 0, 7, 9)
    assert [said[a:b] for a, b in ratings.spans] == ["0", "1", "2", "10", "3", "0", "7", "9"]


def test_numbers_that_were_not_asked_for_have_no_place():
    said = "Scale 1 to 10:\n" + json.dumps({"note 5": [4, {"x": 3}], **GOOD}) + " 8"
    ratings = read_ratings(said, SHEET)
    assert [int(said[a:b]) for a, b in ratings.spans] == list(ratings.values)


def test_an_answer_that_had_to_be_repaired_has_values_and_their_places():
    said = json.dumps(GOOD).replace("9}", "9,}")
    ratings = read_ratings(said, SHEET)
    assert ratings.values[-1] == 9
    assert ratings.spans is not None
    assert [float(said[slice(*span)]) for span in ratings.spans] == list(ratings.values)


def test_ratings_in_a_draft_are_not_the_answer():
    draft = json.dumps(GOOD | {"sample": 3})
    said = f"<think>maybe {draft}</think>{json.dumps(GOOD)}"
    ratings = read_ratings(said, SHEET)
    assert ratings.values[-1] == 9
    assert ratings.spans is not None
    assert ratings.spans[0][0] > len(draft)
    assert find_numbers("<think>5</think> [1, 10]", (16, 24)) == [(18, 19), (21, 23)]


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"row 2": None}, "no list of numbers"),
        ({"row 2": [1]}, '"row 2" has 1 numbers instead of 2'),
        ({"row 2": [1, 2, 3]}, "has 3 numbers instead of 2"),
        ({"line 1": [3, 0, 11]}, '"line 1" holds something else'),
        ({"line 1": [3, 0, "7"]}, "something else"),
        ({"line 1": [3, 0, True]}, "something else"),
        ({"line 1": [3, 0, -1]}, "something else"),
        ({"sample": "high"}, "something else"),
    ],
)
def test_what_is_wrong_with_an_answer_is_said(changes, why):
    with pytest.raises(MalformedAnswerError, match=why):
        read_ratings(json.dumps(GOOD | changes), SHEET)


def test_what_exceeds_the_scale_is_wrong():
    with pytest.raises(
        MalformedAnswerError, match='"row 2" holds something else than numbers from 0 to 9'
    ):
        read_ratings(json.dumps(GOOD), RatingSheet(((2, 2),), 3, top=9))


def test_an_answer_without_a_field_or_with_one_twice_is_malformed():
    with pytest.raises(MalformedAnswerError, match='"sample" is missing'):
        read_ratings(json.dumps({k: v for k, v in GOOD.items() if k != "sample"}), SHEET)
    with pytest.raises(MalformedAnswerError, match="twice"):
        read_ratings(json.dumps(GOOD).replace('"row 2"', '"row 1"'), SHEET)
    with pytest.raises(MalformedAnswerError, match="no JSON object"):
        read_ratings("It is all zeros.", SHEET)


def test_a_sheet_names_rows_lines_and_the_sample_last():
    assert RatingSheet(((2, 3),), 12).fields == (
        *(("row 1", 3), ("row 2", 3), ("line 1", 10), ("line 2", 2), ("sample", 1)),
    )
    assert RatingSheet(((1, 3), (2, 1)), 0).fields == (
        *(("picture 1 row 1", 3), ("picture 2 row 1", 1), ("picture 2 row 2", 1), ("sample", 1)),
    )
    assert RatingSheet(((2, 3),), 12).list_fields() == (
        '"row 1" to "row 2", each with 3 numbers; "line 1" with 10 numbers; '
        '"line 2" with 2 numbers; "sample"'
    )


def test_the_schema_counts_every_row_and_line():
    schema = RatingSheet(((2, 3),), 12).response_format()["json_schema"]["schema"]
    counts = {name: form.get("minItems") for name, form in schema["properties"].items()}
    assert counts == {"row 1": 3, "row 2": 3, "line 1": 10, "line 2": 2, "sample": None}
    assert schema["required"] == list(counts)
    nine = RatingSheet(((2, 3),), 12, top=9).response_format()["json_schema"]["schema"]
    assert [max(form["$defs"]["rating"]["enum"]) for form in (schema, nine)] == [10, 9]


def test_values_are_split_into_what_they_rate():
    (first, second), text, whole = RatingSheet(((1, 2), (2, 1)), 2).split([1, 2, 3, 4, 5, 6, 7])
    assert first.tolist() == [[1, 2]]
    assert second.tolist() == [[3], [4]]
    assert (text.tolist(), whole) == ([5, 6], 7)
