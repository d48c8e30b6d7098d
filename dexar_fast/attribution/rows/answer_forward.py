"""A prompt and its answer through the model once, each layer's attention shown to whoever asks for it.

Where no token of the prompt reads a later one, they run in one forward. Otherwise the prompt runs by itself, and the
answer over its cache. Either way each query runs once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from dexar_fast.attribution.layer_pass import ELSEWHERE
from dexar_fast.errors import ModelError
from dexar_fast.model.attention import Call, check_keys
from dexar_fast.model.cache import to_forward, whole_cache
from dexar_fast.model.decoder import Decoder, PromptWatcher, hidden_states
from dexar_fast.model.logits import last_logits
from dexar_fast.model.prefill import run, takes_answer, with_answer

Forward = Callable[[], Any]


class Take(Protocol):
    """What is called after the attention of each layer that was asked for, in each forward."""

    def __call__(self, layer: int, call: Call, output: Tensor, tokens: slice) -> Tensor:
        """Returns the output [1, Q, H, D_v] to go on with.

        Args:
            layer: index among the layers that hold attention.
            tokens: of the answer, those that the last queries of the call predict.
        """
        ...


class AnswerForward(PromptWatcher):
    """Prompt and answer, ready to run.

    Args:
        inputs: the prompt's, batch 1. targets: [T] ids of the answer. visual: [N] positions of the visual tokens.
        layers: the layers whose attention `take` gets.
    Raises:
        ModelError: layers that keep anything but keys and values (linear attention, say), named by their class.
    """

    def __init__(
        self,
        model: Any,
        decoder: Decoder,
        inputs: Mapping[str, Any],
        targets: Tensor,
        visual: Tensor,
        layers: list[int],
        take: Take,
    ) -> None:
        self._inputs = inputs
        self._ids = inputs["input_ids"]
        super().__init__(model, self._ids.shape[1], inputs)
        self._decoder = decoder
        self._targets = targets.to(self._ids.device)
        self._at_once = takes_answer(inputs, decoder, visual)
        self._cache = whole_cache(model.config)
        self._take = take
        self._wanted = {id(decoder.attentions[i]): i for i in layers}
        self._attended: set[int] = set()  # layers, in this forward
        self._keys = 0  # once this forward has run
        self._tokens = slice(0)
        self._hidden: Tensor  # [1, Q, d] output of the decoder's last layer
        self._logits: Tensor  # [1, 1, V] of the last query

    def run(self) -> Tensor:
        """The model's logits of the answer's tokens [T], in the graph where autograd records.

        Raises:
            ModelError: a layer attends elsewhere, or drops keys, or the model no longer computes what its lens does.
        """
        with self.watching(), self._outputs_kept():
            return torch.cat([self._logits_of(*each) for each in self._forwards()])

    def _forwards(self) -> Iterator[tuple[slice, int, Forward]]:
        """The tokens that each forward predicts, how many keys there are behind it, and the forward."""
        prompt, tokens = self._ids.shape[1], len(self._targets)
        if self._at_once:
            whole = with_answer(self._inputs, self._targets[:-1])
            yield slice(0, tokens), prompt + tokens - 1, partial(run, self.model, self._cache, whole, True)
            return
        yield slice(0, 1), prompt, partial(run, self.model, self._cache, self._inputs, True)
        if tokens > 1:
            yield slice(1, tokens), prompt + tokens - 1, self._answer

    def _answer(self) -> None:
        with ExitStack() as stack:
            for module in self.last_positions:
                stack.callback(module.register_forward_pre_hook(self._count_on, with_kwargs=True).remove)
            passed = to_forward(self.model, self._cache) | last_logits(self.model)
            self.model(input_ids=self._targets[None, :-1], use_cache=True, **passed)

    def _count_on(self, module: nn.Module, args: Any, kwargs: dict[str, Any]) -> Any:
        return args, kwargs | {"position_ids": self.counted_on(module, 1, len(self._targets) - 1)}

    def _logits_of(self, tokens: slice, keys: int, forward: Forward) -> Tensor:
        self._tokens, self._keys = tokens, keys
        self._attended.clear()
        forward()
        self._check_attended()
        lens, targets = self._decoder.lens, self._targets[tokens]
        normed = lens.norm(self._hidden[:, tokens.start - tokens.stop :])
        lens.check(normed.detach(), self._logits, targets)
        return lens.logits(normed, targets)

    def _check_attended(self) -> None:
        for index in self._wanted.values():
            if index not in self._attended:
                raise ModelError(f"decoder layer {index} ({type(self._decoder.layers[index]).__name__}) {ELSEWHERE}")

    def attention(self, module: nn.Module, output: Tensor, call: Call) -> Tensor:
        index = self._wanted.get(id(module))
        if index is None:
            return output
        check_keys(module, call.value, self._keys)
        self._attended.add(index)
        return self._take(index, call, output, self._tokens)

    @contextmanager
    def _outputs_kept(self) -> Iterator[None]:
        with ExitStack() as stack:
            stack.callback(self._decoder.last.register_forward_hook(self._keep_hidden).remove)
            stack.callback(self.model.register_forward_hook(self._keep_logits).remove)
            yield

    def _keep_hidden(self, module: nn.Module, args: Any, output: Any) -> None:
        self._hidden = hidden_states(output)

    def _keep_logits(self, module: nn.Module, args: Any, output: Any) -> None:
        self._logits = output.logits[:, -1:].detach()
