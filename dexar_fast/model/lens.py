"""The logit lens: what the model does between its last decoder layer and its logits, for one row of the head.

It is traced from a forward of the model itself, never read off the config (METHOD.md section 2), as a short program
of module calls and tensor functions that reads x and ends in logits. x is what the decoder's layers hand on: [1, C, d],
or several streams of that, stacked along any axis (AltUp, hyper-connections).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_any, tree_map

from dexar_fast.errors import InputError, ModelError

CHECKED_TOKENS = 16
BLOCK = 64  # rows of a head's whole output at once


class Outdated(ModelError):
    """What was found of a model no longer holds: it has been changed since, or it changes from call to call."""


@dataclass(frozen=True)
class Slot:
    """A place in the program: stands for the tensor some earlier step produced."""

    index: int


@dataclass(frozen=True)
class Step:
    """slot[result] = function(*args, **kwargs), with every Slot in the arguments filled in."""

    function: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    result: int


@dataclass
class LogitLens:
    """The traced program, cut at the output head so that only the rows of the target tokens are computed."""

    before: list[Step]
    head: nn.Module
    after: list[Step]
    input_slot: int  # what the head reads
    logit_slot: int  # what the head writes
    output_slot: int
    rows: int  # how many ids have a logit
    axis: int = 1  # of x: the one of positions

    @property
    def modules(self) -> list[nn.Module]:
        """The modules of the model that the program calls."""
        called = [step.function for step in (*self.before, *self.after)]
        return [self.head, *(function for function in called if isinstance(function, nn.Module))]

    def last(self, hidden: Tensor, count: int) -> Tensor:
        """x at its last `count` positions."""
        return hidden.narrow(self.axis, hidden.shape[self.axis] - count, count)

    def norm(self, hidden: Tensor) -> Tensor:
        """x to the head's input [1, C, d]: the final norm, and what puts streams together."""
        return self._run(self.before, {0: hidden}, hidden.device)[self.input_slot]

    def logits(self, normed: Tensor, targets: Tensor) -> Tensor:
        """The logit of token targets[c] [C] at position c of the head's input [1, C, d], as [C]."""
        row = self._head_row(normed, targets.to(normed.device))[None, :, None]
        return self._run(self.after, {self.logit_slot: row}, normed.device)[self.output_slot].flatten()

    def __call__(self, hidden: Tensor, targets: Tensor) -> Tensor:
        """o(x_c)[v_c]: x at C positions and targets [C] to [C]."""
        return self.logits(self.norm(hidden), targets)

    def table(self, normed: Tensor, ids: Tensor) -> Tensor:
        """The logit of each of ids [C] at each position of the head's input [1, R, d], as [R, C]."""
        columns = self._head_columns(normed, ids)[None]
        return self._run(self.after, {self.logit_slot: columns}, normed.device)[self.output_slot][0]

    def slope(self, normed: Tensor, targets: Tensor) -> Tensor:
        """d o / d z [C] of what the model does to the head's output z, for each token's number by itself."""
        row = self._head_row(normed, targets.to(normed.device)).detach()
        with torch.enable_grad():
            row.requires_grad_()
            logits = self._run(self.after, {self.logit_slot: row[None, :, None]}, normed.device)[self.output_slot]
            return torch.autograd.grad(logits.sum(), row)[0]

    def _head_row(self, normed: Tensor, targets: Tensor) -> Tensor:
        if not self._has_rows:
            full = self.head(normed)[0]  # [C, V]
            return full.gather(1, targets.to(full.device)[:, None])[:, 0].to(normed.device)
        rows, bias = self._rows(normed, targets)
        logits = (normed[0].to(rows.dtype) * rows).sum(-1)
        return logits if bias is None else logits + bias

    def _head_columns(self, normed: Tensor, ids: Tensor) -> Tensor:
        if not self._has_rows:
            blocks = [self.head(block)[0] for block in normed.split(BLOCK, dim=1)]  # [BLOCK, V] each
            return torch.cat([block[:, ids.to(block.device)].to(normed.device) for block in blocks])
        rows, bias = self._rows(normed, ids)
        logits = normed[0].to(rows.dtype) @ rows.T
        return logits if bias is None else logits + bias

    @property
    def _has_rows(self) -> bool:
        """Whether rows of the head can be picked: not of one that is adapted, quantised or offloaded."""
        return type(self.head) is nn.Linear and not self.head.weight.is_meta

    def _rows(self, normed: Tensor, ids: Tensor) -> tuple[Tensor, Tensor | None]:
        """Rows [C, d] of the head, and their biases [C], where `normed` is, in float32 or better."""
        head: Any = self.head
        weight, bias = head.weight, head.bias
        dtype = torch.promote_types(normed.dtype, torch.float32)
        rows = weight[ids.to(weight.device)].to(normed.device, dtype)
        return rows, None if bias is None else bias[ids.to(bias.device)].to(rows)

    def _run(self, steps: list[Step], slots: dict[int, Tensor], device: torch.device) -> dict[int, Tensor]:
        def fill(value: Any) -> Any:
            return slots[value.index] if isinstance(value, Slot) else value

        for step in steps:
            args, kwargs = tree_map(fill, step.args), tree_map(fill, step.kwargs)
            slots[step.result] = _called(step.function, args, kwargs, device)
        return slots

    def check(self, normed: Tensor, logits: Tensor, targets: Tensor | None = None) -> None:
        """Compares the lens, from the head's input [1, Q, d] on, with the model's own logits [1, K, V] at the last row.

        Looks at CHECKED_TOKENS spread over the ids that the model may write, and at targets [C].
        Raises ModelError if they differ by more than 1e-5 of the largest logit (by 4 roundings in half precision), and
        InputError for a target that the model rules out (Chameleon: its image tokens).
        NaN and infinity pass: the pass itself names the layer they come from.
        """
        own = logits[0, -1, : self.rows].to(normed.device)
        largest, ids = float(own.abs().max()), None
        if largest >= torch.finfo(own.dtype).max:
            ids = _writable(own, targets)
            largest = float(own[ids].abs().max()) if len(ids) else math.nan
        if not math.isfinite(largest):
            return
        count = len(own) if ids is None else len(ids)
        checked = min(CHECKED_TOKENS, count)
        # torch's default dtype may count no further than 256
        tokens = torch.linspace(0, count - 1, checked, dtype=torch.float32, device=own.device).long()
        tokens = tokens if ids is None else ids[tokens]
        if targets is not None:
            tokens = torch.cat([tokens, targets.to(tokens)])
        traced = self.logits(normed[:, -1:].expand(-1, len(tokens), -1), tokens)
        error = (traced - own[tokens]).detach().abs()
        if float(error.max()) <= max(1e-5, 4 * torch.finfo(normed.dtype).eps) * largest:
            return
        worst = int(error.argmax())
        raise ModelError(
            f"the traced logit lens does not reproduce the model: token {int(tokens[worst])} has logit "
            f"{float(traced[worst]):.6g} by the lens and {float(own[tokens[worst]]):.6g} by the model itself"
        )


