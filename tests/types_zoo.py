"""Tiny random models of every image-text-to-text type of transformers, from their own default configs made small.

`shrunk(model_type)` takes the configs as they are and replaces sizes and ids by name; lists with an entry a layer are
left to the config classes, which derive them from the number of layers.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
import zoo
from transformers import CONFIG_MAPPING, AutoModelForImageTextToText, PreTrainedConfig, PreTrainedModel

TEXT = {
    "vocab_size": zoo.VOCABULARY,
    "hidden_size": 64,
    "d_model": 64,
    "intermediate_size": 80,
    "ffn_dim": 80,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "max_position_embeddings": 512,
    "bos_token_id": zoo.BOS,
    "eos_token_id": zoo.EOS,
    "pad_token_id": zoo.PAD,
    # latent attention
    "q_lora_rank": 24,
    "kv_lora_rank": 16,
    "qk_nope_head_dim": 16,
    "qk_rope_head_dim": 8,
    "v_head_dim": 16,
    # experts
    "moe_intermediate_size": 48,
    "num_experts": 4,
    "num_local_experts": 4,
    "n_routed_experts": 4,
    "num_experts_per_tok": 2,
    "n_group": 1,
    "topk_group": 1,
}
VISION = {
    "hidden_size": 32,
    "embed_dim": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "depth": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "num_heads": 2,
    "image_size": 16,
    "patch_size": 4,
    "projection_dim": 32,
    "out_hidden_size": 64,
    "num_position_embeddings": 64,
}
IDS = {"image_token_id": zoo.IMAGE, "image_token_index": zoo.IMAGE, "video_token_id": zoo.VIDEO}


def config_of(model_type: str, **changes: Any) -> PreTrainedConfig:
    """The type's config, small. Changes by dotted names, `text_config__sliding_window=8`."""
    default = CONFIG_MAPPING[model_type]()
    return _small(default, {} if hasattr(default, "text_config") else TEXT, changes, "")


def _small(default: PreTrainedConfig, sizes: dict[str, Any], changes: dict[str, Any], path: str) -> PreTrainedConfig:
    """A config of the same class with its sizes replaced, and those of the configs in it."""
    known = default.to_dict()
    values = {name: size for name, size in sizes.items() if known.get(name) is not None}
    for name, value in vars(default).items():
        if isinstance(value, PreTrainedConfig):
            inner = TEXT if "text" in name or name in ("decoder", "encoder") else VISION
            values[name] = _small(value, inner, changes, f"{path}{name}__")
        elif name.endswith(("_token_id", "_token_index")) and not path:
            values |= {name: IDS[name]} if name in IDS else {}
    rope = known.get("rope_parameters") or {}
    if isinstance(rope, dict) and "mrope_section" in rope:
        values["rope_parameters"] = {**rope, "mrope_section": [2, 3, 3]}
    mine = {name.removeprefix(path): value for name, value in changes.items() if name.startswith(path)}
    values |= {name: value for name, value in mine.items() if "__" not in name}
    return type(default)(**values)


def model_of(config: PreTrainedConfig, dtype: torch.dtype = torch.float64) -> PreTrainedModel:
    model = AutoModelForImageTextToText.from_config(config, dtype=dtype).eval()
    if model._can_set_experts_implementation():
        model.set_experts_implementation("eager")  # the grouped matrix product behind the default has no float64
    draw = zoo.Draw(0)
    with torch.no_grad():
        for name, parameter in sorted(model.named_parameters()):
            parameter.copy_(zoo._weights(name, parameter, draw))
    return model


@dataclass(frozen=True)
class Kind:
    """How a type's image is given: its inputs, and how many tokens it takes."""

    tokens: int
    image: Callable[[zoo.Draw], zoo.Inputs]
    changes: dict[str, Any] = field(default_factory=dict)


def patches(frames: int = 2, size: int = 4, channels: int = 3, **more: Any) -> Kind:
    """4 x 6 patches in the way of Qwen2-VL, 2 x 2 of them a token."""

    def image(draw: zoo.Draw) -> zoo.Inputs:
        pixels = draw.normal(24, channels * frames * size * size)
        return {"pixel_values": pixels, "image_grid_thw": torch.tensor([[1, 4, 6]])}

    return Kind(6, image, more)


