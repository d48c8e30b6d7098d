"""The types that are refused, and the words that say why."""

from __future__ import annotations

from typing import Any

import zoo
from types_beyond import BEYOND
from types_zoo import Kind, square

# Of which transformers' own forward fails
BROKEN: dict[str, Kind] = {
    "llama4": square(
        4,
        vision_config__intermediate_size=128,
        vision_config__vision_output_dim=32,
        vision_config__projector_input_dim=32,
        vision_config__projector_output_dim=32,
        text_config__intermediate_size_mlp=80,
    )
}

# Of zoo.py, of a test of its own, or of types_beyond.py
ELSEWHERE = {*zoo.FAMILIES, *BROKEN, *(name.partition("/")[0] for name in BEYOND)}

# What must be said of a type that its default config leaves out
SAID: dict[str, dict[str, Any]] = {
    "diffusion_gemma": {"text_config": {"num_experts": 4, "top_k_experts": 2, "moe_intermediate_size": 16}},
}

# What each is told
AT_THE_DOOR: dict[str, tuple[str, ...]] = {
    "diffusion_gemma": ("DiffusionGemmaForBlockDiffusion writes by a generate() of its own", "diffusion"),
    "evolla": ("EvollaForProteinText2Text takes no images",),
    "mistral4": ("Mistral4ForCausalLM takes no images",),
    "pi0": ("PI0ForConditionalGeneration shows no output head", "it writes no text (a policy, say)"),
}
