"""The KV cache over a pool (`dexar_fast.kvcache.cache.PoolCache`) beside transformers' own, and the pool's bookkeeping.

On a LLaVA of random weights (text width 512, 4 layers, float32):

- a decode step behind so many cached tokens, with each cache: the whole model, one token. The caches are filled with
  random states: a step's time does not depend on them.
- the cache's part of such a step alone: one token's states appended to all layers, views of all tokens handed out.
- a second question about an image: explained with a pool that knows the first, over explained alone, beside a prefill
  of what the two share (vision tower, image, the text before it): how much of that is saved.
- calls of the manager (csrc/kv_cache.h) from Python, each the mean of many.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import Cache, DynamicCache, StaticCache

from bench.gates import BOUND, Gate, agreement, checked, difference, same_arrays
from bench.groups import Benchmark, Group, timed
from bench.options import Options
from bench.subjects import Subject, subject
from bench.summaries import summary
from bench.timing import Job, interleaved
from dexar_fast import Explainer
from dexar_fast._C import KvCache
from dexar_fast.kvcache.cache import PoolCache
from dexar_fast.kvcache.pool import BLOCK_SIZE, Keys, KVPool
from dexar_fast.model.cache import to_forward
from dexar_fast.profile.shapes import build
from dexar_fast.results.schema import ARRAYS

CACHED = (1024, 4096, 16384, 32768)
TARGETS = 16
QUESTION = 22  # the tokens behind the image
HELD = 1200  # tokens of a sequence of the manager
CALLS = 200
ABOUT = {"static": "transformers' StaticCache", "dynamic": "transformers' DynamicCache", "pool": "PoolCache"}


def caches(model: Any, tokens: int, room: int) -> dict[str, Cache]:
    """One cache of each kind, `tokens` random tokens in each and room for `room` more."""
    text = model.config.get_text_config()
    found: dict[str, Cache] = {
        "static": StaticCache(config=text, max_cache_len=tokens + room),
        "dynamic": DynamicCache(),
        "pool": PoolCache(KVPool(tokens + room), reserve=tokens + room),
    }
    for cache in found.values():
        append(cache, text.num_hidden_layers, *states(text, tokens))
    return found


def states(text: Any, tokens: int) -> tuple[Tensor, Tensor]:
    """Random keys and values of one layer, [1, H_kv, tokens, D] each."""
    shape = (1, text.num_key_value_heads, tokens, text.hidden_size // text.num_attention_heads)
    return torch.randn(shape), torch.randn(shape)


def append(cache: Cache, layers: int, key: Tensor, value: Tensor) -> None:
    """The same states to every layer."""
    for layer in range(layers):
        cache.update(key, value, layer)


@torch.no_grad()
def step(model: Any, cache: Cache) -> Tensor:
    """One token behind what the cache holds; its logits."""
    token = torch.full((1, 1), 20)
    position = torch.tensor([[int(cache.get_seq_length())]])
    return model(input_ids=token, position_ids=position, **to_forward(model, cache), use_cache=True).logits


def steps(model: Any, tokens: int, rounds: int) -> Iterator[Group]:
    """A decode step, and the append alone, at so many cached tokens."""
    text = model.config.get_text_config()
    runs: dict[str, Callable[[Cache], Any]] = {
        "decode step": partial(step, model),
        "append": lambda cache: append(cache, text.num_hidden_layers, *one),
    }
    one = states(text, 1)
    for kind, run in runs.items():
        found = caches(model, tokens, room=rounds + 8)
        jobs = [Job(name, f"{kind} with {ABOUT[name]}", partial(run, cache)) for name, cache in found.items()]
        parameters = {"kind": kind, "cached": tokens}
        yield timed(f"{kind}, {tokens:,} cached", parameters, jobs, rounds=rounds, floor="static", warm_ups=3)


def questions(found: Subject) -> Iterator[dict[str, Tensor]]:
    """The subject's prompt with a new question behind the image each time."""
    generator = torch.Generator().manual_seed(2)
    while True:
        ids = found.inputs["input_ids"].clone()
        ids[0, -QUESTION:] = torch.randint(10, 190, (QUESTION,), generator=generator)
        yield found.inputs | {"input_ids": ids}


def second_question(found: Subject, rounds: int) -> Group:
    """A question about an image that the pool knows, over one from scratch, beside the part that they share."""
    asked = questions(found)
    alone = Explainer(found.model)
    pooled = Explainer(found.model, pool=KVPool(4 * (found.prompt + len(found.targets))))
    pooled.explain_inputs(next(asked), target_ids=found.targets)
    shared = {name: x[:, :-QUESTION] if x.ndim == 2 else x for name, x in found.inputs.items()}

    @torch.no_grad()
    def prefill() -> None:
        found.model(**shared, use_cache=True, **to_forward(found.model, DynamicCache()), logits_to_keep=1)

    jobs = [
        Job("alone", "explain_inputs without a pool", lambda: alone.explain_inputs(next(asked), found.targets)),
        Job("pooled", "explain_inputs with a pool", lambda: pooled.explain_inputs(next(asked), found.targets)),
        Job("shared", "one plain forward of the image and the text before it", prefill),
    ]
    parameters = {"kind": "second question", "prompt": found.prompt, "tokens": len(found.targets)}
    return timed("second question", parameters, jobs, rounds=rounds, floor="alone")


