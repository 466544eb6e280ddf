from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from neuron_atlas.tasks.artifacts import MOMENTS, NEURON_TYPES, TRACES
from neuron_atlas.tasks.classify.paper import PaperRule

RULE = PaperRule()
LAYER = 3
NEVER = np.nan
# Activations once normalised, of a neuron whose scale is 10: at a threshold and just above it.
AT_V, OVER_V = 2.0, 2.002
AT_T, OVER_T = 3.0, 3.002

Trace = tuple[Sequence[float], Sequence[float]]
"""The activations at the visual and at the text tokens of one exemplar."""


def traces(of: Mapping[int, Sequence[Trace]]) -> pa.Table:
    rows = [
        {
            "layer": LAYER,
            "neuron": neuron,
            "rank": rank,
            "sample_id": rank,
            "visual": visual,
            "text": text,
        }
        for neuron, exemplars in of.items()
        for rank, (visual, text) in enumerate(exemplars)
    ]
    return pa.Table.from_pylist(rows, schema=TRACES.schema)


def moments(maxima: Mapping[int, tuple[float, float, float]]) -> pa.Table:
    """Highest activation at visual, text and template tokens of each neuron."""
    rows = [
        {"layer": LAYER, "neuron": neuron}
        | {
            f"max_{role}": top
            for role, top in zip(("visual", "text", "template"), tops, strict=True)
        }
        for neuron, tops in maxima.items()
    ]
    return pa.Table.from_pylist(rows, schema=MOMENTS.schema)


def typed(
    exemplars: Sequence[Trace],
    rule: PaperRule = RULE,
    maxima: tuple[float, float, float] = (10.0, 10.0, 10.0),
) -> dict[str, Any]:
    """The row of a neuron with these exemplars, in activations that are normalised already."""
    (row,) = rule.types(traces({7: exemplars}), moments({7: maxima})).to_pylist()
    return row


def shares(row: Mapping[str, Any]) -> list[float]:
    return [row[f"share_{name}"] for name in ("visual", "text", "multimodal", "unknown")]


VISUAL: Trace = ([OVER_V] * 4, [0.0] * 5)
TEXT: Trace = ([0.0] * 9, [OVER_T] * 2)
BOTH: Trace = ([OVER_V] * 4, [OVER_T] * 2)
NEITHER: Trace = ([0.0] * 9, [0.0] * 5)


@pytest.mark.parametrize(
    ("exemplar", "expected"),
    [
        (VISUAL, "visual"),
        (TEXT, "text"),
        (BOTH, "multi-modal"),
        (NEITHER, "unknown"),
        (([OVER_V] * 3 + [AT_V] * 6, [0.0]), "unknown"),
        (([OVER_V] * 4, [OVER_T, AT_T]), "visual"),
        (([OVER_V] * 3, [OVER_T] * 2), "text"),
        (([10.0] * 3, [10.0]), "unknown"),
        (([-10.0] * 9, [-10.0] * 9), "unknown"),
        (([], [OVER_T] * 2), "text"),
        (([OVER_V] * 4, []), "visual"),
    ],
)
def test_an_exemplar_counts_by_how_many_tokens_exceed_the_thresholds(exemplar, expected):
    row = typed([exemplar])
    assert row["type"] == expected
    assert max(shares(row)) == 1
    assert row["n_exemplars"] == 1


@pytest.mark.parametrize(
    ("rule", "exemplar", "expected"),
    [
        (PaperRule(n_visual=5), VISUAL, "unknown"),
        (PaperRule(n_visual=3), ([OVER_V] * 3, []), "visual"),
        (PaperRule(t_visual=2.5), VISUAL, "unknown"),
        (PaperRule(n_text=3), TEXT, "unknown"),
        (PaperRule(n_text=1), ([], [OVER_T]), "text"),
        (PaperRule(t_text=2.0), ([], [AT_T, AT_T]), "text"),
    ],
)
def test_every_threshold_is_the_rules(rule, exemplar, expected):
    assert typed([exemplar], rule)["type"] == expected


def test_the_shares_are_of_all_exemplars_and_the_largest_is_the_type():
    row = typed([VISUAL] * 3 + [TEXT] * 5 + [BOTH] * 2 + [NEITHER] * 6)
    assert shares(row) == [3 / 16, 5 / 16, 2 / 16, 6 / 16]
    assert row["type"] == "unknown"
    assert typed([VISUAL] * 3 + [TEXT] * 4 + [BOTH] * 5)["type"] == "multi-modal"


