"""Small random instances of types whose processor or tower needs torchvision or timm.

neuron-atlas does not require these packages. Where they are not installed, the table's test skips
these types by name.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib.util import find_spec

from tests.families.building import Build, Markup
from tests.families.instances import SIDE
from tests.families.shapes import shape
from tests.families.wide import IMAGE, PIXELS, PIXTRAL, PLAIN, SQUARE

_GEMMA = {
    "image_token": "<image>",
    "boi_token": "<boi>",
    "eoi_token": "<eoi>",
    "audio_token": "<audio>",
    "boa_token": "<boa>",
    "eoa_token": "<eoa>",
}

NEEDS: Mapping[str, tuple[str, ...]] = {
    "cohere2_vision": ("torchvision",),
    "diffusion_gemma": ("torchvision",),
    "fast_vlm": ("timm",),
    "gemma3n": ("timm",),
    "gemma4": ("torchvision",),
    "gemma4_unified": ("torchvision",),
    "hunyuan_vl": ("torchvision",),
    "inkling_mm_model": ("torchvision",),
    "kimi_k25": ("torchvision",),
    "lfm2_vl": ("torchvision",),
    "llama4": ("torchvision",),
    "minimax_m3_vl": ("torchvision",),
    "mistral3": ("torchvision",),
    "muse_glimmer": ("torchvision",),
    "nemotron_h_omni": ("torchvision",),
    "perception_lm": ("timm", "torchvision"),
    "step3p7": ("torchvision",),
}
"""Packages that types need beyond those of neuron-atlas."""


def missing(kind: str) -> tuple[str, ...]:
    """Return the packages that a type needs and that are not installed."""
    return tuple(name for name in NEEDS.get(kind, ()) if find_spec(name) is None)


PACKAGED: Mapping[str, Build] = {
    "cohere2_vision": shape(
        "cohere2_vision",
        PLAIN,
        {
            "image_token": "<image>",
            "boi_token": "<|START_OF_IMG|>",
            "eoi_token": "<|END_OF_IMG|>",
            "img_line_break_token": "<|IMG_LINE_BREAK|>",
        },
        images={"size": SQUARE, "patch_size": 4, "max_patches": 6},
    ),
    "fast_vlm": shape(
        "fast_vlm",
        PLAIN,
        IMAGE,
        images={"size": {"shortest_edge": 256}, "crop_size": {"height": 256, "width": 256}},
        parts=("LlavaProcessor", "CLIPImageProcessorPil"),
        vision={
            "hidden_size": 64,
            "architecture": "fastvit_mci3",
            "model_args": {
                "inference_mode": True,
                "layers": [1, 1, 1, 1, 1],
                "embed_dims": [8, 8, 16, 32, 32],
            },
        },
        processor={
            "patch_size": 64,
            "vision_feature_select_strategy": "full",
            "num_additional_image_tokens": 0,
        },
    ),
    "gemma3n": shape(
        "gemma3n",
        PLAIN,
        _GEMMA,
        images={"size": {"height": 256, "width": 256}},
        processor={"image_seq_length": 256},
        text={
            "layer_types": ["sliding_attention", "full_attention"],
            "activation_sparsity_pattern": [0.0, 0.0],
            "intermediate_size": [48, 48],
            "laurel_rank": 8,
        },
        vision={"hidden_size": 2048, "model_args": {"channel_multiplier": 0.125}},
    ),
    "gemma4": shape(
        "gemma4",
        PLAIN,
        {**_GEMMA, "video_token": "<video>"},
        images={"patch_size": 4, "max_soft_tokens": 70},
        text={
            "layer_types": ["sliding_attention", "full_attention"],
            "per_layer_config": {1: {"head_dim": 8}},
        },
        config={
            "vision_config": {
                "hidden_size": 16,
                "intermediate_size": 24,
                "num_hidden_layers": 2,
                "num_attention_heads": 2,
                "num_key_value_heads": 2,
                "head_dim": 8,
                "global_head_dim": 8,
                "patch_size": 4,
                "position_embedding_size": 256,
            }
        },
    ),
    "hunyuan_vl": shape(
        "hunyuan_vl",
        Markup("<image_start><image><image_end>"),
        {
            "image_token": "<image>",
            "image_start_token": "<image_start>",
            "image_end_token": "<image_end>",
        },
        images=PIXELS,
        text={
            "head_dim": 8,
            "rope_parameters": {
                "rope_type": "default",
                "rope_theta": 1e4,
                "mrope_section": [1, 1, 2],
            },
        },
    ),
    "kimi_k25": shape(
        "kimi_k25",
        Markup("<|media_begin|>image<|media_content|><|media_pad|><|media_end|>"),
        {"image_token": "<|media_pad|>", "video_token": "<video>"},
        images={
            "size": {"max_height": 64, "max_width": 64},
            "patch_size": 4,
            "max_patches": 256,
        },
        vision={"pos_emb_height": 16, "pos_emb_width": 16},
        config={"projection_hidden_size": 16},
        text={"num_key_value_heads": 4},
        tokens=("<|media_begin|>", "<|media_content|>", "<|media_end|>"),
    ),
    "lfm2_vl": shape(
        "lfm2_vl",
        PLAIN,
        IMAGE,
        images={
            "tile_size": 64,
            "encoder_patch_size": 4,
            "min_image_tokens": 16,
            "max_image_tokens": 64,
            "max_tiles": 6,
        },
        text={"layer_types": ["conv", "full_attention"]},
        tokens=(
            "<|image_start|>",
            "<|image_end|>",
            "<|img_thumbnail|>",
            *(f"<|img_row_{row}_col_{column}|>" for row in range(1, 7) for column in range(1, 7)),
        ),
    ),
    "llama4": shape(
        "llama4",
        Markup("<|image|>"),
        {"patch": "<|patch|>"},
        images={"size": SQUARE, "max_patches": 6},
        vision={
            "projector_input_dim": 16,
            "projector_output_dim": 16,
            "vision_output_dim": 16,
            "intermediate_size": 64,
        },
        text={"moe_layers": [1], "intermediate_size_mlp": 48, "no_rope_layers": None},
        processor={"patch_size": 4},
        tokens=(
            "<|image|>",
            "<|image_start|>",
            "<|image_end|>",
            "<|tile_x_separator|>",
            "<|tile_y_separator|>",
        ),
    ),
    "mistral3": shape(
        "mistral3",
        Markup("[IMG]"),
        PIXTRAL,
        images={"size": {"longest_edge": 64}, "patch_size": 4},
        vision={"image_size": 64},
        processor={"patch_size": 4, "spatial_merge_size": 2},
        parts=("PixtralProcessor", "PixtralImageProcessorPil"),
    ),
    "perception_lm": shape(
        "perception_lm",
        PLAIN,
        {**IMAGE, "video_token": "<video>"},
        images={"tile_size": SIDE, "max_num_tiles": 6, "size": SQUARE},
        vision={
            "architecture": "vit_pe_lang_large_patch14_448",
            "model_args": {
                "embed_dim": 16,
                "depth": 2,
                "num_heads": 2,
                "img_size": [SIDE, SIDE],
                "patch_size": 4,
                "ref_feat_shape": [8, 8],
                "global_pool": "",
                "use_post_transformer_norm": False,
            },
        },
        config={"projector_pooling_ratio": 2},
        processor={"patch_size": 4, "pooling_ratio": 2},
    ),
}
