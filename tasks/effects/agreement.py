"""Agreement of what a neuron is said to respond to with what it writes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy.stats import rankdata

from neuron_atlas.tasks.effects.output_tokens import token_logits, write_directions
from neuron_atlas.tasks.subject.settings import HookPoint
from neuron_atlas.tasks.subject.subject import Subject


@dataclass(frozen=True)
class Agreement:
    """AUROC of an explanation's words among all words, ranked by the logits of its own neuron, and
    the mean over other neurons' explanations (None without any)."""

    own: float
    other: float | None


def agreements(
    subject: Subject,
    layer: int,
    write: Mapping[int, float],
    words: Mapping[int, Sequence[str]],
    vocabulary: Sequence[str],
    hook_point: HookPoint = "gate",
) -> dict[int, Agreement]:
    """Return the agreement of each neuron of `words`, the words of its explanation.

    write: what a unit of activation multiplies the neuron's output column by. vocabulary: all words
    of the texts; a word counts by its first token. Leaves out neurons whose `write` is NaN.
    """
    neurons = [one for one in words if words[one] and np.isfinite(write[one])]
    if not neurons or len(vocabulary) < 2:
        return {}
    tokenizer = subject.processor.tokenizer
    ids = [tokenizer(f" {word}", add_special_tokens=False)["input_ids"] for word in vocabulary]
    known = [place for place, one in enumerate(ids) if one]
    with torch.inference_mode():
        directions = write_directions(subject, layer, hook_point)[neurons]
        scale = torch.tensor([write[one] for one in neurons], device=directions.device)
        logits = token_logits(subject, directions * scale[:, None], [ids[one][0] for one in known])
    ranks = rankdata(logits.cpu().numpy(), axis=1)
    place = {vocabulary[one]: number for number, one in enumerate(known)}
    members = np.zeros((len(neurons), len(known)))
    for row, neuron in enumerate(neurons):
        members[row, [place[word] for word in words[neuron] if word in place]] = 1
    sizes = members.sum(1)
    with np.errstate(invalid="ignore", divide="ignore"):
        scores = (ranks @ members.T / sizes - (sizes + 1) / 2) / (len(known) - sizes)
    found = {}
    for row, neuron in enumerate(neurons):
        if np.isfinite(scores[row, row]):
            others = scores[row, (members != members[row]).any(1) & np.isfinite(scores[row])]
            found[neuron] = Agreement(
                float(scores[row, row]), float(others.mean()) if len(others) else None
            )
    return found
