"""The types that are refused, and the words that say why."""

from __future__ import annotations

from typing import Any

import zoo
from types_beyond import BEYOND
from types_explained import TWO_RANGES
from types_zoo import Kind, square

# With the words that say why, once it runs
WHEN_IT_RUNS: dict[str, tuple[Kind, tuple[str, ...]]] = {
    "gemma3n": (
        Kind(
            4,
            lambda draw: {"pixel_values": draw.normal(1, 3, 4, 4)},
            {
                "text_config__vocab_size_per_layer_input": zoo.VOCABULARY,
                "text_config__hidden_size_per_layer_input": 16,
                "text_config__laurel_rank": 8,
                "text_config__num_kv_shared_layers": 1,
                "text_config__activation_sparsity_pattern": None,
                "text_config__layer_types": TWO_RANGES,
            },
            tower=False,
        ),
        ("Gemma3nTextDecoderLayer gives hidden states [4, 1, ", "several for each token"),
    ),
    "step3p7": (
        square(
            1,
            text_config__sliding_window=8,
            text_config__layer_types=TWO_RANGES,
            text_config__num_sliding_attention_heads=8,
        ),
        ("the decoder's layers differ in their number of heads",),
    ),
}

KEYS_ALONE = "dexar_fast explains decoders that keep keys and values alone"
RECURRENT = ("keeps a LinearAttentionLayer in its cache", KEYS_ALONE)
INDEXED = ("keeps a DynamicIndexedLayer in its cache", KEYS_ALONE)
CONVOLUTIONS = ("keeps a LinearAttentionAndFullAttentionLayer", KEYS_ALONE)
LAYERS = {"num_hidden_layers": 2}

# Of zoo.py, of a test of its own, or not tried
ELSEWHERE = {*zoo.FAMILIES, *(name.split("/")[0] for name in BEYOND), "llama4", "deepseek_vl_hybrid", "granite4_vision"}

# What must be said of a type that its default config leaves out
SAID: dict[str, dict[str, Any]] = {
    "diffusion_gemma": {"text_config": {"num_experts": 4, "top_k_experts": 2, "moe_intermediate_size": 16}},
    "lfm2_vl": {"text_config": {"model_type": "lfm2", "layer_types": ["conv", "full_attention"], **LAYERS}},
    "minicpm_ocr": {"image_token_id": zoo.IMAGE},
    "minicpmv4_6": {"image_token_id": zoo.IMAGE},
    "minicpmv4_7": {"image_token_id": zoo.IMAGE},
    "minimax_m3_vl": {"text_config": {"layer_types": ["full_attention", "minimax_m3_sparse"], **LAYERS}},
    "qwen4_exp": {
        "text_config": {
            "indexer_n_heads": 2,
            "indexer_kv_heads": 1,
            "indexer_head_dim": 256,
            "indexer_budget": 8,
            "indexer_compress_ratio": 2,
        }
    },
}

# What each is told
AT_THE_DOOR: dict[str, tuple[str, ...]] = {
    "diffusion_gemma": ("DiffusionGemmaForBlockDiffusion writes by a generate() of its own", "diffusion"),
    "dots3_note": INDEXED,
    "evolla": ("EvollaForProteinText2Text takes no images",),
    "glm5_next": ("Glm5NextConfig keeps a", KEYS_ALONE),
    "hy_v4_vl": INDEXED,
    "inkling2": CONVOLUTIONS,
    "inkling2_loop": CONVOLUTIONS,
    "inkling_mm_model": CONVOLUTIONS,
    "lfm2_vl": RECURRENT,
    "lfm3_vl": RECURRENT,
    "minicpm_ocr": RECURRENT,
    "minicpmv4_6": RECURRENT,
    "minicpmv4_7": RECURRENT,
    "minimax_m3_vl": ("keeps a MiniMaxM3VLSparseCacheLayer in its cache", KEYS_ALONE),
    "mistral4": ("Mistral4ForCausalLM takes no images",),
    "mistral_large4": INDEXED,
    "nemotron_h_omni": ("NemotronH_Omni_Reasoning_V3 shows no output head", "inside it (language_model)"),
    "pi0": ("PI0ForConditionalGeneration shows no output head", "it writes no text (a policy, say)"),
    "qwen3_5": RECURRENT,
    "qwen3_5_moe": RECURRENT,
    "qwen4_exp": ("Qwen4ExpConfig keeps a", KEYS_ALONE),
    "unlimited_ocr": ("keeps a UnlimitedOcrDynamicReferenceSlidingWindowLayer in its cache", KEYS_ALONE),
}
