"""The attention probabilities of chosen rows, from a model that never makes an attention matrix."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from dexar_fast.attribution.calls.turns import Turns
from dexar_fast.attribution.layer_pass import ELSEWHERE
from dexar_fast.attribution.rows.probabilities import probabilities
from dexar_fast.errors import InputError, ModelError, NumericalError
from dexar_fast.lowlevel.lent import Lent, layers_of, lent
from dexar_fast.model.agreement import agreement_of
from dexar_fast.model.attention import Call, Watcher, watcher
from dexar_fast.model.cache import of_whole_forward
from dexar_fast.model.decoder import Decoder
from dexar_fast.model.kinds import DECODER_IDS, encodes
from dexar_fast.model.logits import last_logits

BLOCK_BYTES = 4 * 2**20  # of the probabilities that are made at once


def attention_rows(
    model: Any, inputs: Mapping[str, Any], rows: Sequence[int], layers: Sequence[int] | None = None
) -> dict[int, Tensor]:
    """A_l[h, r, j] of chosen queries r: what `output_attentions=True` gives of them, from one forward under SDPA.

    The probabilities are made again from the queries and keys that SDPA got, for these rows alone: after soft caps,
    position biases, sinks (which take a part of the sum and have no column), windows and masks; METHOD.md section 8.
    Beside the result this takes O(rows x S) memory, never O(S^2). The first call for a model runs it twice more: to
    find its layers, and to compare it with itself under its own attention. The model is left as it was.

    Args:
        model: a transformers model that writes text, with images or without; also inside PEFT's or torch's wrappers.
        inputs: of one sequence of S tokens, as the processor or tokenizer returns them, the prompt alone or with an
            answer behind it: input_ids [1, S], pixel_values, ...; token types (PaliGemma, Gemma 3) say which tokens
            read ahead. An encoder-decoder takes decoder_input_ids [1, S] too.
        rows: positions in that sequence, negative from the end, in any order.
        layers: which of the layers that hold attention, negative from the end, numbered as `outputs.attentions`; None
            is all of them.
    Returns:
        [H, R, S] for each layer, float32 (float64 of a float64 model), on the layer's device, in the order of `rows`; 0
        for keys that a row may not read. A layer with cross-attention gives the keys that it reads in place of S.
    Raises:
        InputError: rows or layers that do not exist, a batch, padding, inputs that the model refuses.
        ModelError: a layer that attends by its own code, not through transformers' AttentionInterface; a model without
            softmax attention. OutOfMemoryError: the forward does not fit. NumericalError: NaN in a layer's attention.
    """
    with lent(model, inputs) as given:
        wanted = _numbers(rows)
        _check_decoder_ids(given)
        decoder = given.decoder()
        taking = RowsOfLayers(given, decoder, wanted, layers_of(layers, decoder))
        given.check_agrees(taking.run())
    return taking.found


class RowsOfLayers(Watcher):
    """Takes the rows of each chosen layer in its own forward."""

    def __init__(self, given: Lent, decoder: Decoder, rows: Tensor, layers: list[int]) -> None:
        super().__init__(given.model, agreement_of(given.model).met, given.inputs)
        self.found: dict[int, Tensor] = {}
        self._inputs = given.inputs
        self._decoder = decoder
        self._rows = rows
        self._layers = layers
        self._turns = Turns(decoder)
        for layer in layers:
            if decoder.attentions[layer] in decoder.by_hand:
                raise ModelError(f"{self._name(layer)} writes its attention out: its rows cannot be read from outside")

    def run(self) -> Tensor:
        """The forward; returns the logits [V] of the last token."""
        length = self._inputs["input_ids"].shape[1] if "input_ids" in self._inputs else 0
        passed = of_whole_forward(self.model, length) | last_logits(self.model)
        token = watcher.set(self)
        try:
            logits: Tensor = self.model(**self._inputs, **passed).logits
        finally:
            watcher.reset(token)
        for layer in self._layers:
            self._check(layer)
        return logits[0, -1]

    def _check(self, layer: int) -> None:
        if layer not in self.found:
            raise ModelError(f"{self._name(layer)} {ELSEWHERE}")
        if not bool(self.found[layer].sum().isfinite()):
            raise NumericalError(f"{self._name(layer)}: NaN in its attention, from its weights or what enters it")

    def attention(self, module: nn.Module, output: Tensor, call: Call) -> Tensor:
        index = self._turns.of_attention(module)
        if index in self._layers:
            self.found[index] = in_blocks(call, _positions(self._rows, call.query.shape[2]).to(call.query.device))
        return output

    def _name(self, layer: int) -> str:
        return f"decoder layer {layer} ({type(self._decoder.layers[layer]).__name__})"


def in_blocks(call: Call, rows: Tensor) -> Tensor:
    """A[h, r, j] of some queries [R], a few at a time: [H, R, S], float32 or better."""
    heads, keys = call.query.shape[1], call.key.shape[2]
    dtype = torch.promote_types(call.query.dtype, torch.float32)
    found = torch.empty(heads, len(rows), keys, dtype=dtype, device=rows.device)
    size = max(1, BLOCK_BYTES // (dtype.itemsize * heads * keys))
    for first in range(0, len(rows), size):
        some = slice(first, first + size)
        found[:, some] = probabilities(call, rows[some])
    return found


def _check_decoder_ids(given: Lent) -> None:
    if encodes(given.model) and DECODER_IDS not in given.inputs:
        raise InputError(
            f"{type(given.model).__name__} is an encoder-decoder, and rows are positions in its decoder: pass "
            f"{DECODER_IDS} beside the other inputs"
        )


def _numbers(rows: Any) -> Tensor:
    """Rows as users hold them: [R] int64 on the CPU. Raises InputError."""
    try:
        found = torch.as_tensor(rows, device="cpu")
    except (TypeError, ValueError, RuntimeError):
        found = torch.empty(0)
    if found.ndim != 1 or len(found) == 0 or found.is_floating_point() or found.dtype == torch.bool:
        raise InputError(f"rows {rows!r}: number at least one position 0, 1, ... (or -1, -2, ... from the end)")
    return found.long()


def _positions(rows: Tensor, length: int) -> Tensor:
    """Positions counted from the first of `length`. Raises InputError for one beyond."""
    beyond = rows[(rows < -length) | (rows >= length)]
    if len(beyond):
        raise InputError(f"row {int(beyond[0])} is out of range: the sequence has {length} positions")
    return rows % length
