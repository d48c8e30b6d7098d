"""Dimensions of published models, as transformers' configs take them, and of tiny ones of the same families."""

from __future__ import annotations

from typing import Any

Dimensions = dict[str, Any]


def llava_512(layers: int = 4, grid: int = 24, width: int = 512, vocabulary: int = 1000) -> Dimensions:
    """LLaVA for CPUs: text width 512, a small tower, grid x grid visual tokens, 1000 ids or more."""
    return {
        "image_token_index": 999,
        "text_config": {
            "model_type": "llama",
            "hidden_size": width,
            "intermediate_size": width * 43 // 16,
            "num_hidden_layers": layers,
            "num_attention_heads": width // 64,
            "num_key_value_heads": width // 64,
            "vocab_size": vocabulary,
            "max_position_embeddings": 16384,
            "eos_token_id": None,
        },
        "vision_config": {
            "model_type": "clip_vision_model",
            "hidden_size": 64,
            "intermediate_size": 128,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "image_size": grid * 14,
            "patch_size": 14,
        },
    }


def _tiny_text(model_type: str, **more: Any) -> dict[str, Any]:
    return {
        "model_type": model_type,
        "hidden_size": 64,
        "intermediate_size": 96,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 16,
        "vocab_size": 1000,
        "max_position_embeddings": 4096,
        "eos_token_id": None,
        "pad_token_id": 0,
        **more,
    }


def _tiny_vision(model_type: str, **more: Any) -> dict[str, Any]:
    return {
        "model_type": model_type,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "image_size": 56,
        "patch_size": 14,
        **more,
    }


DIMENSIONS: dict[str, Dimensions] = {
    "llava-1.5-7b": {
        "image_token_index": 32000,
        "text_config": {
            "model_type": "llama",
            "hidden_size": 4096,
            "intermediate_size": 11008,
            "num_hidden_layers": 32,
            "num_attention_heads": 32,
            "num_key_value_heads": 32,
            "vocab_size": 32064,
            "max_position_embeddings": 4096,
            "rms_norm_eps": 1e-5,
            "eos_token_id": None,
        },
        "vision_config": {
            "model_type": "clip_vision_model",
            "hidden_size": 1024,
            "intermediate_size": 4096,
            "num_hidden_layers": 24,
            "num_attention_heads": 16,
            "image_size": 336,
            "patch_size": 14,
            "projection_dim": 768,
        },
    },
    "qwen2.5-vl-7b": {
        "image_token_id": 151655,
        "video_token_id": 151656,
        "vision_start_token_id": 151652,
        "vision_end_token_id": 151653,
        "tie_word_embeddings": False,
        "text_config": {
            "model_type": "qwen2_5_vl_text",
            "hidden_size": 3584,
            "intermediate_size": 18944,
            "num_hidden_layers": 28,
            "num_attention_heads": 28,
            "num_key_value_heads": 4,
            "vocab_size": 152064,
            "max_position_embeddings": 128000,
            "rms_norm_eps": 1e-6,
            "use_sliding_window": False,
            "tie_word_embeddings": False,
            "rope_parameters": {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [16, 24, 24]},
            "eos_token_id": None,
        },
        "vision_config": {
            "depth": 32,
            "hidden_size": 1280,
            "intermediate_size": 3420,
            "num_heads": 16,
            "out_hidden_size": 3584,
            "patch_size": 14,
            "spatial_merge_size": 2,
            "temporal_patch_size": 2,
            "window_size": 112,
            "fullatt_block_indexes": [7, 15, 23, 31],
        },
    },
    "paligemma-3b": {
        "image_token_index": 257152,
        "projection_dim": 2048,
        "hidden_size": 2048,
        "text_config": {
            "model_type": "gemma",
            "hidden_size": 2048,
            "intermediate_size": 16384,
            "num_hidden_layers": 18,
            "num_attention_heads": 8,
            "num_key_value_heads": 1,
            "head_dim": 256,
            "vocab_size": 257216,
            "max_position_embeddings": 8192,
            "eos_token_id": None,
        },
        "vision_config": {
            "model_type": "siglip_vision_model",
            "hidden_size": 1152,
            "intermediate_size": 4304,
            "num_hidden_layers": 27,
            "num_attention_heads": 16,
            "image_size": 224,
            "patch_size": 14,
            "vision_use_head": False,
            "projection_dim": 2048,
        },
    },
    "llava-512": llava_512(),
}

# What replaces entries of the above in a dry run.
TINY: dict[str, Dimensions] = {
    "llava-1.5-7b": {
        "image_token_index": 999,
        "text_config": _tiny_text("llama"),
        "vision_config": _tiny_vision("clip_vision_model"),
    },
    "qwen2.5-vl-7b": {
        "image_token_id": 995,
        "video_token_id": 996,
        "vision_start_token_id": 992,
        "vision_end_token_id": 993,
        "text_config": _tiny_text(
            "qwen2_5_vl_text",
            rope_parameters={"rope_type": "default", "rope_theta": 1e4, "mrope_section": [2, 3, 3]},
        ),
        "vision_config": {
            "depth": 2,
            "hidden_size": 32,
            "intermediate_size": 48,
            "num_heads": 2,
            "out_hidden_size": 64,
            "patch_size": 14,
            "spatial_merge_size": 2,
            "temporal_patch_size": 2,
            "window_size": 112,
            "fullatt_block_indexes": [1],
        },
    },
    "paligemma-3b": {
        "image_token_index": 999,
        "projection_dim": 64,
        "hidden_size": 64,
        "text_config": _tiny_text("gemma", num_key_value_heads=1),
        "vision_config": _tiny_vision("siglip_vision_model", vision_use_head=False, projection_dim=64),
    },
    "llava-512": {"text_config": _tiny_text("llama"), "vision_config": _tiny_vision("clip_vision_model")},
}
