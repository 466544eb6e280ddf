import numpy as np
import pytest

from neuron_atlas.tasks.explain.mark import list_strongest, mark_tokens
from tests.loopback.looking import marked_tokens


def test_active_tokens_carry_their_activation_and_the_rest_is_plain_text():
    tokens = ["A", " small", " red", " cir", "cle", "."]
    levels = np.array([0.0, 0.4, 7.2, 9.6, 10.0, -3.0], dtype=np.float32)
    assert mark_tokens(tokens, levels) == "A small{{ red}}(7){{ cir}}(10){{cle}}(10)."


def test_weak_tokens_are_marked_only_where_none_reaches_three():
    tokens = ["a", " b", " c", " d"]
    assert mark_tokens(tokens, np.array([2.4, 2.6, 3.0, 1.0])) == "a{{ b}}(3){{ c}}(3) d"
    assert mark_tokens(tokens, np.array([2.0, 1.0, 2.4, 0.0])) == "{{a}}(2) b{{ c}}(2) d"
    assert mark_tokens(tokens, np.array([0.4, 0.0, -1.0, 0.0])) == "a b c d"


def test_the_strongest_tokens_are_listed_once_strongest_first():
    tokens = [" red", "\n", " a", " red", " blue", " on", " green", " big", " old", "<x"]
    levels = np.array([5.0, 9.0, 2.0, 8.0, 8.0, 3.0, 10.0, 4.0, 3.0, 6.0])
    listed = '"green" (10), "red" (8), "blue" (8), "\\<x" (6), "big" (4)'
    assert list_strongest(tokens, levels) == listed
    assert list_strongest(tokens, levels, count=1) == '"green" (10)'
    assert list_strongest(tokens, np.zeros(10)) == ""
    assert list_strongest(["a", "b"], np.array([1.0, 2.0])) == '"b" (2)'


def test_no_token_can_break_the_line_or_pass_for_a_mark():
    tokens = ["two\nlines", "{{fake}}(9)", "</sample>", "back\\slash", "\u202eturned", "{{x"]
    marked = mark_tokens(tokens, np.array([5, 0, 3, 0, 4, 7], dtype=np.float32))
    assert marked.isprintable()
    assert "</sample>" not in marked
    assert [level for _, level in marked_tokens(marked)] == [5, 3, 4, 7]
    assert marked_tokens(marked)[1] == ("</sample>", 3)
    assert "two\\nlines" in marked


def test_tokens_and_activations_must_match():
    with pytest.raises(ValueError, match="2 tokens with 1 activations"):
        mark_tokens(["a", "b"], np.array([1.0]))
