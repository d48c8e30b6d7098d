"""The C++ backend: csrc/cpu on torch tensors. It checks everything that must hold before their addresses are read.

With u and V in bfloat16, "avx512_bf16" and "amx" multiply pairs of numbers by VDPBF16PS and TDPBF16PS: sums are
float32 as elsewhere, but subnormal numbers count as 0.
"""

from __future__ import annotations

import os
from functools import cache
from typing import Any

import torch
from torch import Tensor

from dexar_fast.backends import cpu
from dexar_fast.backends.verdicts import kept
from dexar_fast.backends.verdicts.case import scoring_case
from dexar_fast.errors import BackendError, InputError

# Slowest first. The last two are for bfloat16; other dtypes take "avx512" under them.
INSTRUCTION_SETS = ("portable", "avx2", "avx512", "avx512_bf16", "amx")
# The others need a verdict of the machine: tests run them in software, and no machine of ours has run "amx".
TRUSTED = INSTRUCTION_SETS[:3]
ENVIRONMENT = "DEXAR_FAST_INSTRUCTIONS"  # names the one that a process must take
DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16)
INTEGERS = (torch.int32, torch.int64)

Scored = tuple[Tensor, Tensor, Tensor, Tensor]


@cache
def obstacle() -> str | None:
    """Why nothing here can run on this machine; None if it can."""
    try:
        cpu.detect()
    except BackendError as error:
        return f"the C++ extension is {error}"
    return None


@cache
def best_instruction_set() -> str:
    """The fastest of TRUSTED that this CPU has; DEXAR_FAST_INSTRUCTIONS in the environment overrides that.

    Raises:
        BackendError: the environment asks for one that this CPU lacks.
    """
    asked, here = os.environ.get(ENVIRONMENT), instruction_sets()
    if asked and asked not in here:
        raise BackendError(f"the environment's {ENVIRONMENT} is {asked!r}: this machine offers {', '.join(here)}")
    return asked or next(name for name in reversed(here) if name in TRUSTED)


def instruction_sets() -> list[str]:
    """Those of INSTRUCTION_SETS that this CPU, its operating system and the extension support."""
    from dexar_fast import _C

    return _C.instruction_sets()


def instructions_for(u: Tensor, value: Tensor) -> str:
    """The instruction set that scores u [T, H, D] and value [H_kv, S, D].

    In bfloat16 the fastest that a verdict takes, unless the environment names one.
    """
    best = best_instruction_set()
    if u.dtype != torch.bfloat16 or os.environ.get(ENVIRONMENT):
        return best
    paces = {best: 1.0}
    for name in instruction_sets():
        verdict = None if name in TRUSTED else kept.found(scoring_case(name, u, value))
        if verdict is not None and verdict.taken:
            paces[name] = verdict.ratio
    return max(paces, key=paces.__getitem__)


def head_score(
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
    instructions: str | None = None,
) -> Scored:
    """`operators.head_score` on the CPU, by csrc/cpu/head_score.h, on torch's number of threads.

    Args:
        instructions: one of `instruction_sets()`; None is `instructions_for(u, value)`. With a query, which no verdict
            is on, it is `best_instruction_set()`.
    Raises:
        InputError: arguments that do not fit each other.
    """
    _check(u, value, (visual, text), (first, last), mask)
    check_maps(u, visual, token_map, unfiltered_map)
    query, key, log_sum_exp = _attention(u, value, query, key, log_sum_exp)
    queries, heads, dim = u.shape
    u, value = u.resolve_neg(), value.resolve_neg()
    scores = empty_scores(u)
    mask = None if mask is None else mask.contiguous()
    visual, text, first, last = (_narrow(x, value.shape[1]) for x in (visual, text, first, last))
    _call(
        str(u.dtype).removeprefix("torch."),
        (queries, heads, *value.shape[:2], dim),
        _strided(u),
        _strided(value),
        (visual.data_ptr(), len(visual)),
        (text.data_ptr(), len(text)),
        (first.data_ptr(), last.data_ptr()),
        (_address(mask), value.shape[1]),
        (_strided(query), _strided(key), _address(log_sum_exp), scale),
        [score.data_ptr() for score in scores],
        (token_map.data_ptr(), unfiltered_map.data_ptr()),
        instructions or (instructions_for(u, value) if query is None else best_instruction_set()),
        torch.get_num_threads(),
    )
    return scores


