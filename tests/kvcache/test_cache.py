"""The pool behind a model: what it computes equals a DynamicCache's, wherever its tokens lie."""

from __future__ import annotations

import copy
import gc
import threading
from collections.abc import Callable
from functools import cache as cached
from typing import Any

import pytest
import torch
import zoo
from torch import Tensor
from transformers import Cache, DynamicCache

from dexar_fast._C import BudgetExhausted
from dexar_fast.errors import CacheError, InputError
from dexar_fast.kvcache.cache import PoolCache
from dexar_fast.kvcache.naming import position_keys
from dexar_fast.kvcache.pool import KVPool
from dexar_fast.kvcache.reuse import begin
from dexar_fast.model.cache import to_forward, to_generate
from dexar_fast.vision.geometry import visual_positions

FAMILIES = sorted(zoo.FAMILIES | zoo.VARIANTS)
PREFIX_LM = ("paligemma", "paligemma2")
ANSWER = torch.tensor([[20, 31, 44, 17, 25]])
SLOTS, BLOCK = 1024, 4


@cached
def built(family: str) -> tuple[Any, zoo.Inputs]:
    model, inputs = zoo.build(family, torch.float32)
    inputs.pop("labels", None)
    return model, inputs


@pytest.fixture
def pool() -> KVPool:
    return KVPool(SLOTS, BLOCK)


def generate(model: Any, inputs: zoo.Inputs, cache: Cache, **options: Any) -> tuple[Tensor, Tensor]:
    """The ids and the logits of six tokens."""
    options = {"max_new_tokens": 6, "min_new_tokens": 6, "do_sample": False} | options
    output = model.generate(**inputs, **to_generate(cache), output_logits=True, return_dict_in_generate=True, **options)
    return output.sequences, torch.stack(output.logits)


@torch.no_grad()
def logits(model: Any, cache: Cache, ids: Tensor) -> Tensor:
    """Of ids [B, Q] behind what the cache holds."""
    return model(input_ids=ids, **to_forward(model, cache), use_cache=True).logits


def assert_equal(found: Any, expected: Any) -> None:
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-6)


def assert_rounded(found: tuple[Tensor, Tensor], expected: tuple[Tensor, Tensor]) -> None:
    """After reuse: products of fewer rows round differently, by some 1e-6 of the largest logit."""
    assert torch.equal(found[0], expected[0])
    torch.testing.assert_close(found[1], expected[1], rtol=0, atol=3e-6 * float(expected[1].abs().max()))


def started(pool: KVPool, model: Any, inputs: zoo.Inputs, reserve: int = 0) -> tuple[PoolCache, zoo.Inputs]:
    return begin(pool, model.config, inputs, position_keys(model.config, inputs), reserve)


def another_question(inputs: zoo.Inputs, ids: tuple[int, ...] = (33, 44)) -> zoo.Inputs:
    other = inputs["input_ids"].clone()
    other[0, -len(ids) :] = torch.tensor(ids)
    return inputs | {"input_ids": other}


@pytest.mark.parametrize("options", [{}, {"num_beams": 3}])
@pytest.mark.parametrize("family", FAMILIES)
def test_generate_gives_the_logits_of_a_dynamic_cache(family: str, options: dict[str, Any], pool: KVPool) -> None:
    model, inputs = built(family)
    results = [generate(model, inputs, cache, **options) for cache in (DynamicCache(), PoolCache(pool))]
    assert_equal(results[1], results[0])


@pytest.mark.parametrize("family", FAMILIES)
def test_cropped_and_forked_caches_go_on_like_dynamic_ones(family: str, pool: KVPool) -> None:
    model, inputs = built(family)
    results = []
    for cache in (DynamicCache(), PoolCache(pool)):
        generate(model, inputs, cache)
        cache.crop(-3)
        other = copy.deepcopy(cache)
        # the fork grows first, in place; its parent moves; then each goes on where it lies
        sides = [(other, ANSWER), (cache, ANSWER.flip(1)), (other, ANSWER[:, :1]), (cache, ANSWER[:, 1:2])]
        results.append([logits(model, side, ids) for side, ids in sides])
        results[-1] += [cache.layers[-1].keys, other.layers[0].values]
        del other
    assert_equal(results[1], results[0])
    assert pool.books.stats()["moves"] >= 1


