"""Neurons to change, as a call names them."""

from __future__ import annotations

import pytest

from neuron_atlas.tasks.effects.intervention import Intervention
from neuron_atlas.tasks.probe.changed import (
    in_words,
    interventions,
    parse_neurons,
    parse_values,
)
from neuron_atlas.tasks.probe.errors import ProbeError


def test_lists_of_neurons_and_values_are_read():
    assert parse_neurons(" 12:345, 3:46 ") == [(12, 345), (3, 46)]
    assert parse_neurons("") == []
    assert parse_values("12:345=2.5,3:46=-1e-1") == {(12, 345): 2.5, (3, 46): -0.1}


@pytest.mark.parametrize("words", ["12", "12:x", "-1:3", "12:345=2", "1:2:3", "1:2;1:3"])
def test_what_is_no_neuron_is_refused(words):
    with pytest.raises(ProbeError, match=r"is no neuron; write LAYER:NEURON, as in --without"):
        parse_neurons(words)


@pytest.mark.parametrize("words", ["12:345", "12:345=", "12:345=x", "12:345=nan", "1:2=inf"])
def test_what_is_no_value_is_refused(words):
    with pytest.raises(ProbeError, match=r"has no value; write --clamp 12:345=2\.5"):
        parse_values(words)


def test_a_neuron_is_changed_once():
    for without, clamp in ([[(1, 2), (1, 2)], {}], [[(1, 2)], {(1, 2): 3.0}]):
        with pytest.raises(ProbeError, match="the neuron 1:2 is changed twice"):
            interventions(without, clamp)
    with pytest.raises(ProbeError, match="the neuron 1:2 is changed twice"):
        parse_values("1:2=3,1:2=4")


def test_changes_become_interventions_and_words():
    assert interventions([(1, 2)], {(3, 4): 5.0}) == [
        Intervention(1, (2,), "zero"),
        Intervention(3, (4,), "clamp", 5.0),
    ]
    assert in_words([(1, 2), (1, 3)], {(3, 4): 5.0, (3, 5): -0.1}) == (
        "without 1:2, 1:3; with 3:4 at least 5, 3:5 at most -0.1"
    )
