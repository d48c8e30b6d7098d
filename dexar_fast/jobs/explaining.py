"""The explanations of one lot: in batches, or one by one with what a picture's items share."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import TYPE_CHECKING

import torch

from dexar_fast.data import Item
from dexar_fast.explanation import Explanation
from dexar_fast.generation.arguments import at_most
from dexar_fast.jobs import stored
from dexar_fast.jobs.asked import Asked, Read, Request
from dexar_fast.jobs.learnt import as_if_known
from dexar_fast.jobs.lots import picture_of
from dexar_fast.methods.dex_ar import DexAr

if TYPE_CHECKING:
    from dexar_fast.explainer import Explainer

Found = Explanation | Exception
Asking = tuple[Item, Request]


def explained(explainer: Explainer, read: Sequence[Read], asked: Asked, seed: int) -> list[Found]:
    """An explanation of each item of a lot, or the error that kept it from being made: the same whenever it is called.

    Args:
        seed: of torch's generators, for answers that are sampled.
    """
    good = [(item, one) for item, one in read if not isinstance(one, Exception)]
    device = explainer.model.device
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        found = iter(as_if_known(explainer, lambda: _seeded(explainer, good, asked, seed)))
    return [one if isinstance(one, Exception) else next(found) for _, one in read]


def _seeded(explainer: Explainer, good: Sequence[Asking], asked: Asked, seed: int) -> list[Found]:
    torch.manual_seed(seed)
    if any(request[1] is None or asked.ids(item) for item, request in good):
        return [_stored(explainer, item, request, asked) for item, request in good]
    if in_batches(explainer.method, asked):
        return explainer.explain_batch([request for _, request in good], asked.batch_size, **asked.arguments)
    shared = (list(group) for _, group in groupby(good, key=lambda each: picture_of(each[0])))
    return [one for group in shared for one in _of_one_picture(explainer, [each for _, each in group], asked)]


def _stored(explainer: Explainer, item: Item, request: Request, asked: Asked) -> Found:
    """Of an item whose prompt or answer may be stored as ids."""
    image, text, answer = request
    before = item.prompt_ids if text is None else ()
    try:
        prompt = stored.prompt(explainer, before) if text is None else text
        own = stored.request(explainer, image, prompt, answer, asked.ids(item), before)
        return explainer._explain(own, at_most(None, dict(asked.arguments)), explainer.pool)
    except Exception as error:  # see _alone
        return error


def in_batches(method: object, asked: Asked) -> bool:
    """Whether a lot runs in batches."""
    return isinstance(method, DexAr) and asked.batch_size != 1


def _of_one_picture(explainer: Explainer, requests: Sequence[Request], asked: Asked) -> list[Found]:
    if len(requests) > 1:
        prompts, answers = [prompt for _, prompt, _ in requests], [answer for *_, answer in requests]
        try:
            return [*explainer.explain_many(requests[0][0], prompts, answers, **asked.arguments)]
        except Exception:  # of one of them: it is raised again when that runs by itself
            pass
    return [_alone(explainer, request, asked) for request in requests]


def _alone(explainer: Explainer, request: Request, asked: Asked) -> Found:
    try:
        return explainer.explain(*request, **asked.arguments)  # type: ignore[arg-type]
    except Exception as error:  # a plugged-in method may raise any kind
        return error
