"""Sizes that are judged where nobody has explained anything: layers of LLaVA-1.5-7B and Qwen2.5-VL-7B in bfloat16."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch

from dexar_fast.backends import cpp, cuda
from dexar_fast.backends.verdicts.case import KEYS, Case

ROWS = (64, 512)  # tokens explained at once


class Model(NamedTuple):
    """Its decoder."""

    layers: int
    heads: int
    kv_heads: int
    dim: int
    width: int
    inner: int


MODELS = (Model(32, 32, 32, 128, 4096, 11008), Model(28, 28, 4, 128, 3584, 18944))


def usual(device: str) -> list[Case]:
    """What can be judged on cpu or cuda:N."""
    if device != "cpu":
        return [case for model in MODELS for case in _on_gpu(model, device)]
    names = [] if cpp.obstacle() else [name for name in cpp.instruction_sets() if name not in cpp.TRUSTED]
    return [_scores(name, device, model, 64) for name in names for model in MODELS]


def _on_gpu(model: Model, device: str) -> Iterator[Case]:
    for rows in ROWS:
        yield _scores("triton", device, model, rows)
        yield Case("norm_vjp", "triton", device, "bfloat16", (model.width, rows))
        yield Case("gated_vjp", "triton", device, "bfloat16", (model.inner, rows))
    yield Case("kv_append", "triton", device, "bfloat16", (model.kv_heads, model.dim, 16))
    copies = "triton" if cuda.obstacle() else "cuda"
    yield Case("kv_copy", copies, device, "bfloat16", (model.layers, model.kv_heads, model.dim))


def _scores(kernel: str, device: str, model: Model, rows: int) -> Case:
    return Case("head_score", kernel, device, "bfloat16", (model.heads, model.kv_heads, model.dim, rows, KEYS[0]))


def devices() -> list[str]:
    """Where something can be judged."""
    return ["cpu", *(f"cuda:{index}" for index in range(torch.cuda.device_count()))]
