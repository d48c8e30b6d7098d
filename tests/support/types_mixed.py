"""The types whose decoders mix kinds of layers, choose their keys, or hand on several streams; see cut_oracle.py.

Budgets and windows are small, so that a prompt of 20 tokens is long enough for them to drop keys.
"""

from __future__ import annotations

import torch
import zoo
from types_explained import GRID, TWO_RANGES
from types_zoo import Kind, patches, sized, square

RECURRENT = ["linear_attention", "full_attention", "linear_attention", "full_attention"]
DELTA = {
    "text_config__num_hidden_layers": 4,
    "text_config__layer_types": RECURRENT,
    "text_config__linear_num_key_heads": 2,
    "text_config__linear_num_value_heads": 4,
    "text_config__linear_key_head_dim": 8,
    "text_config__linear_value_head_dim": 8,
}
WINDOW = {"vision_config__num_hidden_layers": 2, "insert_layer_id": 0, "image_token_id": zoo.IMAGE}
INDEXER = {"text_config__index_n_heads": 16, "text_config__index_head_dim": 16, "text_config__index_topk": 6}
HYBRID = ["hybrid_sliding", "hybrid"] * 2
RELATIVE = {
    "text_config__swa_num_attention_heads": 4,
    "text_config__swa_num_key_value_heads": 2,
    "text_config__swa_head_dim": 16,
    "text_config__sliding_window_size": 8,
    "text_config__d_rel": 8,
    "text_config__rel_extent": 12,
}
DENSE_FIRST = ["dense", "sparse", "sparse", "dense"]
SAM = {
    "hidden_size": 32,
    "mlp_dim": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "image_size": 64,
    "patch_size": 4,
    "window_size": 4,
    "global_attn_indexes": [0],
    "output_channels": 16,
}


def packed(tokens: int, height: int, width: int, **more: object) -> Kind:
    """Patches of 4 pixels behind each other in one row, as MiniCPM-V packs them."""

    def image(draw: zoo.Draw) -> zoo.Inputs:
        pixels = draw.normal(1, 3, 4, 4 * height * width)
        return {"pixel_values": pixels, "target_sizes": torch.tensor([[height, width]])}

    return Kind(tokens, image, {**DELTA, **WINDOW, **more})


def blocks(**more: object) -> Kind:
    """8 x 8 pixels a token, 2 x 3 of them."""

    def image(draw: zoo.Draw) -> zoo.Inputs:
        return {"pixel_values": draw.normal(6, 8, 8, 3), "image_grid_thw": torch.tensor([[1, 2, 3]])}

    sizes = {
        "text_config__n_layers_per_attn_res_block": 2,
        "text_config__unpadded_vocab_size": 197,
        "vision_config__text_hidden_size": 64,
        "vision_config__projection_hidden_dim": 32,
        "vision_config__posemb_grid_size": 4,
    }
    return Kind(6, image, {**RELATIVE, **sizes, **more})


