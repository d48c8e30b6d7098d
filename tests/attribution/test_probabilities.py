"""Rows of A from the call of an attention: against its own output, and against eager attention."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from dexar_fast.attribution.rows import own_rows, probabilities
from dexar_fast.attribution.rows.probabilities import blocks, last
from dexar_fast.model import attention
from dexar_fast.model.attention import Call, Watcher, watcher

HEADS, KV_HEADS, QUERIES, KEYS, DIM, VALUE_DIM = 6, 2, 5, 11, 7, 3


class Kept(Watcher):
    """Keeps the call."""

    def attention(self, module: nn.Module, output: Tensor, call: Call) -> Tensor:
        self.call = call
        return output


def drawn(*shape: int) -> Tensor:
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(sum(shape)))


def attend(queries: int, mask: Tensor | None, keys: int = KEYS, **kwargs: Any) -> tuple[Tensor, Call]:
    """The output [1, Q, H, D_v] of our attention, and the call that a watcher gets."""
    module = nn.Module()
    module.num_key_value_groups, module.is_causal = HEADS // KV_HEADS, True
    module.forward = lambda x: x  # type: ignore[assignment]
    kept = Kept(module, set(), ())
    token = watcher.set(kept)
    try:
        output, _ = attention.attention(
            module,
            drawn(1, HEADS, queries, DIM),
            drawn(1, KV_HEADS, keys, DIM),
            drawn(1, KV_HEADS, keys, VALUE_DIM),
            mask,
            **kwargs,
        )
    finally:
        watcher.reset(token)
    return output, kept.call


def window(width: int) -> Tensor:
    """[1, 1, Q, S] bool: the last `width` keys up to the query's own."""
    own = torch.arange(KEYS - QUERIES, KEYS)[:, None]
    key = torch.arange(KEYS)
    return ((key <= own) & (key > own - width))[None, None]


def added(allowed: Tensor) -> Tensor:
    """The same as scores to add."""
    return torch.zeros(allowed.shape, dtype=torch.float64).masked_fill(~allowed, torch.finfo(torch.float64).min)


CALLS: dict[str, dict[str, Any]] = {
    "window": {"mask": window(4)},
    "added": {"mask": added(window(20)) + drawn(1, 1, QUERIES, KEYS)},
    "added by head": {"mask": added(window(6)) + drawn(1, HEADS, QUERIES, KEYS)},
    "soft cap": {"mask": window(9), "softcap": 1.5},
    "scaling": {"mask": window(20), "scaling": 0.9},
    "bias of positions": {"mask": window(20), "position_bias": drawn(1, HEADS, QUERIES, KEYS)},
}


@pytest.mark.parametrize("name", CALLS)
def test_probabilities_are_those_behind_the_output(name: str) -> None:
    assert_behind(*attend(QUERIES, **CALLS[name]))


def test_a_mask_may_be_longer_than_the_keys() -> None:
    output, call = attend(QUERIES, window(20))
    longer = torch.cat([window(20), torch.ones(1, 1, QUERIES, 3).bool()], -1)
    assert_behind(output, replace(call, mask=longer))


