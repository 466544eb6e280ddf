"""Small random instances of further types: what differs from transformers' defaults."""

from __future__ import annotations

from collections.abc import Mapping

from tests.families.building import Build, Markup
from tests.families.instances import SIDE, TILINGS
from tests.families.shapes import shape

_SQUARE = {"height": SIDE, "width": SIDE}
_IM = {"bos": "", "user": "<|im_start|>user\n", "assistant": "<|im_start|>assistant\n"}
_IM |= {"end": "<|im_end|>\n"}
_IMAGE = {"image_token": "<image>"}
_PLAIN = Markup("<image>\n")

_QWEN = Markup("<|vision_start|><|image_pad|><|vision_end|>", **_IM)
_QWEN_NAMED = {
    "image_token": "<|image_pad|>",
    "video_token": "<|video_pad|>",
    "vision_start_token": "<|vision_start|>",
    "vision_end_token": "<|vision_end|>",
}
_PIXELS = {"size": {"shortest_edge": 16 * 16, "longest_edge": 64 * 64}, "patch_size": 4}
_ROPE = {"rope_parameters": {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [1, 1, 2]}}
_GLM = Markup(
    "<|begin_of_image|><|image|><|end_of_image|>", user="<|user|>\n", assistant="<|assistant|>\n"
)
_GLM_NAMED = {"image_token": "<|image|>", "video_token": "<|video|>"}
_GLM_TOKENS = (
    "<|begin_of_image|>",
    "<|end_of_image|>",
    "<|begin_of_video|>",
    "<|end_of_video|>",
    "<|user|>",
    "<|assistant|>",
)
_PIXTRAL = {
    "image_token": "[IMG]",
    "image_break_token": "[IMG_BREAK]",
    "image_end_token": "[IMG_END]",
}
_MINICPM = {
    "image_token": "<unk_image>",
    "image_start_token": "<image>",
    "image_end_token": "</image>",
    "slice_start_token": "<slice>",
    "slice_end_token": "</slice>",
    "image_id_start_token": "<image_id>",
    "image_id_end_token": "</image_id>",
    "video_token": "<video>",
}


def _qwen(kind: str, **given: object) -> Build:
    return shape(kind, _QWEN, _QWEN_NAMED, **{"images": _PIXELS, "text": _ROPE, **given})


def _glm(kind: str, **given: object) -> Build:
    merge = {
        "rope_parameters": {
            "rope_type": "default",
            "rope_theta": 1e4,
            "mrope_section": [1, 1, 2],
            "partial_rotary_factor": 1.0,
        }
    }
    return shape(
        kind, _GLM, _GLM_NAMED, **{"images": _PIXELS, "text": merge, "tokens": _GLM_TOKENS, **given}
    )


