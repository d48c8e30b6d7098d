"""The pass: target tokens in chunks over a live KV cache, one VJP per layer, nothing kept but the sums.

    cache holds the prompt's P keys; cut it back to P - 1
    for each chunk of C targets, queried at positions p_t = P - 1 + t:
        in every layer: attention output -> leaf -> layer tail -> lens -> VJP -> u -> scores and maps -> drop

The last prompt token is run again as the first query, under the mask it had in the prefill; the keys before it were
computed in its presence. So a bidirectional prefix (PaliGemma) stays exact. If no layer needs autograd, a given answer
runs in one forward with its prompt instead: a few rows cost more in a forward of their own.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from dexar_fast.attribution import onward
from dexar_fast.attribution.calls.plan import Plan
from dexar_fast.attribution.calls.rows import Answers
from dexar_fast.attribution.layer_pass import Pass
from dexar_fast.model.cache import to_forward, truncate
from dexar_fast.model.elsewhere.begun import traced
from dexar_fast.model.lens.program import Outdated
from dexar_fast.model.logits import last_logits
from dexar_fast.model.memory import fitting, halving, is_out_of_memory
from dexar_fast.model.prefill import Pending, Prefill, by_itself, run
from dexar_fast.model.tracer import DecoderTracer


def explain(
    model: Any,
    prompt: Prefill,
    plans: Sequence[Plan],
    answers: Answers,
    done: int,
    chunk: int,
    take: Callable[[list[Any]], Any],
) -> int:
    """Explains the answers of a batch in chunks of at most `chunk` tokens of each row.

    Args:
        prompt: of all rows. plans: of each.
        done: how many tokens of each row are explained already.
        take: gets what the `sums` of each plan make of a chunk; None for a row that has ended.
    Returns:
        The size of chunk that fitted.
    Raises:
        OutOfMemoryError: not even one token at a time fits. Outdated: a batch whose lens was traced before the model
            was changed; each row by itself can be explained.
    """
    if prompt.pending is not None and prompt.cache is not None:
        whole = _at_once(model, prompt, plans, prompt.pending, answers.ids[0, 1:])
        if whole is not None:
            take(whole)
            return chunk
        with fitting("running the prompt"):
            prompt = by_itself(model, prompt)
    renewed = -1  # how many were done when the lens was last traced anew
    while done < answers.longest:
        try:
            with Pass(model, prompt, plans).hooked() as running:
                while done < answers.longest:
                    found, chunk = _next(running, prompt, plans[0], answers, done, chunk)
                    take(found)
                    done += max(len(sums.token_maps) for sums in found if sums is not None)
        except Outdated:
            if done == renewed or len(plans) > 1:
                raise
            renewed = done
            _look_again(model, prompt, plans[0], answers.ids[0], done)
    return chunk


def _next(running: Pass, prompt: Prefill, plan: Plan, answers: Answers, done: int, chunk: int) -> tuple[list[Any], int]:
    """The sums of the next chunk, and the size that fitted."""
    left, ids = answers.longest - done, answers.ids[0]
    if prompt.cache is None:
        return halving(partial(onward.chunk, running, prompt, plan, ids[1:], done), chunk, left)
    if plan.ends_with_image and done == 0:
        return running.prompt(plan.inputs, ids[1:2]), chunk
    return halving(partial(running.chunk, answers, done), chunk, left)


@torch.no_grad()
def _look_again(model: Any, prompt: Prefill, plan: Plan, ids: Tensor, done: int) -> None:
    """Traces the lens anew, in a forward of one token if the cache allows. Raises ModelError as a first prompt does."""
    if prompt.begun is not None:
        prompt.decoder.renew(traced(model, prompt.begun))
        return
    if prompt.cache is None:
        tracing = DecoderTracer(model, plan.prompt, plan.inputs)
        with tracing.watching():
            run(model, None, plan.inputs, True)
    else:
        truncate(prompt.cache, plan.prompt - 1 + done)
        tracing = DecoderTracer(model, 1, prompt.seen.passed_on)
        with tracing.watching():
            token = ids[None, done + 1 : done + 2]
            model(input_ids=token, use_cache=True, **to_forward(model, prompt.cache), **last_logits(model))
    assert tracing.decoder is not None  # or the forward raised
    prompt.decoder.renew(tracing.decoder)


def _at_once(model: Any, prompt: Prefill, plans: Sequence[Plan], pending: Pending, targets: Tensor) -> list[Any] | None:
    """The sums of a whole answer [T], in one forward with the rest of its prompt.

    Returns None if that does not fit, or if what was found about the model no longer holds.
    """
    try:
        with Pass(model, prompt, plans, plans[0].tails).hooked() as running:
            found = running.prompt(pending.inputs, targets, pending.known)
    except Outdated:
        return None
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        return None
    pending.prefix.ran(prompt.cache)
    return found
