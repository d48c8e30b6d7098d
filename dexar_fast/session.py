"""A model on loan: one user at a time, its text attention routed through ours, everything put back afterwards."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import nn

from dexar_fast import attention

_locks: WeakKeyDictionary[nn.Module, threading.RLock] = WeakKeyDictionary()
_locks_guard = threading.Lock()


def model_lock(model: nn.Module) -> threading.RLock:
    """The one lock of a model: attention settings and hooks are global to it."""
    with _locks_guard:
        return _locks.setdefault(model, threading.RLock())


@contextmanager
def borrowed(model: Any) -> Iterator[None]:
    """Holds the model's lock, sets it to eval and to our attention; restores all of it, whatever happens."""
    with model_lock(model), torch.inference_mode(False), ExitStack() as stack:
        stack.callback(_restore_training, [(m, m.training) for m in model.modules()])
        stack.callback(_restore_positions, [(m, m.rope_deltas) for m in model.modules() if hasattr(m, "rope_deltas")])
        config = model.config.get_text_config(decoder=True)
        stack.callback(setattr, config, "_attn_implementation", config._attn_implementation)
        model.eval()
        _restore_positions([(m, None) for m in model.modules() if hasattr(m, "rope_deltas")])
        config._attn_implementation = attention.NAME
        yield


def _restore_training(flags: list[tuple[nn.Module, bool]]) -> None:
    for module, training in flags:
        module.training = training


def _restore_positions(deltas: list[tuple[nn.Module, Any]]) -> None:
    """M-RoPE models keep the offset of the last prompt's positions between calls (facts.md)."""
    for module, delta in deltas:
        module.rope_deltas = delta
