"""A model on loan: one user at a time, its text attention routed through ours, everything put back afterwards."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from transformers import PreTrainedModel

from dexar_fast.model import attention
from dexar_fast.model.kinds import attends_by_hand
from dexar_fast.model.lending import cudnn
from dexar_fast.model.lending.locks import check_process, model_lock
from dexar_fast.model.lending.plain_tensors import plain_tensors
from dexar_fast.model.modules import OFFSETS, below
from dexar_fast.model.wanted import Abandoned, check_wanted, is_watched

Attribute = tuple[Any, str, Any]  # owner, name, value
IMPLEMENTATION = "_attn_implementation_internal"  # setting it without the suffix takes configs inside it along
UNDER_AUTOCAST = "__script_unsupported"  # the attribute that torch.autocast sets on a function that it decorates
BEFORE_PREPARE = "_original_forward"  # where accelerate, and so Trainer, keeps the forward of a model that it prepared
POLL = 0.05  # seconds between checks whether a waiting borrower still wants the model


class Loan:
    """The model's lock, and the attributes that differ while it is held.

    Args:
        abandoned: called before the model is taken, and while another borrower has it; once it returns true, `take`
            ends with `Abandoned`.
    """

    def __init__(self, model: Any, abandoned: Callable[[], bool] | None = None) -> None:
        self._model = model
        self._lock = model_lock(model)
        self._abandoned = abandoned
        self._held = False
        self._ours: list[Attribute] = []  # as they were when the model was given back
        self._found: list[Attribute] = []  # as they were when it was taken; empty while it is not

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Inside the block the model is as it was found, and free for others. An exception there ends the loan."""
        self.give()
        yield
        self.take()

    @property
    def attention(self) -> str:
        """The name of the attention implementation that the text decoder had when the model was taken."""
        own = self._own()
        config = self._model.config.get_text_config(decoder=True)
        return own[0][2] if own else config._attn_implementation  # of one that attends by hand nothing is taken

    @contextmanager
    def own_attention(self) -> Iterator[None]:
        """Inside the block the text decoder attends as it did when the model was taken."""
        own = self._own()
        ours = _values(own)
        _put(own)
        try:
            yield
        finally:
            _put(ours)

    def _own(self) -> list[Attribute]:
        return [found for found in self._found if found[1] == IMPLEMENTATION]

    def take(self) -> None:
        check_process(self._model)
        self._check_wanted()
        while not self._lock.acquire(timeout=POLL if self._abandoned or is_watched() else -1):
            self._check_wanted()
        self._held = True
        cudnn.keep_out()
        ours = self._ours or _ours(self._model)
        self._found = _values(ours)  # all of them before any changes: Ctrl-C may come in between
        _put(ours)

    def _check_wanted(self) -> None:
        check_wanted()
        if self._abandoned and self._abandoned():
            raise Abandoned

    def give(self) -> None:
        if self._held:
            self._ours = _values(self._found)
            _put(self._found)
            self._found = []
            self._held = False
            cudnn.let_in()
            self._lock.release()


@contextmanager
def borrowed(model: Any, abandoned: Callable[[], bool] | None = None) -> Iterator[Loan]:
    """Holds the model's lock, sets it to eval and to our attention; restores all of it, whatever happens.

    Autocast is off inside, also accelerate's and that of a decorated forward: sums are taken in float32 or better, and
    the lens must match the model's own logits. Modules that torch.compile compiled run their own code: the pass hooks
    that, and tracing hooks takes minutes.
    """
    loan = Loan(model, abandoned)
    with (
        torch.inference_mode(False),
        torch.autocast(model.device.type if model.device.type != "meta" else "cpu", enabled=False),
    ):
        try:
            loan.take()
            yield loan
        finally:
            loan.give()


def _values(attributes: list[Attribute]) -> list[Attribute]:
    return [(owner, name, getattr(owner, name)) for owner, name, _ in attributes]


def _put(attributes: list[Attribute]) -> None:
    for owner, name, value in attributes:
        setattr(owner, name, value)


def _ours(model: Any) -> list[Attribute]:
    """The attributes that differ while the model is on loan, and their values then."""
    modules: list[Any] = below(model)
    positioned = [module for module in modules if OFFSETS in vars(module)]
    compiled = [module for module in modules if module._compiled_call_impl is not None]  # by module.compile()
    wrappers = [module for module in modules if "_orig_mod" in module._modules]  # by torch.compile(module)
    configs = {id(c): c for module in modules if (c := vars(module).get("config")) is not None}.values()
    experts = "_experts_implementation_internal"  # generate() has another one while it decodes, and sets it back
    return [
        *(
            (config, experts, getattr(config, experts))
            for config in configs
            if experts in getattr(config, "__dict__", ())
        ),
        *((module, "training", False) for module in modules if module.training),
        *((module, "_compiled_call_impl", None) for module in compiled),
        *((module, "forward", module._orig_mod.__call__) for module in wrappers),
        *(
            (module, "forward", forward.__wrapped__)
            for module in modules
            if hasattr(forward := vars(module).get("forward"), UNDER_AUTOCAST)
        ),
        *((module, "forward", vars(module)[BEFORE_PREPARE]) for module in modules if BEFORE_PREPARE in vars(module)),
        *((module, OFFSETS, None) for module in positioned),
        *plain_tensors(modules),
        *((config, IMPLEMENTATION, attention.AS_EAGER) for config in _of_text(model, modules)),
    ]


def _of_text(model: Any, modules: list[Any]) -> list[Any]:
    """The configs by which the text decoder chooses its attention: its own, and copies that its parts hold (T5)."""
    config = model.config.get_text_config(decoder=True)
    owners = [module for module in modules if type(vars(module).get("config")) is type(config)]
    if any(isinstance(owner, PreTrainedModel) and attends_by_hand(model, owner) for owner in owners):
        return []
    return list({id(each): each for each in (config, *(vars(owner)["config"] for owner in owners))}.values())
