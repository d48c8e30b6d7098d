"""A long answer, explained into a folder while it is written: time per token, memory, and what a killed run leaves.

A LLaVA of random weights (text width 128, 2 layers, 12 x 12 visual tokens, float32) writes 8,192 tokens over a KV pool:

- generate: generate() alone, over the same pool.
- stream: `Explainer.stream_inputs(out=...)` of the same tokens, in pieces of 64.

The time of a token is that of 64 of them, by stretches of the answer: what grows along it is attention. One more stream
is killed with SIGKILL half-way, and what it left is read. Then the whole answer is given to explain_inputs(), and the
two explanations are compared. Each run is a process of its own.
"""

from __future__ import annotations

import os
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor

from bench import machine
from bench.gates import BOUND, COMPARED, Gate, agreement, difference
from bench.groups import Benchmark, Group
from bench.options import Options
from bench.subjects import subject
from dexar_fast import Explainer, Explanation
from dexar_fast.generation.stream import Piece
from dexar_fast.kvcache.cache import PoolCache
from dexar_fast.kvcache.pool import KVPool
from dexar_fast.model.cache import to_generate
from dexar_fast.profile.shapes import Built, build

TOKENS, QUICK_TOKENS, CHUNK, STRETCHES = 8192, 1024, 64, 8
LAYERS, WIDTH, GRID = 2, 128, 12
SPARE = 2 * CHUNK
Row = tuple[int, float, int]  # tokens so far, seconds so far, bytes resident now


def model() -> Built:
    return build("llava-512", layers=LAYERS, width=WIDTH, grid=GRID)