def _narrow(positions: Tensor, keys: int) -> Tensor:
    """Positions as dense int32; those outside the keys stay outside."""
    if positions.dtype != torch.int32:
        positions = positions.clamp(-1, keys).int()
    return positions.contiguous()


def _call(*arguments: Any) -> None:
    from dexar_fast import _C

    try:
        _C.head_score(*arguments)
    except IndexError as error:
        raise InputError(str(error)) from None


def empty_scores(u: Tensor) -> Scored:
    """The uninitialised scores of u [..., T, H, D]."""
    dtype = torch.promote_types(u.dtype, torch.float32)
    visual_score, text_score, smallest = (u.new_empty(u.shape[:-1], dtype=dtype) for _ in range(3))
    return visual_score, text_score, u.new_empty(u.shape[:-1], dtype=torch.int64), smallest


def check_maps(u: Tensor, visual: Tensor, *maps: Tensor) -> None:
    """Raises InputError unless the maps of u [T, H, D] over N visual keys can be added to these sums in place."""
    shape, dtype = (u.shape[0], len(visual)), torch.promote_types(u.dtype, torch.float32)
    for x in maps:
        if (x.shape, x.dtype, x.device) != (shape, dtype, u.device) or not x.is_contiguous() or x.is_neg():
            raise InputError(f"token_map and unfiltered_map must be dense {dtype} {list(shape)} on {u.device}")


def _strided(x: Tensor | None) -> tuple[int, tuple[int, ...]]:
    """Address and strides."""
    return (0, (0, 0, 0)) if x is None else (x.data_ptr(), x.stride())


def _address(x: Tensor | None) -> int:
    return 0 if x is None else x.data_ptr()


def _attention(
    u: Tensor, value: Tensor, query: Tensor | None, key: Tensor | None, log_sum_exp: Tensor | None
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    """Query, key and a dense log_sum_exp of the sums' dtype; nothing if there is no query."""
    if query is None and key is None and log_sum_exp is None:
        return None, None, None
    if query is None or key is None or log_sum_exp is None:
        raise InputError("query, key and log_sum_exp are given together or not at all")
    if any(x.device.type != "cpu" for x in (query, key, log_sum_exp)):
        raise InputError("backend 'cpp' works on CPU tensors")
    if (query.shape, key.shape, log_sum_exp.shape) != (u.shape, value.shape, u.shape[:2]):
        raise InputError("query is shaped as u, key as value, and log_sum_exp [T, H]")
    if query.dtype != u.dtype or key.dtype != u.dtype:
        raise InputError(f"query and key must be {u.dtype} as u is, not {query.dtype} and {key.dtype}")
    log_sum_exp = log_sum_exp.resolve_neg().to(torch.promote_types(u.dtype, torch.float32)).contiguous()
    return query.resolve_neg(), key.resolve_neg(), log_sum_exp


def _check(u: Tensor, value: Tensor, keys: tuple[Tensor, ...], bounds: tuple[Tensor, ...], mask: Tensor | None) -> None:
    given = [u, value, *keys, *bounds, *([] if mask is None else [mask])]
    if any(x.device.type != "cpu" for x in given):
        raise InputError("backend 'cpp' works on CPU tensors")
    if u.dtype != value.dtype or u.dtype not in DTYPES:
        raise InputError(f"u and value must be of one dtype among {DTYPES}, not {u.dtype} and {value.dtype}")
    if u.ndim != 3 or value.ndim != 3 or u.shape[2] != value.shape[2] or not _divides(value.shape[0], u.shape[1]):
        raise InputError(f"u [T, H, D] and value [H_kv, S, D] do not fit: {list(u.shape)} and {list(value.shape)}")
    if any(x.dtype not in INTEGERS for x in (*keys, *bounds)):
        raise InputError("visual, text, first and last are positions: int32 or int64, no masks")
    if any(positions.ndim != 1 for positions in keys):
        raise InputError("positions of keys must be one list")
    if any(bound.shape != u.shape[:1] for bound in bounds):
        raise InputError(f"first and last must hold one position for each of {u.shape[0]} queries")
    if mask is not None and (mask.dtype != torch.bool or mask.shape != (u.shape[0], value.shape[1])):
        raise InputError(f"the mask must be bool [{u.shape[0]}, {value.shape[1]}], not {mask.dtype} {list(mask.shape)}")


def _divides(kv_heads: int, heads: int) -> bool:
    return kv_heads > 0 and heads % kv_heads == 0
