"""Finds the regions that cause a wrong answer, and the fewest that must go for the right one."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dexar_fast.attribution.masked import AGREE
from dexar_fast.errors import InputError
from dexar_fast.explanation import Explanation
from dexar_fast.generation.setup import Setup
from dexar_fast.methods.cut.divided import Divided
from dexar_fast.methods.eagle.hallucination.diagnosis import Diagnosis
from dexar_fast.methods.eagle.hallucination.question import Question
from dexar_fast.methods.eagle.method import Eagle, given
from dexar_fast.vision.images import load_images
from dexar_fast.vision.regions import Regions


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
    cut, order = _divided(explanation, eagle.fill), explanation.diagnostics["eagle"]["order"]
    shown, revised = _smallest_removal(asked, explanation, cut, eagle.batch)
    return Diagnosis(
        question=asked.question,
        right=asked.right_text,
        answer=asked.text(asked.answer),
        before=asked.pictures,
        after=asked.pictures if shown is None else cut.shown(_first(explanation, cut, shown)),
        minimal_region=_hidden_area(explanation, shown),
        token=token,
        explanation=explanation,
        shown=shown,
        removed=[] if shown is None else order[shown:],
        revised=revised,
    )


def _smallest_removal(
    asked: Question, explanation: Explanation, cut: Divided, batch: int | None
) -> tuple[int | None, dict[int, str]]:
    """How many regions it shows, None where there is none; and the answers on the way."""
    counts = range(1, len(explanation.diagnostics["eagle"]["order"]))
    masks = {count: _first(explanation, cut, count) for count in counts}
    right = torch.tensor(explanation.diagnostics["eagle"]["insertion"])[:-1, 0]
    wrong = asked.wrong_probabilities(cut, list(masks.values()), batch)
    revised: dict[int, str] = {}
    for count in reversed((right + AGREE >= wrong).nonzero()[:, 0].add(1).tolist()):
        answer = asked.answered(cut.shown(masks[count]))
        revised[count] = asked.text(answer)
        if asked.is_right(answer):
            return count, revised
    return None, revised


def _divided(explanation: Explanation, fill: str) -> Divided:
    labels = [cells.labels + np.int32(cells.start) for cells in explanation.grids if isinstance(cells, Regions)]
    return Divided([np.asarray(image) for image in explanation.images], labels, fill)


def _first(explanation: Explanation, cut: Divided, count: int) -> Tensor:
    """bool [N]: the first `count` regions in order, and those that the model does not see."""
    details, revealed = explanation.diagnostics["eagle"], torch.zeros(cut.count, dtype=torch.bool)
    revealed[details["order"][:count] + details["unseen_regions"]] = True
    return revealed


def _hidden_area(explanation: Explanation, shown: int | None) -> float:
    """The share of all pixels in the regions behind the first `shown`; 1 where that is None."""
    areas = explanation.diagnostics["eagle"]["areas"]
    return 1.0 if shown is None else areas[-1] - areas[shown - 1]
