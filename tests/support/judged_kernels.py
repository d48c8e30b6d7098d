"""Trials of kernels that misbehave, in the place of judging.child: `python judged_kernels.py KIND CASE`.

The kernel under trial is the portable one, against the best of this CPU.
"""

import json
import os
import signal
import subprocess
import sys
import time
from typing import Any

KERNEL = "portable"
PAUSE = 0.02  # seconds: more than either kernel takes


def unprepared() -> None:
    sys.exit("no module of that name")


def leaving() -> None:
    print("begun", flush=True)
    os._exit(0)


def babbling() -> None:
    print('begun\n{"taken": "yes"}\nand more', flush=True)


def hanging() -> None:
    """With a child of its own, which holds what this one writes to."""
    print("begun", flush=True)
    subprocess.run(["sleep", "600"])


def stuck() -> None:
    subprocess.run(["sleep", "600"])


def trying(kind: str, case: str) -> None:
    from dexar_fast.backends import cpp
    from dexar_fast.backends.judging import child

    plain = cpp.head_score

    def head_score(*given: Any, instructions: str) -> Any:
        if instructions != KERNEL:
            time.sleep(PAUSE if kind == "fast" else 0)
            return plain(*given, instructions=instructions)
        if kind == "crashing":
            os.kill(os.getpid(), signal.SIGSEGV)
        if kind == "raising":
            raise RuntimeError("no C compiler")
        time.sleep(PAUSE if kind == "slow" else 0)
        found = plain(*given, instructions=cpp.best_instruction_set())
        found[1].add_(1e-3 if kind == "wrong" else 0)
        return found

    cpp.head_score = head_score  # type: ignore[assignment]
    child.main(case)


if __name__ == "__main__":
    kind, case = sys.argv[1:]
    assert json.loads(case)["kernel"] == KERNEL
    alone = {each.__name__: each for each in (unprepared, leaving, babbling, hanging, stuck)}
    alone[kind]() if kind in alone else trying(kind, case)