def _writable(logits: Tensor, targets: Tensor | None) -> Tensor:
    """The ids that logits [V] do not rule out. Raises InputError if they rule out any of targets [C]."""
    ruled_out = logits <= torch.finfo(logits.dtype).min
    if targets is not None and bool(ruled_out[targets.to(logits.device)].any()):
        raise InputError("target_ids must be ids that the model can write: it gives some of them no probability")
    return (~ruled_out).nonzero()[:, 0]


def _called(function: Callable[..., Any], args: Any, kwargs: Any, device: torch.device) -> Any:
    """A step's result on `device`, that of a sharded model's layer; a module elsewhere gets its inputs sent there."""
    weight = next(function.parameters(), None) if isinstance(function, nn.Module) else None
    if weight is None or weight.device == device or weight.is_meta:
        return function(*args, **kwargs)

    def sent(value: Any) -> Any:
        return value.to(weight.device) if isinstance(value, Tensor) else value

    return function(*tree_map(sent, args), **tree_map(sent, kwargs)).to(device)


def _axis_of_positions(lens: LogitLens, hidden: Tensor, length: int, logits: Tensor) -> int:
    """Which axis of x has an entry for each of `length` tokens; of several, the one that gives the model's logits.

    Raises ModelError if none has.
    """
    axes = [axis for axis, size in enumerate(hidden.shape[:-1]) if size == length]
    axes.sort(key=lambda axis: axis != 1)
    for axis in axes[:-1]:
        with suppress(RuntimeError, ModelError):
            lens.axis = axis
            lens.check(lens.norm(lens.last(hidden, 1)), logits)
            return axis
    if not axes:
        raise ModelError(
            f"the decoder's layers give hidden states {list(hidden.shape)}, none for each of {length} tokens"
        )
    return axes[-1]


