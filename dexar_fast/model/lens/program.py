"""The logit lens: what the model does between its last decoder layer and its logits, for one row of the head.

It is traced from a forward of the model itself, never read off the config (METHOD.md section 2), as a short program
of module calls and tensor functions that reads x and ends in logits. x is what the decoder's layers hand on: [1, C, d],
or several streams of that, stacked along any axis (AltUp, hyper-connections).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.linalg import vector_norm
from torch.utils._pytree import tree_map

from dexar_fast.errors import InputError, ModelError
from dexar_fast.model.lens.beside import Beside

CHECKED_TOKENS = 16
BLOCK = 64  # rows of a head's whole output at once
BESIDE = -1  # the slot of states of earlier layers


class Outdated(ModelError):
    """What was found of a model no longer holds: it has been changed since, or it changes from call to call."""


@dataclass(frozen=True)
class Slot:
    """A place in the program: stands for the tensor some earlier step produced."""

    index: int


class Compared(NamedTuple):
    """Logits of some tokens by the lens and by the model; the largest of the model's, and the largest difference."""

    tokens: Tensor
    traced: Tensor
    own: Tensor
    largest: float
    error: float


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
    beside: Beside | None = None  # what it reads of earlier layers

    @property
    def modules(self) -> list[nn.Module]:
        """The modules of the model that the program calls."""
        called = [step.function for step in (*self.before, *self.after)]
        return [self.head, *(function for function in called if isinstance(function, nn.Module))]

    def last(self, hidden: Tensor, count: int) -> Tensor:
        """x at its last `count` positions."""
        return hidden.narrow(self.axis, hidden.shape[self.axis] - count, count)

    def norm(self, hidden: Tensor, states: Tensor | None = None) -> Tensor:
        """x to the head's input [1, C, d]: the final norm, and what puts streams together.

        Args:
            states: [1, C, n, d] of earlier layers, where the lens reads them.
        """
        read = {0: hidden} if states is None else {0: hidden, BESIDE: states}
        return self._run(self.before, read, self.input_slot, hidden.device)

    def logits(self, normed: Tensor, targets: Tensor) -> Tensor:
        """The logit of token targets[c] [C] at position c of the head's input [1, C, d], as [C]."""
        row = self._head_row(normed, targets.to(normed.device))[None, :, None]
        return self._run(self.after, {self.logit_slot: row}, self.output_slot, normed.device).flatten()

    def difference(self, normed: Tensor, targets: Tensor, against: Tensor | None) -> Tensor:
        """The logits of targets [C], less those of other ids [C] where there are some; as `logits`."""
        found = self.logits(normed, targets)
        return found if against is None else found - self.logits(normed, against)

    def __call__(self, hidden: Tensor, targets: Tensor) -> Tensor:
        """o(x_c)[v_c]: x at C positions and targets [C] to [C]."""
        return self.logits(self.norm(hidden), targets)

    def table(self, normed: Tensor, ids: Tensor) -> Tensor:
        """The logit of each of ids [C] at each position of the head's input [1, R, d], as [R, C]."""
        columns = self._head_columns(normed, ids)[None]
        return self._run(self.after, {self.logit_slot: columns}, self.output_slot, normed.device)[0]

    def slope(self, normed: Tensor, targets: Tensor) -> Tensor:
        """d o / d z [C] of what the model does to the head's output z, for each token's number by itself."""
        row = self._head_row(normed, targets.to(normed.device)).detach()
        with torch.enable_grad():
            row.requires_grad_()
            logits = self._run(self.after, {self.logit_slot: row[None, :, None]}, self.output_slot, normed.device)
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

    def _run(self, steps: list[Step], slots: dict[int, Tensor], result: int, device: torch.device) -> Tensor:
        """A slot after some steps, on `device`: a sharded model sends its logits to where its inputs were."""

        def fill(value: Any) -> Any:
            return slots[value.index] if isinstance(value, Slot) else value

        for step in steps:
            args, kwargs = tree_map(fill, step.args), tree_map(fill, step.kwargs)
            slots[step.result] = _called(step.function, args, kwargs, device)
        return slots[result].to(device)

    def check(self, normed: Tensor, logits: Tensor, targets: Tensor | None = None) -> None:
        """Compares the lens, from the head's input [1, Q, d] on, with the model's own logits [1, K, V] at the last row.

        Looks at CHECKED_TOKENS spread over the ids that the model may write, and at targets [C].
        Raises ModelError if they differ by more than 1e-5 of the largest logit (by 4 roundings in half precision), and
        InputError for a target that the model rules out (Chameleon: its image tokens).
        NaN and infinity pass: the pass itself names the layer they come from.
        """
        own = logits[0, -1, : self.rows].detach().to(normed.device)
        found = self._compared(normed, own, None, targets)
        if found.largest >= torch.finfo(own.dtype).max:
            ids = _writable(own, targets)
            if len(ids) == 0:
                return
            found = self._compared(normed, own, ids, targets)
        bound = max(1e-5, 4 * torch.finfo(normed.dtype).eps) * found.largest
        if not math.isfinite(found.largest) or found.error <= bound:
            return
        worst = int((found.traced - found.own).abs().argmax())
        raise ModelError(
            f"the traced logit lens does not reproduce the model: token {int(found.tokens[worst])} has logit "
            f"{float(found.traced[worst]):.6g} by the lens and {float(found.own[worst]):.6g} by the model itself"
        )

    def _compared(self, normed: Tensor, own: Tensor, ids: Tensor | None, targets: Tensor | None) -> Compared:
        """The model's own logits [V] beside the lens at some of these ids, of all if None, and at the targets."""
        count = len(own) if ids is None else len(ids)
        # torch's default dtype may count no further than 256
        places = torch.linspace(0, count - 1, min(CHECKED_TOKENS, count), dtype=torch.float32, device=own.device)
        tokens = places.long() if ids is None else ids[places.long()]
        if targets is not None:
            tokens = torch.cat([tokens, targets.to(tokens)])
        traced = self.logits(normed[:, -1:].expand(-1, len(tokens), -1), tokens).detach()
        there, seen = own[tokens], own if ids is None else own[ids]
        off = traced - there
        extremes = [vector_norm(x, math.inf, dtype=off.dtype) for x in (seen, off)]
        return Compared(tokens, traced, there, *torch.stack(extremes).tolist())  # one wait


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

    def back(value: Any) -> Any:
        return value.to(device) if isinstance(value, Tensor) else value

    return tree_map(back, function(*tree_map(sent, args), **tree_map(sent, kwargs)))
