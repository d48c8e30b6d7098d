"""The modules of a model and what functions take by keyword, in a fraction of the time that torch and inspect take."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import lru_cache
from inspect import Parameter
from typing import Any

from torch import nn

OFFSETS = "rope_deltas"  # where M-RoPE models keep the offset of the last prompt's positions between calls


def below(module: nn.Module) -> list[nn.Module]:
    """A module and all modules inside it, each once: those of modules(), but level by level."""
    found, known = [module], {module}
    for each in found:
        for child in each._modules.values():
            if child is not None and child not in known:
                known.add(child)
                found.append(child)
    return found


def has_offsets(model: nn.Module) -> bool:
    """Whether its next positions depend on the last prompt's."""
    return bool(offsets_in(model))


def offsets_in(model: nn.Module) -> list[dict[str, Any]]:
    """The attributes of its modules that keep offsets."""
    return [vars(module) for module in below(model) if OFFSETS in vars(module)]


@contextmanager
def offsets_kept(model: nn.Module) -> Iterator[None]:
    """Puts back what a forward inside the block makes of the offsets that generate() goes on with."""
    with _kept(offsets_in(model)):
        yield


@contextmanager
def offsets_aside(model: nn.Module) -> Iterator[None]:
    """Inside the block there are none: from them a model counts positions on the CPU, and sends them to the device."""
    holders = offsets_in(model)
    with _kept(holders):
        for attributes in holders:
            attributes[OFFSETS] = None
        yield


@contextmanager
def _kept(holders: Sequence[dict[str, Any]]) -> Iterator[None]:
    held = [(attributes, attributes[OFFSETS]) for attributes in holders]
    try:
        yield
    finally:
        for attributes, offset in held:
            attributes[OFFSETS] = offset


def parameters(function: Callable[..., Any]) -> Mapping[str, Parameter]:
    """The parameters of a function by name; a method's include `self`."""
    return _parameters(getattr(function, "__func__", function))


@lru_cache(maxsize=64)
def _parameters(function: Callable[..., Any]) -> Mapping[str, Parameter]:
    return inspect.signature(function).parameters
