"""Workers have their share of the threads, and nobody else has less for it; work is cut evenly."""

from __future__ import annotations

from collections.abc import Callable
from threading import Thread

import pytest
import torch

from dexar_fast.attribution.forwards.workers import shares, workers


def threads_of_another() -> int:
    found: list[int] = []
    other = Thread(target=lambda: found.append(torch.get_num_threads()))
    other.start()
    other.join()
    return found[0]


@pytest.mark.parametrize("total, count, share", [(2, 2, 1), (4, 2, 2), (5, 2, 2), (1, 3, 1)])
def test_workers_share_the_threads_and_leave_the_callers_alone(
    total: int, count: int, share: int, threads: Callable[[int], None]
) -> None:
    threads(total)
    with workers(count) as pool:
        assert torch.get_num_threads() == threads_of_another() == total
        assert {pool.submit(torch.get_num_threads).result() for _ in range(9)} == {share}
        assert torch.get_num_threads() == total
    assert torch.get_num_threads() == threads_of_another() == total


def test_the_threads_come_back_after_an_error(threads: Callable[[int], None]) -> None:
    threads(2)
    with pytest.raises(KeyError), workers(2) as pool:
        pool.submit({}.__getitem__, 0).result()
    assert torch.get_num_threads() == threads_of_another() == 2


@pytest.mark.parametrize("count", [1, 2, 7, 8, 9, 63, 64, 65])
@pytest.mark.parametrize("parts, largest", [(1, 1), (2, 8), (3, 5)])
def test_shares_are_even_and_cover_all_in_order(count: int, parts: int, largest: int) -> None:
    found = shares(range(5, 5 + count), parts, largest)
    assert [i for share in found for i in share] == [*range(5, 5 + count)]
    lengths = [len(share) for share in found]
    assert min(lengths) >= 1 and max(lengths) <= min(largest, min(lengths) + 1)
    assert len(found) % parts == 0 or count < parts * -(-count // (parts * largest))
