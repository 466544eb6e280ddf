"""The bundled subject as a model that vLLM serves, with room for the prompts of a simulator."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from tests.workflows.runs import ROOT

BUNDLED = ROOT / "infra" / "subject" / "llava-scenes"
POSITIONS = 8192
VOCABULARY = 512
"""Of the subject: a server that is allowed so many tells of all alternatives at a token."""


def make_servable(folder: Path) -> Path:
    """A copy that takes prompts of up to POSITIONS tokens.

    vLLM serves the subject as it is, but its tokenizer knows the words of scenes and spells out
    all others, so the instructions of a simulator exceed the 1,024 positions that it was trained
    for. Its positions are rotations, which go on beyond them: it answers, and what it says there
    means nothing. The weights are the same file.
    """
    shutil.copytree(BUNDLED, folder)
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    config["text_config"]["max_position_embeddings"] = POSITIONS
    (folder / "config.json").write_text(json.dumps(config, indent=2), encoding="utf-8")
    tokenizer = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
    tokenizer["model_max_length"] = POSITIONS
    (folder / "tokenizer_config.json").write_text(json.dumps(tokenizer), encoding="utf-8")
    return folder
