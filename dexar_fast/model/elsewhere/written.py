"""Whether one forward of prompt and answer gives the logits of the model's own generate()."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from dexar_fast.errors import ModelError
from dexar_fast.model.agreement import WRONG, bound, relative_difference
from dexar_fast.model.elsewhere.begun import first_tokens, with_answer
from dexar_fast.model.lending.session import Loan
from dexar_fast.model.logits import last_logits
from dexar_fast.model.memory import fitting
from dexar_fast.model.prefill import Begun

TOKENS = 2  # the second reads the first


@torch.no_grad()
def compare_written(model: Any, inputs: Mapping[str, Any], loan: Loan, begun: Begun) -> None:
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
