"""The small random instances: a shape and special tokens for each family."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import transformers as hf

from neuron_atlas.tasks.subject.processor import without_video
from tests.families.building import Build, Markup

SIDE = 32
"""Pixels of the square that a vision tower sees at once."""
_SQUARE = {"height": SIDE, "width": SIDE}
TILINGS = [[32, 64], [64, 32], [64, 64], [32, 96], [96, 32], [96, 96]]

_TEXT = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 4096,
    "tie_word_embeddings": False,
}
_VISION = {
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "image_size": SIDE,
}

_IM = {"bos": "", "user": "<|im_start|>user\n", "assistant": "<|im_start|>assistant\n"}
_IM_END = {"end": "<|im_end|>\n"}


def llava(ids: Mapping[str, int], words: int, hidden: int = 32, neurons: int = 48) -> Any:
    """Return a small LLaVA. hidden, neurons: widths of the language model's layers."""
    text = _TEXT | {"hidden_size": hidden, "intermediate_size": neurons}
    return hf.LlavaForConditionalGeneration(
        hf.LlavaConfig(
            vision_config=hf.CLIPVisionConfig(**_VISION, patch_size=8, projection_dim=16),
            text_config=hf.LlamaConfig(**text, vocab_size=words),
            image_token_index=ids["<image>"],
            vision_feature_layer=-2,
        )
    )


def _llava_processor(tokenizer: Any, template: str) -> Any:
    return hf.LlavaProcessor(
        hf.CLIPImageProcessorPil(size={"shortest_edge": SIDE}, crop_size=_SQUARE),
        tokenizer,
        patch_size=8,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=template,
    )


def _llava_next(ids: Mapping[str, int], words: int) -> Any:
    return hf.LlavaNextForConditionalGeneration(
        hf.LlavaNextConfig(
            vision_config=hf.CLIPVisionConfig(**_VISION, patch_size=8, projection_dim=16),
            text_config=hf.MistralConfig(**_TEXT, vocab_size=words),
            image_token_index=ids["<image>"],
            image_grid_pinpoints=TILINGS,
            vision_feature_layer=-2,
        )
    )


def _llava_next_processor(tokenizer: Any, template: str) -> Any:
    return hf.LlavaNextProcessor(
        hf.LlavaNextImageProcessorPil(
            size={"shortest_edge": SIDE},
            crop_size=_SQUARE,
            image_grid_pinpoints=TILINGS,
        ),
        tokenizer,
        patch_size=8,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=template,
    )


def _siglip(patch: int) -> hf.SiglipVisionConfig:
    return hf.SiglipVisionConfig(**_VISION, patch_size=patch, vision_use_head=False)


def _llava_onevision(ids: Mapping[str, int], words: int) -> Any:
    return hf.LlavaOnevisionForConditionalGeneration(
        hf.LlavaOnevisionConfig(
            vision_config=_siglip(8),
            text_config=hf.Qwen2Config(**_TEXT, vocab_size=words),
            image_token_index=ids["<image>"],
            video_token_index=ids["<video>"],
            image_grid_pinpoints=TILINGS,
            vision_aspect_ratio="anyres_max_4",
        )
    )


def _llava_onevision_processor(tokenizer: Any, template: str) -> Any:
    return without_video(hf.LlavaOnevisionProcessor)(
        hf.LlavaOnevisionImageProcessorPil(size=_SQUARE, image_grid_pinpoints=TILINGS),
        tokenizer,
        None,
        num_image_tokens=16,
        vision_feature_select_strategy="full",
        vision_aspect_ratio="anyres_max_4",
        chat_template=template,
    )


def _qwen2_5_vl(ids: Mapping[str, int], words: int) -> Any:
    rope = {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [1, 1, 2]}
    return hf.Qwen2_5_VLForConditionalGeneration(
        hf.Qwen2_5_VLConfig(
            vision_config={
                "depth": 2,
                "hidden_size": 32,
                "intermediate_size": 24,
                "num_heads": 2,
                "patch_size": 4,
                "window_size": 16,
                "out_hidden_size": 32,
                "fullatt_block_indexes": [1],
            },
            text_config={**_TEXT, "vocab_size": words, "rope_parameters": rope},
            image_token_id=ids["<|image_pad|>"],
            video_token_id=ids["<|video_pad|>"],
        )
    )


def _qwen2_5_vl_processor(tokenizer: Any, template: str) -> Any:
    return without_video(hf.Qwen2_5_VLProcessor)(
        hf.Qwen2VLImageProcessorPil(
            size={"shortest_edge": 16 * 16, "longest_edge": 64 * 64}, patch_size=4
        ),
        tokenizer,
        None,
        chat_template=template,
    )


def _internvl(ids: Mapping[str, int], words: int) -> Any:
    vision = {**_VISION, "image_size": [SIDE, SIDE], "patch_size": [4, 4]}
    return hf.InternVLForConditionalGeneration(
        hf.InternVLConfig(
            vision_config=hf.InternVLVisionConfig(**vision),
            text_config=hf.Qwen2Config(**_TEXT, vocab_size=words),
            image_token_id=ids["<IMG_CONTEXT>"],
            image_seq_length=16,
            tie_word_embeddings=False,
        )
    )


