"""The chunks of an answer where a model cannot go back in its cache: over one of the pass's own, or with all before.

Recurrent layers keep a state that cannot be cut back, and generate()'s must stay as it is. So the pass keeps a second
cache, in which each chunk goes on where the last one ended. Models run one token behind a state by other code than
several: the first chunk of each kind is compared with one forward of all before it. Where they differ, or it fails,
every chunk of that kind is such a forward.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from dexar_fast.attribution.calls.plan import Plan
from dexar_fast.attribution.layer_pass import Pass
from dexar_fast.model.agreement import ROUNDINGS_OF_OTHERS, agreement_of, relative_difference
from dexar_fast.model.cache import onward_cache
from dexar_fast.model.lens.program import Outdated
from dexar_fast.model.memory import is_out_of_memory
from dexar_fast.model.modules import has_offsets
from dexar_fast.model.prefill import Prefill, Trail


def chunk(running: Pass, prompt: Prefill, plan: Plan, answer: Tensor, done: int, size: int) -> list[Any]:
    """The sums of the next `size` tokens of the answer [T] behind those that are done."""
    trail, first = prompt.trail, plan.prompt - 1 + done
    if trail is None:
        return running.with_all_before(answer, done, size)
    if trail.leads_to(first) and agreement_of(running.model).goes_on.get(size > 1, True):
        found = _going_on(running, trail, answer, done, size)
        if found is not None:
            return found
    more = trail.open or done + size < len(answer)
    cache = onward_cache(running.model.config) if more and _may_go_on(running.model, prompt) else None
    trail.begin(None, 0)
    found = running.with_all_before(answer, done, size, cache)
    trail.begin(cache, first + size)
    return found


def _may_go_on(model: Any, prompt: Prefill) -> bool:
    """Not a model of which it was seen that it cannot at all, nor one whose next positions nothing tells.

    Nor one in float64: recurrent states are float32 whatever the dtype, and whoever asks for it wants its digits.
    """
    seen = agreement_of(model).goes_on
    if prompt.begun is not None or model.dtype == torch.float64 or (len(seen) == 2 and not any(seen.values())):
        return False
    return bool(prompt.seen.last_positions) or not has_offsets(model)


def _going_on(running: Pass, trail: Trail, answer: Tensor, done: int, size: int) -> list[Any] | None:
    """The same over the trail's cache; None if the model was found not to go on."""
    goes_on, cache, several = agreement_of(running.model).goes_on, trail.cache, size > 1
    end = trail.length + size
    trail.begin(None, 0)  # what a failure leaves in the cache is no trail
    try:
        found = running.behind(cache, answer, done, size)
    except Exception as error:  # models raise any kind for tokens behind a state
        if several in goes_on or isinstance(error, Outdated) or is_out_of_memory(error):
            raise
        goes_on[several] = False
        return None
    if several not in goes_on:
        logits = running.last_logits
        found = running.with_all_before(answer, done, size)
        difference = relative_difference(logits, running.last_logits)
        goes_on[several] = difference <= ROUNDINGS_OF_OTHERS * torch.finfo(logits.dtype).eps
    if goes_on[several]:
        trail.begin(cache, end)
    return found
