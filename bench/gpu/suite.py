"""The GPU suite: the 7B shapes in bfloat16, built on the device. With --quick tiny models of the same families.

Times are between CUDA events around one call, with the L2 cache flushed before it; jobs take turns, medians count.

- gpu-explain: a given answer over one plain no-grad forward of the same tokens, in the default chunks and in 64s.
- gpu-generate: generate() with a dynamic cache (the floor) and with a static cache and compilation, and generating with
  the dynamic cache and explaining. What explaining adds is held against the static one as well.
- gpu-rivals: the ways of `bench.rivals` that fit.
- gpu-scoring: one layer's scoring over the bare product and over a copy that moves as many bytes as V has.
- gpu-memory: the peak beyond weights, KV cache and results.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import lru_cache, partial
from statistics import median
from typing import Any

import torch
from transformers import DynamicCache

from bench import micro, rival_methods
from bench.gates import same_arrays
from bench.groups import Benchmark, Group, timed
from bench.options import Options
from bench.subjects import Subject, subject
from bench.timing import Job, timer_on
from dexar_fast import Explainer
from dexar_fast.model.cache import to_generate
from dexar_fast.profile.recording.peak import peak
from dexar_fast.profile.shapes import Built, build
from dexar_fast.results.schema import ARRAYS

SHAPES = ("llava-1.5-7b", "qwen2.5-vl-7b")
STREAMING_CHUNK = 64
GIVEN, GENERATED, RIVALS, MEMORY = (64, 256, 512), (64, 256), (16, 64), (256, 1024)
QUICK_TOKENS = (6,)
LONG_KEYS = 32768  # V of 256 MiB at 32 heads of 128 in bfloat16


@lru_cache(maxsize=1)
def _built(shape: str, options: Options) -> Built:
    dtype = torch.float32 if options.quick else torch.bfloat16
    return build(shape, options.device, dtype, tiny=options.quick)


def _subjects(options: Options, tokens: Sequence[int], shapes: Sequence[str] = SHAPES) -> Iterator[tuple[str, Subject]]:
    for shape in shapes:
        for count in QUICK_TOKENS if options.quick else tokens:
            yield shape, subject(_built(shape, options), count)


def _explaining(found: Subject, **knobs: Any) -> Any:
    explainer = Explainer(found.model, **knobs)
    return lambda: explainer.explain_inputs(found.inputs, target_ids=found.targets)


def _parameters(shape: str, kind: str, found: Subject) -> dict[str, Any]:
    return {"shape": shape, "kind": kind, "tokens": len(found.targets), "prompt": found.prompt}


def given_answers(options: Options) -> Iterator[Group]:
    for shape, found in _subjects(options, GIVEN):
        jobs = [
            Job("forward", "one plain no-grad forward of prompt and answer", found.forward),
            Job("explain", "the given answer, default chunks", _explaining(found)),
            Job("explain-64", "the given answer in chunks of 64", _explaining(found, chunk_size=STREAMING_CHUNK)),
        ]
        name = f"{shape}, given answer, T={len(found.targets)}"
        timer = timer_on(options.device)
        rounds = options.rounds_of(20)
        yield timed(name, _parameters(shape, "given", found), jobs, rounds=rounds, floor="forward", timer=timer)


def generated_answers(options: Options) -> Iterator[Group]:
    for shape, found in _subjects(options, GENERATED):
        tokens = len(found.targets)
        explainer = Explainer(found.model, chunk_size=STREAMING_CHUNK)
        jobs = [
            Job("dynamic", "generate() with a dynamic cache", partial(_generate, found, True)),
            Job("static", "generate() with a static cache, compiled by transformers", partial(_generate, found, False)),
            Job(
                "explain",
                "generating with a dynamic cache, then explaining in chunks of 64",
                partial(explainer.explain_inputs, found.inputs, max_new_tokens=tokens, do_sample=False),
            ),
        ]
        name, timer = f"{shape}, generated answer, T={tokens}", timer_on(options.device)
        rounds = options.rounds_of(3)
        yield timed(name, _parameters(shape, "generated", found), jobs, rounds=rounds, floor="dynamic", timer=timer)


def _generate(found: Subject, dynamic: bool) -> None:
    found.generate(**(to_generate(DynamicCache()) if dynamic else {"cache_implementation": "static"}))


def added_over_static(groups: Sequence[Group]) -> dict[str, float]:
    """(explain - dynamic) / static + 1 of every group: the same explanation behind compiled generation."""
    times = {group.name: {job: median(rounds) for job, rounds in group.rounds.items()} for group in groups}
    return {name: 1 + (t["explain"] - t["dynamic"]) / t["static"] for name, t in times.items()}


def rivals(options: Options) -> Iterator[Group]:
    for shape, found in _subjects(options, RIVALS, SHAPES[:1]):
        jobs = [
            Job("forward", "one plain no-grad forward of prompt and answer", found.forward),
            Job("explain", "the given answer, default chunks", _explaining(found)),
            Job("full_length", "one forward with its graph", partial(rival_methods.full_length, found), 3),
            Job("cached", "autograd token by token over a KV cache", partial(rival_methods.cached, found), 2),
            Job("authors", "the authors' loop, re-implemented", partial(rival_methods.authors, found), 1),
        ]
        name, timer = f"{shape}, given answer, T={len(found.targets)}", timer_on(options.device)
        rounds = options.rounds_of(10)
        yield timed(name, _parameters(shape, "given", found), jobs, rounds=rounds, floor="forward", timer=timer)


def scoring(options: Options) -> Iterator[Group]:
    for keys in options.sizes((*micro.KEYS, LONG_KEYS)):
        case = micro.scoring(keys, torch.bfloat16, options.device)
        copy = Job(
            "copy", "a copy of half of V, which moves as many bytes as V has", _copy_of_half(keys, options.device)
        )
        yield micro.measured(replace(case, jobs=[*case.jobs, copy]), options.rounds_of(50), timer_on(options.device))


def _copy_of_half(keys: int, device: str) -> Callable[[], Any]:
    half = torch.randn(micro.HEADS, keys // 2, micro.HEAD_DIM, device=device).to(torch.bfloat16)
    return partial(torch.empty_like(half).copy_, half)


def memory(options: Options) -> Iterator[Group]:
    about = {
        "beyond": "the peak of explaining a given answer, less what was held before, the KV cache and the results",
        "kept": "the KV cache and the arrays of the Explanation, by their shapes",
    }
    for shape, found in _subjects(options, MEMORY):
        explain = _explaining(found)
        explain()
        explanation, held = peak(explain, torch.device(options.device))
        kept = _kept(found, explanation)
        rounds = {"beyond": [float((held or 0) - kept)], "kept": [float(kept)]}
        name = f"{shape}, T={len(found.targets)}"
        yield Group(name, _parameters(shape, "given", found), about, rounds, unit="B")


def _kept(found: Subject, explanation: Any) -> int:
    """Bytes on the device that stay: the KV cache; the results are on the CPU."""
    text = found.model.config.get_text_config(decoder=True)
    head = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
    keys = found.prompt + len(found.targets)
    cache = 2 * text.num_hidden_layers * text.num_key_value_heads * head * keys * found.model.dtype.itemsize
    on_device = found.model.device.type == "cpu"
    return cache + (sum(getattr(explanation, name).nbytes for name in ARRAYS) if on_device else 0)


BENCHMARKS = (
    Benchmark("gpu-scoring", "scoring over the bare product and a same-bytes copy", same_arrays, scoring),
    Benchmark("gpu-explain", "explaining a given answer over one plain forward", same_arrays, given_answers),
    Benchmark("gpu-memory", "the peak beyond weights, KV cache and results", same_arrays, memory),
    Benchmark(
        "gpu-generate", "generating and explaining over generating", same_arrays, generated_answers, added_over_static
    ),
    Benchmark("gpu-rivals", "the explanation beside other ways to the same maps", same_arrays, rivals),
)
