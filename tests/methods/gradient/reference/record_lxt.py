"""Records what lxt 2.1 computes for tiny text decoders: run it in an environment of its own (README.md beside it)."""

from __future__ import annotations

import importlib
import json
from pathlib import Path

import numpy as np
import torch
from lxt.efficient import monkey_patch

SIZES = {
    "vocab_size": 48,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 8,
    "initializer_range": 0.3,
}
CLASSES = {  # by module of transformers: the model, its config
    "llama": ("LlamaForCausalLM", "LlamaConfig"),
    "qwen2": ("Qwen2ForCausalLM", "Qwen2Config"),
    "qwen3": ("Qwen3ForCausalLM", "Qwen3Config"),
    "gemma3": ("Gemma3ForCausalLM", "Gemma3TextConfig"),
}
IDS, TARGETS = torch.tensor([[3, 17, 8, 41, 5, 29, 11]]), (19, 2)


def recorded(kind: str) -> dict[str, np.ndarray]:
    """Weights, and for each target id the relevance [P] of the input embeddings for its logit at the last position."""
    module = importlib.import_module(f"transformers.models.{kind}.modeling_{kind}")
    monkey_patch(module)
    torch.manual_seed(0)
    model_class, config_class = CLASSES[kind]
    config = getattr(importlib.import_module(f"transformers.models.{kind}"), config_class)(**SIZES)
    model = getattr(module, model_class)._from_config(config, attn_implementation="eager").double().eval()
    embeddings = model.get_input_embeddings()(IDS).detach().requires_grad_()
    logits = model(inputs_embeds=embeddings, use_cache=False).logits[0, -1]
    gradients = [torch.autograd.grad(logits[id], embeddings, retain_graph=True)[0] for id in TARGETS]
    weights = {f"weight:{name}": value.float().numpy() for name, value in model.state_dict().items()}
    return weights | {
        "built": np.array(json.dumps([model_class, config_class, SIZES])),
        "embeddings": embeddings.detach().numpy()[0],
        "targets": np.array(TARGETS),
        "logits": logits[list(TARGETS)].detach().numpy(),
        "relevance": torch.stack([(embeddings * each).sum(-1)[0] for each in gradients]).detach().numpy(),
    }


if __name__ == "__main__":
    for kind in CLASSES:
        np.savez_compressed(Path(__file__).with_name(f"lxt_{kind}.npz"), **recorded(kind))
