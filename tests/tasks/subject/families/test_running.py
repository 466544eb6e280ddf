"""Every family run: its activations, records and answers, whatever they are batched with."""

from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from torch.nn.functional import gelu, silu

from neuron_atlas.tasks.artifacts import (
    TableSpec,
    exemplars_spec,
    layer_file,
    read_table,
    slot_values,
)
from neuron_atlas.tasks.artifacts.regions import activation_map, read_regions, view_of
from neuron_atlas.tasks.capture.settings import CaptureSettings
from neuron_atlas.tasks.subject.batch import batch_inputs, forward_body
from neuron_atlas.tasks.subject.describe import describe_samples, generate_descriptions
from neuron_atlas.tasks.subject.encode import TEXT, encode, question_prompt
from neuron_atlas.tasks.subject.hook_points import (
    check_layers,
    decoder_layers,
    neurons_per_layer,
    observing,
)
from neuron_atlas.tasks.subject.settings import DescribeSettings, HookPoint, SubjectError
from neuron_atlas.tasks.subject.truncate import truncated
from tests.families.activations import activations_of
from tests.families.pictures import PICTURES, SEVERAL, TEXT_SAID, Pictures, drawn
from tests.one_process import capture, describe

GIVEN = DescribeSettings(text_source="given")


def test_activations_do_not_depend_on_what_a_sample_is_batched_with(subject):
    shown = [[PICTURES["even"]], [], SEVERAL, [PICTURES["odd"]], [PICTURES["portrait"]]]
    samples = [encode(subject, pictures, TEXT_SAID) for pictures in shown]
    length = max(len(sample.input_ids) for sample in samples) + 5
    together = activations_of(subject, samples, length)
    for row, sample in enumerate(samples):
        tokens = len(sample.input_ids)
        alone = activations_of(subject, [sample], length)[0, :tokens]
        torch.testing.assert_close(together[row, :tokens], alone, rtol=1e-4, atol=1e-5)


def test_activations_do_not_depend_on_the_padding(subject, images):
    encoded = encode(subject, images, TEXT_SAID)
    tokens = len(encoded.input_ids)
    tight, wide = (activations_of(subject, [encoded], tokens + more)[0, :tokens] for more in (0, 9))
    torch.testing.assert_close(tight, wide, rtol=1e-4, atol=1e-5)


