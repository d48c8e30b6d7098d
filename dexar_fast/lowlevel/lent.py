"""A model that was handed in by itself: checked, on loan, its decoder found once and known from then on."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from dexar_fast.errors import InputError, ModelError
from dexar_fast.generation import faults
from dexar_fast.loading import adapters, models
from dexar_fast.model.agreement import agreement_of
from dexar_fast.model.decoder import Decoder
from dexar_fast.model.elsewhere import begun, written
from dexar_fast.model.kinds import encodes, reads_elsewhere
from dexar_fast.model.lending.locks import check_process
from dexar_fast.model.lending.session import Loan, borrowed
from dexar_fast.model.memory import fitting
from dexar_fast.model.prefill import run
from dexar_fast.model.tracer import DecoderTracer
from dexar_fast.prompt import inputs as checks
from dexar_fast.settings import settings

_decoders: WeakKeyDictionary[nn.Module, Decoder] = WeakKeyDictionary()


@dataclass(frozen=True)
class Lent:
    """A model on loan, and inputs of its forward on its device."""

    model: Any
    inputs: Mapping[str, Any]
    loan: Loan

    @property
    def elsewhere(self) -> bool:
        """Whether its image may stand elsewhere than among the ids; a model of text alone has none."""
        return encodes(self.model) or (models.reads_images(self.model) and reads_elsewhere(self.model))

    @property
    def known(self) -> Decoder | None:
        """The decoder, if an earlier call has found it and it is still the model's."""
        decoder = _decoders.get(self.model)
        return decoder if decoder is not None and decoder.is_of(self.model) else None

    def keep(self, decoder: Decoder) -> None:
        """Later calls know it."""
        _decoders[self.model] = decoder

    def decoder(self) -> Decoder:
        """The decoder, found by forwards of the inputs on first use. Raises ModelError."""
        if self.known is None:
            self.keep(self._begun() if self.elsewhere else self._traced())
        return _decoders[self.model]

    def _begun(self) -> Decoder:
        prompt = begun.begin(self.model, self.inputs, None)
        written.check(self.model, self.inputs, self.loan, prompt)
        return prompt.decoder

    def _traced(self) -> Decoder:
        tracing = DecoderTracer(self.model, self.inputs["input_ids"].shape[1], self.inputs)
        with tracing.watching():
            run(self.model, None, self.inputs, True)
        assert tracing.decoder is not None  # or the forward raised
        return tracing.decoder

    def check_agrees(self, logits: Tensor) -> None:
        """Raises ModelError if the last logits [V] differ under the model's own attention; see `model.agreement`."""
        if not self.elsewhere:
            agreement_of(self.model).check(self.model, self.inputs, self.loan, logits)


@contextmanager
def lent(model: Any, inputs: Mapping[str, Any]) -> Iterator[Lent]:
    """Checks model and inputs, and takes the model on loan; restores all of it, whatever happens.

    Raises:
        ModelError: not a model that writes text, one with an encoder of text alone, an adapter outside its modules.
        InputError: inputs that are no single sequence without padding.
    """
    model = adapters.unwrapped(model)
    models.check_writer(model)
    if encodes(model) and not models.reads_images(model):
        raise ModelError(f"{type(model).__name__} is an encoder-decoder of text alone: not supported")
    check_process(model)
    adapters.check_adapters(model)
    given = checks.on_device(model, inputs)
    with ExitStack() as stack:
        stack.enter_context(faults.named(model, given))
        loan = stack.enter_context(borrowed(model))
        stack.enter_context(torch.no_grad())
        stack.enter_context(fitting("one forward of the inputs"))
        found = Lent(model, given, loan)
        if "input_ids" in given or not found.elsewhere:
            _check_ids(model, given)
            stack.enter_context(checks.embedding_checked(model, given["input_ids"]))
        yield found


def _check_ids(model: Any, inputs: Mapping[str, Any]) -> None:
    checks.check_prompt(model, inputs, elsewhere=True)
    checks.check_length(model, inputs["input_ids"].shape[1], 0)
    if bool(checks.is_visual(model, inputs["input_ids"]).any()):
        checks.check_image(inputs)


def layers_of(layers: Sequence[int] | None, decoder: Decoder) -> list[int]:
    """Numbers among the decoder's calls of attention, ascending, from what users pass.

    Raises InputError, which names the layers with softmax attention where others are among them.
    """
    chosen, attending = settings(layers), sorted({*decoder.indices})
    try:
        return chosen.layers_of(len(decoder.layers))
    except InputError as error:
        if len(attending) == decoder.total:
            raise
        raise InputError(
            f"{error}: of its {decoder.total} decoder layers only {', '.join(map(str, attending))} have softmax "
            f"attention over the sequence, here numbered from 0"
        ) from error
