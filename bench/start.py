"""What a run of the program takes, from the start of its process to the last file.

Two comparisons, with the embedded model and a warm file cache; each in seconds on the clock, and in user + system time:

- `dexar-fast explain` with all its default outputs, over a script that imports torch and transformers, loads the same
  model and generates the same answer (`bench/bare.py`). The difference is the explanation, its files, and the command.
- `from dexar_fast import Explainer`, over importing torch and the module of the model's class.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from tempfile import TemporaryDirectory
from typing import Any

from bench import machine
from bench.bare import ASSETS, QUESTION
from bench.gates import Gate
from bench.groups import Benchmark, Group, timed
from bench.options import Options
from bench.timing import Job

EXPLAIN = [sys.executable, "-m", "dexar_fast", "explain", str(ASSETS / "sample.png"), QUESTION, "--force", "--out"]
BARE = [sys.executable, "-m", "bench.bare"]
IMPORTS = {
    "libraries": "import torch; import transformers.models.llava.modeling_llava",
    "dexar_fast": "from dexar_fast import Explainer",
}


def gates(options: Options) -> list[Gate]:
    """The script and the command give the same answer."""
    with TemporaryDirectory() as out:
        answer = json.loads(_run([*EXPLAIN, out, "--json"]))["answer"]
    return [Gate("the command's answer = the script's", float(answer.strip() != _run(BARE).strip()), 0)]


def groups(options: Options) -> Iterator[Group]:
    rounds = options.rounds_of(9)
    with TemporaryDirectory() as out:
        commands = {"script": BARE, "explain": [*EXPLAIN, out]}
        yield from _both("program", commands, "script", rounds)
    yield from _both(
        "import", {name: [sys.executable, "-c", code] for name, code in IMPORTS.items()}, "libraries", rounds
    )


def _both(name: str, commands: Mapping[str, list[str]], floor: str, rounds: int) -> Iterator[Group]:
    """Commands in turn: a group of their seconds on the clock, and one of the CPU seconds of the same runs."""
    spent: dict[str, list[float]] = {job: [] for job in commands}

    def run(job: str) -> None:
        before = _children()
        _run(commands[job])
        spent[job].append(_children() - before)

    jobs = [Job(job, " ".join(command), lambda job=job: run(job)) for job, command in commands.items()]
    parameters: dict[str, Any] = {"kind": name}
    wall = timed(f"{name}, clock", parameters, jobs, rounds=rounds, floor=floor)
    yield wall
    counted = {job: seconds[-rounds:] for job, seconds in spent.items()}  # the first was to warm up
    yield Group(f"{name}, user + system", parameters, wall.about, counted, floor)


def _run(command: list[str]) -> str:
    done = subprocess.run(command, cwd=machine.ROOT, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} failed:\n{done.stderr[-2000:]}")
    return done.stdout


def _children() -> float:
    """User and system seconds of the processes that ended."""
    return sum(os.times()[2:4])


BENCHMARK = Benchmark("start", "the program over a bare script, and its import over its libraries'", gates, groups)
