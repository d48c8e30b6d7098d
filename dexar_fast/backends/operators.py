"""The fused operations as torch.library operators: torch.compile and CUDA graphs see one call each.

    dexar_fast::head_score    G = relu(<u, V>);  S_img, S_txt;  w = relu(S_img - S_txt);  E += sum_h w G;  U += sum_h G
                              with a query, G = A relu(<u, V>) with A = exp(scale <q, k> - L): attention times gradient
    dexar_fast::kv_append     keys[:, :, start : start + Q] = key;  values[:, :, start : start + Q] = value

An operator has one kernel for each device: C++ on the CPU, Triton on a GPU; the reference appends on the CPU.
Copying slots is not an operator: it happens between the forwards, where nothing is compiled or captured.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula

from dexar_fast.backends import cpp, reference

_SCHEMA = (
    "(Tensor u, Tensor value, Tensor visual, Tensor text, Tensor first, Tensor last, Tensor? mask,"
    " Tensor(a!) token_map, Tensor(b!) unfiltered_map,"
    " Tensor? query=None, Tensor? key=None, Tensor? log_sum_exp=None, float scale=1.0, bool smallest=True)"
    " -> (Tensor, Tensor, Tensor, Tensor)"
)


# Not by torch.library.custom_op: its wrapper takes longer than the kernel of a small layer.
_LIBRARY = torch.library.Library("dexar_fast", "FRAGMENT")
_LIBRARY.define(f"head_score{_SCHEMA}")


@torch.library.impl(_LIBRARY, "head_score", "CPU")
def _on_cpu(
    u: Tensor,
    value: Tensor,
    visual: Tensor,
    text: Tensor,
    first: Tensor,
    last: Tensor,
    mask: Tensor | None,
    token_map: Tensor,
    unfiltered_map: Tensor,
    query: Tensor | None = None,
    key: Tensor | None = None,
    log_sum_exp: Tensor | None = None,
    scale: float = 1.0,
    smallest: bool = True,
) -> cpp.Scored:
    """Scores one layer's heads and adds up their maps, without a [T, H, S] array (METHOD.md sections 2 and 3).

    With T queries, N visual and M text keys of S, element size b: reads each query and, for every 64 queries, V once,
    T H D b + ceil(T/64) H_kv S D b bytes; reads and writes 2 T N sums; writes 4 T H scores; 2 T H (N + M) D + 4 T H N
    operations. With a query, q and k are read as often as u and V: twice their bytes and products, and T H (N + M)
    exponentials.

    Args:
        u: [T, H, D] in float32, float64, bfloat16 or float16, any strides.
        value: [H_kv, S, D] of the same dtype, any strides.
        visual, text: [N], [M] int32 positions of keys; those in neither list are ignored.
        first, last: [T] int32; query t attends to the keys first[t] <= j <= last[t].
        mask: [T, S] bool, which of these keys count; None: all.
        token_map, unfiltered_map: [T, N], dense, float64 for float64 inputs, else float32: E and U are added to these.
        query: [T, H, D], key: [H_kv, S, D] of the same dtype, and log_sum_exp: [T, H] of the attention whose
            probabilities G is multiplied by; without them G is the gradient alone.
        smallest: False: the last result is not wanted, and may hold anything.
    Returns:
        S_img [T, H], S_txt [T, H], position of the text key that won S_txt [T, H] int64 (-1 where none is positive),
        smallest visual G [T, H] (infinity over none); float64 for float64 inputs, else float32.
    """
    maps = token_map, unfiltered_map
    return cpp.head_score(u, value, visual, text, first, last, mask, *maps, query, key, log_sum_exp, scale)


@torch.library.impl(_LIBRARY, "head_score", "CUDA")
def _(*arguments: Any) -> cpp.Scored:
    from dexar_fast.kernels import head_score as triton_kernels  # if triton is missing, backends.plan has raised

    return triton_kernels.head_score(*arguments)


@torch.library.register_fake("dexar_fast::head_score", lib=_LIBRARY)
def _(u: Tensor, *_: Any) -> cpp.Scored:
    return cpp.empty_scores(u)


head_score = torch.ops.dexar_fast.head_score.default


@register_flop_formula(torch.ops.dexar_fast.head_score)
def flops(
    u: torch.Size,
    value: torch.Size,
    visual: torch.Size,
    text: torch.Size,
    first: torch.Size,
    last: torch.Size,
    mask: torch.Size | None,
    token_map: torch.Size,
    unfiltered_map: torch.Size,
    query: torch.Size | None = None,
    *_: Any,
    **__: Any,
) -> int:
    """The operations of the products alone, as torch's counter counts its own operators."""
    return 2 * u.numel() * (visual.numel() + text.numel()) * (1 if query is None else 2)


_APPEND = "(Tensor(a!) keys, Tensor(b!) values, Tensor key, Tensor value, SymInt start) -> ()"
kv_append = torch.library.custom_op(
    "dexar_fast::kv_append",
    reference.kv_append,
    mutates_args=("keys", "values"),
    device_types="cpu",
    schema=_APPEND,
)


@kv_append.register_kernel("cuda")
def _(keys: Tensor, values: Tensor, key: Tensor, value: Tensor, start: int) -> None:
    from dexar_fast.kernels import kv_cache

    kv_cache.kv_append(keys, values, key, value, start)


@kv_append.register_fake
def _(keys: Tensor, values: Tensor, key: Tensor, value: Tensor, start: int) -> None:
    """Writes, and returns nothing."""
