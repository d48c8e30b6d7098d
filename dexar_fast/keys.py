"""Names for the positions of a prompt: equal where keys and values are equal, behind equal positions before them."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dexar_fast.cache import PoolCache
from dexar_fast.geometry import visual_positions
from dexar_fast.pool import NO_KEYS, Keys, KVPool

PER_TOKEN = ("input_ids", "attention_mask", "token_type_ids", "mm_token_type_ids", "position_ids", "labels")
PIXELS = "pixel_"  # what the vision tower reads begins with it
PREFIX_LM = ("paligemma",)  # every position of their prompts attends to all others, those behind it too
VISUAL = np.uint64(1 << 63)  # no token id has this bit


def position_keys(config: Any, inputs: Mapping[str, Any]) -> Keys:
    """[P] uint64: a text position's key is its token id, a visual position's mixes the images' content and its number.

    All images of a prompt are hashed together, with their shapes and grids, so that a visual key stands for all that
    the image's other tokens tell it, too (Gemma 3 attends among them in both directions). A prompt whose text is read
    in both directions has no keys [0]: nothing of it can be shared.
    """
    if config.model_type in PREFIX_LM:
        return NO_KEYS
    ids = inputs["input_ids"]
    keys = ids[0].cpu().numpy().astype(np.uint64)
    visual = visual_positions(config, ids).cpu().numpy()
    keys[visual] = _mix(np.arange(len(visual), dtype=np.uint64) + _content(inputs)) | VISUAL
    return keys


def begin(pool: KVPool, config: Any, inputs: Mapping[str, Any], reserve: int = 0) -> tuple[PoolCache, dict[str, Any]]:
    """A cache that begins with what the pool knows of a prompt, and the inputs left to pass beside it to generate().

    Where all images are known their pixels are not among the inputs: the vision tower is spared. A shorter prefix is
    not used: transformers 5.17 places and masks images wrongly when they come behind cached text. When the prompt has
    run, `cache.commit(position_keys(config, inputs))` makes it known in turn.
    """
    cache = PoolCache(pool, position_keys(config, inputs), reserve)
    if cache.get_seq_length() > int(visual_positions(config, inputs["input_ids"])[-1]):
        return cache, {name: value for name, value in inputs.items() if not name.startswith(PIXELS)}
    cache.reset()
    return cache, dict(inputs)


def _content(inputs: Mapping[str, Any]) -> np.uint64:
    digest = hashlib.blake2b(digest_size=8)
    for name, tensor in sorted(inputs.items()):
        if name not in PER_TOKEN and isinstance(tensor, Tensor):
            digest.update(f"{name} {tensor.dtype} {list(tensor.shape)}".encode())
            digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return np.frombuffer(digest.digest(), np.uint64)[0]


def _mix(x: Keys) -> Keys:
    """The finalizer of splitmix64."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))
