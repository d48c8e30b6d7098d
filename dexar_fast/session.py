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
    """Holds the model's lock, sets it to eval and to our attention; restores all of it, whatever happens.

    Autocast is off inside: sums are taken in float32 or better, and the lens is held to the model's own logits. What
    torch.compile made of its modules is set aside: the pass hooks their own code, and tracing hooks takes minutes.
    """
    with (
        model_lock(model),
        torch.inference_mode(False),
        torch.autocast(model.device.type if model.device.type != "meta" else "cpu", enabled=False),
        ExitStack() as stack,
    ):
        modules = list(model.modules())
        training = [module for module in modules if module.training]
        # M-RoPE models keep the offset of the last prompt's positions between calls (facts.md).
        positioned = [module for module in modules if "rope_deltas" in vars(module)]
        compiled = [module for module in modules if module._compiled_call_impl is not None]  # by module.compile()
        wrappers = [module for module in modules if "_orig_mod" in module._modules]  # by torch.compile(module)
        _set_later(stack, training, "training")
        _set_later(stack, compiled, "_compiled_call_impl")
        _set_later(stack, wrappers, "forward")
        _set_later(stack, positioned, "rope_deltas")
        _set_later(stack, [model.config.get_text_config(decoder=True)], "_attn_implementation")
        for module in training:
            module.training = False
        for module in positioned:
            module.rope_deltas = None
        for module in compiled:
            module._compiled_call_impl = None
        for module in wrappers:
            module.forward = module._orig_mod.__call__
        model.config.get_text_config(decoder=True)._attn_implementation = attention.NAME
        yield


def _set_later(stack: ExitStack, owners: list[Any], name: str) -> None:
    """Has the stack set an attribute of each owner back to what it is now."""
    for owner in owners:
        stack.callback(setattr, owner, name, getattr(owner, name))
