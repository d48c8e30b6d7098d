"""Tiny random models of every image-text-to-text type of transformers, from their own default configs made small.

`shrunk(model_type)` takes the configs as they are and replaces sizes and ids by name; lists with an entry a layer are
left to the config classes, which derive them from the number of layers.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any
from unittest.mock import patch

import torch
import zoo
from torch import nn
from transformers import CONFIG_MAPPING, AutoModel, AutoModelForImageTextToText, PreTrainedConfig, PreTrainedModel
from transformers.modeling_outputs import BaseModelOutputWithPooling

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
    tower: bool = True  # the type's own; else, where that needs another library, features are put in its place


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
    config = config_of(model_type, **kind.changes)
    model = model_of(config, dtype) if kind.tower else _without_tower(config, dtype, kind.tokens)
    draw = zoo.Draw(1)
    inputs = zoo._text_inputs(zoo._prompt(draw, [zoo.START, *[zoo.IMAGE] * kind.tokens, zoo.END]))
    inputs |= kind.image(draw)
    visual = (inputs["input_ids"] == zoo.IMAGE).long()
    for name in ("mm_token_type_ids", "moe_mm_token_type_ids"):
        if name in inspect.signature(model.forward).parameters:
            inputs[name] = visual
    return model, {name: x.to(dtype) if x.is_floating_point() else x for name, x in inputs.items()}


def _without_tower(config: PreTrainedConfig, dtype: torch.dtype, tokens: int) -> PreTrainedModel:
    make = AutoModel.from_config

    def from_config(inner: PreTrainedConfig, **options: Any) -> Any:
        return make(inner, **options) if inner is config.get_text_config() else nn.Identity()

    with patch.object(AutoModel, "from_config", from_config):
        model = model_of(config, dtype)
    features = zoo.Draw(2).normal(1, tokens, config.get_text_config().hidden_size).to(dtype)

    def get_image_features(pixel_values: torch.Tensor, **_: Any) -> BaseModelOutputWithPooling:
        return BaseModelOutputWithPooling(pooler_output=features)

    model.model.get_image_features = get_image_features
    return model


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
