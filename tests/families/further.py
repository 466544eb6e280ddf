"""Small random instances of further types, which differ more from transformers' defaults."""

from __future__ import annotations

from collections.abc import Mapping

from tests.families.building import Build, Markup
from tests.families.instances import SIDE, TILINGS
from tests.families.shapes import shape
from tests.families.wide import IM, PIXELS, PLAIN, ROPE, SQUARE

_TOWER_OF_SAM = {
    "image_size": 256,
    "patch_size": 4,
    "output_channels": 32,
    "mlp_dim": 24,
    "global_attn_indexes": [],
    "window_size": 8,
}

FURTHER: Mapping[str, Build] = {
    "aria": shape(
        "aria",
        PLAIN,
        {"image_token": "<image>"},
        vision={"patch_size": 140, "image_size": 980},
        config={"projector_patch_to_query_dict": {49: 4}},
        processor={"size_conversion": {980: 4}},
    ),
    "ernie4_5_vl_moe": shape(
        "ernie4_5_vl_moe",
        Markup("<|image_start|><|image|><|image_end|>"),
        {
            "image_token": "<|image|>",
            "image_start_token": "<|image_start|>",
            "image_end_token": "<|image_end|>",
            "video_token": "<|video|>",
            "video_start_token": "<|video_start|>",
            "video_end_token": "<|video_end|>",
        },
        images=PIXELS,
        text={
            **ROPE,
            "mlp_layer_types": ["dense", "sparse"],
            "moe_intermediate_size": [24, 24],
            "moe_k": 2,
        },
        config={"image_start_token_id": "<|image_start|>", "image_end_token_id": "<|image_end|>"},
    ),
    "got_ocr2": shape(
        "got_ocr2",
        Markup("<img><imgpad></img>\n", **IM),
        {"image_token": "<imgpad>"},
        images={"size": {"height": 256, "width": 256}},
        vision=_TOWER_OF_SAM,
        tokens=("<img>", "</img>"),
    ),
    "granite4_vision": shape(
        "granite4_vision",
        PLAIN,
        {"image_token": "<image>"},
        images={"size": SQUARE, "image_grid_pinpoints": TILINGS, "crop_size": SQUARE},
        text={"model_type": "granite4_vision_text"},
        vision={"image_size": SIDE},
        config={
            "image_grid_pinpoints": TILINGS,
            "downsample_rate": "2/4",
            "deepstack_layer_map": [[-1, 0]],
            "spatial_target_layers": [1, 1, 1, 1],
            "vision_feature_select_strategy": "full",
            "qformer_config": {
                "model_type": "blip_2_qformer",
                "num_hidden_layers": 1,
                "intermediate_size": 24,
                "cross_attention_frequency": 1,
                "hidden_size": 16,
                "num_attention_heads": 2,
                "encoder_hidden_size": 16,
            },
        },
        processor={
            "patch_size": 4,
            "vision_feature_select_strategy": "full",
            "downsample_rate": "2/4",
        },
    ),
}
