"""Tensors and prompts that several tests of the pass take."""

from __future__ import annotations

from typing import Any

import torch
import zoo
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode


class SquareTensors(TorchDispatchMode):
    """Every floating tensor with two axes as long as the prompt or longer sequences."""

    def __init__(self, lengths: range) -> None:
        super().__init__()
        self.lengths = lengths
        self.found: list[tuple[str, tuple[int, ...]]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        output = func(*args, **(kwargs or {}))
        tensors = [x for x in (output if isinstance(output, tuple | list) else [output]) if isinstance(x, torch.Tensor)]
        for shape in (tuple(x.shape) for x in tensors if x.is_floating_point()):
            if sum(size in self.lengths for size in shape) > 1:
                self.found.append((str(func), shape))
        return output


def state(model: nn.Module) -> list[Any]:
    """What a call may not leave changed."""
    hooks = [(len(m._forward_hooks), len(m._forward_pre_hooks), m.training) for m in model.modules()]
    implementation = model.config.text_config._attn_implementation
    return [hooks, [x.requires_grad for x in model.parameters()], implementation, torch.is_grad_enabled()]


def long_prompt(inputs: zoo.Inputs, tokens: int) -> zoo.Inputs:
    """More words behind the prompt; every input of its shape is drawn out with its last value."""
    shape = inputs["input_ids"].shape
    longer = {k: v for k, v in inputs.items() if v.shape == shape}
    return inputs | {k: torch.cat([v, v[:, -1:].expand(1, tokens)], dim=1) for k, v in longer.items()}