def resident() -> int:
    """Bytes of this process in memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def sampling(tokens: int) -> dict[str, Any]:
    torch.manual_seed(1)
    return {"max_new_tokens": tokens, "do_sample": True, "top_k": 0, "suppress_tokens": [999]}


class Marks:
    """Prints a row after every piece of an answer."""

    def __init__(self) -> None:
        self._begin = time.perf_counter()

    def __call__(self, tokens: int) -> None:
        print(tokens, time.perf_counter() - self._begin, resident(), flush=True)


class EveryChunk:
    """A streamer that marks every 64 tokens."""

    def __init__(self, mark: Callable[[int], None]) -> None:
        self._mark = mark
        self._tokens = -1  # the prompt comes first

    def put(self, ids: Tensor) -> None:
        self._tokens += 1
        if self._tokens and self._tokens % CHUNK == 0:
            self._mark(self._tokens)

    def end(self) -> None:
        pass


def generate(tokens: int) -> None:
    """The process that only writes."""
    built = model()
    inputs = built.inputs_for()
    cache = PoolCache(KVPool(inputs["input_ids"].shape[1] + tokens + SPARE))
    built.model.generate(**inputs, **to_generate(cache), streamer=EveryChunk(Marks()), **sampling(tokens))


def stream(tokens: int, out: str) -> None:
    """The process that writes and explains."""
    built = model()
    inputs = built.inputs_for()
    explainer = Explainer(built.model, pool=KVPool(inputs["input_ids"].shape[1] + tokens + SPARE))
    mark = Marks()
    for piece in explainer.stream_inputs(inputs, chunk_size=CHUNK, out=out, **sampling(tokens)):
        mark(piece.first + len(piece))


def given(folder: str, out: str) -> None:
    """The process that explains the answer of a folder; prints seconds, resident bytes, and the largest difference."""
    built, answer = model(), Explanation.load(folder)
    begin = time.perf_counter()
    found = Explainer(built.model).explain_inputs(built.inputs_for(), target_ids=answer.token_ids, out=out)
    seconds = time.perf_counter() - begin
    print(seconds, resident(), max(difference(getattr(answer, name), getattr(found, name)) for name in COMPARED))


def child(*arguments: Any) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "bench.long_answer", *map(str, arguments)]
    return subprocess.Popen(command, cwd=machine.ROOT, stdout=subprocess.PIPE, text=True)


def rows(*arguments: Any) -> Iterator[Row]:
    """Those of a process, as they come."""
    with child(*arguments) as process:
        assert process.stdout is not None
        for line in process.stdout:
            tokens, seconds, held = line.split()
            yield int(tokens), float(seconds), int(held)
    if process.returncode:
        raise RuntimeError(f"{arguments} failed: see above")


def tokens_of(options: Options) -> int:
    return QUICK_TOKENS if options.quick else TOKENS


def beside_generate(tokens: int, out: Path) -> Iterator[Group]:
    """An answer that is only written, then one that is explained into a folder meanwhile, by stretches."""
    yield from stretches(list(rows("generate", tokens)), list(rows("stream", tokens, out)))


def stretches(generated: Sequence[Row], streamed: Sequence[Row]) -> Iterator[Group]:
    """Seconds of a token in each piece of each stretch; memory since the first piece."""
    about = {"generate": "generate() alone", "stream": "written, explained and put on disk"}
    width = len(streamed) // STRETCHES
    for i in range(STRETCHES):
        part = slice(i * width, (i + 1) * width + 1)
        times = {"generate": _per_token(generated[part]), "stream": _per_token(streamed[part])}
        first, last = streamed[part][0][0], streamed[part][-1][0]
        notes = _memory(streamed[0], streamed[part][-1])
        yield Group(f"tokens {first:,} to {last:,}", {"from": first, "to": last}, about, times, "generate", notes=notes)


def _per_token(found: Sequence[Row]) -> list[float]:
    return [(b[1] - a[1]) / (b[0] - a[0]) for a, b in pairwise(found)]


def _memory(first: Row, last: Row) -> dict[str, int]:
    cache = 2 * 4 * LAYERS * WIDTH * (last[0] - first[0])
    return {"resident": last[2], "kv_cache_since": cache, "beyond_since": last[2] - first[2] - cache}


def killed(tokens: int, out: Path) -> tuple[Group, Tensor]:
    """A run that is killed once half of the answer was handed over, what it left, and its ids."""
    with child("stream", tokens, out) as process:
        assert process.stdout is not None
        handed = next(int(line.split()[0]) for line in process.stdout if int(line.split()[0]) >= tokens // 2)
        process.send_signal(signal.SIGKILL)
    begin = time.perf_counter()
    found = Explanation.load(out)
    seconds = time.perf_counter() - begin
    notes = {"handed_over": handed, "read_again": len(found), "complete": found.metadata["complete"]}
    about = {"read": "Explanation.load of what a killed run left"}
    return Group("killed half-way", {"tokens": tokens}, about, {"read": [seconds]}, notes=notes), found.token_ids


def explained_again(folder: Path, out: Path, tokens: int) -> Group:
    with child("given", folder, out) as process:
        seconds, held, difference = process.communicate()[0].split()
    about = {"explain": "explain_inputs of the whole answer, a token"}
    notes = {"resident": int(held), "difference_to_stream": float(difference)}
    return Group("given again", {"tokens": tokens}, about, {"explain": [float(seconds) / tokens]}, notes=notes)


def groups(options: Options) -> Iterator[Group]:
    tokens = tokens_of(options)
    with TemporaryDirectory() as name:
        left, ids = killed(tokens, Path(name, "killed"))
        whole = Path(name, "whole")
        yield from beside_generate(tokens, whole)
        finished = Explanation.load(whole)
        left.notes["same_tokens_as_the_whole_run"] = torch.equal(ids, finished.token_ids[: len(ids)])
        yield left
        again = explained_again(whole, Path(name, "given"), tokens)
        again.notes["complete"] = finished.metadata["complete"]
        again.notes["shards"] = sum(path.stat().st_size for path in whole.iterdir())
        yield again


def conclude(found: Sequence[Group]) -> dict[str, Any]:
    """How the last stretch of the answer differs from the second: the first begins with the prompt and warm-ups."""
    parts = found[:STRETCHES]
    second, last = (
        {job: statistics.median(group.rounds[job]) for job in group.rounds} for group in (parts[1], parts[-1])
    )
    return {
        "ms_per_token_grows_by": {job: 1e3 * (last[job] - second[job]) for job in last},
        "stream_over_generate": sum(map(sum, (g.rounds["stream"] for g in parts)))
        / sum(map(sum, (g.rounds["generate"] for g in parts))),
        "beyond_kv_cache": parts[-1].notes["beyond_since"],
    }


def same_as_given(options: Options) -> list[Gate]:
    """A streamed answer over a pool against the same tokens given, in float64."""
    found = subject(build("llava-1.5-7b", dtype=torch.float64, tiny=True), tokens=20)
    pool = KVPool(found.prompt + 64)
    with Explainer(found.model, pool=pool).stream_inputs(found.inputs, chunk_size=8, max_new_tokens=20) as pieces:
        pieces_found: list[Piece] = list(pieces)
        streamed = pieces.explanation()
    expected = Explainer(found.model).explain_inputs(found.inputs, target_ids=streamed.token_ids)
    joined = {name: torch.cat([getattr(piece, name) for piece in pieces_found]) for name in COMPARED}
    whole = {name: getattr(streamed, name) for name in COMPARED}
    return [
        agreement("streamed pieces = given answer", joined, expected, BOUND),
        agreement("streamed answer = given answer", whole, expected, BOUND),
    ]


BENCHMARK = Benchmark("long", f"{TOKENS:,} tokens explained while they are written", same_as_given, groups, conclude)

if __name__ == "__main__":
    run, *arguments = sys.argv[1:]
    if run == "given":
        given(*arguments)
    elif run == "stream":
        stream(int(arguments[0]), arguments[1])
    else:
        generate(int(arguments[0]))
