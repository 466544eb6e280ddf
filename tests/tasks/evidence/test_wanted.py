import json

from neuron_atlas.tasks.evidence.wanted import Wanted, missing_evidence


def test_what_a_file_holds_is_written_as_spans_and_read_back():
    wanted = Wanted((0, 1, 2, 7, 9, 10), {3: (0, 2), 4: (0, 2), 12: (2, 6)})
    data = json.loads(json.dumps(wanted.to_json()))
    assert data == {"explained": "0-2,7,9-10", "shown": {"0-2": "3-4", "2-6": "12"}}
    assert Wanted.from_json(data) == wanted
    assert Wanted.from_json(Wanted().to_json()) == Wanted()


def test_only_neurons_that_no_file_has_are_missing():
    stored = [Wanted((1, 2)), Wanted((5,))]
    assert missing_evidence(Wanted((1, 2, 5)), stored) == Wanted()
    assert missing_evidence(Wanted((1, 3, 5, 6)), stored) == Wanted((3, 6))
    assert missing_evidence(Wanted((1,)), []) == Wanted((1,))


def test_a_shown_neuron_lacks_only_its_weaker_exemplars_and_an_explained_one_none():
    stored = [Wanted((1,), {2: (0, 2), 3: (0, 2)}), Wanted((), {3: (2, 6)})]
    wanted = Wanted((), {1: (0, 6), 2: (0, 6), 3: (0, 6), 4: (0, 6)})
    assert missing_evidence(wanted, stored) == Wanted((), {2: (2, 6), 4: (0, 6)})


def test_a_neuron_that_was_only_shown_and_is_explained_now_lacks_everything():
    assert missing_evidence(Wanted((2,)), [Wanted((), {2: (0, 2)})]) == Wanted((2,))


def test_the_digest_is_of_the_neurons_and_their_ranks():
    digests = {
        wanted.digest
        for wanted in (Wanted(), Wanted((1,)), Wanted((), {1: (0, 2)}), Wanted((), {1: (0, 3)}))
    }
    assert len(digests) == 4
