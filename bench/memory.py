"""How peak memory grows with the length of the answer, beyond the KV cache and the results.

Compares explaining a given answer of 256 and of 2,048 tokens on a LLaVA of random weights (text width 512, 4 layers,
prompt of 620 tokens, float32), each in a process of its own. The jobs differ in T alone: weights, prompt and libraries
are in both and cancel; what the KV cache and the arrays of the Explanation grow by is counted and taken off.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator, Sequence
from typing import Any

from bench import machine
from bench.gates import same_arrays
from bench.groups import Benchmark, Group
from bench.options import Options
from bench.subjects import subject
from dexar_fast import Explainer
from dexar_fast.profile.recording.peak import status
from dexar_fast.profile.shapes import build
from dexar_fast.results.schema import ARRAYS

SHORT, LONG = 256, 2048
LAYERS = 4


def peak(tokens: int) -> tuple[int, int]:
    """(peak resident bytes of this process, bytes of KV cache and results) of explaining a given answer."""
    found = subject(build("llava-512", layers=LAYERS), tokens)
    explanation = Explainer(found.model).explain_inputs(found.inputs, target_ids=found.targets)
    results = sum(getattr(explanation, name).nbytes for name in ARRAYS)
    text = found.model.config.text_config
    keys = found.prompt + tokens
    cache = 2 * 4 * text.num_hidden_layers * text.num_key_value_heads * text.head_dim * keys
    return status("VmHWM"), cache + results


def groups(options: Options) -> Iterator[Group]:
    about = {
        "peak": "peak resident set of a process that explains a given answer",
        "kept": "the KV cache and the arrays of the Explanation, by their shapes",
    }
    for tokens in (SHORT, LONG):
        pairs = [_measured(tokens) for _ in range(options.rounds_of(3))]
        peaks, kept = ([float(value) for value in column] for column in zip(*pairs, strict=True))
        parameters = {"layers": LAYERS, "tokens": tokens}
        yield Group(f"T={tokens}", parameters, about, {"peak": peaks, "kept": kept}, unit="B")


def _measured(tokens: int) -> tuple[int, int]:
    command = [sys.executable, "-m", "bench.memory", str(tokens)]
    done = subprocess.run(command, cwd=machine.ROOT, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} failed:\n{done.stderr[-2000:]}")
    resident, kept = done.stdout.split()[-2:]
    return int(resident), int(kept)


def conclude(groups: Sequence[Group]) -> dict[str, Any]:
    """Growth from the shortest peak at 256 tokens to that at 2,048, in bytes."""
    short, long = groups
    grown = {name: min(long.rounds[name]) - min(short.rounds[name]) for name in ("peak", "kept")}
    return {"peak_grows_by": grown["peak"], "kept_grows_by": grown["kept"], "beyond": grown["peak"] - grown["kept"]}


BENCHMARK = Benchmark("memory", "peak memory against the length of the answer", same_arrays, groups, conclude)

if __name__ == "__main__":
    print(*peak(int(sys.argv[1])))
