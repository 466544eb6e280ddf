"""Read a JSON file of a saved model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from neuron_atlas.tasks.models.pretrained import first_line
from neuron_atlas.tasks.subject.settings import SubjectError


def read_json_file(path: Path, setting: str) -> dict[str, Any]:
    """Return the fields of a JSON file. setting: what names the model, for messages. Raises
    SubjectError if it is damaged."""
    try:
        content = json.loads(path.read_text("utf-8"))
        if not isinstance(content, dict):
            raise ValueError("it holds no mapping of fields")
    except (OSError, ValueError) as error:
        raise SubjectError(
            f"{setting}: {path} is damaged ({first_line(error)}); save or download it again"
        ) from error
    return content
