"""Finds the regions that cause a wrong answer, and the fewest that must go for the right one."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch

from dexar_fast.errors import InputError
from dexar_fast.generation.setup import Setup
from dexar_fast.methods.eagle.hallucination import removal
from dexar_fast.methods.eagle.hallucination.diagnosis import Diagnosis
from dexar_fast.methods.eagle.hallucination.question import Question
from dexar_fast.methods.eagle.method import Eagle, given
from dexar_fast.vision.images import load_images


def diagnose(
    explainer: Setup,
    image: Any,
    question: str,
    right: str,
    method: Eagle | None = None,
    *,
    max_new_tokens: int | None = None,
) -> Diagnosis:
    """Why a model answers wrongly: which regions keep it from the right answer, and how few of them must be hidden.

    The answer and the right one first differ in some token. EAGLE orders the regions for the right token in its place.
    A model that says nothing has not answered rightly: its answer differs in the first token, where it ends.
    With the first k of N regions shown, the answer is written afresh, greedily; it is put right if it agrees with the
    right one up to that token. The smallest removal is that of the largest such k, 1 <= k < N: the wholly hidden
    picture is not asked about. Answers are only written where the right token is at least as likely as the wrong one,
    up to the rounding of a batch; elsewhere greedy decoding cannot choose it, unless a generation config changes
    probabilities (a repetition penalty).

    Args:
        explainer: an `Explainer`. image: as in `explain`. question: a text.
        right: the right answer, or its beginning, up to where it differs: "No".
        method: None is `Eagle()`; its `tokens` and `ids` are chosen here.
        max_new_tokens: of each answer; None is 128, or what the model's generation config says.
    Raises:
        InputError: a question or a right answer that is no text, and as `Explainer.explain` by EAGLE.
    """
    for name, text in (("question", question), ("right answer", right)):
        if not isinstance(text, str):
            raise InputError(f"the {name} must be a text, not a {type(text).__name__}")
    eagle = given(method)
    asked = Question(explainer, load_images(image), question, right, max_new_tokens)
    token = asked.first_difference
    if token is None:
        return Diagnosis(question, right, asked.text(asked.answer), asked.pictures, asked.pictures, 0.0)
    return _diagnosed(asked, token, replace(eagle, tokens=[token], ids=[int(asked.right[token])]))


def _diagnosed(asked: Question, token: int, eagle: Eagle) -> Diagnosis:
    explanation = asked.explained(eagle)
    details, cut = explanation.diagnostics["eagle"], removal.divided(explanation, eagle.fill)
    by, right = removal.Ordered.of(details), torch.tensor(details["insertion"])[:-1, 0]
    shown, revised = removal.smallest(asked, cut, by, eagle.batch, right)
    return Diagnosis(
        question=asked.question,
        right=asked.right_text,
        answer=asked.text(asked.answer),
        before=asked.pictures,
        after=asked.pictures if shown is None else cut.shown(by.first(shown, cut.count)),
        minimal_region=by.hidden(shown),
        token=token,
        explanation=explanation,
        shown=shown,
        removed=[] if shown is None else by.order[shown:],
        revised=revised,
    )
