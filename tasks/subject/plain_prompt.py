"""Write the prompt of a model without a chat template. Importable without torch."""

from __future__ import annotations

import json
import re

from neuron_atlas.tasks.subject.settings import SubjectError, SubjectSettings

_FIELDS = re.compile(r"(\{image\}|\{question\})")
_PART = (
    "{{%- for part in message['content'] -%}}{{%- if part['type'] == '{kind}' -%}}"
    "{{{{- {value} -}}}}{{%- endif -%}}{{%- endfor -%}}"
)


def check_prompt(settings: SubjectSettings) -> None:
    """Raise SubjectError for a settings.prompt that cannot be used."""
    if settings.prompt is None:
        return
    if settings.chat_template is not None:
        raise SubjectError("subject.prompt and subject.chat_template are both set; set one of them")
    if settings.prompt.count("{image}") != 1:
        raise SubjectError(
            f"subject.prompt: {settings.prompt!r} has no {{image}}, or several; write it once, "
            r"such as '{image}\n{question}'"
        )


def prompt_template(prompt: str, image_token: str) -> str:
    r"""Return the Jinja chat template that writes `prompt` as the user's turn and nothing around
    the answer.

    prompt: {image} stands for all images of a sample, {question} for the question, and \n for a new
    line. image_token: stands for one image.
    """
    written = {
        "{image}": _PART.format(kind="image", value=_literal(image_token)),
        "{question}": _PART.format(kind="text", value="part['text']"),
    }
    pieces = filter(None, _FIELDS.split(prompt.replace("\\n", "\n")))
    user = "".join(written.get(piece) or f"{{{{- {_literal(piece)} -}}}}" for piece in pieces)
    return (
        "{%- for message in messages -%}{%- if message['role'] == 'user' -%}"
        f"{user}{{%- else -%}}{written['{question}']}"
        "{%- endif -%}{%- endfor -%}"
    )


def _literal(text: str) -> str:
    """Return a string as Jinja reads it."""
    return json.dumps(text, ensure_ascii=False)
