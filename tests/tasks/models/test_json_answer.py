import time

import pytest

from neuron_atlas.tasks.models.json_answer import find_objects


def test_an_object_is_found_in_a_fence_within_prose_with_its_place():
    said = 'Here:\n```json\n{"a": [1, 2]}\n```'
    (found,) = find_objects(said)
    assert found.value == {"a": [1, 2]}
    assert said[found.start : found.end] == '{"a": [1, 2]}'


def test_objects_within_others_are_found_too():
    assert [one.value for one in find_objects('{"a": {"b": 1}}')] == [{"a": {"b": 1}}, {"b": 1}]


def test_a_comma_too_many_is_borne_and_the_place_is_known():
    said = 'so {"a": [1, 2,],}.'
    (found,) = find_objects(said)
    assert found.value == {"a": [1, 2]}
    assert said[found.start : found.end] == '{"a": [1, 2,],}'


@pytest.mark.parametrize("said", ["{" * 200_000, '{"a":' * 200_000, '{"a": ' + "[" * 200_000])
def test_what_is_nested_without_end_is_given_up_soon(said):
    begun = time.monotonic()
    assert find_objects(said) == []
    assert time.monotonic() - begun < 5


def test_what_is_broken_off_or_none_is_not_found():
    assert find_objects('{"a": [1, 2') == []
    assert find_objects("{{circle}}(3)") == []


def test_fields_that_stand_twice_can_be_told():
    (found,) = find_objects('{"a": 1, "a": 2}', pairs=list)
    assert found.value == [("a", 1), ("a", 2)]
