"""The types that are explained, and how each is made small. The types of README's table are in zoo.py."""

from __future__ import annotations

import torch
import zoo
from types_zoo import Kind, patches, sized, square

MROPE = {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [2, 3, 3]}
GLM = patches(text_config__rope_parameters=MROPE)
GRID = {"image_grid_thw": torch.tensor([[1, 4, 6]])}
TWO_RANGES = ["sliding_attention", "full_attention", "sliding_attention"]

IMAGE_CODES = range(100, 132)  # ids of those that read images as codes of a vocabulary
EMU3_CODES = {f"<|visual token {code:06}|>": code + IMAGE_CODES[0] for code in range(32)} | {"<|extra_200|>": 99}
CHAMELEON_CODES = {f"IMGIMG{chr(65 + code // 10)}{chr(65 + code % 10)}Z": code + IMAGE_CODES[0] for code in range(32)}
CODES = {"base_channels": 32, "num_res_blocks": 1, "channel_multiplier": [1, 1]}
VQ = {f"vq_config__{name}": value for name, value in CODES.items()}
MUSE = {
    "out_hidden_size": 128,
    "projector_hidden_size": 64,
    "vision_config__pos_emb_height": 8,
    "vision_config__pos_emb_width": 8,
}
OMNI = {
    "audio_config__encoder_layers": 1,
    "audio_config__encoder_attention_heads": 2,
    "audio_config__encoder_ffn_dim": 16,
    "audio_config__d_model": 16,
    "audio_config__output_dim": 64,
    "audio_config__num_mel_bins": 16,
    "audio_config__max_source_positions": 20,
    "audio_config__n_window": 4,
    "audio_token_id": 180,
    "vision_start_token_id": zoo.START,
    "vision_end_token_id": zoo.END,
    "image_token_id": zoo.IMAGE,
    "video_token_id": zoo.VIDEO,
}


def places(side: int) -> torch.Tensor:
    """[1, side * side, 2]: x and y of each patch."""
    return torch.cartesian_prod(torch.arange(side), torch.arange(side)).flip(-1)[None]