def test_an_exemplar_of_both_kinds_is_neither_visual_nor_text():
    assert shares(typed([BOTH])) == [0, 0, 1, 0]


def test_among_equal_shares_the_first_type_named_wins():
    assert typed([TEXT, VISUAL])["type"] == "visual"
    assert typed([NEITHER, TEXT])["type"] == "text"


def test_only_the_strongest_vote_where_a_smaller_number_is_asked_for():
    exemplars = [VISUAL, VISUAL, TEXT, TEXT, TEXT]
    assert typed(exemplars)["type"] == "text"
    row = typed(exemplars, PaperRule(top_n=3))
    assert (row["type"], row["n_exemplars"]) == ("visual", 3)
    assert shares(row) == pytest.approx([2 / 3, 1 / 3, 0, 0])
    assert typed(exemplars, PaperRule(top_n=9)) == typed(exemplars)


def test_fewer_exemplars_than_n_are_judged_by_those_there_are():
    row = typed([TEXT, TEXT, NEITHER])
    assert shares(row) == pytest.approx([0, 2 / 3, 0, 1 / 3])
    assert row["n_exemplars"] == 3


def test_activations_are_normalised_by_the_highest_over_visual_and_text_tokens():
    weak = ([OVER_V / 2] * 4, [0.0])
    assert typed([weak], maxima=(5.0, 1.0, 90.0))["type"] == "visual"
    assert typed([weak], maxima=(1.0, 5.0, 90.0))["type"] == "visual"
    assert typed([weak], maxima=(5.1, 1.0, 90.0))["type"] == "unknown"
    assert typed([weak], maxima=(5.0, 1.0, 90.0))["scale"] == 5


def test_template_tokens_count_towards_the_maximum_only_if_asked():
    rule = PaperRule(include_template=True)
    row = typed([VISUAL], rule, maxima=(10.0, 1.0, 40.0))
    assert (row["type"], row["scale"]) == ("unknown", 40)
    assert typed([VISUAL], rule, maxima=(10.0, 1.0, 5.0))["scale"] == 10


def test_a_role_that_never_occurred_does_not_count_towards_the_maximum():
    assert typed([VISUAL], maxima=(10.0, NEVER, NEVER))["type"] == "visual"


@pytest.mark.parametrize("maxima", [(-0.1, -0.2, 9.0), (0.0, 0.0, 9.0), (NEVER, NEVER, NEVER)])
def test_a_neuron_that_is_never_positive_is_unknown_and_has_no_scale(maxima):
    row = typed([([-0.1] * 9, [-0.2] * 4), ([0.0] * 9, [0.0] * 4)], maxima=maxima)
    assert (row["type"], row["scale"], row["n_exemplars"]) == ("unknown", 0, 2)
    assert shares(row) == [0, 0, 0, 1]


def test_a_neuron_without_exemplars_is_unknown():
    row = typed([])
    assert (row["type"], row["n_exemplars"], shares(row)) == ("unknown", 0, [0, 0, 0, 1])


def test_every_neuron_of_the_moments_gets_its_own_row_in_their_order():
    of = {2: [TEXT], 9: [VISUAL], 4: [BOTH], 5: []}
    table = RULE.types(traces(of), moments(dict.fromkeys([9, 5, 2, 4], (10.0, 10.0, 10.0))))
    assert table["neuron"].to_pylist() == [9, 5, 2, 4]
    assert table["type"].to_pylist() == ["visual", "unknown", "text", "multi-modal"]
    assert set(table["layer"].to_pylist()) == {LAYER}
    assert table.schema.equals(NEURON_TYPES.schema)


def test_a_part_of_a_table_is_counted_like_a_whole_one():
    of = {1: [BOTH] * 3, 2: [VISUAL, ([OVER_V], [OVER_T] * 3)], 3: [TEXT]}
    part = traces(of).slice(3, 2)
    assert RULE.types(part, moments({2: (10.0, 10.0, 10.0)})).to_pylist() == [
        RULE.types(traces(of), moments(dict.fromkeys(of, (10.0, 10.0, 10.0)))).to_pylist()[1]
    ]
