"""The simulator with a segmentation model, a small random one: what it draws is no matter here."""

import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import CLIPSegForImageSegmentation, CLIPSegProcessor

from neuron_atlas.tasks.artifacts.regions import Region
from neuron_atlas.tasks.models.call_options import CallOptions
from neuron_atlas.tasks.models.pretrained import ModelError
from neuron_atlas.tasks.samples.catalog import Catalog, Sample
from neuron_atlas.tasks.samples.scenes import COLORS
from neuron_atlas.tasks.samples.source import OpenedImage, SampleError
from neuron_atlas.tasks.settings import identity
from neuron_atlas.tasks.simulate.clipseg import ClipSeg
from neuron_atlas.tasks.simulate.heat_maps import HeatMaps
from neuron_atlas.tasks.simulate.segmenter import Segmenter, load_segmenter, mean_over_tokens
from neuron_atlas.tasks.simulate.simulator import Prediction, SimulationRequest
from tests.one_process import Described
from tests.small_clipseg import LONGEST_TEXT, build
from tests.tasks.color_segmenter import ColorSegmenter

RED, BLUE = 'Image regions that show "red".', "blue circle"
LONG = " ".join(["red circles and blue squares"] * 20)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("clipseg"))


@pytest.fixture(scope="module")
def catalog(scenes: Described) -> Catalog:
    return scenes.catalog()


def loaded(folder: Path, **settings: object) -> HeatMaps:
    simulator = ClipSeg(model=str(folder), **settings).load()  # type: ignore[arg-type]
    assert isinstance(simulator, HeatMaps)
    return simulator


def ask(simulator: HeatMaps, catalog: Catalog, *questions: SimulationRequest) -> list[Prediction]:
    return simulator.simulate(questions, catalog, CallOptions())


def every(catalog: Catalog, *explanations: str) -> list[SimulationRequest]:
    return [SimulationRequest(said, number) for number in catalog.samples for said in explanations]


def close(some: Sequence[Prediction], others: Sequence[Prediction]) -> None:
    for one, other in zip(some, others, strict=True):
        np.testing.assert_allclose(one.visual, other.visual, atol=1e-5)
        assert replace(one, visual=None) == replace(other, visual=None)


