"""An atlas exported as a Hugging Face dataset, and loaded again."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import polars as pl
import pytest
import yaml

from neuron_atlas.tasks.atlas import Atlas
from neuron_atlas.tasks.atlas.card import markdown_cell
from neuron_atlas.tasks.atlas.export import export, main

ROWS = ("types", "tested_types", "explanations", "scores")


@pytest.fixture(scope="module")
def opened(first_run) -> Atlas:
    return Atlas.open(first_run.store.out)


@pytest.fixture(scope="module")
def folder(opened, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("export") / "atlas"
    export(opened, folder, "cc-by-4.0")
    return folder


@pytest.fixture(scope="module")
def card(folder) -> tuple[dict, str]:
    _, front, words = (folder / "README.md").read_text(encoding="utf-8").split("---\n", 2)
    return yaml.safe_load(front), words


@pytest.mark.parametrize("name", ROWS)
def test_each_table_is_loaded_as_it_is_in_the_atlas(opened, folder, tmp_path, monkeypatch, name):
    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", True)
    from datasets import load_dataset

    loaded = load_dataset(str(folder), name, split="atlas", cache_dir=str(tmp_path))
    table = opened.table(name).collect()
    assert loaded.column_names == table.columns
    assert pl.from_arrow(loaded.data.table).equals(table)


def test_the_card_names_configs_features_and_licence(card):
    front, _ = card
    assert front["license"] == "cc-by-4.0"
    assert front["pretty_name"] == "Neurons of llava-scenes on 150 drawn scenes, seed 0"
    assert {one["config_name"] for one in front["configs"]} == set(ROWS)
    assert [one["config_name"] for one in front["configs"] if one.get("default")] == ["types"]
    (types,) = [one for one in front["dataset_info"] if one["config_name"] == "types"]
    assert types["splits"][0]["num_examples"] == 1024
    assert {"name": "scale", "dtype": "float32"} in types["features"]


def test_the_card_tells_how_it_was_made_and_what_was_measured(card, opened):
    _, words = card
    assert "| layers | 1, 3 |" in words
    assert "| explainer | dissect |" in words
    counts = opened.types.group_by("layer", "type").len().collect()
    for layer, name, count in counts.iter_rows():
        (row,) = [line for line in words.splitlines() if line.startswith(f"| {layer} |")]
        assert f" {count:,} " in row, name
    (mean,) = (
        opened.score_aggregates.filter(
            pl.col("tokens") == "all", pl.col("by") == "all", pl.col("measure") == "correlation"
        )
        .collect()["mean"]
        .to_list()
    )
    assert f"| dissect | concept | correlation | {mean:.3f} |" in words
    named = (
        r"The strongest control of dissect, simulated by concept, is .*`control_\w+`\): -?0\.\d+\."
    )
    assert re.search(named, words)
    assert "## Limitations" in words
    assert "/" not in words.split("| subject |")[1].split("\n")[0]


def test_without_effects_the_card_does_not_speak_of_them(card):
    assert "causal" not in card[1]
    assert "promotes" not in card[1]


def test_without_a_licence_the_card_says_that_none_is_chosen(opened, tmp_path):
    export(opened, tmp_path / "new")
    text = (tmp_path / "new" / "README.md").read_text(encoding="utf-8")
    assert "license: unknown" in text
    assert "No license has been chosen yet" in text


def test_nothing_of_a_dataset_is_markup_in_a_table():
    assert markdown_cell("a|b\n[c](d) <e> *f*") == r"a\|b \[c\](d) \<e\> \*f\*"


def call(monkeypatch, *arguments: object) -> object:
    monkeypatch.setattr(sys, "argv", ["neuron-atlas-export", *map(str, arguments)])
    try:
        main()
    except SystemExit as ended:
        return ended.code
    return 0


def test_the_script_writes_it_and_refuses_what_is_there(opened, tmp_path, monkeypatch, capsys):
    out = opened.run.out
    assert call(monkeypatch, out, tmp_path / "new", "--title", "Mine: one\ntwo") == 0
    assert "types         1,024 rows" in capsys.readouterr().out
    assert "# Mine: one two\n" in (tmp_path / "new" / "README.md").read_text(encoding="utf-8")
    assert call(monkeypatch, out, tmp_path / "new") == 2
    assert "is not empty; name a new folder" in capsys.readouterr().err
    assert call(monkeypatch, tmp_path / "nothing", tmp_path / "other") == 2
    assert "holds no finished run" in capsys.readouterr().err
    assert not (tmp_path / "other").exists()
    assert call(monkeypatch, "s3://", tmp_path / "other") == 2
    assert "has no bucket" in capsys.readouterr().err


def test_a_full_disk_leaves_no_half_an_export(opened, tmp_path, monkeypatch, capsys):
    def fill(*_: object) -> None:
        with Path("/dev/full").open("wb", buffering=0) as stream:
            stream.write(b"1")

    monkeypatch.setattr("neuron_atlas.tasks.atlas.export.write_card", fill)
    assert call(monkeypatch, opened.run.out, tmp_path / "new") == 1
    assert "is full" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
