"""What of the types enters the fingerprints of later stages."""

from __future__ import annotations

import pyarrow as pa
import pytest

from neuron_atlas.workflows.run.content import hash_rows
from neuron_atlas.workflows.run.neurons import neurons_identity


def table(**columns: list[object]) -> pa.Table:
    rows = {"layer": [0, 0], "neuron": [3, 4], "type": ["text", "visual"], "scale": [1.0, 2.0]}
    return pa.table(rows | columns)


@pytest.mark.parametrize("name", ["layer", "neuron", "type", "scale"])
def test_all_that_later_stages_read_of_a_neuron_counts(name):
    changed = table(**{name: table()[name].to_pylist()[::-1]})
    if name == "layer":
        changed = table(layer=[0, 1])
    assert neurons_identity(changed) != neurons_identity(table())


def test_what_no_later_stage_reads_does_not_count():
    assert neurons_identity(table(share_text=[0.5, 0.1])) == neurons_identity(
        table(share_text=[0.6, 0.2])
    )


def test_a_hash_depends_on_the_rows_and_not_on_how_they_are_stored():
    whole = table()
    parts = pa.concat_tables([whole.slice(0, 1), whole.slice(1)])
    assert parts["type"].num_chunks == 2
    assert hash_rows([parts]) == hash_rows([whole])
    assert hash_rows([whole.slice(0, 1)]) != hash_rows([whole])