def square(tokens: int, *shape: int, **more: Any) -> Kind:
    """Pixels of this shape, [1, 3, 16, 16] if none is given."""
    return Kind(tokens, lambda draw: {"pixel_values": draw.normal(*(shape or (1, 3, 16, 16)))}, more)


def sized(tokens: int, **more: Any) -> Kind:
    """Of an image whose size is an input beside its pixels."""
    size = torch.tensor([[16, 16]])
    return Kind(tokens, lambda draw: {"pixel_values": draw.normal(1, 3, 16, 16), "image_sizes": size}, more)


def build(model_type: str, kind: Kind, dtype: torch.dtype = torch.float64) -> zoo.Built:
    """The model, and what its processor returns for one prompt, in the model's dtype."""
    model = model_of(config_of(model_type, **kind.changes), dtype)
    draw = zoo.Draw(1)
    inputs = zoo._text_inputs(zoo._prompt(draw, [zoo.START, *[zoo.IMAGE] * kind.tokens, zoo.END]))
    inputs |= kind.image(draw)
    if "image_grid_thw" in inputs and "mm_token_type_ids" in inspect.signature(model.forward).parameters:
        inputs["mm_token_type_ids"] = (inputs["input_ids"] == zoo.IMAGE).long()
    return model, {name: x.to(dtype) if x.is_floating_point() else x for name, x in inputs.items()}


MROPE = {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [2, 3, 3]}
GLM = patches(text_config__rope_parameters=MROPE)
GRID = {"image_grid_thw": torch.tensor([[1, 4, 6]])}
TWO_RANGES = ["sliding_attention", "full_attention", "sliding_attention"]

EXPLAINED: dict[str, Kind] = {
    "aria": square(4, projector_patch_to_query_dict={"16": 4}),
    "cohere2_vision": square(4, alignment_intermediate_size=64),
    "cohere_compass": patches(
        text_config__layer_types=TWO_RANGES,
        text_config__sliding_window=12,
        text_config__rope_parameters=dict.fromkeys(["sliding_attention", "full_attention"], MROPE),
        vision_config__deepstack_visual_indexes=[0, 1],
    ),
    "cosmos3_edge": patches(1),
    "cosmos3_omni": patches(),
    "deepseek_vl": square(16),
    "exaone4_5": patches(),
    "glm46v": GLM,
    "glm4v": GLM,
    "glm4v_moe": patches(text_config__rope_parameters={**MROPE, "mrope_section": [1, 1, 2]}),
    "glm_ocr": GLM,
    "glmga": GLM,
    "got_ocr2": square(16, 1, 3, 64, 64, vision_config__image_size=64),
    "hyperclovax_vision_v2": patches(),
    "idefics2": square(4, 1, 1, 3, 16, 16, perceiver_config__resampler_n_latents=4),
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
    "ovis2": square(16, vision_config__vocab_size=32, hidden_size=64),
    "paddleocr_vl": Kind(
        6,
        lambda draw: {"pixel_values": draw.normal(24, 3, 4, 4), **GRID},
        {"text_config__rope_parameters": MROPE},
    ),
    "pp_chart2table": square(16, 1, 3, 64, 64, vision_config__image_size=64),
    "qianfan_ocr": square(4),
    "shieldgemma2": square(16, mm_tokens_per_image=16),
    "step3p7": square(1, text_config__sliding_window=8, text_config__layer_types=TWO_RANGES),
    "video_llama_3": Kind(
        24, lambda draw: {"pixel_values": draw.normal(24, 48), **GRID, "image_merge_sizes": torch.tensor([1])}
    ),
    "video_llava": square(16),
    "vipllava": square(16, vision_feature_layers=[-1, -2]),
}


KEYS_ALONE = "dexar_fast explains decoders that keep keys and values alone"
RECURRENT = ("keeps a LinearAttentionLayer in its cache", KEYS_ALONE)
INDEXED = ("keeps a DynamicIndexedLayer in its cache", KEYS_ALONE)
CONVOLUTIONS = ("keeps a LinearAttentionAndFullAttentionLayer", KEYS_ALONE)
LAYERS = {"num_hidden_layers": 2}
NO_IMAGE_TOKEN = "dexar_fast explains models that read images as placeholder tokens in the prompt"

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
