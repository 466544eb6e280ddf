"""Builds a small random instance of a family, of the real classes, without a network."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers as hf
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

QUESTION = "Could you describe the image?"
_SAID = "a cat and a red dog at the table in front of a blue house, two people by the sea."

_TEMPLATE = """\
{{- bos -}}
{%- for message in messages -%}
{{- user if message['role'] == 'user' else assistant -}}
{%- for part in message['content'] -%}
{{- image if part['type'] == 'image' else part['text'] -}}
{%- endfor -%}
{{- end -}}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- assistant -}}{%- endif -%}
"""


@dataclass(frozen=True)
class Markup:
    """How a family's chat template writes a conversation."""

    image: str
    bos: str = "<s>"
    user: str = "USER: "
    assistant: str = "ASSISTANT: "
    end: str = "</s>"


@dataclass(frozen=True)
class Build:
    """What makes one family: special tokens by the name that its processor knows them by, or by
    none; its markup; its model and its processor, made of the ids of its tokens."""

    markup: Markup
    model: Callable[[Mapping[str, int], int], Any]
    processor: Callable[[Any, str], Any]
    named: Mapping[str, str]
    tokens: tuple[str, ...] = ()


def build(made: Build, folder: Path, seed: int = 0) -> Path:
    """Save a small random model with its processor into `folder`."""
    tokenizer = _tokenizer(made)
    torch.manual_seed(seed)
    model = made.model(tokenizer.get_vocab(), len(tokenizer))
    # Real towers tell patches apart; with the small random ones' weights all look nearly alike.
    for name, weight in model.named_parameters():
        if weight.dim() > 1 and "embed_tokens" not in name:
            torch.nn.init.normal_(weight, std=0.15)
    end = tokenizer.eos_token_id
    model.generation_config = hf.GenerationConfig(eos_token_id=end, pad_token_id=0)
    model.save_pretrained(folder)
    template = _template(made.markup)
    (folder / "prompt.jinja").write_text(template)  # For processors that do not save it.
    processor = made.processor(tokenizer, template)
    # Some types' own method also copies parts of their video processor.
    hf.ProcessorMixin.save_pretrained(processor, folder)
    # Saved where there is torchvision, a processor has a part for video as well.
    written = folder / "processor_config.json"
    part = {"video_processor_type": f"{type(processor).__name__.removesuffix('Processor')}Video"}
    written.write_text(json.dumps(json.loads(written.read_text()) | {"video_processor": part}))
    return folder


def _tokenizer(made: Build) -> hf.PreTrainedTokenizerFast:
    markup = made.markup
    special = ["<pad>", "<s>", "</s>", "<|im_start|>", "<|im_end|>", *made.named.values()]
    special = list(dict.fromkeys([*special, *made.tokens]))
    raw = Tokenizer(models.BPE())
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    raw.train_from_iterator([QUESTION, _SAID], trainer)
    # Added to every text unless it is forbidden, as the tokenizers of Llama and of Gemma do.
    begin = ("<s>", raw.token_to_id("<s>"))
    raw.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[begin])
    return hf.PreTrainedTokenizerFast(
        tokenizer_object=raw,
        pad_token="<pad>",
        bos_token="<s>",
        eos_token=markup.end.strip(),
        extra_special_tokens=dict(made.named),
        padding_side="left",
        clean_up_tokenization_spaces=False,
    )


def _template(markup: Markup) -> str:
    written = vars(markup).items()
    sets = "".join(f"{{%- set {name} = {value!r} -%}}" for name, value in written)
    return sets + _TEMPLATE
