"""Threads that share the processors: small operations of several forwards fill them better than each one in turn."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import pairwise
from threading import Barrier

import torch


@contextmanager
def workers(count: int) -> Iterator[ThreadPoolExecutor]:
    """`count` threads, each with an even share of this thread's intra-op threads, one at least."""
    threads = torch.get_num_threads()
    ready = Barrier(count + 1)
    with ThreadPoolExecutor(count, "dexar_fast.worker", _begin, (max(1, threads // count),)) as pool:
        for _ in range(count):
            pool.submit(ready.wait)
        ready.wait()
        torch.set_num_threads(threads)  # a worker's share is also what threads started from now on would begin with
        yield pool


def _begin(threads: int) -> None:
    torch.get_num_threads()  # a thread's first use of torch would undo the next line
    torch.set_num_threads(threads)


def shares(chosen: range, parts: int, largest: int) -> list[range]:
    """One picture or more in a multiple of `parts` ranges of almost equal length, none above `largest`, none empty."""
    count = -(-len(chosen) // (parts * largest)) * parts
    cuts = [len(chosen) * i // count for i in range(count + 1)]
    return [chosen[start:end] for start, end in pairwise(cuts) if end > start]
