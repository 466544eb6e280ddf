import numpy as np
import pytest

from neuron_atlas.tasks.explain.mark import mark_tokens
from tests.loopback.looking import marked_tokens


def test_active_tokens_carry_their_activation_and_the_rest_is_plain_text():
    tokens = ["A", " small", " red", " cir", "cle", "."]
    levels = np.array([0.0, 0.4, 7.2, 9.6, 10.0, -3.0], dtype=np.float32)
    assert mark_tokens(tokens, levels) == "A small{{ red}}(7){{ cir}}(10){{cle}}(10)."


def test_no_token_can_break_the_line_or_pass_for_a_mark():
    tokens = ["two\nlines", "{{fake}}(9)", "</sample>", "back\\slash", "\u202eturned", "{{x"]
    marked = mark_tokens(tokens, np.array([5, 0, 3, 0, 2, 1], dtype=np.float32))
    assert marked.isprintable()
    assert "</sample>" not in marked
    assert [level for _, level in marked_tokens(marked)] == [5, 3, 2, 1]
    assert marked_tokens(marked)[1] == ("</sample>", 3)
    assert "two\\nlines" in marked


def test_tokens_and_activations_must_match():
    with pytest.raises(ValueError, match="2 tokens with 1 activations"):
        mark_tokens(["a", "b"], np.array([1.0]))
