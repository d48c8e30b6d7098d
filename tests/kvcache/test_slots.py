"""Copies of slots: what is refused before any kernel runs, and that the books never ask for it."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch
from kv_cases import CASES, COPIES, check_append, check_copies, name

from dexar_fast import InputError
from dexar_fast._C import BudgetExhausted, KvCache
from dexar_fast.backends import operators, ops
from dexar_fast.backends.slots import check_copies as checked

TENSORS = [torch.zeros(1, 1, 16, 1)]


@pytest.mark.parametrize("copies", [[(0, 8, 8)], [(8, 0, 8)], [(0, 8, 2), (0, 10, 2)], [(3, 0, 1), (4, 1, 1)]])
def test_runs_that_only_touch_are_copied(copies: list[tuple[int, int, int]]) -> None:
    checked(TENSORS, copies)


@pytest.mark.parametrize(
    ("copies", "words"),
    [
        ([(0, 7, 8)], "both read and written"),
        ([(7, 0, 8)], "both read and written"),
        ([(0, 4, 2), (5, 8, 1)], "both read and written"),
        ([(0, 8, 2), (2, 9, 2)], "written twice"),
        ([(0, 9, 8)], "slots 9 to 16 are not among slots 0 to 15"),
        ([(9, 0, 8)], "not among"),
        ([(-1, 4, 1)], "not among"),
        ([(0, 4, 0)], "not among"),
    ],
)
def test_copies_that_depend_on_their_order_or_leave_the_pool_are_refused(
    copies: list[tuple[int, int, int]], words: str
) -> None:
    with pytest.raises(InputError, match=words):
        checked(TENSORS, copies)


def test_tensors_of_two_lengths_are_refused() -> None:
    with pytest.raises(InputError, match="one length"):
        checked([*TENSORS, torch.zeros(1, 1, 17, 1)], [(0, 1, 1)])


def test_the_books_ask_for_no_copy_that_is_refused() -> None:
    books, rng, rows = KvCache(16, 4), random.Random(0), []
    tensors, copied = [torch.zeros(1, 1, 64, 1)], 0
    for _ in range(5000):
        try:
            if rows and rng.random() < 0.6:
                row = rng.choice(rows)
                *_, copies = row.extend(rng.choice([1, 3, 9]))
                row.commit(np.zeros(1, np.uint64))  # all alike, so that prefixes are found
            else:
                row, *_, copies = books.row(np.zeros(rng.randint(0, 20), np.uint64))
                rows += [row, row.fork()]
        except BudgetExhausted:
            rows.pop(rng.randrange(len(rows)))
            continue
        if copies:
            checked(tensors, copies)
            copied += 1
        del row
    assert copied > 100


@pytest.mark.parametrize("case", CASES[:8], ids=name)
def test_torch_appends_as_the_reference(case: dict[str, object]) -> None:
    check_append(ops.kv_append, case)


@pytest.mark.parametrize("copies", COPIES.values(), ids=COPIES.keys())
def test_torch_copies_as_the_reference(copies: list[tuple[int, int, int]]) -> None:
    check_copies(lambda tensors, copies: ops.kv_copy([(x, x) for x in tensors], copies), copies, (60, 16))


def test_the_operator_is_registered_as_it_works() -> None:
    given = torch.zeros(1, 2, 8, 4), torch.zeros(1, 2, 8, 5), torch.randn(1, 2, 3, 4), torch.randn(1, 2, 3, 5), 2
    torch.library.opcheck(operators.kv_append, given, raise_exception=True)