@pytest.fixture
def looked_at(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many images each pass through the model's large part had."""
    counts: list[int] = []
    look = Segmenter.encode_images

    def counting(self: Segmenter, images: Sequence[Image.Image]) -> torch.Tensor:
        counts.append(len(images))
        return look(self, images)

    monkeypatch.setattr(Segmenter, "encode_images", counting)
    return counts


def test_its_maps_are_those_of_the_model_as_transformers_runs_it(folder):
    rng = np.random.default_rng(0)
    images = [
        Image.fromarray(rng.integers(0, 255, (40, 30 * width, 3), dtype=np.uint8))
        for width in (1, 2, 4)
    ]
    texts = [RED, "", LONG]
    segmenter = load_segmenter(str(folder), setting="simulate.model")
    heat = segmenter.heat_maps(segmenter.encode_images(images), segmenter.encode_texts(texts)[0])
    plain = CLIPSegForImageSegmentation.from_pretrained(folder).eval()
    inputs = CLIPSegProcessor.from_pretrained(folder, backend="pil")(
        text=texts,
        images=images,
        padding=True,
        truncation=True,
        max_length=LONGEST_TEXT,
        return_tensors="pt",
    )
    with torch.inference_mode():
        expected = torch.sigmoid(plain(**inputs).logits)
    torch.testing.assert_close(heat, expected)
    assert float(expected.std(0).mean()) > 0.02  # They differ, from image to image at the least.
    told, _ = segmenter.encode_texts([RED, "", BLUE])
    same_image = segmenter.heat_maps(
        segmenter.encode_images(images[:1]).expand(3, -1, -1, -1), told
    )
    assert float(same_image.std(0).mean()) > 0.001


def test_a_prediction_is_the_mean_of_the_map_over_each_patch(folder, catalog):
    simulator = loaded(folder)
    (prediction,) = ask(simulator, catalog, SimulationRequest(RED, 3))
    segmenter = load_segmenter(str(folder), setting="simulate.model")
    heat = segmenter.heat_maps(
        segmenter.encode_images(catalog.open_images(3)), segmenter.encode_texts([RED])[0]
    )[0].numpy()
    # The subject lays a grid of 8 x 8 over the image; each patch has 4 x 4 cells of the map.
    by_patch = heat.reshape(8, 4, 8, 4).mean((1, 3)).ravel()
    np.testing.assert_allclose(prediction.visual, by_patch, atol=1e-5)
    assert prediction.visual.dtype == np.float32
    assert (prediction.text, prediction.estimator, prediction.status) == (None, "probability", "ok")


@pytest.mark.parametrize("batch_size", [1, 5, 64])
def test_batches_and_company_change_no_prediction(folder, catalog, batch_size):
    questions = every(catalog, RED, "", BLUE)
    rng = np.random.default_rng(1)
    shuffled = [questions[place] for place in rng.permutation(len(questions))]
    together = ask(loaded(folder, batch_size=batch_size), catalog, *shuffled)
    alone = loaded(folder)
    close(together[:9], [ask(alone, catalog, question)[0] for question in shuffled[:9]])


@pytest.mark.parametrize("batch_size", [1, 4, 100])
def test_an_image_is_looked_at_once_however_many_explanations_are_asked_of_it(
    folder, catalog, looked_at, batch_size
):
    simulator = loaded(folder, batch_size=batch_size, feature_cache_gb=0.0)
    ask(simulator, catalog, *every(catalog, RED, "", BLUE, LONG, "green"))
    assert sum(looked_at) == len(catalog.samples)


def test_what_was_seen_is_kept_for_later_parts_as_far_as_there_is_room(folder, catalog, looked_at):
    questions = every(catalog, RED)
    simulator = loaded(folder)
    first = ask(simulator, catalog, *questions)
    close(ask(simulator, catalog, *questions), first)
    assert sum(looked_at) == len(catalog.samples)
    looked_at.clear()
    of_one = 3 * 65 * 32 * 4 / 1e9  # Layers, positions, width, bytes.
    narrow = loaded(folder, feature_cache_gb=10.5 * of_one)
    close(ask(narrow, catalog, *questions), first)
    close(ask(narrow, catalog, *questions), first)
    assert sum(looked_at) == 2 * len(catalog.samples) - 10


def test_an_explanation_that_is_longer_than_the_model_reads_says_so_in_its_rows(folder, catalog):
    long, longer, short = ask(
        loaded(folder),
        catalog,
        *(SimulationRequest(said, 2) for said in (LONG, LONG + " and more", RED)),
    )
    assert long.estimator == f"probability, of the first {LONGEST_TEXT} tokens"
    assert short.estimator == "probability"
    np.testing.assert_array_equal(long.visual, longer.visual)
    assert np.abs(long.visual - short.visual).max() > 1e-4


def test_a_map_is_laid_over_the_tokens_by_where_they_look():
    """The upper half of a map of 4 x 4 is 1, and its last column 0.5."""
    heat = torch.zeros(1, 4, 4)
    heat[0, :2] = 1
    heat[0, :, 3] = 0.5
    whole = (0.0, 0.0, 40.0, 20.0)

    def tokens(*region: float) -> list[float]:
        return mean_over_tokens(heat, whole, Region(0, *region))[0].tolist()  # type: ignore[arg-type]

    assert tokens(2, 2, 0, 0, 40, 20) == pytest.approx([1, 0.75, 0, 0.25])
    # Patches and cells need not meet: the last third is a quarter of 1 and three of 0.5.
    assert tokens(1, 3, 0, 0, 40, 10) == pytest.approx([1, 1, 0.25 * 1 + 0.75 * 0.5])
    # Padding above and below, as where a subject sees squares: half of it is outside.
    assert tokens(2, 1, 0, -10, 40, 30)[0] == pytest.approx(0.5 * (3 + 0.5) / 4)
    assert tokens(1, 1, 0, 20, 40, 40) == [0]
    # A map of a part of the image only, as of a processor that crops.
    cropped = mean_over_tokens(heat, (0.0, 0.0, 20.0, 20.0), Region(0, 1, 2, 0, 0, 40, 20))[0]
    assert cropped.tolist() == pytest.approx([float(heat.mean()), 0])


@dataclass(frozen=True)
class Pictures:
    """A source whose images are of one color each; a file that is not there cannot be read."""

    def open_image(self, image: str) -> OpenedImage:
        if image == "gone":
            raise SampleError("missing", "gone is not there")
        return OpenedImage(Image.new("RGB", (40, 20), COLORS[image]), image)


def pictured(**images: tuple[tuple[str, ...], tuple[Region, ...]]) -> Catalog:
    samples = {
        number: Sample(number, name, names, "a text", ("a", " text"), regions, 40, 20)
        for number, (name, (names, regions)) in enumerate(images.items())
    }
    return Catalog(samples, {}, Pictures())  # type: ignore[arg-type]


WHOLE = Region(0, 1, 2, 0, 0, 40, 20)
THUMBNAIL = Region(0, 1, 1, 0, 0, 40, 20)
SECOND = Region(1, 2, 1, 0, 0, 40, 20)


def by_color(catalog: Catalog, *questions: SimulationRequest) -> list[Prediction]:
    simulator = HeatMaps(ColorSegmenter(), "clipseg", batch_size=2, feature_cache_gb=0.5)  # type: ignore[arg-type]
    return ask(simulator, catalog, *questions)


def test_every_image_of_a_sample_is_asked_and_its_tokens_stand_in_the_order_of_the_regions():
    catalog = pictured(two=(("red", "blue"), (WHOLE, SECOND, THUMBNAIL)))
    red, blue = by_color(catalog, SimulationRequest("red", 0), SimulationRequest("blue", 0))
    assert red.visual.tolist() == pytest.approx([1, 1, 0, 0, 1], abs=1e-3)
    assert blue.visual.tolist() == pytest.approx([0, 0, 1, 1, 0], abs=1e-3)


def test_a_sample_without_images_has_a_prediction_of_no_tokens():
    (nothing,) = by_color(pictured(wordy=((), ())), SimulationRequest("red", 0))
    assert (len(nothing.visual), nothing.text, nothing.status) == (0, None, "ok")


def test_an_image_that_cannot_be_read_fails_its_own_questions_alone():
    catalog = pictured(
        fine=(("red",), (WHOLE,)),
        half=(("red", "gone"), (WHOLE, SECOND)),
        lost=(("gone",), (WHOLE,)),
    )
    answers = by_color(catalog, *(SimulationRequest("red", number) for number in (2, 0, 1, 0)))
    assert [answer.status for answer in answers] == ["failed", "ok", "failed", "ok"]
    assert {answer.reason for answer in answers} == {"", "gone is not there"}
    assert answers[1].visual.tolist() == pytest.approx([1, 1], abs=1e-3)


def test_where_memory_runs_out_the_batch_is_halved_and_nothing_is_lost(
    folder, catalog, monkeypatch, caplog
):
    questions = every(catalog, RED, BLUE)
    expected = ask(loaded(folder), catalog, *questions)
    heat = Segmenter.heat_maps

    def crammed(self: Segmenter, seen: torch.Tensor, told: torch.Tensor) -> torch.Tensor:
        if len(told) > 5:
            raise torch.OutOfMemoryError("no room")
        return heat(self, seen, told)

    monkeypatch.setattr(Segmenter, "heat_maps", crammed)
    close(ask(loaded(folder, batch_size=40), catalog, *questions), expected)
    assert [record.message for record in caplog.records] == [
        f"out of memory: simulate continues with batches of {size}" for size in (20, 10, 5)
    ]


def test_memory_for_not_even_one_map_is_an_error_that_says_what_to_do(folder, catalog, monkeypatch):
    def full(*_: object) -> torch.Tensor:
        raise torch.OutOfMemoryError("no room")

    monkeypatch.setattr(Segmenter, "heat_maps", full)
    with pytest.raises(ModelError, match=r"out of memory with one heat map; lower simulate\.feat"):
        ask(loaded(folder), catalog, SimulationRequest(RED, 0))


def test_other_errors_of_the_model_are_not_taken_for_a_lack_of_memory(folder, catalog, monkeypatch):
    def broken(*_: object) -> torch.Tensor:
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    monkeypatch.setattr(Segmenter, "heat_maps", broken)
    with pytest.raises(RuntimeError, match="mat1"):
        ask(loaded(folder), catalog, SimulationRequest(RED, 0))


@pytest.fixture
def copy(folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(folder, tmp_path / "copy"))


def complaint(folder: Path) -> str:
    with pytest.raises(ModelError) as caught:
        ClipSeg(model=str(folder)).load()
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_model_that_is_not_there_is_refused_before_anything_is_done():
    with pytest.raises(ModelError, match=r"^simulate\.model: there is no folder './none'"):
        ClipSeg(model="./none").check()


def test_a_model_of_another_kind_is_refused_by_its_name(subject_folder):
    said = complaint(subject_folder)
    assert said.endswith("is a 'llava' model; name one of the kind 'clipseg'")


def test_a_folder_without_such_a_model_is_refused_before_anything_is_done(
    folder, copy, subject_folder
):
    def refused(at: Path) -> str:
        with pytest.raises(ModelError) as caught:
            ClipSeg(model=str(at)).check()
        return str(caught.value)

    ClipSeg(model=str(folder)).check()
    assert "is a 'llava' model; name one of the kind 'clipseg'" in refused(subject_folder)
    (copy / "model.safetensors").unlink()
    assert refused(copy).startswith(f"simulate.model: '{copy}' holds no weights in safetensors")
    for content in ("", "[]", "{"):
        (copy / "config.json").write_text(content)
        assert "its config.json cannot be read" in refused(copy)
    (copy / "config.json").unlink()
    assert "its config.json cannot be read" in refused(copy)


def test_weights_that_are_missing_damaged_or_pickled_are_refused(copy):
    weights = load_file(copy / "model.safetensors")
    del weights["decoder.film_mul.weight"]
    save_file(weights, copy / "model.safetensors", metadata={"format": "pt"})
    assert "lack 'decoder.film_mul.weight'" in complaint(copy)
    (copy / "model.safetensors").write_bytes(b"not weights")
    assert "model.safetensors is damaged" in complaint(copy)
    (copy / "model.safetensors").unlink()
    torch.save(weights, copy / "pytorch_model.bin")
    assert "cannot be loaded" in complaint(copy)


def test_the_weights_and_not_where_they_lie_are_what_a_prediction_is_made_from(folder, copy):
    def weights(at: Path) -> str:
        return ClipSeg(model=str(at)).weights()

    assert weights(copy) == weights(folder)
    assert identity(ClipSeg(model=str(copy), batch_size=3)) == identity(ClipSeg(model=str(folder)))
    config = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps(config | {"extract_layers": [0, 1, 3]}))
    assert weights(copy) != weights(folder)
