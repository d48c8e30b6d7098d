"""What some rows of attention cost: `lowlevel.attention_rows` beside `output_attentions=True` under eager attention.

On a LLaVA of random weights in float32 (text width 512, 4 layers, 8 heads, 24 x 24 visual tokens), the last 64 rows of
every layer, at S = 4,096 and 8,192 tokens. The model of eager attention has the same weights; it makes [S, S] of
each head and keeps all of them, as who asks for `attentions` must. Beside them one plain forward under SDPA.

Time: jobs in turn in one process. Memory: each job in a process of its own, the peak over what it held before.
`first` is the first call for a model, which finds its layers and compares it with itself under its own attention, too.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from bench import machine
from bench.gates import BOUND, Gate, difference
from bench.groups import Benchmark, Group, timed
from bench.options import Options
from bench.timing import Job
from dexar_fast.lowlevel import attention_rows
from dexar_fast.profile.recording.peak import peak
from dexar_fast.profile.shapes import Built, build

LENGTHS, QUICK_GRID = (4096, 8192), 4
ROWS = range(-64, 0)
LAYERS = 4
SPARE = 64 * 2**20  # bytes beyond the result
# glibc raises this bound as large blocks are freed, and then keeps up to 32 MiB of each: peaks would vary by 50 MiB
NO_HEAP = {"MALLOC_MMAP_THRESHOLD_": str(2**20)}

ABOUT = {
    "plain": "one plain no-grad forward under SDPA, logits of the last token alone",
    "rows": f"attention_rows of {len(ROWS)} rows, all layers",
    "first": "the same, called for the first time",
    "eager": "one no-grad forward with output_attentions=True under eager attention, and the same rows of it",
}


def jobs(length: int, quick: bool) -> dict[str, Callable[[], Any]]:
    """The three jobs on prompts of so many tokens."""
    sizes = {"grid": QUICK_GRID} if quick else {}
    sdpa, eager = (build("llava-512", layers=LAYERS, **sizes) for _ in range(2))
    eager.model.set_attn_implementation("eager")
    inputs = sdpa.inputs_for(length)
    return {
        "plain": partial(plain, sdpa, inputs),
        "rows": partial(attention_rows, sdpa.model, inputs, ROWS),
        "eager": partial(of_eager, eager, inputs),
    }


@torch.no_grad()
def plain(built: Built, inputs: dict[str, Tensor]) -> None:
    built.model(**inputs, use_cache=False, logits_to_keep=1)


@torch.no_grad()
def of_eager(built: Built, inputs: dict[str, Tensor]) -> dict[int, Tensor]:
    found = built.model(**inputs, use_cache=False, logits_to_keep=1, output_attentions=True).attentions
    return {layer: attention[0, :, ROWS.start :].clone() for layer, attention in enumerate(found)}


def lengths(options: Options) -> Sequence[int]:
    return (64,) if options.quick else LENGTHS


def gates(options: Options) -> list[Gate]:
    """The rows are those of eager attention."""
    found = jobs(128, quick=True)
    ours, theirs = found["rows"](), found["eager"]()
    return [Gate("rows = eager attentions", max(difference(ours[layer], theirs[layer]) for layer in theirs), BOUND)]


def groups(options: Options) -> Iterator[Group]:
    for length in lengths(options):
        made = [Job(name, ABOUT[name], run) for name, run in jobs(length, options.quick).items()]
        parameters = {"kind": "time", "tokens": length, "rows": len(ROWS), "layers": LAYERS}
        yield timed(f"S={length:,}", parameters, made, rounds=options.rounds_of(5), floor="rows")
    for length in lengths(options):
        yield memory(length, options)


def memory(length: int, options: Options) -> Group:
    """Peaks of each job, and the bytes of the result."""
    peaks = {name: [_of_child(name, length, options.quick)] for name in ABOUT}
    heads = build("llava-512", layers=1, grid=QUICK_GRID).model.config.text_config.num_attention_heads
    result = len(ROWS) * length * heads * LAYERS * 4
    beyond = peaks["rows"][0] - peaks["plain"][0] - result
    parameters = {"kind": "memory", "tokens": length, "rows": len(ROWS), "layers": LAYERS}
    notes = {"result": result, "beyond_plain_and_result": beyond, "allowed": SPARE}
    return Group(f"memory, S={length:,}", parameters, ABOUT, peaks, unit="B", notes=notes)


def _of_child(name: str, length: int, quick: bool) -> float:
    command = [sys.executable, "-m", "bench.rows", name, str(length), *(["quick"] if quick else [])]
    done = subprocess.run(command, cwd=machine.ROOT, capture_output=True, text=True, env=os.environ | NO_HEAP)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} failed:\n{done.stderr[-2000:]}")
    return float(done.stdout.split()[-1])


def peak_of(name: str, length: int, quick: bool) -> int:
    """Bytes that a job holds at most beyond what was there before, once it has run; `first` on another model."""
    measured = jobs(length, quick)
    warm_up = jobs(64 if quick else 640, quick) if name == "first" else measured
    warm_up["rows" if name == "first" else name]()
    _, held = peak(measured["rows" if name == "first" else name], torch.device("cpu"))
    if held is None:
        raise RuntimeError("this system does not tell a process's peak of memory")
    return held


BENCHMARK = Benchmark("rows", "rows of attention beside output_attentions under eager attention", gates, groups)

if __name__ == "__main__":
    print(peak_of(sys.argv[1], int(sys.argv[2]), "quick" in sys.argv))
