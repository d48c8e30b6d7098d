"""Flash attention of chunks on a device that counts: right where it is taken, and not taken where it would be wrong."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from unittest.mock import patch

import fake_gpu
import launches
import pytest
import torch
from alike import assert_same
from fake_gpu import DEVICE, LAUNCH, Counted
from torch import Tensor

from dexar_fast import Explainer
from dexar_fast.model import attention, flash
from dexar_fast.model.attention import Call
from dexar_fast.profile.shapes import build

SIZES = [(2, 1, 17, 8), (3, 6, 6, 16), (4, 9, 33, 64), (7, 2, 1025, 8)]  # heads a group, queries, keys, features
KV_HEADS = 2


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    """What was found out of the device is forgotten."""
    flash._agrees.cache_clear()
    with fake_gpu.on_the_device():
        yield
    flash._agrees.cache_clear()


def drawn(group: int, queries: int, keys: int, features: int, dtype: torch.dtype = torch.bfloat16) -> list[Counted]:
    generator = torch.Generator().manual_seed(1)
    sizes = (KV_HEADS * group, queries), (KV_HEADS, keys), (KV_HEADS, keys)
    return [Counted(torch.randn(1, *size, features, generator=generator).to(dtype)) for size in sizes]


def by_hand(query: Tensor, key: Tensor, value: Tensor, scaling: float) -> Tensor:
    """One query of one head after another, in float64."""
    found = torch.zeros(query.shape, dtype=torch.float64)
    group, before = query.shape[1] // key.shape[1], key.shape[2] - query.shape[2]
    for head in range(query.shape[1]):
        for row in range(query.shape[2]):
            keys, values = (x[0, head // group, : before + row + 1].double() for x in (key, value))
            scores = scaling * keys @ query[0, head, row].double()
            found[0, head, row] = scores.softmax(0) @ values
    return found


@pytest.mark.parametrize("sizes", SIZES, ids=str)
def test_the_last_query_reads_every_key(sizes: tuple[int, int, int, int]) -> None:
    query, key, value = drawn(*sizes)
    assert flash.serves(query, key)
    found = flash.attend(query, key, value, 0.3).cpu()
    torch.testing.assert_close(found.double(), by_hand(query.held, key.held, value.held, 0.3), rtol=0, atol=0.03)


def refusing(*arguments: Any, **keywords: Any) -> Any:
    raise NotImplementedError("no kernel for this device")


def from_the_first_key(query: Any, key: Any, value: Any, *more: Any, **keywords: Any) -> Any:
    """As SDPA itself aligns."""
    operands = query.held, key.held.repeat_interleave(4, 1), value.held.repeat_interleave(4, 1)
    return Counted(torch.nn.functional.scaled_dot_product_attention(*operands, is_causal=True))


@pytest.mark.parametrize("other", [refusing, from_the_first_key])
def test_a_device_that_has_no_such_kernel_or_another_takes_the_mask(other: Any) -> None:
    query, key, _ = drawn(4, 5, 23, 16)
    with patch.object(fake_gpu, "_flash", other):
        assert not flash.serves(query, key)


def test_what_it_does_not_compute_goes_to_sdpa() -> None:
    query, key, _ = drawn(2, 3, 9, 8)
    assert flash.serves(query, key)
    assert not flash.serves(query.held, key.held)
    assert not flash.serves(*drawn(2, 3, 9, 8, torch.float32)[:2])
    with torch.enable_grad():
        assert not flash.serves(query.detach().requires_grad_(), key)
    with patch.object(torch.backends.cuda, "flash_sdp_enabled", lambda: False):
        assert not flash.serves(query, key)


def call(mask: Tensor | None, features: int = 8, bias: Tensor | None = None) -> Call:
    """Of 3 queries behind 9 keys."""
    query, key = torch.zeros(1, 4, 3, 8), torch.zeros(1, 2, 9, 8)
    return Call(query, key, torch.zeros(1, 2, 9, features), mask, True, 0.3, None, bias)


def made(queries: int, keys: int, **more: Any) -> Tensor:
    """As transformers makes the mask of the last queries."""
    sizes = {"q_length": queries, "kv_length": keys, "q_offset": keys - queries, "kv_offset": 0}
    mask = attention.made_mask({"batch_size": 1, "device": "cpu", "allow_is_causal_skip": False} | sizes | more)
    assert mask is not None
    return mask


def test_only_calls_whose_mask_is_known_to_be_causal_go_without() -> None:
    assert attention._is_chunk(call(made(3, 9)))
    assert not attention._is_chunk(call(None))
    assert not attention._is_chunk(call(made(3, 9).clone()))  # a mask of whatever kind
    assert not attention._is_chunk(call(made(3, 9, attention_mask=torch.ones(1, 9, dtype=torch.bool))))
    assert not attention._is_chunk(call(made(3, 8)))  # the last key is hidden
    assert not attention._is_chunk(call(made(3, 9), features=16))
    assert not attention._is_chunk(call(made(3, 9), bias=torch.zeros(1, 4, 3, 9)))


@pytest.mark.parametrize("name", launches.MODELS)
def test_a_chunk_is_explained_as_under_its_mask(name: str) -> None:
    model, inputs_for = build(name, tiny=True, dtype=torch.bfloat16)
    fake_gpu.moved(model)
    inputs, answer = {key: x.to(DEVICE) for key, x in inputs_for().items()}, torch.arange(20, 29)
    with launches.trusted():
        explainer = Explainer(model, chunk_size=4)
        explainer.explain_inputs(inputs, answer)
        with fake_gpu.counting() as fewer:
            found = explainer.explain_inputs(inputs, answer)
        with patch.object(flash, "serves", lambda query, key: False), fake_gpu.counting() as more:
            expected = explainer.explain_inputs(inputs, answer)
    layers, chunks = 2, 3 - 1  # of the last token alone there is no chunk
    assert more.of(LAUNCH) - fewer.of(LAUNCH) >= 4 * layers * chunks
    assert_same(found, expected, 0.05)
