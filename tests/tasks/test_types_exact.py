"""The paper's types from what capture stores are those from all activations, in float32."""

import numpy as np
import pytest

from neuron_atlas.tasks.capture.record_tables import layer_tables
from neuron_atlas.tasks.classify.paper import PaperRule
from neuron_atlas.tasks.subject.encode import TEMPLATE, TEXT, VISUAL
from tests.one_process import classify, merge
from tests.tasks.capture.synthetic import NEURONS, SyntheticSample, make_sample, shard
from tests.tasks.capture.test_capture import captured, encoded_scenes, hooked_activations

N = 4  # Exemplars that test_capture records.


def types_of_all_activations(values, is_text, rule):
    """The types of a layer. values: by sample_id, float32 [tokens, neurons]. is_text: [tokens]."""
    ids = sorted(values)
    peaks = np.stack([values[sample_id].max(0) for sample_id in ids])
    scale = peaks.max(0).clip(min=0)
    limits = [
        np.where(scale > 0, scale * (threshold / 10), np.inf).astype(np.float32)
        for threshold in (rule.t_visual, rule.t_text)
    ]
    counts = [
        np.stack([(values[i][mine(is_text[i])] > limit).sum(0) for i in ids])
        for mine, limit in ((np.logical_not, limits[0]), (np.asarray, limits[1]))
    ]
    visual, text = counts[0] >= rule.n_visual, counts[1] >= rule.n_text
    kind = np.select([visual & text, visual, text], [2, 0, 1], default=3)
    ranked = np.argsort(-peaks, axis=0, kind="stable")[:N]
    votes = np.take_along_axis(kind, ranked, 0)
    shares = np.stack([(votes == number).sum(0) for number in range(4)])
    return np.array(["visual", "text", "multi-modal", "unknown"])[shares.argmax(0)]


@pytest.mark.parametrize("rule", [PaperRule(), PaperRule(n_visual=8, t_visual=1.0, n_text=1)])
def test_what_capture_stores_decides_the_types_exactly(subject, rule):
    samples = encoded_scenes(subject, 24)
    is_text = {
        sample_id: (encoded.roles[encoded.roles != TEMPLATE] == TEXT).numpy()
        for sample_id, encoded in samples
    }
    for layer, record in captured(subject, samples).items():
        (_, exemplars), (_, moments), _ = layer_tables(layer, record)
        types = np.array(rule.types(exemplars, moments)["type"].to_pylist())
        values = hooked_activations(subject, samples, layer, "gate")
        np.testing.assert_array_equal(types, types_of_all_activations(values, is_text, rule))
        assert len(set(types)) >= 2


def test_activations_next_to_a_threshold_are_not_rounded_across_it(tmp_path):
    """1.99962 is below the visual threshold of 2, and 3.00011 above the text threshold of 3. In
    float16 they would change sides, and the neuron its type."""
    visual, text = (np.float32(value) for value in (1.99962, 3.00011))
    scales = np.linspace(1, 9, 10_000, dtype=np.float32)
    up, down = ((scales * v / 10).astype(np.float16).astype(np.float32) for v in (visual, text))
    scales = scales[(up > scales * np.float32(0.2)) & (down <= scales * np.float32(0.3))]
    scales = scales[:: len(scales) // NEURONS][:NEURONS]
    assert len(scales) == NEURONS
    encoded = next(made.encoded for made in map(make_sample, range(99)) if len(made.text) > 2)
    values = np.zeros((len(encoded.roles), NEURONS), np.float32)
    is_visual, is_text = (np.flatnonzero(encoded.roles == role) for role in (VISUAL, TEXT))
    values[is_visual[:4]] = scales * visual / 10
    values[is_visual[0]] = scales  # The maximum, which is 10.
    values[is_text[:2]] = scales * text / 10
    made = shard(tmp_path / "shard", [SyntheticSample(3, encoded, values)], top_n=1)
    types = classify(merge([made], [4], 1, tmp_path / "merged"), 4, PaperRule())
    assert types["type"].to_pylist() == ["text"] * NEURONS
