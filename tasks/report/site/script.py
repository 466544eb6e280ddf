"""Write data as scripts. Each one calls a function of the page with a key and a value."""

from __future__ import annotations

import base64
import json
import math
from pathlib import Path
from typing import Any

import numpy as np

from neuron_atlas.tasks.artifacts.location import atomic_file

_CALL = "atlas"


def script_text(key: str, value: Any) -> str:
    """Return a script that passes `value` (plain data, finite numbers) to the page under `key`.

    All characters beyond ASCII are escaped, so the parser sees no U+2028 and no marks of text
    direction. "<" is escaped too, so no text can end the script. Raises ValueError for NaN and
    infinity.
    """
    written = json.dumps([key, value], ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    return f"{_CALL}({written[1:-1]});\n".replace("<", "\\u003c")


def write_script(path: Path, key: str, value: Any) -> int:
    """Write the script atomically. Return its size in bytes. Raises ValueError or DiskFullError."""
    return write_atomically(path, script_text(key, value).encode("ascii"))


def write_atomically(path: Path, content: bytes) -> int:
    """Write a file atomically: it is complete or absent. Return its size. Raises DiskFullError."""
    with atomic_file(path) as unfinished:
        unfinished.write_bytes(content)
    return len(content)


def to_base64(values: np.ndarray) -> str:
    """Encode an array's bytes, little-endian, in base64. An empty array gives ""."""
    little = values.astype(values.dtype.newbyteorder("<"), copy=False)
    return base64.b64encode(np.ascontiguousarray(little).tobytes()).decode("ascii")


def round_significant(value: float | None, digits: int = 4) -> float | None:
    """Round a number to some significant digits. None, NaN and infinity give None."""
    if value is None or not math.isfinite(value):
        return None
    return float(f"{value:.{digits}g}")
