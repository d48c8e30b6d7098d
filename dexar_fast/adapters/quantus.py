"""Our maps as Quantus takes them, and a model that its metrics of faithfulness can ask. Quantus itself is not imported.

    metric = quantus.PointingGame(abs=False, normalise=False)
    metric(model=None, x_batch=x, y_batch=y, a_batch=a_batch(explanations), s_batch=masks)
    metric(model=None, x_batch=x, y_batch=y, explain_func=explain_func(explainer, question, answers), s_batch=masks)

    metric = quantus.FaithfulnessCorrelation(nr_runs=64)
    metric(model=AnswerModel(explainer, question, answers), x_batch=x, y_batch=y, a_batch=maps, softmax=True)

`dexar-fast eval --metrics quantus:PointingGame` runs its metrics of localisation and complexity over a data set.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from dexar_fast.adapters.pictures import explained, maps, pictures
from dexar_fast.errors import InputError
from dexar_fast.evaluation.answers import log_probabilities
from dexar_fast.explainer import Explainer
from dexar_fast.explanation import Explanation

Batch = NDArray[np.float32]


def a_batch(explanations: Sequence[Explanation]) -> Batch:
    """[B, 1, height, width], in [0, 1]: as `adapters.pictures.maps`, which says what is refused."""
    return maps(explanations)[:, None]


def explain_func(explainer: Explainer, question: str, answers: Sequence[str]) -> Callable[..., Batch]:
    """What Quantus calls to explain pictures: one question, and the answer that each target numbers.

    The function takes `inputs` [B, 3, height, width] in [0, 1], as NumPy arrays or tensors, and `targets` [B]; `model`
    and whatever else Quantus passes is not used, since the explainer has its own model.

    Raises:
        InputError: by the function, other inputs or targets, and as `Explainer.explain`.
    """

    def explain(*_: Any, inputs: Any, targets: Any, **more: Any) -> Batch:
        return a_batch(explained(explainer, pictures(inputs), question, _chosen(targets, answers)))

    return explain


class AnswerModel(torch.nn.Module):
    """A classifier for Quantus: its classes are the answers to one question, its logits their log-probabilities.

    With `softmax=True` Quantus makes of them the probability of each answer among them. Metrics that take gradients or
    shuffle weights find none here: those are `dexar_fast.evaluation.sanity`'s.

    Args:
        answers: at least one; a target numbers them from 0.
    """

    def __init__(self, explainer: Explainer, question: str, answers: Sequence[str]) -> None:
        super().__init__()
        self._asked = (explainer, question, [*answers])  # in a tuple: the model's weights are not this module's
        self.eval()

    def forward(self, x: Any) -> torch.Tensor:
        """[B, A] float64 of pictures [B, 3, height, width] in [0, 1], all of one size.

        Raises:
            InputError: other pictures. Else as `Explainer.explain`.
        """
        explainer, question, answers = self._asked
        return torch.from_numpy(log_probabilities(explainer, pictures(x), question, answers))


def _chosen(targets: Any, answers: Sequence[str]) -> list[str]:
    numbers = np.asarray(targets).ravel()
    if numbers.dtype.kind not in "iu" or (numbers < 0).any() or (numbers >= len(answers)).any():
        raise InputError(f"targets number the {len(answers)} answers from 0")
    return [answers[int(number)] for number in numbers]
