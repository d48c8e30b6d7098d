"""Runs a job in children that are killed at random times: killed_jobs.py OUT DATA BATCH_SIZE written|given KILLS.

Prints how many items were left to each. One process, so that the libraries are imported once.
"""

import os
import random
import signal
import sys
import time

import torch

from dexar_fast import Explainer
from dexar_fast.data import of
from dexar_fast.jobs.asked import Asked
from dexar_fast.jobs.job import Job

LONGEST = 0.5  # seconds until a kill


def work(out: str, data: str, batch_size: str, answers: str, told: int) -> None:
    torch.set_num_threads(1)
    with Job(of(data), out, Asked(written=answers == "written", batch_size=int(batch_size)), {}) as job:
        found = job.run(Explainer.from_pretrained())
        os.write(told, b"%d\n" % job.left)
        for _ in found:
            pass


def killed(*arguments: str) -> int:
    """The items that were left to a job before it was killed."""
    told, tell = os.pipe()
    child = os.fork()
    if not child:
        work(*arguments, tell)  # type: ignore[misc]
        os._exit(0)
    left = int(os.read(told, 20))
    time.sleep(random.random() * LONGEST)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return left


if __name__ == "__main__":
    *arguments, kills = sys.argv[1:]
    for _ in range(int(kills)):
        print(killed(*arguments), flush=True)
