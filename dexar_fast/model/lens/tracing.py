"""Records, in one forward of a model, what happens to its last decoder layer's output until that becomes logits."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from operator import getitem
from typing import Any

from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_any, tree_leaves, tree_map

from dexar_fast.errors import ModelError
from dexar_fast.model.lens.beside import Visit, found, is_of_tokens
from dexar_fast.model.lens.program import BESIDE, LogitLens, Slot, Step


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


def _reading(step: Step, states: Tensor) -> Step:
    """The step with these states read anew each time."""
    args, kwargs = tree_map(lambda x: Slot(BESIDE) if x is states else x, (step.args, step.kwargs))
    return Step(step.function, args, kwargs, step.result)


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
        self._tensors: list[Any] = []  # keeps every tracked tensor alive, so that an id names one tensor only
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
        parts = output if isinstance(output, tuple) else (output,)
        known = all(isinstance(part, Tensor) for part in parts)
        if self.done or self._paused or not known or not self._reads_tracked((args, kwargs)):
            return
        if (function is Tensor.__getitem__ and args[0].ndim <= 3) or _keeps_shape(function, args, output):
            # a choice of positions, not of a stream: the lens treats each position alike
            self._alias(args[0], output)
            return
        args, kwargs = tree_map(self._slot, args), tree_map(self._slot, kwargs)
        result = self._track(output)
        self._steps.append(Step(function, args, kwargs, result.index))
        for number, part in enumerate(parts if isinstance(output, tuple) else ()):
            self._steps.append(Step(getitem, (result, number), {}, self._track(part).index))

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        output = func(*args, **(kwargs or {}))
        self.record(func, args, kwargs or {}, output)
        return output

    def finish(self, logits: Tensor, length: int, visits: Sequence[Visit] = ()) -> LogitLens:
        """The program that ends in `logits`, of a forward of `length` tokens; visits: of layers that got states.

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
        states = self._take_states(lens, length, visits)
        if states is None:
            lens.axis = _axis_of_positions(lens, self.hidden, length, logits)
        lens.check(lens.norm(self.hidden, states), logits)
        return lens

    def _take_states(self, lens: LogitLens, length: int, visits: Sequence[Visit]) -> Tensor | None:
        """Makes the lens read states of earlier layers anew, and returns those of this forward.

        Raises:
            ModelError: it reads some of which it cannot be told how they came to be.
        """
        for number, step in enumerate(lens.before):
            of_tokens = [x for x in tree_leaves((step.args, step.kwargs)) if is_of_tokens(x, length)]
            for states in of_tokens:
                lens.beside = found(visits, states)
                if lens.beside is None or len(of_tokens) > 1 or not isinstance(step.function, nn.Module):
                    raise ModelError(
                        f"{getattr(step.function, '__name__', type(step.function).__name__)}, behind the decoder's "
                        "layers, reads more than the output of the last of them: not supported"
                    )
                lens.before[number] = _reading(step, states)
                return states
        return None

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

    def _track(self, tensor: Any) -> Slot:
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
