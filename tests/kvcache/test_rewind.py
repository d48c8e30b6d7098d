"""A cache whose last tokens were run again is as it was, bit for bit."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
import zoo
from transformers import DynamicCache

from dexar_fast import Explainer
from dexar_fast.attribution import engine
from dexar_fast.kvcache.cache import PoolCache
from dexar_fast.kvcache.pool import KVPool
from dexar_fast.kvcache.rewind import RewoundCache

LENGTH = 12


def filled(cache: Any) -> Any:
    torch.manual_seed(0)
    for layer in range(2):
        cache.update(torch.randn(1, 2, LENGTH, 4), torch.randn(1, 2, LENGTH, 4), layer)
    return cache


def contents(cache: Any) -> list[torch.Tensor]:
    return [copy.deepcopy(x) for layer in cache.layers for x in (layer.keys, layer.values)]


@pytest.mark.parametrize("make", [DynamicCache, lambda: PoolCache(KVPool(32, 4))])
def test_tokens_run_again_in_place_and_are_put_back(make: Any) -> None:
    cache = filled(make())
    before = contents(cache)
    new = torch.randn(2, 1, 2, 3, 4)
    with RewoundCache(cache) as rewound:
        rewound.truncate(7)
        assert rewound.get_seq_length() == 7
        assert rewound.get_mask_sizes(3, 0) == (10, 0)
        keys, values = rewound.update(*new, 0)
        assert torch.equal(keys, torch.cat([before[0][:, :, :7], new[0]], 2))
        assert torch.equal(values, torch.cat([before[1][:, :, :7], new[1]], 2))
        assert keys.data_ptr() == cache.layers[0].keys.data_ptr()
        keys, _ = rewound.update(new[0, :, :, :1], new[1, :, :, :1], 0)
        assert torch.equal(keys[:, :, 7:], torch.cat([new[0], new[0, :, :, :1]], 2))
        rewound.truncate(9)
        assert all(torch.equal(a, b) for a, b in zip(contents(cache), before, strict=True))
        rewound.update(*new, 1)
    assert all(torch.equal(a, b) for a, b in zip(contents(cache), before, strict=True))
    assert cache.get_seq_length() == LENGTH


def test_slots_that_are_overwritten_in_turns_are_put_back() -> None:
    """Some of them twice, layer by layer, and in one that has fewer."""
    cache = filled(DynamicCache())
    cache.layers[1].keys, cache.layers[1].values = (x[:, :, :8] for x in (cache.layers[1].keys, cache.layers[1].values))
    before = contents(cache)
    new = torch.randn(2, 1, 2, 5, 4)
    with RewoundCache(cache) as rewound:
        rewound.truncate(6)
        rewound.update(*new[:, :, :, :2], 0)
        rewound.update(*new[:, :, :, :1], 1)
        rewound.update(*new[:, :, :, :3], 0)
        for layer in rewound.layers:
            layer.length = 6
        rewound.update(*new, 0)
        rewound.update(*new[:, :, :, :2], 1)
        assert torch.equal(cache.layers[0].keys[:, :, 6:11], new[0])
        assert torch.equal(cache.layers[1].values[:, :, 6:], new[1, :, :, :2])
    assert all(torch.equal(a, b) for a, b in zip(contents(cache), before, strict=True))


def test_an_exception_puts_it_back_too() -> None:
    cache = filled(DynamicCache())
    before = contents(cache)
    with pytest.raises(ZeroDivisionError), RewoundCache(cache) as rewound:
        rewound.truncate(3)
        rewound.update(torch.ones(1, 2, 2, 4), torch.ones(1, 2, 2, 4), 0)
        _ = 1 / 0
    assert all(torch.equal(a, b) for a, b in zip(contents(cache), before, strict=True))


def test_pieces_that_do_not_fit_in_memory_are_halved(monkeypatch: pytest.MonkeyPatch) -> None:
    model, inputs = zoo.build("llava", torch.float32)
    options = {"max_new_tokens": 11, "min_new_tokens": 11, "do_sample": False}
    expected = Explainer(model).explain_inputs(inputs, **options)
    run, sizes = engine.Pass.chunk, []

    def chunk(self: engine.Pass, answers: Any, done: int, size: int) -> Any:
        sizes.append(size)
        result = run(self, answers, done, size)  # and is put back
        if size > 2:
            raise torch.OutOfMemoryError
        return result

    monkeypatch.setattr(engine.Pass, "chunk", chunk)
    stream = Explainer(model).stream_inputs(inputs, chunk_size=5, **options)
    assert [len(piece) for piece in stream] == [5, 5, 1]
    assert sizes == [5, 2, 2, 1, 2, 2, 1, 1]
    found = stream.explanation()
    assert found.token_ids.tolist() == expected.token_ids.tolist()
    scale = float(expected.unfiltered_token_maps.max())
    torch.testing.assert_close(found.token_maps, expected.token_maps, rtol=0, atol=1e-5 * scale)
