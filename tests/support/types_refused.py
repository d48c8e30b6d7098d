"""The types that are refused, and the words that say why."""

from __future__ import annotations

from typing import Any

import torch
import zoo
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
    "mllama": (
        Kind(
            1,
            lambda draw: {
                "pixel_values": draw.normal(1, 1, 4, 3, 16, 16),
                "aspect_ratio_ids": torch.tensor([[1]]),
                "aspect_ratio_mask": torch.tensor([[[1, 0, 0, 0]]]),
            },
            {
                "text_config__cross_attention_layers": [1],
                "vision_config__intermediate_layers_indices": [0],
                "vision_config__vision_output_dim": 64,
                "vision_config__num_global_layers": 1,
            },
        ),
        ("MllamaTextCrossAttention reads 68 keys where the sequence has 16", "cross-attention"),
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
NO_IMAGE_TOKEN = "dexar_fast explains models that read images as placeholder tokens in the prompt"

# Of zoo.py, of a test of its own, or not tried
ELSEWHERE = {*zoo.FAMILIES, "llama4", "deepseek_vl_hybrid", "granite4_vision"}

# What must be said of a type that its default config leaves out
SAID: dict[str, dict[str, Any]] = {
    "diffusion_gemma": {"text_config": {"num_experts": 4, "top_k_experts": 2, "moe_intermediate_size": 16}},
    "instructblipvideo": {"video_token_index": zoo.IMAGE},
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
    "blip": ("BlipForConditionalGeneration shows no output head", "the BlipTextLMHeadModel inside it (text_decoder)"),
    "blip-2": ("Blip2ForConditionalGeneration needs pixel_values", "the OPTForCausalLM inside it (language_model)"),
    "diffusion_gemma": ("DiffusionGemmaForBlockDiffusion writes by a generate() of its own", "diffusion"),
    "dots3_note": INDEXED,
    "evolla": ("EvollaConfig names no image token", NO_IMAGE_TOKEN),
    "florence2": ("Florence2ForConditionalGeneration is an encoder-decoder",),
    "git": ("GitConfig names no image token", NO_IMAGE_TOKEN),
    "glm5_next": ("Glm5NextConfig keeps a", KEYS_ALONE),
    "hy_v4_vl": INDEXED,
    "idefics": ("IdeficsConfig names no image token", NO_IMAGE_TOKEN),
    "inkling2": CONVOLUTIONS,
    "inkling2_loop": CONVOLUTIONS,
    "inkling_mm_model": CONVOLUTIONS,
    "instructblip": ("InstructBlipForConditionalGeneration needs pixel_values", "the OPTForCausalLM inside it"),
    "instructblipvideo": ("InstructBlipVideoForConditionalGeneration needs pixel_values", "the OPTForCausalLM inside"),
    "kosmos-2": ("Kosmos2Config names no image token", NO_IMAGE_TOKEN),
    "kosmos-2.5": ("Kosmos2_5Config names no image token", NO_IMAGE_TOKEN),
    "lfm2_vl": RECURRENT,
    "lfm3_vl": RECURRENT,
    "minicpm_ocr": RECURRENT,
    "minicpmv4_6": RECURRENT,
    "minicpmv4_7": RECURRENT,
    "minimax_m3_vl": ("keeps a MiniMaxM3VLSparseCacheLayer in its cache", KEYS_ALONE),
    "mistral4": ("Mistral4Config names no image token", NO_IMAGE_TOKEN),
    "mistral_large4": INDEXED,
    "nemotron_h_omni": ("NemotronH_Omni_Reasoning_V3 shows no output head", "inside it (language_model)"),
    "pi0": ("PI0ForConditionalGeneration shows no output head", "it writes no text (a policy, say)"),
    "pix2struct": ("Pix2StructForConditionalGeneration is an encoder-decoder",),
    "pp_formulanet": ("PPFormulaNetForConditionalGeneration is an encoder-decoder",),
    "qwen3_5": RECURRENT,
    "qwen3_5_moe": RECURRENT,
    "qwen4_exp": ("Qwen4ExpConfig keeps a", KEYS_ALONE),
    "t5gemma2": ("T5Gemma2ForConditionalGeneration is an encoder-decoder",),
    "udop": ("UdopForConditionalGeneration is an encoder-decoder",),
    "unlimited_ocr": ("keeps a UnlimitedOcrDynamicReferenceSlidingWindowLayer in its cache", KEYS_ALONE),
    "vision-encoder-decoder": ("VisionEncoderDecoderModel is an encoder-decoder",),
}
