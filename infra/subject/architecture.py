"""Build a LLaVA with 1.6 million parameters: model, tokenizer and processor."""

from collections.abc import Iterable

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    CLIPImageProcessorPil,
    CLIPVisionConfig,
    GenerationConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    PreTrainedTokenizerFast,
)

QUESTION = "Could you describe the image?"
IMAGE_SIZE = 64
PATCH_SIZE = 8
MAX_POSITIONS = 1024
MAX_NEW_TOKENS = 80
VOCABULARY = 512
SPECIAL_TOKENS = ("<unk>", "<s>", "</s>", "<pad>", "<image>")

# LLaVA-1.5's template, with an explicit BOS (some servers omit it) and an EOS after each answer.
CHAT_TEMPLATE = """\
{{- bos_token -}}
{%- for message in messages -%}
{%- if message['role'] != 'system' -%}{{- message['role'].upper() + ': ' -}}{%- endif -%}
{%- if message['content'] is string -%}
{{- message['content'] -}}
{%- else -%}
{%- for part in message['content'] if part['type'] == 'image' -%}{{- '<image>\\n' -}}{%- endfor -%}
{%- for part in message['content'] if part['type'] == 'text' -%}{{- part['text'] -}}{%- endfor -%}
{%- endif -%}
{{- eos_token if message['role'] == 'assistant' else ' ' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- 'ASSISTANT:' -}}{%- endif -%}
"""


def build_model(seed: int) -> LlavaForConditionalGeneration:
    """Return the untrained model, float32: 64 visual tokens per image, 4 layers with 512 FFN
    neurons each."""
    torch.manual_seed(seed)
    vision = CLIPVisionConfig(
        hidden_size=96,
        intermediate_size=384,
        num_hidden_layers=3,
        num_attention_heads=3,
        image_size=IMAGE_SIZE,
        patch_size=PATCH_SIZE,
        projection_dim=96,
    )
    text = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=128,
        intermediate_size=512,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=4,
        max_position_embeddings=MAX_POSITIONS,
        bos_token_id=_token_id("<s>"),
        eos_token_id=_token_id("</s>"),
        pad_token_id=_token_id("<pad>"),
        tie_word_embeddings=False,
    )
    config = LlavaConfig(
        vision_config=vision,
        text_config=text,
        image_token_index=_token_id("<image>"),
        image_seq_length=(IMAGE_SIZE // PATCH_SIZE) ** 2,
        vision_feature_layer=-1,
        vision_feature_select_strategy="default",
        tie_word_embeddings=False,
    )
    model = LlavaForConditionalGeneration(config)
    model.generation_config = GenerationConfig(
        do_sample=False,
        max_new_tokens=MAX_NEW_TOKENS,
        bos_token_id=_token_id("<s>"),
        eos_token_id=_token_id("</s>"),
        pad_token_id=_token_id("<pad>"),
    )
    return model


def build_processor(texts: Iterable[str]) -> LlavaProcessor:
    """Return a processor whose tokenizer is trained on `texts` and spells out unknown words.

    Images are stretched to a square and not cropped, so the visual tokens cover the whole image.
    """
    image_processor = CLIPImageProcessorPil(
        size={"height": IMAGE_SIZE, "width": IMAGE_SIZE},
        crop_size={"height": IMAGE_SIZE, "width": IMAGE_SIZE},
        do_center_crop=False,
    )
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=_train_tokenizer(texts),
        unk_token="<unk>",
        bos_token="<s>",
        eos_token="</s>",
        pad_token="<pad>",
        extra_special_tokens={"image_token": "<image>"},
        padding_side="left",
        model_max_length=MAX_POSITIONS,
        clean_up_tokenization_spaces=False,
    )
    return LlavaProcessor(
        image_processor=image_processor,
        tokenizer=tokenizer,
        patch_size=PATCH_SIZE,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=CHAT_TEMPLATE,
    )


def conversation(answer: str | None = None) -> list[dict]:
    """Return the chat about one image: the question, and the answer if it is given."""
    question = [{"type": "image"}, {"type": "text", "text": QUESTION}]
    chat = [{"role": "user", "content": question}]
    if answer is not None:
        chat.append({"role": "assistant", "content": [{"type": "text", "text": answer}]})
    return chat


def _train_tokenizer(texts: Iterable[str]) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=list(SPECIAL_TOKENS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    prompts = [f"USER: \n{QUESTION} ASSISTANT: {text}" for text in texts]
    tokenizer.train_from_iterator(prompts, trainer)
    return tokenizer


def _token_id(token: str) -> int:
    return SPECIAL_TOKENS.index(token)
