"""Data as scripts: one call each, of a function that the page has, with a key and a value."""

from __future__ import annotations

import base64
import json
import math
from pathlib import Path
from typing import Any

import numpy as np

from neuron_atlas.tasks.artifacts.location import writing

_CALL = "atlas"


def script_text(key: str, value: Any) -> str:
    """A script that hands `value` (plain data, finite numbers) to the page under `key`.

    Everything beyond ASCII is escaped, so neither U+2028 nor a mark that turns the direction of
    text reaches a parser; and so is "<", so that no text can look like the end of a script.
    Raises ValueError for a number that JSON has not.
    """
    written = json.dumps([key, value], ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    return f"{_CALL}({written[1:-1]});\n".replace("<", "\\u003c")


def write_script(path: Path, key: str, value: Any) -> int:
    """Write the script to a file that is either whole or absent; gives its bytes."""
    return write_whole(path, script_text(key, value).encode("ascii"))


def write_whole(path: Path, content: bytes) -> int:
    """Write a file that is either whole or absent; gives its bytes. Raises DiskFull."""
    with writing(path) as unfinished:
        unfinished.write_bytes(content)
    return len(content)


def packed(values: np.ndarray) -> str:
    """An array's bytes, little-endian, in base64; "" for none."""
    little = values.astype(values.dtype.newbyteorder("<"), copy=False)
    return base64.b64encode(np.ascontiguousarray(little).tobytes()).decode("ascii")


def short(value: float | None, digits: int = 4) -> float | None:
    """A number to some significant digits; None for what is no number."""
    if value is None or not math.isfinite(value):
        return None
    return float(f"{value:.{digits}g}")
