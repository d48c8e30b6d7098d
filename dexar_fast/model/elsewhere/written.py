"""Whether a model computes what it computes by itself, also where each forward takes prompt and answer together."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import torch

from dexar_fast.errors import ModelError
from dexar_fast.model.agreement import WRONG, agreement_of, bound, relative_difference
from dexar_fast.model.elsewhere.begun import first_tokens, with_answer
from dexar_fast.model.lending.session import Loan
from dexar_fast.model.logits import last_logits
from dexar_fast.model.memory import fitting
from dexar_fast.model.prefill import BegunPrompt, Prefill

TOKENS = 2  # the second reads the first


def check(model: Any, inputs: Mapping[str, Any], loan: Loan, prompt: Prefill) -> None:
    """Compares the model with itself on a prompt that has run, if it is much longer than others or ran in a new way.

    Raises ModelError if it computes something else by itself.
    """
    if prompt.begun is None:
        agreement_of(model).check(model, inputs, loan, prompt.seen.logits)
    else:
        compared = partial(compare_written, model, inputs, loan, prompt.begun)
        agreement_of(model).once(len(prompt.begun.labels), loan, compared)


@torch.no_grad()
def compare_written(model: Any, inputs: Mapping[str, Any], loan: Loan, begun: BegunPrompt) -> None:
    """Raises ModelError if the logits of an answer's second token differ under the model's own attention and cache."""
    with fitting("writing two tokens under the model's own attention"):
        with loan.own_attention():
            written = first_tokens(model, inputs, TOKENS, output_logits=True)
        token = written.sequences[0, -TOKENS:-1]
        whole = with_answer(begun.inputs, token)
        ours = model(**whole, use_cache=False, **last_logits(model)).logits[0, -1]
    own = written.logits[-1][0].to(ours.device)
    difference = relative_difference(ours, own)
    if difference > bound(loan.attention, model.dtype):
        raise ModelError(
            f"one forward of prompt and answer by {type(model).__name__} is not what its generate() computes: the "
            f"logits of the second token differ by {difference:.2g} of the largest. {WRONG}"
        )
