"""A prompt and its answer through the model once, each layer's attention shown to whoever asks for it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from torch import Tensor, nn

from dexar_fast.attribution.layer_pass import ELSEWHERE
from dexar_fast.errors import ModelError
from dexar_fast.model.attention import Call, check_keys
from dexar_fast.model.decoder import Decoder, PromptWatcher
from dexar_fast.model.lens.program import Outdated
from dexar_fast.model.masks import is_causal
from dexar_fast.model.prefill import takes_answer
from dexar_fast.model.teacher_forcing import head_inputs


class Take(Protocol):
    """What is called after the attention of a layer, in each forward that runs it (see `teacher_force`)."""

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
        against: [T] ids whose logits are taken off those of the answer.
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
        against: Tensor | None = None,
    ) -> None:
        self._prompt = inputs["input_ids"].shape[1]
        super().__init__(model, self._prompt, inputs)
        self._request = inputs, targets, visual
        self._at_once = takes_answer(inputs, decoder, visual)
        self._decoder = decoder
        self._take = take
        self._against = against
        self._wanted = {id(decoder.attentions[i]): i for i in layers}
        self._attended: set[int] = set()
        self._masks: dict[int, Tensor | None] = {}  # by id, each kept alive so that no other gets its id

    def run(self) -> Tensor:
        """The model's logits of the answer's tokens [T], or their differences, in the graph where autograd records.

        Raises:
            ModelError: a layer attends elsewhere, or drops keys, or the model no longer computes what its lens does.
        """
        inputs, targets, visual = self._request
        normed = head_inputs(self.model, inputs, targets[:-1], self._decoder, visual, self)
        for index in self._wanted.values():
            if index not in self._attended:
                raise ModelError(f"decoder layer {index} ({type(self._decoder.layers[index]).__name__}) {ELSEWHERE}")
        return self._decoder.lens.difference(normed[:, -len(targets) :], targets, self._against)

    def attention(self, module: nn.Module, output: Tensor, call: Call) -> Tensor:
        index = self._wanted.get(id(module))
        if index is None:
            return output
        alone = not self._at_once and index not in self._attended  # then the prompt is the first of two forwards
        keys = self._prompt if alone else self._prompt + len(self._request[1]) - 1
        check_keys(module, call.value, keys)
        self._check_causal(module, call.mask, keys)
        self._attended.add(index)
        behind = self._prompt - 1  # of the prompt, those that predict no token of the answer
        return self._take(index, call, output, slice(max(0, keys - call.query.shape[2] - behind), keys - behind))

    def _check_causal(self, module: nn.Module, mask: Tensor | None, keys: int) -> None:
        """Raises Outdated if the prompt must not run along with its answer after all; the next request knows."""
        if not self._at_once or id(mask) in self._masks:
            return
        self._masks[id(mask)] = mask
        if not is_causal(module, mask, keys):
            self._decoder.causal = False
            raise Outdated("tokens of the prompt have begun to read those behind them: explain it again")
