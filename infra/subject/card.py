"""Write the bundled subject's model card: description, training recipe and measurements."""

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

A LLaVA with 1.6 million parameters that describes drawn scenes. neuron-atlas bundles it to run and
test every stage without a download. The subject really sees, so its neurons can be compared with a
known ground truth. It does not work on photographs.

| part | shape |
|---|---|
| vision tower | CLIP: 64 px in patches of 8 px, so 64 visual tokens; width 96, 3 layers, 3 heads |
| projector | two linear layers |
| language model | LLaMA: width 128, 4 layers, 4 heads, 512 FFN neurons per layer (2,048 in total) |
| tokenizer | byte-level BPE; each word of the scenes is one token, other text is spelled out |
| weights | safetensors, bfloat16, with the names of the published LLaVA models |

Every image is resized to a square, so the visual tokens are an 8 x 8 grid over the whole image, row
by row. The model knows one question, "{question}", and answers like this:

> {example}

## Training

From scratch, on scenes of `tasks/samples/scenes.py`, each used once, in {minutes:.0f} minutes of
wall-clock time on two CPU cores, with:

- {recipe}

Training scenes have seeds from 1,000,000 on; use lower seeds for scenes it has not seen. `make
subject` retrains the model and writes this card.

## Does it see?

Share of correct words in its greedy descriptions, on {count} scenes of seed {seed}. *Blinded*: the
image is replaced by plain mid-gray. *Best constant*: the best single description for all these
scenes, the maximum without an image. *Uniform guess*: a random word of the kind. The blinded
subject always gives the same answer, and missing words count as wrong, so it can be below both. It
answers:

> {blank_image_answer}

| kind | seeing | blinded | best constant | uniform guess |
|---|---|---|---|---|
{rows}

{perfect_share:.1%} of the descriptions are fully correct.
"""


def write_model_card(
    folder: Path, recipe: dict[str, Any], minutes: float, measurement: Measurement
) -> None:
    """Write the saved subject's README.md from its recipe and the measurement."""
    scenes = measurement.scenes
    card = _CARD.format(
        question=QUESTION,
        example=next(iter(scenes.records())).text,
        recipe="\n- ".join(f"{name.replace('_', ' ')}: {value}" for name, value in recipe.items()),
        minutes=minutes,
        count=scenes.count,
        seed=scenes.seed,
        rows="\n".join(_row(group, measurement) for group in (*KINDS, OVERALL)),
        blank_image_answer=measurement.blank_image_answer,
        perfect_share=measurement.perfect_share,
    )
    (folder / "README.md").write_text(card)


def _row(group: str, measurement: Measurement) -> str:
    shares = [measurement.with_image, measurement.without_image, measurement.chance]
    uniform = f"{1 / len(KINDS[group]):.1%}" if group in KINDS else ""
    cells = [group, *(f"{share[group]:.1%}" for share in shares), uniform]
    return f"| {' | '.join(cells)} |"
