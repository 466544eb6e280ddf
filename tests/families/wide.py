"""Small random instances of further types: what differs from transformers' defaults."""

from __future__ import annotations

from collections.abc import Mapping

from tests.families.building import Build, Markup
from tests.families.instances import SIDE, TILINGS
from tests.families.shapes import shape

SQUARE = {"height": SIDE, "width": SIDE}
IM = {"bos": "", "user": "<|im_start|>user\n", "assistant": "<|im_start|>assistant\n"}
IM |= {"end": "<|im_end|>\n"}
IMAGE = {"image_token": "<image>"}
PLAIN = Markup("<image>\n")

_QWEN = Markup("<|vision_start|><|image_pad|><|vision_end|>", **IM)
_QWEN_NAMED = {
    "image_token": "<|image_pad|>",
    "video_token": "<|video_pad|>",
    "vision_start_token": "<|vision_start|>",
    "vision_end_token": "<|vision_end|>",
}
PIXELS = {"size": {"shortest_edge": 16 * 16, "longest_edge": 64 * 64}, "patch_size": 4}
ROPE = {"rope_parameters": {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [1, 1, 2]}}
_HYBRID = {**ROPE, "layer_types": ["linear_attention", "full_attention"]}
_INDEXER = {
    "indexer_n_heads": 2,
    "indexer_kv_heads": 1,
    "indexer_head_dim": 16,
    "indexer_budget": 256,
    "indexer_compress_ratio": 4,
}
_DEFAULT_ROPE = {"rope_type": "default", "rope_theta": 1e4}
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
PIXTRAL = {
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
    return shape(kind, _QWEN, _QWEN_NAMED, **{"images": PIXELS, "text": ROPE, **given})


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
        kind, _GLM, _GLM_NAMED, **{"images": PIXELS, "text": merge, "tokens": _GLM_TOKENS, **given}
    )


