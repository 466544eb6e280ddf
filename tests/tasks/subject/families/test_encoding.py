"""Every family, as a small random instance of its real model and processor classes."""

import numpy as np
import pytest
import torch
from PIL import Image

from neuron_atlas.tasks.artifacts.regions import Region, count_tokens, token_boxes
from neuron_atlas.tasks.subject.batch import PER_TOKEN
from neuron_atlas.tasks.subject.encode import TEMPLATE, TEXT, VISUAL, EncodedSample, encode
from neuron_atlas.tasks.subject.families import FAMILIES
from neuron_atlas.tasks.subject.load import Subject, load_subject
from neuron_atlas.tasks.subject.settings import SubjectSettings
from tests.families.building import build
from tests.families.instances import BUILDS
from tests.families.looking import change_of_tokens, embeddings, stop_mixing
from tests.families.pictures import PICTURES, SEVERAL, SIZES, TEXT_SAID

WITH_NEWLINES = ("llava_next", "llava_onevision")


def placeholders(subject: Subject, encoded: EncodedSample) -> torch.Tensor:
    return encoded.input_ids == subject.image_token_id


def model_features(subject: Subject, encoded: EncodedSample) -> int:
    """How many features the model itself makes of a sample's images."""
    given = {name: part for name, part in encoded.inputs.items() if name not in PER_TOKEN}
    with torch.inference_mode():
        features = subject.model.model.get_image_features(**given, return_dict=True).pooler_output
    return sum(part.shape[:-1].numel() for part in features)


def test_every_known_family_is_tested_here():
    assert set(BUILDS) == set(FAMILIES)


def test_roles_tile_the_sequence_and_the_visual_ones_are_those_of_the_regions(subject, images):
    encoded = encode(subject, images, TEXT_SAID)
    roles = encoded.roles
    assert len(roles) == len(encoded.input_ids)
    assert sum(int((roles == role).sum()) for role in (VISUAL, TEXT, TEMPLATE)) == len(roles)
    assert encoded.n_visual == count_tokens(encoded.regions) == len(token_boxes(encoded.regions))
    assert placeholders(subject, encoded)[roles == VISUAL].all()
    assert (roles[-encoded.n_text :] == TEXT).all()
    assert "".join(encoded.pieces) == TEXT_SAID
    assert [region.image for region in encoded.regions] == sorted(
        region.image for region in encoded.regions
    )
    assert {region.image for region in encoded.regions} == set(range(len(images)))


def test_a_sequence_begins_with_one_bos_whether_the_template_writes_it_or_not(subject, images):
    begin = subject.processor.tokenizer.bos_token_id
    ids = encode(subject, images, TEXT_SAID).input_ids
    assert ids[0] == begin
    assert int((ids == begin).sum()) == 1


def test_the_processors_count_of_an_images_tokens_is_the_models(subject, images):
    encoded = encode(subject, images, TEXT_SAID)
    counted = int(placeholders(subject, encoded).sum())
    assert counted == (model_features(subject, encoded) if images else 0)
    newlines = counted - encoded.n_visual
    if subject.family in WITH_NEWLINES and images:
        assert newlines > 0
    else:
        assert newlines == 0


def test_all_of_each_image_is_looked_at(subject, images):
    if subject.family == "llava":
        return  # Its processor crops to the middle square, as test_geometry.py shows.
    regions = encode(subject, images, TEXT_SAID).regions
    for image, picture in enumerate(images):
        mine = [region for region in regions if region.image == image]
        seen = np.zeros((picture.height, picture.width), dtype=bool)
        for left, top, right, bottom in token_boxes(mine).clip(0).round().astype(int):
            seen[top:bottom, left:right] = True
        assert seen.all()


@pytest.fixture(scope="module")
def unmixed(subject: Subject) -> Subject:
    """A copy whose tower works on each patch by itself; see `stop_mixing`."""
    copy = load_subject(subject.settings)
    assert stop_mixing(copy) >= 2  # layers of the tower
    return copy


@pytest.mark.parametrize("shown", [*SIZES, "several"])
def test_pixels_change_the_tokens_that_look_at_them_and_none_far_away(unmixed, shown):
    pictures = SEVERAL if shown == "several" else [PICTURES[shown]]
    encoded = encode(unmixed, pictures, TEXT_SAID)
    boxes = token_boxes(encoded.regions)
    of_image = np.repeat([r.image for r in encoded.regions], [r.tokens for r in encoded.regions])
    is_visual = (encoded.roles == VISUAL).numpy()
    tried = 0
    for region, first in zip(encoded.regions, starts(encoded.regions), strict=True):
        for token in chosen_tokens(region, pictures[region.image]):
            moved = change_of_tokens(
                unmixed, pictures, region.image, boxes[first + token], TEXT_SAID
            ).numpy()
            assert (moved[~is_visual] == 0).all()
            visual = moved[is_visual]
            mine = visual[first : first + region.tokens]
            assert mine.argmax() == token
            assert mine[token] > 0.01
            far = (of_image != region.image) | (gaps(boxes, boxes[first + token]) > reach(boxes))
            assert (visual[far] == 0).all(), (region, token)
            assert far.sum() >= 3
            tried += 1
    assert tried >= 3


def starts(regions: tuple[Region, ...]) -> list[int]:
    return [0, *np.cumsum([region.tokens for region in regions])[:-1]]


def chosen_tokens(region: Region, picture: Image.Image) -> list[int]:
    """Tokens at the edges and within, less those whose middle is in the padding."""
    rows, columns = region.rows, region.columns
    wanted = {(0, 0), (0, columns - 1), (rows - 1, 1), (rows // 2, columns // 2)}
    places = [row * columns + column for row, column in sorted(wanted)]
    left, top, right, bottom = token_boxes([region])[places].T
    x, y = (left + right) / 2, (top + bottom) / 2
    inside = (x > 0) & (x < picture.width) & (y > 0) & (y < picture.height)
    return [place for place, is_in in zip(places, inside, strict=True) if is_in]


def gaps(boxes: np.ndarray, box: np.ndarray) -> np.ndarray:
    """Pixels between each box and one of them, along the axis where they are farther apart."""
    across = np.maximum(boxes[:, 0] - box[2], box[0] - boxes[:, 2])
    down = np.maximum(boxes[:, 1] - box[3], box[1] - boxes[:, 3])
    return np.maximum(across, down)


def reach(boxes: np.ndarray) -> np.ndarray:
    """How far around its box a token may see: resampling blurs patches into their neighbours."""
    return 0.99 * np.maximum(boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1])


@pytest.mark.parametrize("family", WITH_NEWLINES)
def test_placeholders_that_look_nowhere_are_the_models_newlines(family, tmp_path):
    subject = load_subject(SubjectSettings(model=str(build(BUILDS[family], tmp_path))))
    encoded = encode(subject, [PICTURES["odd"]], TEXT_SAID)
    newlines = placeholders(subject, encoded) & (encoded.roles == TEMPLATE)
    read = embeddings(subject, encoded)
    newline = subject.model.model.image_newline
    assert int(newlines.sum()) == encoded.regions[1].rows
    assert torch.equal(read[newlines], newline.expand(int(newlines.sum()), -1))
    assert not (read[encoded.roles == VISUAL] == newline).all(1).any()
