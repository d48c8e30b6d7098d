"""The lock of each model, and what a forked child must know: of its parent's threads it has only the one that forked.

A lock that another thread held is never released in the child, and a torch that has run on several threads waits there
for the ones it lost. Both would hang; here both are errors.
"""

from __future__ import annotations

import os
import threading
from weakref import WeakKeyDictionary, WeakSet

import torch
from torch import nn

from dexar_fast.errors import InputError

_locks: WeakKeyDictionary[nn.Module, threading.RLock] = WeakKeyDictionary()
_guard = threading.Lock()
_never_returned: WeakSet[nn.Module] = WeakSet()  # on loan to another thread of the parent at the fork
_had_models = False
_forked_with_models = False


def model_lock(model: nn.Module) -> threading.RLock:
    """The one lock of a model: attention settings and hooks are global to it."""
    global _had_models
    with _guard:
        _had_models = True
        return _locks.setdefault(model, threading.RLock())


def is_borrowed_here(model: nn.Module) -> bool:
    """Whether this thread holds the model's lock. If so, it must not wait for another thread that wants it."""
    return model_lock(model)._is_owned()  # type: ignore[attr-defined]


def check_process(model: nn.Module | None = None) -> None:
    """Raises InputError in a forked child in which torch, or a wait for the model, would hang."""
    if model is not None:
        model_lock(model)  # a child that is forked from here must know that there was one
    if model in _never_returned:
        raise InputError(
            "this process was forked while another thread of its parent explained with this model, which is never "
            "given back here: start processes with multiprocessing's 'spawn', or fork between explanations"
        )
    if _forked_with_models and torch.get_num_threads() > 1:
        raise InputError(
            "this process was forked from one that held a model, and torch would wait for threads that only the parent "
            "has: start processes with multiprocessing's 'spawn' (an Explainer can be pickled), or call "
            "torch.set_num_threads(1) here first"
        )


def _after_fork() -> None:
    """In the child. What the thread that forked holds is held here too."""
    global _guard, _forked_with_models
    _guard = threading.Lock()
    _forked_with_models = _had_models
    for model, lock in list(_locks.items()):
        if lock.acquire(blocking=False):
            lock.release()
        else:
            _never_returned.add(model)


os.register_at_fork(after_in_child=_after_fork)
