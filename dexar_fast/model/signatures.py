"""What functions take by keyword: needed in every forward, and slow to find out."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from functools import lru_cache
from inspect import Parameter
from typing import Any


def parameters(function: Callable[..., Any]) -> Mapping[str, Parameter]:
    """The parameters of a function by name; a method's include `self`."""
    return _parameters(getattr(function, "__func__", function))


@lru_cache(maxsize=64)
def _parameters(function: Callable[..., Any]) -> Mapping[str, Parameter]:
    return inspect.signature(function).parameters
