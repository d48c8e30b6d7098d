"""The profile: interleaved runs of plain generation, of explaining, and of explaining with the stages recorded."""

from __future__ import annotations

import platform
import statistics
import time
from collections.abc import Sequence
from typing import Any

import torch
import transformers

from dexar_fast import __version__
from dexar_fast.explanation import Explanation
from dexar_fast.model.cache import cache_in
from dexar_fast.profile.limits import Limits, limits, timed
from dexar_fast.profile.recording.counting import Counter
from dexar_fast.profile.recording.hooks import inner_stages
from dexar_fast.profile.recording.peak import peak
from dexar_fast.profile.recording.timeline import STAGES, Timeline, recorded
from dexar_fast.profile.workload import Workload
from dexar_fast.results.schema import ARRAYS
from dexar_fast.stages import Recorder

Report = dict[str, Any]
GENERATING = ("vision", "prefill", "decode", "generation")
EXPLAINING = ("chunk forward", "masks", "VJP", "checks", "scoring", "aggregation", "transfer")


def measure(work: Workload, rounds: int = 5, batches: Sequence[int] = ()) -> Report:
    """Everything `dexar-fast profile` shows, as plain JSON.

    The stages are those of the recorded run with the median wall time, so that they sum to it.
    """
    work.generate(), work.explain()
    generate, explain, runs = [], [], []
    for _ in range(rounds):
        generate.append(timed(work.generate, work.device)[1])
        explain.append(timed(work.explain, work.device)[1])
        runs.append(recorded(work.explain, work.model))
    run = sorted(runs, key=lambda timeline: timeline.wall)[(len(runs) - 1) // 2]
    counted, kept = _counted(work)
    explanation, held = peak(work.explain, work.device)
    machine = limits(work.device, work.model.dtype)
    return {
        "about": work.about | {"places": explanation.metadata["places"]},
        "machine": {"cpu": platform.processor() or platform.machine(), "threads": torch.get_num_threads()},
        "versions": {
            "dexar_fast": __version__,
            "python": platform.python_version(),
            "torch": torch.__version__,
            "transformers": transformers.__version__,
        },
        "limits": {"flops_per_second": machine.flops_per_second, "bytes_per_second": machine.bytes_per_second},
        "seconds": {
            "generate": _summary(generate),
            "explain": _summary(explain),
            "first_token": run.first_token,
            "first_map": run.first_map,
        },
        "overhead": _summary([a / b for a, b in zip(explain, generate, strict=True)]),
        "tokens_per_second": _rates(run, work.about["new_tokens"]),
        "batches": [{"size": size} | _of_batch(work, size, rounds) for size in batches],
        "stages": _stages(run, counted, machine),
        "wall": run.wall,
        "coverage": run.coverage,
        "instrumentation": _instrumentation(run, [r.wall / e for r, e in zip(runs, explain, strict=True)]),
        "memory": _memory(work, explanation, held, kept),
    }


def _counted(work: Workload) -> tuple[Counter, int]:
    """FLOP and bytes of one run, and the bytes of its KV cache at the end."""
    recorder = Recorder(time.perf_counter)
    caches: list[Any] = []

    def keep(module: Any, args: Any, kwargs: dict[str, Any], output: Any) -> None:
        caches[:] = [cache_in(kwargs)]

    handle = work.model.register_forward_hook(keep, with_kwargs=True)
    try:
        with inner_stages(work.model, recorder), recorder.recording(), Counter(recorder) as counted:
            work.explain()
    finally:
        handle.remove()
    layers = [layer for cache in caches for layer in cache.layers]
    return counted, sum(layer.keys.nbytes + layer.values.nbytes for layer in layers)


def _stages(run: Timeline, counted: Counter, machine: Limits) -> list[Report]:
    """Each stage's time, work and rates, and its least time over its time: above 1 for what stays in the caches."""
    rows = []
    for name, seconds in run.stages.items():
        flops, moved = counted.flops.get(name, 0), counted.bytes.get(name, 0)
        row = {"name": name, "covers": STAGES[name], "seconds": seconds, "share": seconds / run.wall}
        row |= {"flops": flops, "bytes": moved}
        row |= {"flops_per_second": flops / seconds, "bytes_per_second": moved / seconds}
        rows.append(row | {"of_limit": machine.seconds(flops, moved) / seconds})
    return rows


def _rates(run: Timeline, tokens: int) -> Report:
    """Tokens per second: generated in the time of generating, explained in that of explaining, both in all of it."""
    generating, explaining = (sum(run.stages.get(name, 0.0) for name in names) for names in (GENERATING, EXPLAINING))
    return {"generated": tokens / generating, "explained": tokens / explaining, "both": tokens / run.wall}


def _of_batch(work: Workload, size: int, rounds: int) -> Report:
    """The rates of a batch, of the recorded run with the median wall time. Raises what one of its requests raises."""
    for found in work.batch(size):
        if isinstance(found, Exception):
            raise found
    runs = sorted((recorded(lambda: work.batch(size), work.model) for _ in range(rounds)), key=lambda run: run.wall)
    return _rates(runs[(rounds - 1) // 2], size * work.about["new_tokens"])


def _instrumentation(run: Timeline, over_plain: Sequence[float]) -> Report:
    """How much of the wall time recording takes: marks times the cost of one, and recorded runs over plain ones."""
    recorder = Recorder(time.perf_counter)
    with recorder.recording():
        _, seconds = timed(lambda: _marks(recorder, 1000), torch.device("cpu"))
    marks = len(run.segments)
    return {"marks": marks, "share": marks / 2 * seconds / 1000 / run.wall, "over_plain": _summary(over_plain)}


def _marks(recorder: Recorder, count: int) -> None:
    for _ in range(count):
        with recorder.stage("layout"):
            pass


def _memory(work: Workload, explanation: Explanation, held: int | None, kept: int) -> Report:
    """Bytes by kind; activations are what the peak holds beside the KV cache and results on the same device."""
    results = sum(getattr(explanation, name).nbytes for name in ARRAYS)
    beside = kept + (results if work.device.type == "cpu" else 0)
    weights = sum(x.nbytes for x in (*work.model.parameters(), *work.model.buffers()))
    activations = None if held is None else max(0, held - beside)
    return {"weights": weights, "kv_cache": kept, "results": results, "activations": activations, "peak": held}


def _summary(values: Sequence[float]) -> Report:
    """Minimum, median and the 20th and 80th percentiles."""
    fifths = statistics.quantiles(values, n=5, method="inclusive") if len(values) > 1 else [values[0]] * 4
    return {"min": min(values), "median": statistics.median(values), "p20": fifths[0], "p80": fifths[3]}
