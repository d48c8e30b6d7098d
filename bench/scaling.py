"""How time and memory grow with the answer (T), the prompt (P), the visual tokens (N) and the layers (L).

One of them is varied at a time on a LLaVA of random weights (text width 512, float32), the others stay at T = 32,
N = 144, P = N + 44 and L = 2. At every size two jobs are timed side by side: explaining a given answer, and one plain
no-grad forward of the same tokens; the peak of memory beyond weights is that of one more explanation. Exponents
are those of the five largest sizes (`bench.fits`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any

import torch

from bench.fits import growth
from bench.gates import same_arrays
from bench.groups import Benchmark, Group, timed
from bench.options import Options
from bench.subjects import Subject, subject
from bench.timing import Job
from dexar_fast import Explainer
from dexar_fast.profile.recording.peak import peak
from dexar_fast.profile.shapes import TEXT_TOKENS, build

AXES = {
    "T": (16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192),
    "P": (188, 256, 384, 512, 768, 1024, 1536, 2048, 3072, 4096, 6144),
    "N": (64, 100, 144, 256, 400, 576, 784, 1024, 1444, 1764),
    "L": (1, 2, 3, 4, 6, 8, 12, 16),
}
LONG = 4096  # tokens: from here on a run takes seconds, and two of them do
QUICK = 5  # sizes of an axis in a quick run
BASE = {"T": 32, "N": 144, "L": 2}


def at(axis: str, size: int) -> Subject:
    """The model, prompt and answer of one point of an axis."""
    sizes = BASE | {axis: size}
    prompt = sizes.get("P", sizes["N"] + TEXT_TOKENS)
    built = build("llava-512", layers=sizes["L"], grid=round(sizes["N"] ** 0.5))
    return subject(built, sizes["T"], prompt)


def groups(options: Options) -> Iterator[Group]:
    for axis, sizes in AXES.items():
        for size in options.sizes(sizes, QUICK):
            yield from _point(axis, size, options.rounds_of(5 if size < LONG else 2))


def _point(axis: str, size: int, rounds: int) -> Iterator[Group]:
    found = at(axis, size)
    explainer = Explainer(found.model)

    def explain() -> None:
        explainer.explain_inputs(found.inputs, target_ids=found.targets)

    jobs = [
        Job("forward", "one plain no-grad forward of prompt and answer", found.forward),
        Job("explain", "Explainer.explain_inputs of the given answer", explain),
    ]
    parameters = {"axis": axis, "size": size}
    yield timed(f"time at {axis}={size}", parameters, jobs, rounds=rounds, floor="forward")
    held = peak(explain, torch.device("cpu"))[1]
    if held is not None:
        about = {"explain": "peak resident memory of explaining, beyond what was held before"}
        yield Group(f"memory at {axis}={size}", parameters, about, {"explain": [float(held)]}, unit="B")


def conclude(groups: Sequence[Group]) -> dict[str, Any]:
    """Per axis the growth of the shortest times and of the memory."""
    return {axis: _growths([g for g in groups if g.parameters["axis"] == axis]) for axis in AXES}


def _growths(groups: list[Group]) -> dict[str, Any]:
    found = {}
    for unit, job, name in (("s", "explain", "time"), ("s", "forward", "forward"), ("B", "explain", "memory")):
        points = [(g.parameters["size"], min(g.rounds[job])) for g in groups if g.unit == unit]
        if points and all(cost > 0 for _, cost in points):
            sizes, costs = zip(*points, strict=True)
            found[name] = asdict(growth(sizes, costs))
    return found


BENCHMARK = Benchmark("scaling", "time and memory against T, P, N and L", same_arrays, groups, conclude)
