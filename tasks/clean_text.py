"""Clean text where it enters the program: from datasets, files and models."""

from __future__ import annotations

import re

_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]")
"""Control characters other than tab and line ends."""


def clean_text(text: str) -> str:
    r"""Return a text that every table, page and request can hold.

    A lone surrogate becomes U+FFFD, a control character a space, and a line end "\n". Tabs stay. A
    byte order mark at the start is removed.
    """
    try:
        text.encode()
    except UnicodeEncodeError:
        # Joins surrogates that form a pair; replaces the others.
        text = text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    text = text.removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n")
    return _CONTROL.sub(" ", text)
