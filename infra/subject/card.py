"""The bundled subject's model card: what it is, how it came about, and the measured numbers."""

from pathlib import Path
from typing import Any

from neuron_atlas.infra.subject.architecture import QUESTION
from neuron_atlas.infra.subject.evaluate import KINDS, OVERALL, Measurement

_CARD = """\
---
license: apache-2.0
library_name: transformers
pipeline_tag: image-text-to-text
---

# llava-scenes

A LLaVA of 1.6 million parameters that describes drawn scenes. neuron-atlas bundles it so that every
stage can be run and tested without a download, on a subject that truly sees: what excites its
neurons can be held against a known ground truth. It is of no use on photographs.

| part | shape |
|---|---|
| vision tower | CLIP: 64 px in patches of 8 px, so 64 visual tokens; width 96, 3 layers, 3 heads |
| projector | two linear layers |
| language model | LLaMA: width 128, 4 layers, 4 heads, 512 FFN neurons a layer (2,048 in all) |
| tokenizer | byte-level BPE; each word of the scenes is one token, any other text is spelt out |
| weights | safetensors, bfloat16, under the names of the published LLaVA models |

Any image is resized to the exact square, so the visual tokens are an 8 x 8 grid over the whole of
it, row by row. It was taught one question, "{question}", and answers like this:

> {example}

## Training

From scratch on scenes of `tasks/samples/scenes.py`, none shown twice, in {minutes:.0f} minutes of
wall-clock time on two CPU cores, with

- {recipe}

Training scenes have seeds from 1,000,000 on; keep scenes that shall be new to it below. `make
subject` trains it anew and writes this card.

## Does it see?

Words that its own greedy description gets right, on {count} scenes of seed {seed}. *Blinded*: the
image is replaced by plain mid-gray. *Best constant*: the one fixed description that suits these
scenes best, the most that can be had without looking. *Uniform guess*: a word of the kind at
random. A blinded subject gives the same answer each time, and a word that it lacks counts as wrong,
so it can fall below both. Here it says:

> {unseeing}

| kind | seeing | blinded | best constant | uniform guess |
|---|---|---|---|---|
{rows}

{faultless:.1%} of the descriptions are right to the letter.
"""


def write_card(
    folder: Path, recipe: dict[str, Any], minutes: float, measurement: Measurement
) -> None:
    """Write the saved subject's README.md from its recipe and what was measured."""
    scenes = measurement.scenes
    card = _CARD.format(
        question=QUESTION,
        example=next(iter(scenes.records())).text,
        recipe="\n- ".join(f"{name.replace('_', ' ')}: {value}" for name, value in recipe.items()),
        minutes=minutes,
        count=scenes.count,
        seed=scenes.seed,
        rows="\n".join(_row(group, measurement) for group in (*KINDS, OVERALL)),
        unseeing=measurement.unseeing,
        faultless=measurement.faultless,
    )
    (folder / "README.md").write_text(card)


def _row(group: str, measurement: Measurement) -> str:
    shares = [measurement.seeing, measurement.blinded, measurement.chance]
    uniform = f"{1 / len(KINDS[group]):.1%}" if group in KINDS else ""
    cells = [group, *(f"{share[group]:.1%}" for share in shares), uniform]
    return f"| {' | '.join(cells)} |"