def _keeps_shape(function: Callable[..., Any], args: tuple[Any, ...], output: Tensor) -> bool:
    """Whether it is a view in the shape that a tensor has: it names the number of positions (GPT-2)."""
    return function in (Tensor.view, Tensor.reshape) and output.shape == args[0].shape


class LensTracer(TorchFunctionMode):
    """Records what happens to the output of the last decoder layer until it becomes logits.

    `restart` is called with every decoder layer's output, so that only what follows the last one remains. Each call of
    a whole module is one step; between these, each tensor function is.
    """

    def __init__(self, head: nn.Module | None) -> None:
        super().__init__()
        self.head = head
        self.hidden: Tensor | None = None
        self._steps: list[Step] = []
        self._tensors: list[Tensor] = []  # keeps every tracked tensor alive, so that an id names one tensor only
        self._slots: dict[int, Slot] = {}
        self._paused = 0
        self.done = False

    def restart(self, hidden: Tensor) -> None:
        self._steps, self._tensors, self._slots = [], [], {}
        self.hidden = hidden
        self._track(hidden)

    def pause(self) -> None:
        self._paused += 1

    def resume(self) -> None:
        self._paused -= 1

    def record(self, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
        if self.done or self._paused or not isinstance(output, Tensor) or not self._reads_tracked((args, kwargs)):
            return
        if (function is Tensor.__getitem__ and args[0].ndim <= 3) or _keeps_shape(function, args, output):
            # a choice of positions, not of a stream: the lens treats each position alike
            self._alias(args[0], output)
            return
        args, kwargs = tree_map(self._slot, args), tree_map(self._slot, kwargs)
        self._steps.append(Step(function, args, kwargs, self._track(output).index))

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        output = func(*args, **(kwargs or {}))
        self.record(func, args, kwargs or {}, output)
        return output

    def finish(self, logits: Tensor, length: int) -> LogitLens:
        """The program that ends in `logits`, of a forward of `length` tokens.

        Raises:
            ModelError: it cannot be followed, or does not give those logits.
        """
        self.done = True
        head = next((i for i, step in enumerate(self._steps) if step.function is self.head), None)
        if head is None or id(logits) not in self._slots:
            raise ModelError(
                "the way from the last decoder layer to the logits could not be traced: the model needs an output "
                "head that get_output_embeddings() returns and that its forward applies to the last hidden state"
            )
        assert self.hidden is not None
        lens = self._cut(head, logits)
        lens.axis = _axis_of_positions(lens, self.hidden, length, logits)
        lens.check(lens.norm(lens.last(self.hidden, 1)), logits)
        return lens

    def _cut(self, head: int, logits: Tensor) -> LogitLens:
        """The steps before the head and those behind it."""
        step = self._steps[head]
        return LogitLens(
            before=self._steps[:head],
            head=step.function,  # type: ignore[arg-type]
            after=self._steps[head + 1 :],
            input_slot=step.args[0].index,
            logit_slot=step.result,
            output_slot=self._slots[id(logits)].index,
            rows=min(self._tensors[step.result].shape[-1], logits.shape[-1]),
        )

    def _track(self, tensor: Tensor) -> Slot:
        self._tensors.append(tensor)
        self._slots[id(tensor)] = Slot(len(self._tensors) - 1)
        return self._slots[id(tensor)]

    def _alias(self, source: Tensor, view: Tensor) -> None:
        slot = self._slots[id(source)]
        self._tensors.append(view)
        self._slots[id(view)] = slot

    def _reads_tracked(self, arguments: Any) -> bool:
        return bool(tree_any(lambda x: isinstance(x, Tensor) and id(x) in self._slots, arguments))

    def _slot(self, value: Any) -> Any:
        return self._slots.get(id(value), value) if isinstance(value, Tensor) else value