EXPLAINED: dict[str, Kind] = {
    "apertus1p5": Kind(
        4,
        lambda draw: {"pixel_values": draw.normal(1, 3, 4, 4), "image_sizes": torch.tensor([[4, 4]])},
        {
            "text_config__output_vocab_size": 150,
            "image_token_offset": IMAGE_CODES[0],
            "audio_token_offset": 132,
            "audio_config__codebook_dim": 32,
            "audio_config__codebook_size": 16,
            "vision_config__codebook_size": 32,
            **{f"vision_config__{name}": value for name, value in CODES.items()},
        },
    ),
    "aria": square(4, projector_patch_to_query_dict={"16": 4}),
    "chameleon": square(
        64,
        **VQ,
        vq_config__latent_channels=32,
        vq_config__num_embeddings=32,
        vq_config__resolution=16,
        vocabulary_map=CHAMELEON_CODES | {"<image>": zoo.IMAGE},
    ),
    "cohere2_vision": square(4, alignment_intermediate_size=64),
    "cohere_compass": patches(
        text_config__layer_types=TWO_RANGES,
        text_config__sliding_window=12,
        text_config__rope_parameters=dict.fromkeys(["sliding_attention", "full_attention"], MROPE),
        vision_config__deepstack_visual_indexes=[0, 1],
    ),
    "cosmos3_edge": patches(1),
    "cosmos3_omni": patches(),
    "deepseek_ocr2": square(
        145,
        *(1, 3, 64, 64),
        text_config__mlp_layer_types=["dense", "sparse", "dense"],
        text_config__num_experts_per_tok=2,
        vision_config__sam_config={
            "hidden_size": 32,
            "mlp_dim": 32,
            "num_hidden_layers": 1,
            "num_attention_heads": 2,
            "image_size": 64,
            "patch_size": 4,
            "window_size": 4,
            "global_attn_indexes": [0],
            "output_channels": 16,
            "downsample_channels": [32, 32],
        },
        vision_config__encoder_config={
            "hidden_size": 32,
            "intermediate_size": 48,
            "num_hidden_layers": 1,
            "num_attention_heads": 2,
            "num_key_value_heads": 2,
        },
    ),
    "deepseek_vl": square(16),
    "emu3": Kind(
        20,
        lambda draw: {"pixel_values": draw.normal(1, 3, 8, 8), "image_sizes": torch.tensor([[8, 8]])},
        {
            **VQ,
            "vq_config__codebook_size": 32,
            "vq_config__latent_channels": 4,
            "vq_config__embed_dim": 4,
            "vocabulary_map": EMU3_CODES | {"<image>": zoo.IMAGE},
        },
    ),
    "ernie4_5_vl_moe": patches(
        1,
        text_config__moe_intermediate_size=[48, 48],
        text_config__moe_num_experts=4,
        text_config__moe_k=2,
        text_config__rope_parameters={**MROPE, "mrope_section": [3, 3, 2]},
    ),
    "exaone4_5": patches(),
    "fast_vlm": Kind(4, lambda draw: {"pixel_values": draw.normal(1, 3, 4, 4)}, tower=False),
    "fuyu": square(4, 1, 4, 2700),
    "gemma4": Kind(
        4,
        lambda draw: {"pixel_values": draw.normal(1, 16, 48), "image_position_ids": places(4)},
        {
            "text_config__vocab_size_per_layer_input": zoo.VOCABULARY,
            "text_config__hidden_size_per_layer_input": 16,
            "vision_config": {
                "model_type": "gemma4_vision",
                "hidden_size": 32,
                "intermediate_size": 48,
                "num_hidden_layers": 1,
                "num_attention_heads": 2,
                "num_key_value_heads": 2,
                "head_dim": 16,
                "patch_size": 4,
                "pooling_kernel_size": 2,
                "position_embedding_size": 16,
            },
        },
    ),
    "gemma4_unified": Kind(
        4,
        lambda draw: {"pixel_values": draw.normal(1, 4, 432), "image_position_ids": places(2)},
        {
            "vision_config": {
                "model_type": "gemma4_unified_vision",
                "patch_size": 4,
                "pooling_kernel_size": 3,
                "mm_embed_dim": 64,
                "mm_posemb_size": 16,
                "output_proj_dims": 64,
            }
        },
    ),
    "glm46v": GLM,
    "glm4v": GLM,
    "glm4v_moe": patches(text_config__rope_parameters={**MROPE, "mrope_section": [1, 1, 2]}),
    "glm_ocr": GLM,
    "glmga": GLM,
    "got_ocr2": square(16, 1, 3, 64, 64, vision_config__image_size=64),
    "granite_docling": Kind(
        4,
        lambda draw: {
            "pixel_values": draw.normal(1, 1, 3, 32, 32),
            "pixel_attention_mask": torch.ones(1, 1, dtype=torch.bool),
        },
        {"vision_config__image_size": 32},
    ),
    "hunyuan_vl": Kind(
        10,
        lambda draw: {"pixel_values": draw.normal(24, 48), **GRID},
        {
            "text_config__head_dim": 16,
            "text_config__rope_parameters": {**MROPE, "alpha": 1.0, "mrope_section": [2, 2, 2, 2]},
            "vision_config__text_hidden_size": 64,
            "vision_config__max_image_size": 32,
        },
    ),
    "hyperclovax_vision_v2": patches(),
    "idefics2": square(4, 1, 1, 3, 16, 16, perceiver_config__resampler_n_latents=4),
    "janus": square(
        16, **VQ, vq_config__latent_channels=32, vision_config__num_image_tokens=16, vision_config__projection_dim=64
    ),
    "kimi_k25": Kind(
        6,
        lambda draw: {"pixel_values": draw.normal(24, 3, 4, 4), **GRID},
        {"projection_hidden_size": 32, "text_config__head_dim": 8, "text_config__num_key_value_heads": 4},
    ),
    "lighton_ocr": sized(4),
    "llava_next_video": Kind(
        36,
        lambda draw: {"pixel_values": draw.normal(1, 2, 3, 16, 16), "image_sizes": torch.tensor([[16, 16]])},
        {"image_grid_pinpoints": [[16, 16]]},
    ),
    "minimax_m3_vl": patches(text_config__layer_types=["full_attention"] * 3),
    "molmo2": Kind(
        8,
        lambda draw: {
            "pixel_values": draw.normal(1, 16, 48),
            "image_token_pooling": torch.arange(16).reshape(4, 4).repeat(2, 1),
            "image_grids": torch.tensor([[2, 2, 2, 2]]),
        },
        {
            "vision_config__image_size": [16, 16],
            "vision_config__num_position_embeddings": 16,
            "adapter_config__vision_feature_layer": [1, 0],
            "adapter_config__text_hidden_size": 64,
            "image_patch_id": zoo.IMAGE,
        },
    ),
    "muse_glimmer": patches(**MUSE),
    "muse_spark": patches(
        **MUSE,
        text_config__moe_hidden_size=48,
        audio_config__num_hidden_layers=4,
        audio_config__hidden_sizes=[8] * 4,
        audio_config__depths=[1] * 4,
    ),
    "ovis2": square(16, vision_config__vocab_size=32, hidden_size=64),
    "paddleocr_vl": Kind(
        6,
        lambda draw: {"pixel_values": draw.normal(24, 3, 4, 4), **GRID},
        {"text_config__rope_parameters": MROPE},
    ),
    "perception_lm": Kind(
        4,
        lambda draw: {"pixel_values": draw.normal(1, 3, 4, 4)},
        {"vision_config": {"model_type": "timm_wrapper", "model_args": {"embed_dim": 32}}},
        tower=False,
    ),
    "pp_chart2table": square(16, 1, 3, 64, 64, vision_config__image_size=64),
    "qianfan_ocr": square(4),
    "qwen2_5_omni_thinker": patches(**OMNI, text_config__rope_parameters=MROPE),
    "qwen3_omni_moe_thinker": patches(
        **OMNI,
        audio_config__downsample_hidden_size=16,
        text_config__rope_parameters=MROPE,
        vision_config__deepstack_visual_indexes=[0, 1],
    ),
    "shieldgemma2": square(16, mm_tokens_per_image=16),
    "step3p7": square(1, text_config__sliding_window=8, text_config__layer_types=TWO_RANGES),
    "video_llama_3": Kind(
        24, lambda draw: {"pixel_values": draw.normal(24, 48), **GRID, "image_merge_sizes": torch.tensor([1])}
    ),
    "video_llava": square(16),
    "vipllava": square(16, vision_feature_layers=[-1, -2]),
}
