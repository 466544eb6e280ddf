"""Build a LLaVA whose language model is SmolLM2-135M-Instruct.

The language model is a real one. The vision tower is that of the bundled subject, which knows drawn
scenes. The projector between them is random, so visual tokens carry colors and shapes, and the
language model has never seen any.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from transformers import (
    AutoModelForCausalLM,
    AutoProcessor,
    AutoTokenizer,
    GenerationConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)

from neuron_atlas.infra.subject.train import BUNDLED, save

IMAGE_TOKEN = "<image>"
_SPARE_ROWS = 64
"""Rows added to the embeddings: one for the image token; a multiple of 64 multiplies faster."""
_CHAT_TEMPLATE = """\
{%- for message in messages -%}
{{- '<|im_start|>' + message['role'] + '\\n' -}}
{%- if message['content'] is string -%}
{{- message['content'] -}}
{%- else -%}
{%- for part in message['content'] if part['type'] == 'image' -%}{{- '<image>\\n' -}}{%- endfor -%}
{%- for part in message['content'] if part['type'] == 'text' -%}{{- part['text'] -}}{%- endfor -%}
{%- endif -%}
{{- '<|im_end|>\\n' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\\n' -}}{%- endif -%}
"""


def build_subject(gguf: Path, folder: Path) -> None:
    """Write the subject of a GGUF file to a folder. Needs the package gguf."""
    language = AutoModelForCausalLM.from_pretrained(
        gguf.parent, gguf_file=gguf.name, dtype=torch.float32
    )
    del language.config.quantization_config
    tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
    write_subject(language, tokenizer, folder)


def write_subject(
    language: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, folder: Path
) -> None:
    """Write a LLaVA with this language model to a folder, in bfloat16. Changes the language model
    and the tokenizer: they get an image token."""
    tokenizer.add_special_tokens({"additional_special_tokens": [IMAGE_TOKEN]})
    save(_model(language, tokenizer), _processor(tokenizer), folder)


def _model(
    language: PreTrainedModel, tokenizer: PreTrainedTokenizerFast
) -> LlavaForConditionalGeneration:
    bundled = LlavaForConditionalGeneration.from_pretrained(BUNDLED, use_safetensors=True)
    torch.manual_seed(0)
    language.resize_token_embeddings(language.config.vocab_size + _SPARE_ROWS, mean_resizing=False)
    config = LlavaConfig(
        vision_config=bundled.config.vision_config,
        text_config=language.config,
        image_token_index=tokenizer.convert_tokens_to_ids(IMAGE_TOKEN),
        image_seq_length=bundled.config.image_seq_length,
        vision_feature_layer=bundled.config.vision_feature_layer,
        vision_feature_select_strategy=bundled.config.vision_feature_select_strategy,
        tie_word_embeddings=True,
    )
    model = LlavaForConditionalGeneration(config)
    model.model.vision_tower.load_state_dict(bundled.model.vision_tower.state_dict())
    model.model.language_model.load_state_dict(language.model.state_dict())
    model.tie_weights()
    _match_scale(model)
    model.generation_config = GenerationConfig(
        do_sample=False,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return model.eval()


@torch.no_grad()
def _match_scale(model: LlavaForConditionalGeneration) -> None:
    """Scale the projector's output for a random image to the size of a word's embedding."""
    side = model.config.vision_config.image_size
    features = model.get_image_features(pixel_values=torch.randn(1, 3, side, side)).pooler_output
    wanted = model.get_input_embeddings().weight.std()
    last = model.model.multi_modal_projector.linear_2
    factor = wanted / torch.cat(tuple(features)).std()
    last.weight.mul_(factor)
    last.bias.mul_(factor)


def _processor(tokenizer: PreTrainedTokenizerFast) -> LlavaProcessor:
    bundled = AutoProcessor.from_pretrained(BUNDLED, backend="pil")
    tokenizer.image_token = IMAGE_TOKEN
    return LlavaProcessor(
        image_processor=bundled.image_processor,
        tokenizer=tokenizer,
        patch_size=bundled.patch_size,
        vision_feature_select_strategy=bundled.vision_feature_select_strategy,
        num_additional_image_tokens=bundled.num_additional_image_tokens,
        chat_template=_CHAT_TEMPLATE,
    )


def _main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("gguf", type=Path)
    parser.add_argument("folder", type=Path)
    options = parser.parse_args()
    build_subject(options.gguf, options.folder)


if __name__ == "__main__":
    _main()
