"""The types that are refused, and the words that say why."""

from __future__ import annotations

from typing import Any

import torch
import zoo
from types_zoo import Kind

# With the words that say why, once it runs
WHEN_IT_RUNS: dict[str, tuple[Kind, tuple[str, ...]]] = {
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
}

NO_IMAGE_TOKEN = "dexar_fast explains models that read images as placeholder tokens in the prompt"

# Of zoo.py, of a test of its own, or not tried
ELSEWHERE = {*zoo.FAMILIES, "llama4"}

# What must be said of a type that its default config leaves out
SAID: dict[str, dict[str, Any]] = {
    "diffusion_gemma": {"text_config": {"num_experts": 4, "top_k_experts": 2, "moe_intermediate_size": 16}},
    "instructblipvideo": {"video_token_index": zoo.IMAGE},
}

# What each is told
AT_THE_DOOR: dict[str, tuple[str, ...]] = {
    "blip": ("BlipForConditionalGeneration shows no output head", "the BlipTextLMHeadModel inside it (text_decoder)"),
    "blip-2": ("Blip2ForConditionalGeneration needs pixel_values", "the OPTForCausalLM inside it (language_model)"),
    "diffusion_gemma": ("DiffusionGemmaForBlockDiffusion writes by a generate() of its own", "diffusion"),
    "evolla": ("EvollaConfig names no image token", NO_IMAGE_TOKEN),
    "florence2": ("Florence2ForConditionalGeneration is an encoder-decoder",),
    "git": ("GitConfig names no image token", NO_IMAGE_TOKEN),
    "idefics": ("IdeficsConfig names no image token", NO_IMAGE_TOKEN),
    "instructblip": ("InstructBlipForConditionalGeneration needs pixel_values", "the OPTForCausalLM inside it"),
    "instructblipvideo": ("InstructBlipVideoForConditionalGeneration needs pixel_values", "the OPTForCausalLM inside"),
    "kosmos-2": ("Kosmos2Config names no image token", NO_IMAGE_TOKEN),
    "kosmos-2.5": ("Kosmos2_5Config names no image token", NO_IMAGE_TOKEN),
    "mistral4": ("Mistral4Config names no image token", NO_IMAGE_TOKEN),
    "pi0": ("PI0ForConditionalGeneration shows no output head", "it writes no text (a policy, say)"),
    "pix2struct": ("Pix2StructForConditionalGeneration is an encoder-decoder",),
    "pp_formulanet": ("PPFormulaNetForConditionalGeneration is an encoder-decoder",),
    "t5gemma2": ("T5Gemma2ForConditionalGeneration is an encoder-decoder",),
    "udop": ("UdopForConditionalGeneration is an encoder-decoder",),
    "vision-encoder-decoder": ("VisionEncoderDecoderModel is an encoder-decoder",),
}
