"""Find the part of an answer that follows the model's reasoning.

Some servers leave the reasoning in the answer's text. It may hold drafts of the answer, which must
never be read.
"""

from __future__ import annotations

import re

from neuron_atlas.tasks.models.json_answer import find_objects

_NAMES = r"(?:seed:)?(?:think(?:ing)?|thoughts?|reason(?:ing)?|scratchpad|reflection|analysis)"
_OPENED = re.compile(
    rf"<{_NAMES}(?:\s[^<>]*)?>"
    r"|\[THINK\]"
    r"|\u25c1think\u25b7"
    r"|<\|(?:START_THINKING|begin_of_thought|start_of_thought)\|>"
    r"|<\|channel\|?>\s*(?:analysis|commentary|thought)"
    r"|<unused94>"
    r"|<details type=\"reasoning\"[^<>]*>",
    re.IGNORECASE,
)
_CLOSED = re.compile(
    rf"</{_NAMES}\s*>"
    r"|\[/THINK\]"
    r"|\u25c1/think\u25b7"
    r"|<\|(?:END_THINKING|end_of_thought)\|>"
    r"|<\|channel\|>\s*final\s*<\|message\|>|<channel\|>"
    r"|<unused95>"
    r"|</details\s*>",
    re.IGNORECASE,
)


def answer_part(text: str) -> tuple[int, int]:
    """Return start and end of the answer proper: what follows the reasoning, if the text has any.

    Reasoning that is not closed reaches to the end of the text. A tag within an object of the
    answer, such as the name of a token, is text.
    """
    closed, opened = list(_CLOSED.finditer(text)), list(_OPENED.finditer(text))
    if not closed and not opened:
        return 0, len(text)
    start = 0
    objects = [(one.start, one.end) for one in find_objects(text)]

    def is_tag(position: int) -> bool:
        return not any(start <= first <= position < last for first, last in objects)

    for tag in closed:
        if is_tag(tag.start()):
            start = tag.end()
    for tag in opened:
        if tag.start() >= start and is_tag(tag.start()):
            return start, tag.start()
    return start, len(text)


def is_only_reasoning(text: str) -> bool:
    """Return whether a text holds reasoning, and no answer outside of it."""
    start, end = answer_part(text)
    return bool(text.strip()) and not text[start:end].strip()
