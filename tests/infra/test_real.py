import csv
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

from neuron_atlas.infra.real import packages
from neuron_atlas.infra.real.emoji import caption, write_emoji
from neuron_atlas.infra.real.packages import PackageError, install_packages
from neuron_atlas.infra.real.subject import write_subject
from neuron_atlas.infra.subject.train import BUNDLED
from neuron_atlas.tasks.samples.folder import Folder
from neuron_atlas.tasks.subject.encode import TEXT, VISUAL, encode
from neuron_atlas.tasks.subject.load import load_subject
from neuron_atlas.tasks.subject.settings import SubjectSettings

EMOJI = [
    {"label": "octopus", "hexcode": "1F419", "tags": ["animal", "ocean"], "order": 3, "group": 3},
    {"label": "anchor", "hexcode": "2693", "tags": ["ship"], "order": 2, "group": 5},
    {"label": "red heart", "hexcode": "2764-FE0F", "tags": ["love"], "order": 1, "group": 0},
    {"label": "no picture", "hexcode": "1F600", "tags": ["face"], "order": 4, "group": 0},
    {"label": "regional indicator A", "hexcode": "1F1E6"},
]


@pytest.fixture
def sources(tmp_path: Path) -> tuple[Path, Path]:
    """The two packages, in small."""
    pictures, names = tmp_path / "pictures", tmp_path / "names"
    folder = pictures / "img" / "twitter" / "64"
    folder.mkdir(parents=True)
    rows = []
    for code in ("1F419", "2693", "2764", "1F1E6", "1F600"):
        image = f"{code.lower()}.png"
        rows.append({"unified": code, "image": image, "has_img_twitter": code != "1F600"})
        picture = Image.new("RGBA", (64, 64))
        picture.paste((200, 30, 30, 255), (16, 16, 48, 48))
        picture.save(folder / image)
    (pictures / "emoji.json").write_text(json.dumps(rows), encoding="utf-8")
    (names / "en").mkdir(parents=True)
    (names / "en" / "data.json").write_text(json.dumps(EMOJI), encoding="utf-8")
    return pictures, names


def test_emoji_with_a_picture_and_tags_become_a_data_set_of_this_program(tmp_path, sources):
    folder = tmp_path / "emoji"
    assert write_emoji(*sources, folder) == 3
    records = list(Folder(str(folder)).records())
    assert {record.source_id: record.text for record in records} == {
        "1f419.png": "octopus: animal, ocean.",
        "2693.png": "anchor: ship.",
        "2764-fe0f.png": "red heart: love.",
    }
    pixels = np.asarray(Folder(str(folder)).open_image("2693.png").pixels)
    assert pixels.shape == (64, 64, 3)
    assert pixels[0, 0].tolist() == [255, 255, 255]
    assert pixels[32, 32].tolist() == [200, 30, 30]


def test_fewer_are_evenly_spaced_in_the_order_of_topics(tmp_path, sources):
    folder = tmp_path / "emoji"
    assert write_emoji(*sources, folder, count=2) == 2
    with (folder / "captions.csv").open(encoding="utf-8") as table:
        rows = [row["image"] for row in csv.DictReader(table)]
    assert rows == ["2764-fe0f.png", "2693.png"]


def test_a_caption_is_the_name_with_its_tags():
    assert caption({"label": "octopus", "tags": ["a", "b"]}) == "octopus: a, b."
    assert caption({"label": "octopus", "tags": []}) == "octopus."


def test_a_language_model_becomes_a_subject_of_this_program(tmp_path):
    tokenizer = AutoTokenizer.from_pretrained(BUNDLED)
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=64, intermediate_size=96, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, tie_word_embeddings=True,
        bos_token_id=1, eos_token_id=2, pad_token_id=3,
    )  # fmt: skip
    torch.manual_seed(1)
    language = LlamaForCausalLM(config).eval()
    ids = torch.tensor([[1, 40, 50, 60]])
    expected = language(input_ids=ids).logits
    write_subject(language, tokenizer, tmp_path / "subject")
    settings = SubjectSettings(model=str(tmp_path / "subject"), dtype="float32")
    subject = load_subject(settings, threads=1)
    logits = subject.model(input_ids=ids).logits[..., : expected.shape[-1]]
    assert torch.allclose(logits, expected, atol=0.02)
    sample = encode(subject, [Image.new("RGB", (64, 64), (90, 200, 40))], "A red circle.")
    assert sample.n_visual == 64
    assert "".join(sample.pieces) == "A red circle."
    assert int((sample.roles == VISUAL).nonzero()[-1]) < int((sample.roles == TEXT).nonzero()[0])


def test_half_an_install_does_not_count(tmp_path, monkeypatch):
    monkeypatch.setattr(packages.shutil, "which", lambda name: f"/bin/{name}")
    monkeypatch.setattr(packages, "PYTHON_PACKAGES", ("no-such-file/for-a-package.whl",))
    with pytest.raises(PackageError, match="pip install"):
        install_packages(tmp_path / "cache")
    assert not packages.python_folder(tmp_path / "cache").exists()


def test_a_missing_npm_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(packages.shutil, "which", lambda name: None)
    with pytest.raises(PackageError, match="npm is missing"):
        install_packages(tmp_path / "cache")
    assert not (tmp_path / "cache").exists()
