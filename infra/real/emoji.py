"""Write a data set of emoji pictures, each with its name and tags as caption."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

COUNT = 600


def write_emoji(pictures: Path, names: Path, folder: Path, count: int = COUNT) -> int:
    """Write `count` pictures and captions.csv to a folder; return how many. Without that many
    emoji, all are written.

    pictures: folder of emoji-datasource-twitter. names: folder of emojibase-data. The emoji are
    evenly spaced in the order of their names' table, which goes by topic, so every topic is there.
    Transparent parts become white.
    """
    shutil.rmtree(folder, ignore_errors=True)
    partial = folder.with_name(f"{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    found = _with_pictures(json.loads((names / "en" / "data.json").read_text("utf-8")), pictures)
    chosen = [found[place * len(found) // count] for place in range(count)]
    chosen = chosen if len(found) > count else found
    with (partial / "captions.csv").open("w", encoding="utf-8", newline="") as table:
        writer = csv.writer(table)
        writer.writerow(["image", "caption"])
        for emoji, picture in chosen:
            name = f"{emoji['hexcode'].lower()}.png"
            _on_white(picture).save(partial / name)
            writer.writerow([name, caption(emoji)])
    partial.rename(folder)
    return len(chosen)


def caption(emoji: Mapping[str, Any]) -> str:
    """Return the name and the tags, such as "octopus: animal, creature, ocean."."""
    tags = ", ".join(emoji["tags"])
    return f"{emoji['label']}: {tags}." if tags else f"{emoji['label']}."


def _with_pictures(
    emoji: Sequence[Mapping[str, Any]], pictures: Path
) -> list[tuple[Mapping[str, Any], Path]]:
    """Return the emoji that have a topic, tags and a picture, in their own order."""
    rows = json.loads((pictures / "emoji.json").read_text("utf-8"))
    images = {_plain(row["unified"]): row["image"] for row in rows if row["has_img_twitter"]}
    found = []
    for one in sorted(emoji, key=lambda one: one.get("order", 0)):
        image = images.get(_plain(one["hexcode"]))
        if image and "group" in one and one.get("tags"):
            found.append((one, pictures / "img" / "twitter" / "64" / image))
    return found


def _plain(code: str) -> str:
    """Return a code point sequence without the variation selector, which the two tables treat
    differently."""
    return "-".join(part for part in code.upper().split("-") if part != "FE0F")


def _on_white(path: Path) -> Image.Image:
    with Image.open(path) as opened:
        picture = opened.convert("RGBA")
    white = Image.new("RGBA", picture.size, "white")
    return Image.alpha_composite(white, picture).convert("RGB")