def _internvl_processor(tokenizer: Any, template: str) -> Any:
    return without_video(hf.InternVLProcessor)(
        hf.GotOcr2ImageProcessorPil(size=_SQUARE, crop_to_patches=True, max_patches=6),
        tokenizer,
        None,
        image_seq_length=16,
        chat_template=template,
    )


def _named_tiles(model: Any, config: Any) -> Any:
    """Idefics3 and SmolVLM differ in their classes alone."""

    def make(ids: Mapping[str, int], words: int) -> Any:
        text = hf.LlamaConfig(**_TEXT, vocab_size=words, pad_token_id=0)
        vision = {**_VISION, "patch_size": 4}
        image = ids["<image>"]
        return model(
            config(vision_config=vision, text_config=text, image_token_id=image, pad_token_id=0)
        )

    return make


def _named_tiles_processor(processor: Any, image_processor: Any) -> Any:
    def make(tokenizer: Any, template: str) -> Any:
        return processor(
            image_processor(size={"longest_edge": 3 * SIDE}, max_image_size={"longest_edge": SIDE}),
            tokenizer,
            **({"video_processor": None} if processor is _SMOLVLM_PROCESSOR else {}),
            image_seq_len=16,
            chat_template=template,
        )

    return make


_SMOLVLM_PROCESSOR = without_video(hf.SmolVLMProcessor)


def _gemma3(ids: Mapping[str, int], words: int) -> Any:
    return hf.Gemma3ForConditionalGeneration(
        hf.Gemma3Config(
            vision_config=_siglip(4),
            text_config=hf.Gemma3TextConfig(
                **_TEXT,
                vocab_size=words,
                head_dim=8,
                query_pre_attn_scalar=8,
                sliding_window=16,
                layer_types=["sliding_attention", "full_attention"],
            ),
            mm_tokens_per_image=16,
            boi_token_index=ids["<start_of_image>"],
            eoi_token_index=ids["<end_of_image>"],
            image_token_index=ids["<image_soft_token>"],
            tie_word_embeddings=False,
        )
    )


def _gemma3_processor(tokenizer: Any, template: str) -> Any:
    return hf.Gemma3Processor(
        hf.Gemma3ImageProcessorPil(size=_SQUARE),
        tokenizer,
        image_seq_length=16,
        chat_template=template,
    )


_TILE_TOKENS = (
    "<fake_token_around_image>",
    "<global-img>",
    "<end_of_utterance>",
    *(f"<row_{row}_col_{column}>" for row in range(1, 7) for column in range(1, 7)),
)

BUILDS: Mapping[str, Build] = {
    "llava": Build(
        Markup("<image>\n", end="</s>"), llava, _llava_processor, {"image_token": "<image>"}
    ),
    "llava_next": Build(
        Markup("<image>\n", bos="", user="[INST] ", assistant=" [/INST] "),
        _llava_next,
        _llava_next_processor,
        {"image_token": "<image>"},
    ),
    "llava_onevision": Build(
        Markup("<image>\n", **_IM, **_IM_END),
        _llava_onevision,
        _llava_onevision_processor,
        {"image_token": "<image>", "video_token": "<video>"},
    ),
    "qwen2_5_vl": Build(
        Markup("<|vision_start|><|image_pad|><|vision_end|>", **_IM, **_IM_END),
        _qwen2_5_vl,
        _qwen2_5_vl_processor,
        {"image_token": "<|image_pad|>", "video_token": "<|video_pad|>"},
        ("<|vision_start|>", "<|vision_end|>"),
    ),
    "internvl": Build(
        Markup("<IMG_CONTEXT>\n", **_IM, **_IM_END),
        _internvl,
        _internvl_processor,
        {
            "start_image_token": "<img>",
            "end_image_token": "</img>",
            "context_image_token": "<IMG_CONTEXT>",
            "video_token": "<video>",
        },
    ),
    "idefics3": Build(
        Markup("<image>", user="User:", assistant="Assistant: ", end="</s>\n"),
        _named_tiles(hf.Idefics3ForConditionalGeneration, hf.Idefics3Config),
        _named_tiles_processor(hf.Idefics3Processor, hf.Idefics3ImageProcessorPil),
        {"image_token": "<image>"},
        _TILE_TOKENS,
    ),
    "smolvlm": Build(
        Markup("<image>", user="User:", assistant="Assistant: ", end="</s>\n"),
        _named_tiles(hf.SmolVLMForConditionalGeneration, hf.SmolVLMConfig),
        _named_tiles_processor(_SMOLVLM_PROCESSOR, hf.SmolVLMImageProcessorPil),
        {"image_token": "<image>"},
        _TILE_TOKENS,
    ),
    "gemma3": Build(
        Markup("<start_of_image>", **{**_IM, **_IM_END, "bos": "<s>"}),
        _gemma3,
        _gemma3_processor,
        {
            "boi_token": "<start_of_image>",
            "eoi_token": "<end_of_image>",
            "image_token": "<image_soft_token>",
        },
    ),
}
