from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open
from transformers import AutoProcessor, LlavaForConditionalGeneration

from neuron_atlas.infra.subject.architecture import QUESTION, conversation
from neuron_atlas.infra.subject.evaluate import (
    KINDS,
    OVERALL,
    Measurement,
    accuracy,
    best_constant,
    describe_images,
    measure_subject,
)
from neuron_atlas.tasks.samples.scenes import Scenes

FOLDER = Path(__file__).parents[2] / "infra" / "subject" / "llava-scenes"
UNSEEN = Scenes(count=60, seed=910_000)
TRUTH = (
    "There is a small red circle at the top left and a large blue square at the bottom right. "
    "The background is gray. The red circle is small and the blue square is large."
)


@pytest.fixture(scope="module")
def measurement() -> Measurement:
    return measure_subject(FOLDER, UNSEEN)


@pytest.fixture(scope="module")
def model() -> LlavaForConditionalGeneration:
    return LlavaForConditionalGeneration.from_pretrained(FOLDER, use_safetensors=True).eval()


@pytest.fixture(scope="module")
def processor():
    return AutoProcessor.from_pretrained(FOLDER)


@pytest.mark.parametrize("kind", [*KINDS, OVERALL])
def test_its_own_description_is_right_about_scenes_that_it_never_saw(measurement, kind):
    assert measurement.with_image[kind] >= 0.95


@pytest.mark.parametrize("kind", [*KINDS, OVERALL])
def test_it_knows_no_more_than_chance_when_blinded(measurement, kind):
    assert measurement.without_image[kind] <= measurement.chance[kind]
    assert measurement.without_image[kind] <= 0.6


def test_it_stops_naming_an_object_that_is_painted_over(model, processor):
    pictures, truths = [], []
    for record in list(UNSEEN.records())[:30]:
        places = [c for c in UNSEEN.concepts(record.image) if c.kind == "position"]
        if len(places) == 2:
            pictures.append(_paint_over(UNSEEN.open_image(record.image).pixels, places[1].mask))
            truths.append(_without_second_object(record.text))
    answers = describe_images(model, processor, pictures)
    assert len(pictures) > 15
    assert accuracy(truths, answers)[OVERALL] >= 0.95
    assert np.mean([" and " in answer for answer in answers]) <= 0.05


def test_the_folder_holds_safetensors_and_no_other_weights():
    names = sorted(path.name for path in FOLDER.iterdir())
    assert [name for name in names if name.endswith(".safetensors")] == ["model.safetensors"]
    assert not [name for name in names if name.endswith((".bin", ".pt", ".pth", ".pkl", ".py"))]
    assert (FOLDER / "model.safetensors").stat().st_size < 4_000_000


def test_the_weights_have_the_names_that_vllm_looks_for_and_all_of_them_load():
    with safe_open(FOLDER / "model.safetensors", "pt") as weights:
        names = list(weights.keys())
        assert {weights.get_tensor(name).dtype for name in names} == {torch.bfloat16}
    published = ("vision_tower.vision_model.", "multi_modal_projector.", "language_model.")
    assert all(name.startswith(published) for name in names)
    _, report = LlavaForConditionalGeneration.from_pretrained(FOLDER, output_loading_info=True)
    assert not report["missing_keys"]
    assert not report["unexpected_keys"]


def test_every_attention_head_is_at_least_32_wide(model):
    text, vision = model.config.text_config, model.config.vision_config
    assert text.hidden_size // text.num_attention_heads >= 32
    assert vision.hidden_size // vision.num_attention_heads >= 32


def test_an_image_of_any_proportions_becomes_8_by_8_visual_tokens(model, processor):
    prompt = processor.apply_chat_template(conversation(), add_generation_prompt=True)
    for size in [(64, 64), (300, 80), (81, 500)]:
        inputs = processor(images=Image.new("RGB", size), text=prompt, return_tensors="pt")
        assert (inputs["input_ids"] == model.config.image_token_index).sum() == 64
        assert inputs["pixel_values"].shape == (1, 3, 64, 64)


def test_the_prompt_is_the_beginning_of_the_conversation(processor):
    prompt = processor.apply_chat_template(conversation(), add_generation_prompt=True)
    full = processor.apply_chat_template(conversation(TRUTH))
    assert prompt == f"<s>USER: <image>\n{QUESTION} ASSISTANT:"
    assert full == f"{prompt} {TRUTH}</s>"
    prompt_ids, full_ids = (processor.tokenizer(text).input_ids for text in (prompt, full))
    assert full_ids[: len(prompt_ids)] == prompt_ids


def test_every_word_of_a_scene_is_one_token_and_any_other_text_survives(processor):
    for word in {word for names in KINDS.values() for name in names for word in name.split()}:
        assert len(processor.tokenizer(f" {word}").input_ids) == 1, word
    foreign = "Ein Zebra, 3 µm groß: 漢字 🦓"
    assert processor.tokenizer.decode(processor.tokenizer(foreign).input_ids) == foreign


def test_accuracy_compares_word_with_word_in_its_place():
    assert accuracy([TRUTH], [TRUTH]) == dict.fromkeys([*KINDS, OVERALL], 1.0)
    assert accuracy([TRUTH], [""]) == dict.fromkeys([*KINDS, OVERALL], 0.0)
    swapped = TRUTH.replace("red", "x").replace("blue", "red").replace("x", "blue")
    assert accuracy([TRUTH], [swapped])["color"] == 0
    assert accuracy([TRUTH], [swapped])["shape"] == 1
    assert accuracy([TRUTH], [TRUTH.replace("top left", "top right")])["position"] == 0.5


def test_the_best_constant_description_repeats_the_commonest_words():
    truths = [TRUTH, TRUTH, TRUTH.replace("red", "green")]
    assert best_constant(truths)["color"] == pytest.approx((2 + 3) / 6)
    assert best_constant(truths)["shape"] == 1


def _paint_over(image: Image.Image, mask: np.ndarray) -> Image.Image:
    """Fill every cell of the grid that the mask touches with the background, the corner's."""
    touched = Image.fromarray(((mask > 0) * 255).astype(np.uint8)).resize(
        image.size, Image.Resampling.NEAREST
    )
    painted = image.copy()
    painted.paste(image.getpixel((0, 0)), (0, 0), touched)
    return painted


def _without_second_object(text: str) -> str:
    return ". ".join(sentence.split(" and ")[0] for sentence in text.rstrip(".").split(". ")) + "."
