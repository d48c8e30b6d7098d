"""How peak memory grows with the length of the answer, beyond the KV cache and the results.

    python bench/bench_memory.py             # about a minute; each length runs in a process of its own

The growth of the peak resident set from 256 to 2,048 tokens, less what the KV cache and the arrays of the Explanation
grow by. Weights, prompt and libraries are in both and cancel.
"""

from __future__ import annotations

import resource
import subprocess
import sys

import torch
from bench_explain import prompt, random_llava

from dexar_fast import Explainer
from dexar_fast.fields import ARRAYS

SHORT, LONG = 256, 2048
MIB = 2**20


def peak(tokens: int) -> tuple[int, int]:
    """(peak resident bytes, bytes of KV cache and results) of explaining a given answer."""
    model, inputs = random_llava(layers=4), prompt()
    targets = torch.randint(100, 900, (tokens,), generator=torch.Generator().manual_seed(1))
    explanation = Explainer(model).explain_inputs(inputs, target_ids=targets)
    results = sum(getattr(explanation, name).nbytes for name in ARRAYS)
    text = model.config.text_config
    keys = inputs["input_ids"].shape[1] + tokens
    cache = 2 * 4 * text.num_hidden_layers * text.num_key_value_heads * text.head_dim * keys
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024, cache + results


def measured(tokens: int) -> tuple[int, int]:
    output = subprocess.run([sys.executable, __file__, str(tokens)], capture_output=True, text=True, check=True).stdout
    resident, known = output.split()[-2:]
    return int(resident), int(known)


def main() -> None:
    (short, known_short), (long, known_long) = measured(SHORT), measured(LONG)
    beyond = (long - short) - (known_long - known_short)
    print(f"peak at T={SHORT}: {short / MIB:.0f} MiB, at T={LONG}: {long / MIB:.0f} MiB")
    print(
        f"KV cache and results grow by {(known_long - known_short) / MIB:.0f} MiB, all else by {beyond / MIB:.0f} MiB"
    )


if __name__ == "__main__":
    if len(sys.argv) > 1:
        print(*peak(int(sys.argv[1])))
    else:
        main()