def saved(group: Group) -> list[float]:
    """Per round the share of the shared part's time that the pool saves."""
    columns = zip(*(group.rounds[name] for name in ("alone", "pooled", "shared")), strict=True)
    return [(alone - pooled) / shared for alone, pooled, shared in columns]


def manager_calls(rounds: int) -> Group:
    """Seconds of one call each; what a call needs is made beforehand, and undone afterwards."""
    kinds = {
        "open and close, unknown": ("a sequence of 1,200 tokens that nothing begins like", _unknown),
        "open and close, known": ("a sequence of 1,200 tokens, 1,199 of them known", _known),
        "fork": ("a fork of 1,200 tokens", _fork),
        "truncate": ("1,200 tokens cut to 600", _truncate),
        "extend": ("room for one more token, behind 1,200", _extend),
        "commit": ("one more token named, behind 1,200", _commit),
    }
    jobs = [Job(name, about, run) for name, (about, run) in kinds.items()]
    seconds = interleaved(jobs, rounds, timer=lambda run: run())
    return Group("manager calls", {"kind": "manager"}, {job.name: job.about for job in jobs}, seconds)


def _known_sequence() -> tuple[KvCache, int, Keys]:
    books, keys = KvCache(64 * HELD // BLOCK_SIZE, BLOCK_SIZE), np.arange(HELD, dtype=np.uint64)
    sequence = books.open(keys, reserve=HELD + CALLS)[0]
    books.extend(sequence, HELD)
    books.commit(sequence, keys)
    return books, sequence, keys


def _mean(call: Callable[[int], Any]) -> float:
    """Seconds of a call, of `CALLS` in a row."""
    start = time.perf_counter()
    for index in range(CALLS):
        call(index)
    return (time.perf_counter() - start) / CALLS


def _unknown() -> float:
    books, _, keys = _known_sequence()
    others = keys + HELD
    return _mean(lambda index: books.close(books.open(others)[0]))


def _known() -> float:
    books, sequence, keys = _known_sequence()
    books.close(sequence)
    return _mean(lambda index: books.close(books.open(keys)[0]))


def _fork() -> float:
    books, sequence, _ = _known_sequence()
    return _mean(lambda index: books.fork(sequence))


def _truncate() -> float:
    books, sequence, _ = _known_sequence()
    forks = [books.fork(sequence) for _ in range(CALLS)]
    return _mean(lambda index: books.truncate(forks[index], HELD // 2))


def _extend() -> float:
    books, sequence, _ = _known_sequence()
    return _mean(lambda index: books.extend(sequence, 1))


def _commit() -> float:
    books, sequence, keys = _known_sequence()
    books.extend(sequence, CALLS)
    more = [keys[index : index + 1] for index in range(CALLS)]
    return _mean(lambda index: books.commit(sequence, more[index]))


def gates(options: Options) -> list[Gate]:
    """The three caches give the same logits, and a reused prompt the same explanation, before anything is timed."""
    found = checked(options)
    runs = {name: torch.cat(list(_logits(found, cache))) for name, cache in _empty(found.model).items()}
    same = [Gate(f"{name} = dynamic", difference(runs[name], runs["dynamic"]), BOUND) for name in ("static", "pool")]
    pooled = Explainer(found.model, pool=KVPool(4 * found.prompt))
    _, again = (pooled.explain_inputs(found.inputs, target_ids=found.targets) for _ in range(2))
    alone = Explainer(found.model).explain_inputs(found.inputs, target_ids=found.targets)
    arrays = {name: getattr(again, name) for name in ARRAYS}
    return [*same_arrays(options), *same, agreement("from a pool = alone", arrays, alone, BOUND)]


def _empty(model: Any) -> dict[str, Cache]:
    text, slots = model.config.get_text_config(), 2048
    static = StaticCache(config=text, max_cache_len=slots)
    return {"static": static, "dynamic": DynamicCache(), "pool": PoolCache(KVPool(slots))}


@torch.no_grad()
def _logits(found: Subject, cache: Cache) -> Iterator[Tensor]:
    yield found.model(**found.inputs, **to_forward(found.model, cache), use_cache=True).logits[0, -1:]
    for _ in range(3):
        yield step(found.model, cache)[0]


def groups(options: Options) -> Iterator[Group]:
    built = build("llava-512", layers=4)
    for tokens in options.sizes(CACHED):
        yield from steps(built.model, tokens, options.rounds_of(40))
    yield second_question(subject(built, TARGETS), options.rounds_of(15))
    yield manager_calls(options.rounds_of(15))


def conclude(groups: Sequence[Group]) -> dict[str, Any]:
    """What a second question saves of the shared part's time."""
    (second,) = (group for group in groups if group.parameters["kind"] == "second question")
    return {"saved": summary(saved(second))}


BENCHMARK = Benchmark("cache", "the KV cache over a pool beside transformers' caches", gates, groups, conclude)
