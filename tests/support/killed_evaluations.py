"""Runs an evaluation in children that are killed at random times: killed_evaluations.py OUT DATA METHODS METRICS KILLS.

Prints how many items were finished before each. One process, so that the libraries are imported once.
"""

import os
import sys
from functools import partial
from pathlib import Path

import torch
from kills import killed

from dexar_fast import Explainer
from dexar_fast.data import of
from dexar_fast.jobs.eval.plan import Evaluation
from dexar_fast.jobs.eval.running import run


def asked(data: str, methods: str, metrics: str) -> Evaluation:
    return Evaluation(of(data), data, tuple(methods.split(",")), tuple(metrics.split(",")))


def work(evaluation: Evaluation, out: str, told: int) -> None:
    torch.set_num_threads(1)
    steps = run(evaluation, Path(out), lambda model: Explainer.from_pretrained())
    os.write(told, b"%d\n" % next(steps)[0])
    for _ in steps:
        pass


if __name__ == "__main__":
    out, data, methods, metrics, kills = sys.argv[1:]
    for _ in range(int(kills)):
        print(killed(partial(work, asked(data, methods, metrics), out)), flush=True)
