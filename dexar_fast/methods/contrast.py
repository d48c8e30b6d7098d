"""Why this token rather than that one: the ids against which an answer's tokens are explained."""

from __future__ import annotations

from dataclasses import replace
from numbers import Integral
from typing import Any

import torch
from torch import Tensor

from dexar_fast.errors import InputError
from dexar_fast.methods.base import Asked, Maps
from dexar_fast.model.teacher_forcing import head_inputs
from dexar_fast.prompt.pieces import pieces
from dexar_fast.report.plain_words import contrastive

RUNNER_UP = "runner-up"
Against = str | int | None
"""A text, whose first token counts; an id; "runner-up", the likeliest other token at each place; or nothing."""


def check(against: Any, method: Any) -> Against:
    """The value, an id of numpy's as an int. Raises InputError for none of these, or a method without differences."""
    if against is None:
        return None
    if isinstance(against, bool) or not isinstance(against, str | Integral) or against == "":
        raise InputError(f"against is a word, a token id or {RUNNER_UP!r}, not {against!r}")
    if not getattr(method, "contrasts", False):
        raise InputError(f"method {method.name!r} explains no token against another: leave out against")
    return against if isinstance(against, str) else int(against)


def contrasted(asked: Asked, against: Against) -> Asked:
    """The request with the ids. Raises InputError for an id that the model lacks, or one that is the token itself."""
    if against is None:
        return asked
    ids = _ids(asked, against)
    if bool((ids == asked.targets).all()):
        raise InputError(f"against {against!r} is what the answer says: name another word")
    return replace(asked, against=ids)


def said(found: Maps, asked: Asked, against: Against) -> Maps:
    """The maps, with what they are against among their notes and diagnostics."""
    if asked.against is None or against is None:
        return found
    texts = texts_of(asked)
    notes = [*found.notes, contrastive(against, texts)]
    return replace(found, notes=notes, diagnostics=found.diagnostics | {"against": texts})


def texts_of(asked: Asked) -> list[str]:
    """What each of the other ids says by itself: they are no text."""
    tokenizer = getattr(asked.processor, "tokenizer", None)
    return [] if asked.against is None else [pieces(tokenizer, [id])[0] for id in asked.against.tolist()]


def _ids(asked: Asked, against: str | int) -> Tensor:
    """[T] int64."""
    if against == RUNNER_UP:
        return _runners_up(asked)
    if isinstance(against, str):
        return _of_text(asked, against)
    if not 0 <= against < asked.decoder.lens.rows:
        raise InputError(f"against {against} is no token of the model: 0 to {asked.decoder.lens.rows - 1}")
    return torch.full_like(asked.targets, against)


@torch.no_grad()
def _runners_up(asked: Asked) -> Tensor:
    """At each place the id of the highest logit but the answer's own."""
    normed = head_inputs(asked.model, asked.inputs, asked.targets[:-1], asked.decoder, asked.visual)
    every = torch.arange(asked.decoder.lens.rows)
    rows = normed[:, -len(asked.targets) :].split(1, dim=1)
    logits = torch.cat([asked.decoder.lens.table(row, every).cpu() for row in rows])
    return logits.scatter(1, asked.targets[:, None], float("-inf")).argmax(1)


def _of_text(asked: Asked, text: str) -> Tensor:
    """The first token of a text, written behind a space where the answer's own token begins with one."""
    tokenizer = getattr(asked.processor, "tokenizer", None)
    if tokenizer is None:
        raise InputError(f"against {text!r} takes the processor's tokenizer: name a token id")
    own = pieces(tokenizer, asked.targets.tolist())
    behind, begins = (_first(tokenizer, written) for written in (f" {text.strip()}", text.strip()))
    return torch.tensor([behind if piece.startswith(" ") else begins for piece in own])


def _first(tokenizer: Any, text: str) -> int:
    """The id of the first token with letters in it."""
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    found = next((id for id in ids if tokenizer.decode([id]).strip()), None)
    if found is None:
        raise InputError(f"against {text!r} holds no token of the model's tokenizer")
    return int(found)
