"""Reading ahead: in order, one ahead, and an error where it is due."""

import threading

import pytest

from dexar_fast.jobs.ahead import ahead


def test_all_in_order_and_one_ahead() -> None:
    begun = [threading.Event() for _ in range(4)]

    def read(index: int) -> int:
        begun[index].set()
        return index * index

    for index, square in ahead(read, range(4)):
        assert square == index * index
        assert index == 3 or begun[index + 1].wait(10)
        assert index > 1 or not begun[index + 2].is_set()
    assert list(ahead(read, [])) == []


def test_an_error_comes_with_its_turn() -> None:
    found = ahead(lambda divisor: 6 // divisor, [3, 0, 1])
    assert next(found) == (3, 2)
    with pytest.raises(ZeroDivisionError):
        next(found)