@pytest.mark.parametrize("family", [family for family in FAMILIES if family not in PREFIX_LM])
def test_a_second_question_runs_neither_the_vision_tower_nor_the_shared_prefix(family: str, pool: KVPool) -> None:
    model, inputs = built(family)
    with started(pool, model, inputs)[0] as cache:
        generate(model, inputs, cache)
        cache.commit(position_keys(model.config, inputs))

    other = another_question(inputs)
    again, left = started(pool, model, other)
    known = again.get_seq_length()
    assert known == inputs["input_ids"].shape[1] - 2
    assert "pixel_values" not in left

    expected = generate(model, other, DynamicCache())
    found = generate(model, left, again)
    assert_rounded(found, expected)


@pytest.mark.parametrize("family", PREFIX_LM)
def test_a_prefix_lm_shares_identical_prompts_and_nothing_else(family: str, pool: KVPool) -> None:
    model, inputs = windowed(family, window=27)
    with started(pool, model, inputs)[0] as cache:
        expected = generate(model, inputs, cache)
        cache.commit(position_keys(model.config, inputs))
    others = [
        another_question(inputs),
        inputs | {"pixel_values": inputs["pixel_values"] + 1},
        inputs | {"token_type_ids": 1 - inputs["token_type_ids"]},
        {name: x[:, :-1] if x.shape == inputs["input_ids"].shape else x for name, x in inputs.items()},
    ]
    for other in others:
        assert started(pool, model, other)[0].get_seq_length() == 0
    again, left = started(pool, model, inputs)
    assert again.get_seq_length() == inputs["input_ids"].shape[1] - 1
    assert "pixel_values" not in left
    assert_rounded(generate(model, left, again), expected)


def test_a_prefix_lm_shares_no_prompt_beyond_its_window() -> None:
    model, inputs = windowed("paligemma2", window=26)
    assert len(position_keys(model.config, inputs)) == 0


def windowed(family: str, window: int) -> tuple[Any, zoo.Inputs]:
    """Of the 27 tokens of the prompt, its last one sees `window` behind it; PaliGemma has no window."""
    model, inputs = zoo.build(family, torch.float32)
    inputs.pop("labels")
    if family == "paligemma2":
        model.config.text_config.sliding_window = window
    return model, inputs


@pytest.mark.parametrize("family", ["llava", "gemma3", "qwen2_5_vl"])
def test_evicted_prompts_are_computed_again(family: str) -> None:
    model, inputs = built(family)
    expected = generate(model, inputs, DynamicCache())
    small = KVPool(inputs["input_ids"].shape[1] + 6, BLOCK)
    for ids in [(33, 44), (), (55, 66), ()]:
        asked = inputs | {"pixel_values": inputs["pixel_values"] + 1} if ids else inputs
        cache, left = started(small, model, asked, reserve=small.slots)
        found = generate(model, left, cache)
        cache.commit(position_keys(model.config, asked))
        cache.reset()
        if not ids:
            assert_rounded(found, expected)
    assert small.books.stats()["evictions"] > 0


def test_keys_tell_images_questions_and_positions_apart() -> None:
    model, inputs = built("llava")
    keys = position_keys(model.config, inputs)
    visual = inputs["input_ids"][0] == zoo.IMAGE
    assert len(set(keys[visual].tolist())) == int(visual.sum())
    assert keys[~visual].tolist() == inputs["input_ids"][0][~visual].tolist()
    nudged = inputs["pixel_values"].clone()
    nudged[0, 0, 0, 0] += 1e-3
    for other in (nudged, inputs["pixel_values"].flip(-1), inputs["pixel_values"].double()):
        changed = position_keys(model.config, inputs | {"pixel_values": other})
        assert not set(changed[visual].tolist()) & set(keys[visual].tolist())
        assert changed[~visual].tolist() == keys[~visual].tolist()


