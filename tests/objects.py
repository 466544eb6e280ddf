"""Photographs with a column `objects`, as COCO's annotations give it."""

from __future__ import annotations

import json
from pathlib import Path

PHOTOS = Path(__file__).parents[2] / "shared" / "photos"
OBJECTS = {
    "astronaut": ["person"],
    "camera": ["person"],
    "chelsea": ["cat"],
    "coffee": ["cup", "dining table"],
    "flower": ["potted plant"],
    "grace_hopper": ["person", "tie"],
    "page": ["book"],
    "rocket": [],
}
"""Of the coffee the spoon, which its caption names, is left out."""
SYNONYMS = """person, girl, boy, man, woman
cat, kitten
cup
spoon
dining table, table, desk
potted plant, houseplant
tie
book
cell phone, mobile phone, phone
"""
"""Lines in the format of CHAIR's synonyms.txt."""


def write_annotations(folder: Path) -> Path:
    """Write the photographs' annotations with the objects of some of them. Return the file."""
    rows = json.loads((PHOTOS / "detail.json").read_text(encoding="utf-8"))
    for row in rows:
        if row["id"] in OBJECTS:
            row["objects"] = OBJECTS[row["id"]]
    path = folder / "objects.json"
    path.write_text(json.dumps(rows), encoding="utf-8")
    return path