def test_activations_are_those_of_the_model_fed_by_its_processor_alone(subject, images):
    """With the attention mask and whatever else the processor gives, and no padding."""
    encoded = encode(subject, images, TEXT_SAID)
    prompt = question_prompt(subject, len(images)) + TEXT_SAID
    given = subject.processor(
        images=[images] if images else None,
        text=[prompt],
        add_special_tokens=not prompt.startswith("<s>"),
        return_tensors="pt",
    )
    assert given["input_ids"][0].tolist() == encoded.input_ids.tolist()
    assert given["attention_mask"].all()
    last = len(decoder_layers(subject)) - 1
    seen: list[torch.Tensor] = []
    with (
        observing(subject, [last], "gate", lambda _, values: seen.append(values)),
        torch.inference_mode(),
    ):
        subject.model(**given)
    mine = activations_of(subject, [encoded], len(encoded.input_ids))
    torch.testing.assert_close(mine, seen[0], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("hook_point", ["gate", "gate_up"])
def test_hook_points_are_the_ffns_activations(subject, hook_point: HookPoint):
    layers = list(range(len(decoder_layers(subject))))
    check_layers(subject, layers)
    encoded = encode(subject, [PICTURES["odd"]], TEXT_SAID)
    seen: dict[int, torch.Tensor] = {}
    read: dict[int, torch.Tensor] = {}
    handles = [
        decoder_layers(subject)[layer].mlp.register_forward_pre_hook(
            lambda _, args, layer=layer: read.update({layer: args[0]})
        )
        for layer in layers
    ]
    with (
        observing(subject, layers, hook_point, lambda layer, values: seen.update({layer: values})),
        torch.no_grad(),
    ):
        forward_body(subject, batch_inputs([encoded], len(encoded.input_ids)))
    for handle in handles:
        handle.remove()
    assert list(seen) == layers
    for layer in layers:
        mlp = decoder_layers(subject)[layer].mlp
        gate = read[layer] @ mlp.gate_proj.weight.T
        acted = gelu(gate, approximate="tanh") if subject.family == "gemma3" else silu(gate)
        expected = acted if hook_point == "gate" else acted * (read[layer] @ mlp.up_proj.weight.T)
        torch.testing.assert_close(seen[layer], expected, rtol=1e-4, atol=1e-6)
        assert seen[layer].shape == (1, len(encoded.input_ids), neurons_per_layer(subject))


def test_a_truncated_subject_gives_the_same_activations_and_is_whole_again(subject):
    encoded = encode(subject, [PICTURES["odd"]], TEXT_SAID)
    inputs = batch_inputs([encoded], len(encoded.input_ids))
    count = len(decoder_layers(subject))
    seen: list[torch.Tensor] = []
    with (
        observing(subject, [0], "gate", lambda _, values: seen.append(values)),
        torch.inference_mode(),
    ):
        with truncated(subject, 0):
            assert len(decoder_layers(subject)) == 1
            forward_body(subject, inputs)
        forward_body(subject, inputs)
    assert torch.equal(*seen)
    with pytest.raises(RuntimeError, match="lost"), truncated(subject, 0):
        raise RuntimeError("lost")
    assert len(decoder_layers(subject)) == count > 1


def test_the_subjects_answer_is_the_same_however_samples_are_batched(subject):
    shown = [[PICTURES["even"]], [], SEVERAL, [PICTURES["odd"]]]
    together = generate_descriptions(subject, shown, 6)
    assert together == [generate_descriptions(subject, [pictures], 6)[0] for pictures in shown]
    assert len({text for text, _ in together}) > 1


def test_a_record_is_the_same_for_any_batch_size(subject, tmp_path):
    described = describe(subject, Pictures(), tmp_path, GIVEN)
    lengths = Counter(map(tuple, counted(described.descriptions)))
    assert max(lengths.values()) >= 4  # Samples that one batch can hold.
    one, four = (
        capture(
            subject,
            described,
            [0, 1],
            CaptureSettings(top_n=5, batch_size=size),
            tmp_path / str(size),
        )
        for size in (1, 4)
    )
    for layer in (0, 1):
        mine, other = (
            read(folder, "exemplars", exemplars_spec(5), layer) for folder in (one, four)
        )
        for column in ("sample_id", "peak_role", "peak_token"):
            assert mine[column].equals(other[column])
        for role in ("visual", "text"):
            tops = [slot_values(table, f"{role}_top") for table in (mine, other)]
            np.testing.assert_allclose(*tops, rtol=2e-3, atol=1e-4)


def counted(descriptions: pa.Table) -> list[tuple[int, int]]:
    return list(
        zip(descriptions["n_visual"].to_pylist(), descriptions["n_text"].to_pylist(), strict=True)
    )


def read(folder: Path, name: str, spec: TableSpec, layer: int) -> pa.Table:
    return read_table(folder / layer_file(name, layer), spec)


def test_a_text_that_spells_a_marker_of_the_family_is_freed_of_it(subject):
    spelled = " ".join(f"a {marker} b" for marker in subject.markers)
    (row,) = describe_samples(
        subject,
        [{"sample_id": 0, "text": spelled}],
        [[PICTURES["even"]]],
        GIVEN,
    )
    assert row["status"] == "ok"
    assert row["n_visual"] == encode(subject, [PICTURES["even"]], "x").n_visual
    assert not any(marker in row["text"] for marker in subject.markers)


@pytest.mark.parametrize("text_source", ["given", "generated"])
def test_a_very_narrow_image_is_described_or_a_row_with_the_reason(subject, text_source):
    """What is described can be drawn later: no grid of visual tokens is empty."""
    samples = [{"sample_id": number, "text": TEXT_SAID} for number in range(3)]
    narrow = drawn(10, 3000)
    shown = [[PICTURES["even"]], [narrow], [PICTURES["odd"]]]
    settings = DescribeSettings(text_source=text_source, max_new_tokens=3)
    rows = describe_samples(subject, samples, shown, settings)
    assert all(row["status"] in ("ok", "truncated", "empty_text") for row in (rows[0], rows[2]))
    reason = {
        "qwen2_5_vl": "absolute aspect ratio must be smaller than 200, got 300.0",
        "llava_next": "image 1 gives a grid of 4 x 0 visual tokens: it is too narrow",
        "llava_onevision": "image 1 gives a grid of 4 x 0 visual tokens: it is too narrow",
    }.get(subject.family, "")
    if reason:
        assert (rows[1]["status"], rows[1]["reason"]) == ("not_encoded", reason)
    elif rows[1]["status"] != "empty_text":
        regions = read_regions(rows[1]["regions"])
        view = view_of(regions)
        assert activation_map(view, np.ones(rows[1]["n_visual"], np.float32)).min() >= 0
        assert min(view.width, view.height) > 0


def test_an_image_of_which_a_subject_sees_less_than_a_pixel_is_a_row(subject):
    """LLaVA crops an image to its middle square."""
    samples = [{"sample_id": 0, "text": TEXT_SAID}]
    (row,) = describe_samples(subject, samples, [[drawn(1, 3000)]], GIVEN)
    if subject.family == "llava":
        assert (row["status"], row["reason"]) == (
            "not_encoded",
            "the subject sees less than a pixel of image 1: it is too narrow",
        )
    elif row["status"] == "ok":
        assert view_of(read_regions(row["regions"])).width > 0


def test_no_control_token_is_ever_text(subject):
    """Each one that the tokenizer has, spelled in the middle of a caption."""
    tokenizer = subject.processor.tokenizer
    special = {one.content for one in tokenizer.added_tokens_decoder.values() if one.special}
    spelled = " ".join(f"a dog{marker} and a cat" for marker in sorted(special))
    assert len(special) >= 5
    samples = [{"sample_id": 0, "text": spelled}]
    (row,) = describe_samples(subject, samples, [[PICTURES["even"]]], GIVEN)
    assert row["status"] == "ok"
    assert row["text"].count("a dog") == len(special)
    encoded = encode(subject, [PICTURES["even"]], row["text"])
    text_ids = set(encoded.input_ids[encoded.roles == TEXT].tolist())
    assert not text_ids & set(tokenizer.convert_tokens_to_ids(sorted(special)))
    assert "".join(encoded.pieces) == row["text"]
    with pytest.raises(SubjectError, match="control token"):
        encode(subject, [PICTURES["even"]], f"a dog{tokenizer.eos_token} and a cat")
