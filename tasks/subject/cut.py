"""Cut a text that is longer than the subject's context."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image

from neuron_atlas.tasks.subject.encode import EncodedSample, encode
from neuron_atlas.tasks.subject.subject import Subject


@dataclass(frozen=True)
class Cut:
    """A sample that fits the subject's context. encoded: None if no token of its text fits.
    reason: what was cut, or why nothing fits; empty if the sample fits."""

    encoded: EncodedSample | None
    reason: str = ""


def cut_to_context(subject: Subject, images: Sequence[Image.Image], encoded: EncodedSample) -> Cut:
    """Cut the end of an encoded sample's text at a token boundary, so that it fits the context.

    Raises SubjectError, and any error of the processor.
    """
    length, context = len(encoded.input_ids), subject.context
    if context is None or length <= context:
        return Cut(encoded)
    problem = (
        f"the sample has {length:,} tokens ({encoded.n_text:,} of them of the text), and the "
        f"subject's context is {context:,} (max_position_embeddings)"
    )
    shorter, n_text = encoded, encoded.n_text
    while (excess := len(shorter.input_ids) - context) > 0:
        # A cut text may have other tokens at its end.
        n_text = min(n_text, shorter.n_text) - excess
        text = "".join(encoded.pieces[: max(0, n_text)]).rstrip()
        if not text:
            return Cut(None, problem)
        shorter = encode(subject, images, text)
    return Cut(shorter, f"{problem}; the text is cut after its first {shorter.n_text:,} tokens")