def in_another_order(inputs: zoo.Inputs) -> zoo.Inputs:
    return inputs | {"pixel_values": inputs["pixel_values"].flip(0)}


def of_another_size(inputs: zoo.Inputs) -> zoo.Inputs:
    return inputs | {"image_sizes": inputs["image_sizes"] - 1}


def of_another_grid(inputs: zoo.Inputs) -> zoo.Inputs:
    return inputs | {"image_grid_thw": inputs["image_grid_thw"][:, [0, 2, 1]]}


def of_another_pace(inputs: zoo.Inputs) -> dict[str, Any]:
    return inputs | {"second_per_grid_ts": [0.5]}  # as a list, which some processors return


@pytest.mark.parametrize(
    ("family", "changed"),
    [
        ("llava_two_images", in_another_order),
        ("llava_next", of_another_size),
        ("qwen2_5_vl", of_another_grid),
        ("qwen2_5_vl_two_images", of_another_grid),
        ("qwen2_5_vl_video", of_another_pace),
    ],
)
def test_images_that_differ_in_one_thing_share_no_key(
    family: str, changed: Callable[[zoo.Inputs], dict[str, Any]]
) -> None:
    model, inputs = built(family)
    keys, other = position_keys(model.config, inputs), position_keys(model.config, changed(inputs))
    visual = visual_positions(model.config, inputs["input_ids"])
    assert len(set(keys[visual]) | set(other[visual])) == 2 * len(visual)


@pytest.mark.parametrize("family", ["llava", "qwen2_5_vl", "gemma3", "idefics3"])
@pytest.mark.parametrize("known", [4, 12])
def test_a_prefix_without_all_images_is_not_used(family: str, known: int, pool: KVPool) -> None:
    model, inputs = built(family)
    keys = position_keys(model.config, inputs)
    with PoolCache(pool) as cache:
        generate(model, inputs, cache)
        cache.commit(keys[:known])
    cache, left = started(pool, model, inputs)
    assert cache.get_seq_length() == 0
    assert_equal(generate(model, left, cache), generate(model, inputs, DynamicCache()))


def test_a_sequence_is_a_view_of_the_pool_and_its_growth_copies_nothing(pool: KVPool) -> None:
    model, inputs = built("llava")
    cache = PoolCache(pool)
    generate(model, inputs, cache)
    (keys, _), layer = pool.layers[0], cache.layers[0]
    places = []
    for _ in range(5):
        logits(model, cache, ANSWER[:, :1])
        assert layer.keys is not None
        assert layer.keys.untyped_storage().data_ptr() == keys.untyped_storage().data_ptr()
        places.append(layer.keys.data_ptr())
    assert len(set(places)) == 1
    assert pool.books.stats()["moved_slots"] == 0


def test_evenly_spaced_rows_are_a_view_and_others_are_gathered(pool: KVPool) -> None:
    cache, states = PoolCache(pool), torch.randn(3, 2, 5, 8)
    keys, values = cache.update(states, states + 1, 0)
    assert keys.untyped_storage().data_ptr() == pool.layers[0][0].untyped_storage().data_ptr()
    cache.reorder_cache(torch.tensor([2, 0, 2]))
    more = torch.randn(3, 2, 1, 8)
    keys, values = cache.update(more, more + 1, 0)
    expected = torch.cat([states[[2, 0, 2]], more], dim=2)
    assert_equal((keys, values), (expected, expected + 1))
    assert keys.untyped_storage().data_ptr() != pool.layers[0][0].untyped_storage().data_ptr()