WIDE: Mapping[str, Build] = {
    "qwen2_vl": _qwen("qwen2_vl", vision={"embed_dim": 32, "hidden_size": 32}),
    "qwen3_vl": _qwen("qwen3_vl"),
    "qwen3_5": _qwen("qwen3_5", text=_HYBRID),
    "qwen3_5_moe": _qwen("qwen3_5_moe", text=_HYBRID),
    "qwen3_vl_moe": _qwen("qwen3_vl_moe", parts=("", "Qwen2VLImageProcessorPil")),
    "glm4v_moe": _glm("glm4v_moe", parts=("Glm4vProcessor", "Glm4vImageProcessorPil")),
    "qwen4_exp": _qwen("qwen4_exp", text={**_HYBRID, **_INDEXER}),
    "exaone4_5": _qwen("exaone4_5"),
    "hyperclovax_vision_v2": _qwen("hyperclovax_vision_v2"),
    "video_llama_3": _qwen("video_llama_3"),
    "paddleocr_vl": _qwen("paddleocr_vl"),
    "cosmos3_edge": _qwen("cosmos3_edge"),
    "cosmos3_omni": _qwen("cosmos3_omni", parts=("Qwen3VLProcessor", "")),
    "glm4v": _glm("glm4v"),
    "glm46v": _glm("glm46v"),
    "glm_ocr": _glm("glm_ocr", parts=("Glm46VProcessor", "Glm46VImageProcessorPil")),
    "glmga": _glm("glmga", parts=("Glm46VProcessor", "")),
    "paligemma": shape(
        "paligemma",
        Markup("<image>"),
        IMAGE,
        images={"size": SQUARE, "image_seq_length": 64},
        config={"projection_dim": 32},
    ),
    "vipllava": shape(
        "vipllava",
        PLAIN,
        IMAGE,
        images={"size": {"shortest_edge": SIDE}, "crop_size": SQUARE},
        vision={"patch_size": 8},
        config={"vision_feature_layers": [-2, -1]},
        processor={
            "patch_size": 8,
            "vision_feature_select_strategy": "default",
            "num_additional_image_tokens": 1,
        },
    ),
    "lighton_ocr": shape(
        "lighton_ocr",
        Markup("[IMG]"),
        PIXTRAL,
        images={"size": {"longest_edge": 64}, "patch_size": 4},
        vision={"image_size": 64},
        config={"spatial_merge_size": 2},
        processor={"patch_size": 4, "spatial_merge_size": 2},
    ),
    "aya_vision": shape(
        "aya_vision",
        PLAIN,
        {"img_patch_token": "<|IMG_PATCH|>", "image_token": "<image>"},
        images={"size": SQUARE, "crop_to_patches": True, "max_patches": 6},
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
        PLAIN,
        IMAGE,
        images={"size": SQUARE, "min_size": 14},
        processor={"num_image_tokens": 64},
    ),
    "janus": shape(
        "janus",
        PLAIN,
        {"image_token": "<image>", "boi_token": "<boi>", "eoi_token": "<eoi>"},
        images={"size": SQUARE, "min_size": 14},
        vision={"projection_dim": 32},
        processor={"num_image_tokens": 64},
    ),
    "idefics2": shape(
        "idefics2",
        PLAIN,
        {**IMAGE, "image_boundary_token": "<fake_token_around_image>"},
        images={"size": {"shortest_edge": 24, "longest_edge": 32}},
        tokens=("<end_of_utterance>",),
        processor={"image_seq_len": 8},
    ),
    "llava_next_video": shape(
        "llava_next_video",
        PLAIN,
        {"image_token": "<image>", "video_token": "<video>"},
        images={
            "size": {"shortest_edge": SIDE},
            "crop_size": SQUARE,
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
        PLAIN,
        {"atom": "<IMG_ATOM>", "image_token": "<image>"},
        images={"size": SQUARE, "crop_to_patches": True, "max_patches": 6},
        tokens=("<IMG_COL>", "<IMG_END>", "<IMG_ROW>", "<IMG_START>", "<IMG_GRID>"),
        processor={"image_seq_length": 16},
        vision={"vocab_size": 64, "hidden_stride": 2, "num_visual_indicator_tokens": 5},
    ),
    "qianfan_ocr": shape(
        "qianfan_ocr",
        PLAIN,
        {
            "context_image_token": "<IMG_CONTEXT>",
            "start_image_token": "<img>",
            "end_image_token": "</img>",
        },
        images={"size": SQUARE, "crop_to_patches": True, "max_patches": 6},
        processor={"image_seq_length": 16},
        vision={"image_size": [SIDE, SIDE], "patch_size": [4, 4]},
        config={"image_seq_length": 16},
        tokens=("<image>",),
    ),
    **{
        kind: shape(
            kind,
            Markup("<unk_image>", **IM),
            _MINICPM,
            images={"patch_size": 4, "scale_resolution": 64, "max_slice_nums": 4},
            text={"layer_types": ["linear_attention", "full_attention"]},
            vision={"image_size": 64},
        )
        for kind in ("minicpmv4_6", "minicpmv4_7")
    },
    "video_llava": shape(
        "video_llava",
        PLAIN,
        {"image_token": "<image>", "video_token": "<video>"},
        images={"size": {"shortest_edge": SIDE}, "crop_size": SQUARE},
        vision={"patch_size": 8},
        processor={"patch_size": 8},
    ),
    "qwen2_5_omni_thinker": shape(
        "qwen2_5_omni_thinker",
        Markup("<|vision_bos|><|IMAGE|><|vision_eos|>", **IM),
        {
            "image_token": "<|IMAGE|>",
            "audio_token": "<|AUDIO|>",
            "video_token": "<|VIDEO|>",
            "vision_bos_token": "<|vision_bos|>",
            "vision_eos_token": "<|vision_eos|>",
            "audio_bos_token": "<|audio_bos|>",
            "audio_eos_token": "<|audio_eos|>",
        },
        images=PIXELS,
        text=ROPE,
        parts=("Qwen2_5OmniProcessor", "Qwen2VLImageProcessorPil"),
        config={
            "vision_start_token_id": "<|vision_bos|>",
            "audio_config": {
                "d_model": 16,
                "encoder_layers": 1,
                "encoder_attention_heads": 2,
                "encoder_ffn_dim": 24,
                "output_dim": 32,
            },
        },
    ),
    "deepseek_vl_hybrid": shape(
        "deepseek_vl_hybrid",
        PLAIN,
        IMAGE,
        images={"size": SQUARE, "min_size": 14, "high_res_size": {"height": 128, "width": 128}},
        config={
            "high_res_vision_config": {
                "model_type": "sam_vision_model",
                "hidden_size": 16,
                "output_channels": 16,
                "num_hidden_layers": 2,
                "num_attention_heads": 2,
                "image_size": 128,
                "patch_size": 4,
                "mlp_dim": 24,
                "global_attn_indexes": [1],
                "window_size": 4,
            }
        },
        vision={"mlp_ratio": 2.0},
        processor={"num_image_tokens": 64},
    ),
}