def assert_behind(output: Tensor, call: Call) -> None:
    queries = call.query.shape[2]
    for rows in (slice(0, queries), slice(queries // 2, queries), slice(queries - 1, queries)):
        found = probabilities.probabilities(call, rows)
        torch.testing.assert_close(found.sum(-1), torch.ones(found.shape[:2], dtype=torch.float64))
        value = call.value[0].repeat_interleave(HEADS // KV_HEADS, 0)
        torch.testing.assert_close((found @ value).transpose(0, 1), output[0, rows])


@pytest.mark.parametrize("queries", [1, KEYS])
def test_no_mask_is_causal(queries: int) -> None:
    output, call = attend(queries, None)
    assert_behind(output, call)


def test_no_mask_may_mean_every_key() -> None:
    output, call = attend(QUERIES, None, is_causal=False)
    assert_behind(output, call)
    assert bool((probabilities.probabilities(call, slice(0, QUERIES)) > 0).all())


def test_a_query_without_keys_has_none() -> None:
    _, call = attend(QUERIES, window(20) & (torch.arange(QUERIES) != 2)[:, None])
    found = probabilities.probabilities(call, slice(0, QUERIES))
    assert bool((found[:, 2] == 0).all()) and bool((found[:, [0, 1, 3, 4], 0] > 0).all())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_softmaxed_in_float32(dtype: torch.dtype) -> None:
    _, call = attend(QUERIES, window(20))
    half = replace(call, query=call.query.to(dtype), key=call.key.to(dtype))
    exact = replace(half, query=half.query.double(), key=half.key.double())
    found = probabilities.probabilities(half, slice(0, QUERIES))
    assert found.dtype == torch.float32
    wanted = probabilities.probabilities(exact, slice(0, QUERIES))
    torch.testing.assert_close(found.double(), wanted, rtol=3e-6, atol=0)


@pytest.mark.parametrize("size", [1, 2, QUERIES, 100])
def test_blocks_take_no_more_than_their_bound(size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probabilities, "BLOCK_BYTES", size * 8 * HEADS * KEYS + 7)
    _, call = attend(QUERIES, window(20))
    found = list(blocks(call, slice(1, QUERIES)))
    assert [row for rows in found for row in range(rows.start, rows.stop)] == [1, 2, 3, 4]
    assert max(rows.stop - rows.start for rows in found) == min(size, QUERIES - 1)
    pairs = list(last(call, slice(3, 6)))
    assert [token for tokens, _ in pairs for token in range(tokens.start, tokens.stop)] == [3, 4, 5]
    assert [row for _, rows in pairs for row in range(rows.start, rows.stop)] == [2, 3, 4]


@pytest.mark.parametrize("rows_at_once", [2, 100])
@pytest.mark.parametrize("name", ["window", "added by head", "soft cap", "scaling", "bias of positions"])
def test_own_rows_leave_the_gradient_in_each_row(name: str, rows_at_once: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Against one backward for each query through all keys, of which only its own row counts."""
    monkeypatch.setattr(probabilities, "BLOCK_BYTES", rows_at_once * 8 * HEADS * KEYS)
    _, call = attend(QUERIES, **CALLS[name])
    states = drawn(QUERIES, 4)

    def with_states(x: Tensor) -> Call:
        """Each query's own row of queries, keys, values is a function of its state."""
        weights = [drawn(4, heads * dim) for heads, dim in ((HEADS, DIM), (KV_HEADS, DIM), (KV_HEADS, VALUE_DIM))]
        query, key, value = (
            (x @ w).view(QUERIES, -1, dim) for w, dim in zip(weights, (DIM, DIM, VALUE_DIM), strict=True)
        )
        return replace(
            call,
            query=call.query + query.transpose(0, 1)[None],
            key=torch.cat([call.key[:, :, :-QUERIES], call.key[:, :, -QUERIES:] + key.transpose(0, 1)[None]], 2),
            value=torch.cat(
                [call.value[:, :, :-QUERIES], call.value[:, :, -QUERIES:] + value.transpose(0, 1)[None]], 2
            ),
        )

    def plain(x: Tensor) -> Tensor:
        moved = with_states(x)
        weights = probabilities.probabilities(moved, slice(0, QUERIES))
        return (weights @ moved.value[0].repeat_interleave(HEADS // KV_HEADS, 0)).transpose(0, 1)

    count, weights = 3, drawn(3, HEADS, VALUE_DIM)
    x = states.clone().requires_grad_()
    found = own_rows.own_rows(with_states(x), count)
    torch.testing.assert_close(found[0], plain(states)[-count:])
    (gradient,) = torch.autograd.grad((found[0] * weights).sum(), x)
    wanted = torch.zeros_like(states)
    for row in range(QUERIES - count, QUERIES):
        y = states.clone().requires_grad_()
        (own,) = torch.autograd.grad((plain(y)[row] * weights[row - QUERIES + count]).sum(), y)
        wanted[row] = own[row]
    torch.testing.assert_close(gradient, wanted)
