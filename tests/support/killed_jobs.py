"""Runs a job in children that are killed at random times: killed_jobs.py OUT DATA BATCH_SIZE written|given KILLS.

Prints how many items were left to each. One process, so that the libraries are imported once.
"""

import os
import sys
from functools import partial

import torch
from kills import killed

from dexar_fast import Explainer
from dexar_fast.data import of
from dexar_fast.jobs.asked import Asked
from dexar_fast.jobs.job import Job


def work(out: str, data: str, batch_size: str, answers: str, told: int) -> None:
    torch.set_num_threads(1)
    with Job(of(data), out, Asked(written=answers == "written", batch_size=int(batch_size)), {}) as job:
        found = job.run(Explainer.from_pretrained())
        os.write(told, b"%d\n" % job.left)
        for _ in found:
            pass


if __name__ == "__main__":
    *arguments, kills = sys.argv[1:]
    for _ in range(int(kills)):
        print(killed(partial(work, *arguments)), flush=True)
