"""Which masks are known to be causal and no more, without a look at them; what follows for the keys that are scored."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers.masking_utils import causal_mask_function, sliding_window_causal_mask_function

from dexar_fast.backends.operands import Keys
from dexar_fast.model.attention import attention_mask
from dexar_fast.model.masks import causal, is_plain

CHUNK: dict[str, Any] = {"batch_size": 1, "q_length": 3, "kv_length": 7, "q_offset": 4, "allow_is_causal_skip": False}


@pytest.mark.parametrize("more", [{}, {"mask_function": causal_mask_function}])
def test_a_plain_causal_mask_is_known(more: dict[str, Any]) -> None:
    mask = attention_mask(**CHUNK | more)
    assert mask is not None and is_plain(mask) and torch.equal(mask[0, 0], causal(3, 7, mask.device))
    assert not is_plain(mask.clone())


def test_no_mask_is_causal() -> None:
    assert is_plain(None)


@pytest.mark.parametrize(
    "more",
    [
        {"mask_function": sliding_window_causal_mask_function(2)},
        {"attention_mask": torch.tensor([[0, 1, 1, 1, 1, 1, 1]], dtype=torch.bool)},
        {"q_offset": 2},
        {"kv_length": 9},
        {"kv_offset": 1},
    ],
    ids=["a window", "padding", "earlier queries", "later keys", "dropped keys"],
)
def test_any_other_mask_has_to_be_looked_at(more: dict[str, Any]) -> None:
    assert not is_plain(attention_mask(**CHUNK | more))


def test_a_mask_that_was_changed_is_not_plain() -> None:
    mask = attention_mask(**CHUNK)
    assert mask is not None
    mask[..., 0] = False
    assert not is_plain(mask)


def test_a_mask_that_is_gone_leaves_its_name_to_none() -> None:
    for _ in range(50):  # ids are used again
        assert is_plain(attention_mask(**CHUNK))
        assert not is_plain(torch.ones(1, 1, 3, 7, dtype=torch.bool))


@pytest.mark.parametrize(("queries", "keys"), [(1, 9), (3, 9), (9, 9), (4, 4)])
@pytest.mark.parametrize("visual", [slice(1, 3), slice(2, 4), slice(0, 0), torch.tensor([0, 2])], ids=str)
def test_keys_known_to_be_causal_are_those_that_are_found(queries: int, keys: int, visual: Any) -> None:
    text = torch.tensor([key for key in range(keys) if key not in torch.arange(keys)[visual].tolist()])
    known, found = (Keys(visual, text, causal(queries, keys, text.device), causal=known) for known in (True, False))
    for name, expected in vars(found.lists).items():
        wanted = None if name == "mask" else expected
        given = getattr(known.lists, name)
        assert given is wanted if wanted is None else torch.equal(given, wanted) and given.dtype == wanted.dtype, name
    assert found.lists.mask is None
    for name in ("visual_hidden", "text_hidden"):
        given, wanted = getattr(known.masked, name), getattr(found.masked, name)
        assert given is wanted if wanted is None else torch.equal(given, wanted), name