def test_rows_are_repeated_and_selected(pool: KVPool) -> None:
    cache, states = PoolCache(pool), torch.randn(2, 2, 5, 8)
    cache.update(states, states, 0)
    cache.batch_repeat_interleave(2)
    assert_equal(cache.layers[0].keys, states.repeat_interleave(2, 0))
    cache.batch_select_indices(torch.tensor([3, 0]))
    assert_equal(cache.layers[0].keys, states[[1, 0]])
    cache.batch_select_indices(torch.tensor([False, True]))
    assert_equal(cache.layers[0].keys, states[:1])
    assert pool.books.stats()["sequences"] == 1


def test_unwritten_slots_are_never_read(pool: KVPool) -> None:
    """Beams, forks and moves over a pool that is NaN wherever nothing was written."""
    model, inputs = built("gemma3")
    generate(model, inputs, PoolCache(pool))
    for layer in pool.layers.values():
        for tensor in layer:
            tensor.fill_(torch.nan)
    results = [generate(model, inputs, cache, num_beams=4) for cache in (DynamicCache(), PoolCache(pool))]
    assert_equal(results[1], results[0])


@pytest.mark.parametrize("family", FAMILIES)
def test_a_budget_in_bytes_is_kept_and_used(family: str) -> None:
    model, inputs = built(family)
    budget = 100_001
    pool = KVPool.for_model(model, budget, BLOCK)
    generate(model, inputs, PoolCache(pool))
    allocated = sum(tensor.nbytes for layer in pool.layers.values() for tensor in layer)
    assert budget - BLOCK * allocated // pool.slots < allocated <= budget


def test_a_budget_below_one_block_is_refused() -> None:
    with pytest.raises(InputError, match="at least 3,072 bytes, one block: not 3,071"):  # 3 layers x 2 x 2 heads x 16
        KVPool.for_model(built("llava")[0], 3071, BLOCK)


def test_a_full_pool_stops_generation_and_leaves_nothing_behind() -> None:
    model, inputs = built("llava")
    small = KVPool(inputs["input_ids"].shape[1] + 3, BLOCK)
    with PoolCache(small) as cache, pytest.raises(BudgetExhausted):
        generate(model, inputs, cache)
    assert small.books.stats()["held"] == 0
    small.books.audit()


def test_a_batch_that_does_not_fit_changes_nothing() -> None:
    small = KVPool(16, BLOCK)
    cache, states = PoolCache(small), torch.randn(2, 2, 6, 8)
    cache.update(states, states, 0)
    for _ in range(2):
        with pytest.raises(BudgetExhausted):
            cache.update(states, states, 0)
        assert cache.get_seq_length() == 6
        small.books.audit()
    one = states[:, :, :2]
    keys, _ = cache.update(one, one, 0)
    assert_equal(keys, torch.cat([states, one], dim=2))


