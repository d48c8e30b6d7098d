"""What hooks, forwards and flags of a user may make of modules: what is bent for gradients alone shows in no number."""

from __future__ import annotations

from typing import Any

from torch import nn
from torch.nn.modules import module as all_modules

NUMBERS = (float, int, bool, str)
PASSIVE = {"training", "gradient_checkpointing"}  # flags that are off, or change nothing, while a model is on loan
OBSERVERS = "transformers.utils."  # its hooks capture outputs and change none


def behaviour(modules: list[nn.Module]) -> list[Any]:
    """What modules do to their inputs: their forwards, the kinds of their weights, and numbers that they may read."""
    forwards = [module.forward for module in modules]
    kinds = [type(dict(module._parameters).get("weight")) for module in modules]
    numbers = [
        x
        for m in modules
        if type(m) is not nn.Linear
        for name, x in vars(m).items()
        if type(x) in NUMBERS and name not in PASSIVE
    ]
    return [*forwards, *kinds, *numbers]


def hooks_before(modules: list[nn.Module]) -> list[Any]:
    """The hooks that may change the modules' inputs."""
    return [hook for m in modules if m._forward_pre_hooks for hook in m._forward_pre_hooks.values()]


def hooks_behind(modules: list[nn.Module]) -> list[Any]:
    """The hooks that may change the modules' outputs, or the gradients of these."""
    kinds = [(m._forward_hooks, m._backward_hooks, m._backward_pre_hooks) for m in modules]
    return [hook for some in kinds if any(some) for hooks in some for hook in hooks.values()]


def hooks_of_all() -> list[Any]:
    """The hooks that torch runs at every module there is."""
    forward = all_modules._global_forward_pre_hooks, all_modules._global_forward_hooks
    backward = all_modules._global_backward_pre_hooks, all_modules._global_backward_hooks
    return [hook for hooks in (*forward, *backward) for hook in hooks.values()]


def has_own_forward(module: nn.Module) -> bool:
    """Whether a module's forward is not its class's. One of accelerate's does not count: it only moves tensors."""
    return "forward" in vars(module) and not hasattr(module, "_hf_hook")


def may_change(hooks: list[Any]) -> bool:
    """Whether any of the hooks may change something, in this call or a later one."""
    return any(not str(getattr(hook, "__module__", "")).startswith(OBSERVERS) for hook in hooks)
