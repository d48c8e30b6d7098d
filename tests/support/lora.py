"""Adapters on the small model."""

from __future__ import annotations

import copy
from typing import Any

import peft
import torch
from bad_input import MODEL, PICTURE, PROCESSOR
from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING

PLACES = r".*language_model.*\.(q_proj|v_proj|o_proj|down_proj)"


ASKED = PROCESSOR(images=PICTURE, text="<image>\nthe cat is red", return_tensors="pt")


INVOCATION = ASKED["input_ids"][0, -2:].tolist()


LEARNED = {"num_virtual_tokens": 4, "task_type": "CAUSAL_LM"}


OPTIONS: dict[str, dict[str, Any]] = {
    "ADALORA": {"total_step": 10, "init_r": 2, "target_r": 2},
    "ADAMSS": {"r": 8, "num_subspaces": 2},
    "ADAPTION_PROMPT": {"adapter_len": 4, "adapter_layers": 2, "target_modules": "self_attn"},
    "BEFT": {"target_modules": ["linear_1"]},
    "BOFT": {"boft_block_size": 4},
    "C3A": {"block_size": 8, "target_modules": PLACES.replace("|down_proj", "")},
    "FOURIERFT": {"n_frequency": 20},
    "FROD": {"progressbar": False},
    "GRALORA": {"r": 4, "alpha": 4},
    "IA3": {"target_modules": ["k_proj", "v_proj", "down_proj"], "feedforward_modules": ["down_proj"]},
    "LN_TUNING": {"target_modules": ["input_layernorm", "norm"]},
    "MISS": {"r": 4},
    "OFT": {"oft_block_size": 4},
    "POLY": {"r": 4, "n_tasks": 2},
    "PSOFT": {"r": 4},
    "ROAD": {"group_size": 8},
    "SHADOW": {"target_modules": r".*language_model\.layers\.\d"},
    "SHIRA": {"r": 2},
    "SUPERTUNING": {"sparsity": 0.9},
    "TRAINABLE_TOKENS": {"token_indices": INVOCATION, "target_modules": ["embed_tokens"]},
    "UNILORA": {"theta_d_length": 32},
    "VBLORA": {"num_vectors": 8, "vector_length": 8, "r": 2},
    "WAVEFT": {"n_frequency": 20},
    "CARTRIDGE": LEARNED,
    "CPT": {
        "cpt_token_ids": [1, 2],
        "cpt_mask": [1, 1],
        "cpt_tokens_type_mask": [1, 2],
        "task_type": "CAUSAL_LM",
        "target_modules": None,
    },
    "MULTITASK_PROMPT_TUNING": LEARNED | {"num_tasks": 2},
    "P_TUNING": LEARNED,
    "PREFIX_TUNING": LEARNED,
    "PROMPT_TUNING": LEARNED,
}


REFUSED = {
    "CARTRIDGE",
    "CPT",
    "MULTITASK_PROMPT_TUNING",
    "P_TUNING",
    "PREFIX_TUNING",
    "PROMPT_TUNING",
    "POLY",
    "SHADOW",
    "XLORA",
    "ADAPTION_PROMPT",
}


def fresh() -> Any:
    return copy.deepcopy(MODEL)


def config_of(kind: str) -> Any:
    options = OPTIONS.get(kind, {})
    if kind not in REFUSED or kind == "POLY":
        options = {"target_modules": PLACES} | options
    return PEFT_TYPE_TO_CONFIG_MAPPING[peft.PeftType(kind)](**{k: v for k, v in options.items() if v is not None})


def moved(model: Any, name: str = "default") -> Any:
    """With adapter weights that do something."""
    torch.manual_seed(3)
    with torch.no_grad():
        for key, parameter in model.named_parameters():
            if name in key and parameter.is_floating_point():
                parameter.add_(0.2 * torch.randn_like(parameter))
    return model.eval()


def lora(**options: Any) -> Any:
    places = {"target_modules": PLACES} if "target_modules" not in options else {}
    return moved(peft.get_peft_model(fresh(), peft.LoraConfig(r=2, init_lora_weights=False, **places, **options)))


def logits(model: Any, inputs: Any = ASKED) -> torch.Tensor:
    with torch.no_grad():
        return model(**inputs).logits[0, -1]