def test_a_forward_that_fails_between_layers_is_cropped_away(pool: KVPool) -> None:
    model, inputs = built("llava")
    cache = PoolCache(pool)
    generate(model, inputs, cache)
    length = cache.get_seq_length()
    expected = logits(model, cache, ANSWER)
    cache.truncate(length)
    failing = model.model.language_model.layers[1].register_forward_pre_hook(lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        logits(model, cache, ANSWER.flip(1))
    failing.remove()
    cache.truncate(length)
    assert_equal(logits(model, cache, ANSWER), expected)


def test_slots_return_when_a_cache_is_garbage(pool: KVPool) -> None:
    cache = PoolCache(pool)
    cache.update(torch.randn(2, 2, 5, 8), torch.randn(2, 2, 5, 8), 0)
    gc.disable()
    try:
        del cache  # no cycle: the last reference is enough
        assert pool.books.stats()["held"] == 0
    finally:
        gc.enable()


def test_a_fork_outlives_its_parent(pool: KVPool) -> None:
    model, inputs = built("llava")
    parent, plain = PoolCache(pool), DynamicCache()
    for cache in (parent, plain):
        generate(model, inputs, cache)
    child = parent.fork()
    parent.reset()
    assert_equal(logits(model, child, ANSWER), logits(model, plain, ANSWER))
    del child
    assert pool.books.stats()["held"] == 0


def test_threads_share_a_pool(pool: KVPool) -> None:
    model, inputs = built("llava")
    asked = [another_question(inputs, (30 + i, 40 + i)) for i in range(4)]
    expected = [generate(model, one, DynamicCache()) for one in asked]
    found: dict[int, list[tuple[Tensor, Tensor]]] = {i: [] for i in range(len(asked))}

    def ask(index: int) -> None:
        for _ in range(5):
            cache, left = started(pool, model, asked[index])
            with cache:
                found[index].append(generate(model, left, cache))
                cache.commit(position_keys(model.config, asked[index]))

    threads = [threading.Thread(target=ask, args=(index,)) for index in found]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for index, answers in found.items():
        assert len(answers) == 5
        for answer in answers:
            assert_rounded(answer, expected[index])
    stats = pool.books.stats()
    assert stats["held"] == 0
    assert stats["reused_slots"] > 0


def test_misuse_is_refused(pool: KVPool) -> None:
    cache, states = PoolCache(pool), torch.randn(1, 2, 5, 8)
    cache.update(states, states, 0)
    with pytest.raises(InputError, match="1 rows and the forward 2"):
        cache.update(states.expand(2, -1, -1, -1), states.expand(2, -1, -1, -1), 0)
    with pytest.raises(InputError, match="minus the number"):
        cache.crop(3)
    with pytest.raises(CacheError, match="another model"):
        PoolCache(pool).update(states.double(), states.double(), 0)
    assert cache.get_seq_length() == 5


def test_inference_mode_and_plain_mode_share_a_pool(pool: KVPool) -> None:
    states = torch.randn(1, 2, 5, 8)
    cache = PoolCache(pool)
    with torch.inference_mode():
        cache.update(states, states, 0)
    keys, _ = cache.update(states.clone().requires_grad_(), states, 0)
    assert not keys.requires_grad
    assert_equal(keys, torch.cat([states, states], dim=2))


def test_clear_frees_what_nobody_holds(pool: KVPool) -> None:
    model, inputs = built("llava")
    expected = generate(model, inputs, DynamicCache())
    keys = position_keys(model.config, inputs)
    cache, left = started(pool, model, inputs)
    assert_rounded(generate(model, left, cache), expected)
    cache.commit(keys)
    pool.features = "the last images", torch.zeros(1)
    pool.clear()
    assert pool.features == (None, None)
    assert cache.layers[0].keys is not None and pool.layers and pool.books.stats()["held"] > 0  # a sequence goes on
    again, _ = started(pool, model, inputs)
    assert again.get_seq_length() > 0
    cache.reset(), again.reset()
    assert pool.books.stats()["cached"] > 0
    pool.clear()
    assert pool.books.stats()["cached"] == 0 and not pool.layers
    fresh, left = started(pool, model, inputs)
    assert fresh.get_seq_length() == 0
    assert_rounded(generate(model, left, fresh), expected)


def test_clear_between_the_layer_and_its_rows_loses_nothing(pool: KVPool, monkeypatch: pytest.MonkeyPatch) -> None:
    model, _ = built("llava")
    expected = logits(model, DynamicCache(), ANSWER)
    layer = pool.layer

    def cleared(*arguments: Any) -> tuple[Tensor, Tensor]:
        found = layer(*arguments)
        pool.clear()  # as another thread would
        return found

    monkeypatch.setattr(pool, "layer", cleared)
    with PoolCache(pool) as cache:
        assert_equal(logits(model, cache, ANSWER), expected)
        assert all(cache.layers[i]._keys is pool.layers[i][0] for i in range(len(cache.layers)))