MIXED: dict[str, Kind] = {
    "deepseek_vl_hybrid": Kind(
        576,
        lambda draw: {
            "pixel_values": draw.normal(1, 3, 48, 48),
            "high_res_pixel_values": draw.normal(1, 3, 64, 64),
        },
        {
            "text_config__max_position_embeddings": 1024,
            "vision_config__image_size": 48,
            "vision_config__patch_size": 2,
            "high_res_vision_config": SAM,
        },
    ),
    "dots3_note": patches(
        1,
        **INDEXER,
        text_config__num_hidden_layers=4,
        text_config__layer_types=["indexed_attention", "indexed_attention", "sliding_attention", "indexed_attention"],
        text_config__num_key_value_heads=4,
        text_config__mlp_layer_types=DENSE_FIRST,
        text_config__sliding_window=8,
        text_config__v_head_dim=12,
        text_config__swa_num_attention_heads=2,
        text_config__swa_num_key_value_heads=2,
        text_config__swa_q_lora_rank=24,
        text_config__swa_kv_lora_rank=16,
        text_config__swa_head_dim=24,
        text_config__swa_qk_nope_head_dim=16,
        text_config__swa_v_head_dim=20,
        vision_config__mlp_layer_types=["dense", "sparse"],
        vision_config__num_local_experts=4,
        vision_config__adapter_in_dim=32,
        vision_config__adapter_out_dim=64,
        audio_config__adapter_input_size=32,
        audio_config__adapter_out_dim=64,
    ),
    "gemma3n": Kind(
        4,
        lambda draw: {"pixel_values": draw.normal(1, 3, 4, 4)},
        {
            "text_config__vocab_size_per_layer_input": zoo.VOCABULARY,
            "text_config__hidden_size_per_layer_input": 16,
            "text_config__laurel_rank": 8,
            "text_config__num_kv_shared_layers": 1,
            "text_config__activation_sparsity_pattern": None,
            "text_config__layer_types": TWO_RANGES,
            "text_config__sliding_window": 8,
        },
        tower=False,
    ),
    "glm5_next": patches(
        **INDEXER,
        text_config__num_hidden_layers=4,
        text_config__layer_types=["linear_attention", "indexed_attention", "indexed_attention", "linear_attention"],
        text_config__num_key_value_heads=4,
        text_config__qk_rope_head_dim=0,
        text_config__linear_num_heads=2,
        text_config__linear_head_dim=16,
        text_config__index_kpool=2,
        text_config__indexer_types=["full", "full", "shared", "full"],
        text_config__mlp_layer_types=DENSE_FIRST,
    ),
    "granite4_vision": Kind(
        10,
        lambda draw: {"pixel_values": draw.normal(1, 2, 3, 16, 16), "image_sizes": torch.tensor([[16, 16]])},
        {
            "image_grid_pinpoints": [[16, 16]],
            "downsample_rate": "1/2",
            "deepstack_layer_map": [[-2, 0], [-1, 1]],
            "spatial_target_layers": [2, 3, 4, 5],
            "text_config__num_hidden_layers": 6,
            "vision_config__hidden_size": 64,
        },
    ),
    "hy_v4_vl": Kind(
        8,
        lambda draw: {"pixel_values": draw.normal(24, 48), **GRID},
        {
            **INDEXER,
            "text_config__num_hidden_layers": 4,
            "text_config__rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [2, 1, 1]},
            "text_config__mlp_layer_types": DENSE_FIRST,
            "vision_config__max_image_size": 32,
        },
    ),
    "inkling2": blocks(text_config__num_hidden_layers=4, text_config__layer_types=HYBRID),
    "inkling2_loop": blocks(
        text_config__num_hidden_layers=6,
        text_config__layer_types=[*HYBRID, *HYBRID[:2]],
        text_config__loop_layer_index_start=2,
        text_config__loop_layer_index_end=4,
        text_config__loop_num_passes=2,
        text_config__loop_gate_rank=8,
    ),
    "inkling_mm_model": Kind(
        6,
        lambda draw: {"pixel_values": draw.normal(6, 2, 4, 4, 3)},
        {
            **RELATIVE,
            "text_config__num_hidden_layers": 4,
            "text_config__layer_types": HYBRID,
            "text_config__mlp_layer_types": DENSE_FIRST,
            "vision_config__num_hidden_layers": 4,
        },
    ),
    "lfm2_vl": Kind(
        6,
        lambda draw: {
            "pixel_values": draw.normal(1, 24, 48),
            "spatial_shapes": torch.tensor([[4, 6]]),
            "pixel_attention_mask": torch.ones(1, 24, dtype=torch.long),
        },
        {
            "text_config": {
                "model_type": "lfm2",
                **zoo.TEXT,
                "num_hidden_layers": 4,
                "layer_types": ["conv", "full_attention", "conv", "full_attention"],
            }
        },
    ),
    "lfm3_vl": patches(
        text_config__num_hidden_layers=4,
        text_config__layer_types=["conv", "full_attention", "conv", "sliding_attention"],
        text_config__sliding_window=8,
    ),
    "minicpm_ocr": packed(6, 4, 6),
    "minicpmv4_6": packed(6, 8, 12),
    "minicpmv4_7": packed(
        6,
        *(8, 12),
        image_start_id=zoo.START,
        image_end_id=zoo.END,
        slice_start_id=zoo.TILE,
        slice_end_id=zoo.TILE + 1,
        newline_id=zoo.NEWLINE,
    ),
    "minimax_m3_vl": patches(
        text_config__num_hidden_layers=4,
        text_config__layer_types=["full_attention", "minimax_m3_sparse"] * 2,
        text_config__mlp_layer_types=DENSE_FIRST,
        text_config__index_n_heads=2,
        text_config__index_head_dim=16,
        text_config__index_block_size=4,
        text_config__index_topk_blocks=2,
        text_config__rotary_dim=8,
    ),
    "mistral_large4": sized(
        4,
        **INDEXER,
        text_config__num_hidden_layers=4,
        text_config__num_key_value_heads=4,
        text_config__indexer_types=["full", "shared", "full", "full"],
        text_config__kv_source_layers=[0, 1, 1, 3],
        text_config__mlp_layer_types=DENSE_FIRST,
        text_config__v_head_dim=28,
    ),
    "nemotron_h_omni": Kind(
        6,
        lambda draw: {"pixel_values": draw.normal(24, 48), "image_grid_hw": torch.tensor([[4, 6]])},
        {
            "image_token_id": zoo.IMAGE,
            "vision_hidden_size": 32,
            "vision_config__video_temporal_patch_size": 2,
            "projector_hidden_size": 32,
            "text_config__layers_block_type": ["linear_attention", "full_attention", "moe", "full_attention", "mlp"],
            "text_config__ssm_state_size": 8,
            "text_config__mamba_num_heads": 4,
            "text_config__mamba_head_dim": 8,
            "text_config__n_groups": 2,
            "text_config__moe_shared_expert_intermediate_size": 48,
        },
    ),
    "qwen3_5": patches(**DELTA),
    "qwen3_5_moe": patches(**DELTA, text_config__shared_expert_intermediate_size=48),
    "qwen4_exp": patches(
        **DELTA | {"text_config__layer_types": ["linear_attention", "indexed_attention"] * 2},
        text_config__hc_lowrank=8,
        text_config__shared_expert_intermediate_size=48,
        text_config__indexer_n_heads=16,
        text_config__indexer_kv_heads=1,
        text_config__indexer_head_dim=16,
        text_config__indexer_budget=6,
        text_config__indexer_compress_ratio=2,
    ),
    "step3p7": square(
        4,
        *(1, 3, 32, 32),
        vision_config__image_size=32,
        text_config__sliding_window=8,
        text_config__layer_types=TWO_RANGES,
        text_config__num_sliding_attention_heads=8,
    ),
    "unlimited_ocr": square(
        21,
        *(1, 3, 64, 64),
        text_config__mlp_layer_types=["dense", "sparse", "dense"],
        text_config__num_experts_per_tok=2,
        text_config__num_key_value_heads=4,
        text_config__sliding_window=2,
        vision_config__sam_config={**SAM, "downsample_channels": [32, 32]},
        vision_config__encoder_config={
            "hidden_size": 32,
            "intermediate_size": 48,
            "num_hidden_layers": 1,
            "num_attention_heads": 2,
            "image_size": 16,
            "patch_size": 4,
        },
    ),
}
