"""Checks of the knobs of methods: each names the knob and the value that it refuses, as InputError."""

from __future__ import annotations

import math
from collections.abc import Iterable
from numbers import Integral, Real
from typing import Any

from dexar_fast.errors import InputError

MOST_SEED = 2**64 - 1


def whole(name: str, value: Any, least: int) -> int:
    """A whole number of at least `least`; numpy's are fine, bools are not."""
    if not _is_whole(value) or value < least:
        raise InputError(f"{name} is a whole number of at least {least}, not {value!r}")
    return int(value)


def index(name: str, value: Any) -> int:
    """A whole number that may be negative: it counts from the end."""
    if not _is_whole(value):
        raise InputError(f"{name} is a whole number, not {value!r}")
    return int(value)


def indices(name: str, values: Any) -> list[int]:
    """A list of whole numbers."""
    found = values.tolist() if hasattr(values, "tolist") else values
    if isinstance(found, str) or not isinstance(found, Iterable):
        raise InputError(f"{name} is a list of whole numbers, not {values!r}")
    return [index(f"each of {name}", value) for value in found]


def tokens_of(chosen: Iterable[int] | None, count: int) -> list[int]:
    """Which tokens of an answer of `count`, from 0; None is all. Raises InputError for one beyond."""
    tokens = [*range(count)] if chosen is None else [*chosen]
    if any(not -count <= token < count for token in tokens):
        raise InputError(f"tokens {tokens} must name tokens of the answer, 0 to {count - 1}")
    return [token % count for token in tokens]


def seed(value: Any) -> int:
    """What a generator of random numbers starts from."""
    if whole("seed", value, 0) > MOST_SEED:
        raise InputError(f"seed is at most {MOST_SEED}, not {value!r}")
    return int(value)


def real(name: str, value: Any) -> float:
    """A finite number of at least 0; numpy's are fine, bools are not."""
    if isinstance(value, bool) or not isinstance(value, Real) or not 0 <= _float(value) < math.inf:
        raise InputError(f"{name} is a finite number of at least 0, not {value!r}")
    return float(value)


def reals(name: str, values: Any) -> list[float]:
    """A list of finite numbers of at least 0."""
    found = values.tolist() if hasattr(values, "tolist") else values
    if isinstance(found, str) or not isinstance(found, Iterable):
        raise InputError(f"{name} is a list of numbers, not {values!r}")
    return [real(f"each of {name}", value) for value in found]


def flag(name: str, value: Any) -> None:
    """True or False."""
    if not isinstance(value, bool):
        raise InputError(f"{name} is True or False, not {value!r}")


def one_of(name: str, value: Any, known: Iterable[str]) -> None:
    """A known name."""
    known = tuple(known)
    if not isinstance(value, str) or value not in known:
        raise InputError(f"{name} is one of {', '.join(map(repr, known))}, not {value!r}")


def _is_whole(value: Any) -> bool:
    return isinstance(value, Integral) and not isinstance(value, bool)


def _float(value: Real) -> float:
    try:
        return float(value)
    except OverflowError:
        return math.inf
