from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from neuron_atlas.tasks.artifacts import MOMENTS, NEURON_TYPES
from neuron_atlas.tasks.classify.paper import PaperRule
from tests.tasks.exemplars import exemplar_table

RULE = PaperRule()
LAYER = 3
NEVER = np.nan
# Activations once normalised, of a neuron whose scale is 10: at a threshold and just above it.
AT_V, OVER_V = 2.0, 2.002
AT_T, OVER_T = 3.0, 3.002

Trace = tuple[Sequence[float], Sequence[float]]
"""The activations at the visual and at the text tokens of one exemplar."""


def exemplars(of: Mapping[int, Sequence[Trace]], top_activations: int = 8) -> pa.Table:
    seen = {
        neuron: [(rank, visual, text) for rank, (visual, text) in enumerate(traces)]
        for neuron, traces in of.items()
    }
    return exemplar_table(seen, LAYER, top_activations)


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
    traces: Sequence[Trace],
    rule: PaperRule = RULE,
    maxima: tuple[float, float, float] = (10.0, 10.0, 10.0),
) -> dict[str, Any]:
    """The row of a neuron with these exemplars, in activations that are normalised already."""
    (row,) = rule.types(exemplars({7: traces}), moments({7: maxima})).to_pylist()
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
    traces = [VISUAL, VISUAL, TEXT, TEXT, TEXT]
    assert typed(traces)["type"] == "text"
    row = typed(traces, PaperRule(top_n=3))
    assert (row["type"], row["n_exemplars"]) == ("visual", 3)
    assert shares(row) == pytest.approx([2 / 3, 1 / 3, 0, 0])
    assert typed(traces, PaperRule(top_n=9)) == typed(traces)


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
    table = RULE.types(exemplars(of), moments(dict.fromkeys([9, 5, 2, 4], (10.0, 10.0, 10.0))))
    assert table["neuron"].to_pylist() == [9, 5, 2, 4]
    assert table["type"].to_pylist() == ["visual", "unknown", "text", "multi-modal"]
    assert set(table["layer"].to_pylist()) == {LAYER}
    assert table.schema.equals(NEURON_TYPES.schema)


def test_a_part_of_a_table_is_counted_like_a_whole_one():
    of = {1: [BOTH] * 3, 2: [VISUAL, ([OVER_V], [OVER_T] * 3)], 3: [TEXT]}
    part = exemplars(of).slice(1, 1)
    assert RULE.types(part, moments({2: (10.0, 10.0, 10.0)})).to_pylist() == [
        RULE.types(exemplars(of), moments(dict.fromkeys(of, (10.0, 10.0, 10.0)))).to_pylist()[1]
    ]


def from_all_activations(
    of: Mapping[int, Sequence[Trace]], scales: Mapping[int, np.float32], rule: PaperRule
) -> list[str]:
    """Types by counting the activations of every token, in float32."""
    types = []
    for neuron, traces in of.items():
        limits = [np.float32(scales[neuron] * (t / 10)) for t in (rule.t_visual, rule.t_text)]
        votes = [0, 0, 0, 0]
        for trace in traces:
            above = [
                (np.isfinite(values) & (values > limit)).sum()
                for values, limit in zip(trace, limits, strict=True)
            ]
            visual, text = above[0] >= rule.n_visual, above[1] >= rule.n_text
            votes[2 if visual and text else 0 if visual else 1 if text else 3] += 1
        types.append(("visual", "text", "multi-modal", "unknown")[int(np.argmax(votes))])
    return types


@pytest.mark.parametrize("top_activations", [4, 8, 40])
@pytest.mark.parametrize("seed", range(4))
def test_the_highest_activations_type_as_all_activations_do(seed, top_activations):
    rng = np.random.default_rng(seed)
    of, scales = {}, {}
    for neuron in range(60):
        scales[neuron] = np.float32(rng.lognormal(0, 2))
        limits = [np.float32(scales[neuron] * (t / 10)) for t in (2.0, 3.0)]
        traces = []
        for _ in range(9):
            trace = []
            for limit, most in zip(limits, (30, 9), strict=True):
                values = rng.normal(0, 0.4, rng.integers(0, most)).astype(np.float32)
                values *= scales[neuron]
                # Many are a threshold itself, or the next number above or below it.
                near = np.nextafter(limit, np.float32([-9e9, 9e9, limit]), dtype=np.float32)
                values = np.where(rng.random(len(values)) < 0.3, rng.choice(near), values)
                spoilt = np.float32([np.nan, np.inf, -np.inf])
                values = np.where(rng.random(len(values)) < 0.03, rng.choice(spoilt), values)
                trace.append(values.astype(np.float32))
            traces.append(tuple(trace))
        of[neuron] = traces
    maxima = {neuron: (float(scale), -1.0, np.nan) for neuron, scale in scales.items()}
    table = RULE.types(exemplars(of, top_activations), moments(maxima))
    assert table["type"].to_pylist() == from_all_activations(of, scales, RULE)
    assert len(set(table["type"].to_pylist())) >= 3


def test_a_rule_that_needs_more_activations_than_are_stored_is_refused():
    with pytest.raises(ValueError, match=r"classify\.n_visual \(4\) .* capture\.top_activations"):
        RULE.types(exemplars({1: [VISUAL]}, top_activations=3), moments({1: (10.0, 1.0, 1.0)}))