WIDE: Mapping[str, Build] = {
    "qwen2_vl": _qwen("qwen2_vl", vision={"embed_dim": 32, "hidden_size": 32}),
    "qwen3_vl": _qwen("qwen3_vl"),
    "qwen3_5": _qwen("qwen3_5"),
    "qwen4_exp": _qwen("qwen4_exp"),
    "exaone4_5": _qwen("exaone4_5"),
    "hyperclovax_vision_v2": _qwen("hyperclovax_vision_v2"),
    "video_llama_3": _qwen("video_llama_3"),
    "paddleocr_vl": _qwen("paddleocr_vl"),
    "cosmos3_edge": _qwen("cosmos3_edge"),
    "cohere_compass": _qwen("cohere_compass", text={}),
    "cosmos3_omni": _qwen("cosmos3_omni", parts=("Qwen3VLProcessor", "")),
    "glm4v": _glm("glm4v"),
    "glm46v": _glm("glm46v"),
    "glm_ocr": _glm("glm_ocr", parts=("Glm46VProcessor", "Glm46VImageProcessorPil")),
    "glmga": _glm("glmga", parts=("Glm46VProcessor", "")),
    "glm5_next": _glm("glm5_next", text={"num_key_value_heads": 4, "qk_rope_head_dim": 0}),
    "paligemma": shape(
        "paligemma",
        Markup("<image>"),
        _IMAGE,
        images={"size": _SQUARE, "image_seq_length": 64},
        config={"projection_dim": 32},
    ),
    "vipllava": shape(
        "vipllava",
        _PLAIN,
        _IMAGE,
        images={"size": {"shortest_edge": SIDE}, "crop_size": _SQUARE},
        vision={"patch_size": 8},
        config={"vision_feature_layers": [-2, -1]},
        processor={
            "patch_size": 8,
            "vision_feature_select_strategy": "default",
            "num_additional_image_tokens": 1,
        },
    ),
    "mistral3": shape(
        "mistral3",
        Markup("[IMG]"),
        _PIXTRAL,
        images={"size": {"longest_edge": 64}, "patch_size": 4},
        vision={"image_size": 64},
        config={"spatial_merge_size": 2},
        processor={"patch_size": 4, "spatial_merge_size": 2},
    ),
    "lighton_ocr": shape(
        "lighton_ocr",
        Markup("[IMG]"),
        _PIXTRAL,
        images={"size": {"longest_edge": 64}, "patch_size": 4},
        vision={"image_size": 64},
        config={"spatial_merge_size": 2},
        processor={"patch_size": 4, "spatial_merge_size": 2},
    ),
    "aya_vision": shape(
        "aya_vision",
        _PLAIN,
        {"img_patch_token": "<|IMG_PATCH|>", "image_token": "<image>"},
        images={"size": _SQUARE, "crop_to_patches": True, "max_patches": 6},
        processor={"patch_size": 4, "img_size": SIDE, "downsample_factor": 2},
        config={"downsample_factor": 2},
        tokens=(
            "<|START_OF_IMG|>",
            "<|END_OF_IMG|>",
            "<|IMG_LINE_BREAK|>",
            "TILE_GLOBAL",
            *(f"TILE_{n}" for n in range(1, 8)),
        ),
    ),
    "deepseek_vl": shape(
        "deepseek_vl",
        _PLAIN,
        _IMAGE,
        images={"size": _SQUARE, "min_size": 14},
        processor={"num_image_tokens": 64},
    ),
    "janus": shape(
        "janus",
        _PLAIN,
        {"image_token": "<image>", "boi_token": "<boi>", "eoi_token": "<eoi>"},
        images={"size": _SQUARE, "min_size": 14},
        processor={"num_image_tokens": 64},
    ),
    "got_ocr2": shape(
        "got_ocr2",
        Markup("<img><imgpad></img>"),
        {"image_token": "<imgpad>"},
        images={"size": _SQUARE},
        tokens=("<img>", "</img>"),
    ),
    "granite4_vision": shape(
        "granite4_vision",
        _PLAIN,
        _IMAGE,
        images={"size": _SQUARE, "crop_size": _SQUARE, "image_grid_pinpoints": TILINGS},
        processor={"patch_size": 4, "vision_feature_select_strategy": "full"},
        text={"model_type": "granite", "attention_multiplier": 1.0},
    ),
    "idefics2": shape(
        "idefics2",
        _PLAIN,
        {**_IMAGE, "image_boundary_token": "<fake_token_around_image>"},
        images={"size": {"shortest_edge": 24, "longest_edge": 32}},
        tokens=("<end_of_utterance>",),
        processor={"image_seq_len": 8},
    ),
    "llava_next_video": shape(
        "llava_next_video",
        _PLAIN,
        {"image_token": "<image>", "video_token": "<video>"},
        images={
            "size": {"shortest_edge": SIDE},
            "crop_size": _SQUARE,
            "image_grid_pinpoints": TILINGS,
        },
        vision={"patch_size": 8},
        config={"image_grid_pinpoints": TILINGS},
        processor={
            "patch_size": 8,
            "vision_feature_select_strategy": "default",
            "num_additional_image_tokens": 1,
        },
    ),
    "ovis2": shape(
        "ovis2",
        _PLAIN,
        {"atom": "<IMG_ATOM>", "image_token": "<image>"},
        images={"size": _SQUARE, "crop_to_patches": True, "max_patches": 6},
        tokens=("<IMG_COL>", "<IMG_END>", "<IMG_ROW>", "<IMG_START>", "<IMG_GRID>"),
        processor={"image_seq_length": 16},
        vision={"vocab_size": 64, "hidden_stride": 2, "num_visual_indicator_tokens": 5},
    ),
    "qianfan_ocr": shape(
        "qianfan_ocr",
        _PLAIN,
        {
            "context_image_token": "<IMG_CONTEXT>",
            "start_image_token": "<img>",
            "end_image_token": "</img>",
        },
        images={"size": _SQUARE, "crop_to_patches": True, "max_patches": 6},
        processor={"image_seq_length": 16},
        vision={"image_size": [SIDE, SIDE], "patch_size": [4, 4]},
        config={"image_seq_length": 16},
        tokens=("<image>",),
    ),
    "gemma4": shape(
        "gemma4",
        Markup("<image_soft>"),
        {
            "image_token": "<image_soft>",
            "boi_token": "<boi>",
            "eoi_token": "<eoi>",
            "audio_token": "<audio>",
            "boa_token": "<boa>",
            "eoa_token": "<eoa>",
        },
        text={"per_layer_config": {}},
        tokens=("<|video|>",),
    ),
    "minicpmv4_6": shape("minicpmv4_6", Markup("<unk_image>", **_IM), _MINICPM),
    "minicpmv4_7": shape("minicpmv4_7", Markup("<unk_image>", **_IM), _MINICPM),
    "hunyuan_vl": shape(
        "hunyuan_vl",
        Markup("<boi><image><eoi>"),
        {"image_token": "<image>", "image_start_token": "<boi>", "image_end_token": "<eoi>"},
        images=_PIXELS,
        text={"head_dim": 8},
    ),
    "video_llava": shape(
        "video_llava",
        _PLAIN,
        {"image_token": "<image>", "video_token": "<video>"},
        images={"size": {"shortest_edge": SIDE}, "crop_size": _SQUARE},
        vision={"patch_size": 8},
        processor={"patch_size": 8},
    ),
    "fuyu": shape(
        "fuyu",
        _PLAIN,
        {"image_token": "|SPEAKER|"},
        tokens=("|NEWLINE|", "<0x04>", "<0x00>", "<0x01>", "<0x02>", "<0x03>"),
    ),
    "blip-2": shape(
        "blip-2", _PLAIN, _IMAGE, images={"size": _SQUARE}, processor={"num_query_tokens": 8}
    ),
    "deepseek_vl_hybrid": shape(
        "deepseek_vl_hybrid",
        _PLAIN,
        _IMAGE,
        images={"size": _SQUARE, "min_size": 14, "high_res_size": {"height": 64, "width": 64}},
        processor={"num_image_tokens": 64},
    ),
    "deepseek_ocr2": shape("deepseek_ocr2", _PLAIN, _IMAGE, vision={"mlp_ratio": 2.0}),
    "shieldgemma2": shape(
        "shieldgemma2",
        Markup("<start_of_image>"),
        {
            "image_token": "<image_soft_token>",
            "boi_token": "<start_of_image>",
            "eoi_token": "<end_of_image>",
        },
        images={"size": _SQUARE},
        config={"mm_tokens_per_image": 16},
        processor={"image_seq_length": 16},
        parts=("Gemma3Processor", ""),
    ),
}
