"""How few of a picture's regions must go, the last of an order first, for a wrong answer to become right."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
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
from dexar_fast.vision.regions import Regions


@dataclass(frozen=True)
class Ordered:
    """Regions in an order.

    Attributes:
        order: [N] of those that the model sees. areas: [N], the share of all pixels in the first k + 1.
        unseen: the others, which are always shown.
    """

    order: list[int]
    areas: list[float]
    unseen: list[int]

    @classmethod
    def of(cls, details: Mapping[str, Any]) -> Ordered:
        """What EAGLE tells of its order in `diagnostics`."""
        return cls(details["order"], details["areas"], details["unseen_regions"])

    def again(self, order: Sequence[int]) -> Ordered:
        """The same regions in another order. Raises InputError for others."""
        if sorted(order) != sorted(self.order):
            raise InputError(f"an order holds each of the {len(self.order)} regions that the model sees, once")
        own = dict(zip(self.order, np.diff([0.0, *self.areas]).tolist(), strict=True))
        return Ordered(list(order), np.cumsum([own[region] for region in order]).tolist(), self.unseen)

    def first(self, count: int, regions: int) -> Tensor:
        """bool [regions], which are shown: the first `count`, and those that the model does not see."""
        revealed = torch.zeros(regions, dtype=torch.bool)
        revealed[self.order[:count] + self.unseen] = True
        return revealed

    def hidden(self, shown: int | None) -> float:
        """The share of all pixels in the regions behind the first `shown`; 1 where that is None."""
        return 1.0 if shown is None else self.areas[-1] - self.areas[shown - 1]


def divided(explanation: Explanation, fill: str) -> Divided:
    """The pictures of an explanation by EAGLE, cut into its regions."""
    labels = [cells.labels + np.int32(cells.start) for cells in explanation.grids if isinstance(cells, Regions)]
    return Divided([np.asarray(image) for image in explanation.images], labels, fill)


def smallest(
    asked: Question, cut: Divided, by: Ordered, batch: int | None, right: Tensor | None = None
) -> tuple[int | None, dict[int, str]]:
    """How many regions it shows, None where there is none; and the answers on the way.

    Args:
        right: [N - 1], the probability of the right token with the first 1, 2, ... regions shown, if it is known.
    """
    masks = {count: by.first(count, cut.count) for count in range(1, len(by.order))}
    several = list(masks.values())
    right = asked.probabilities(cut, several, batch, right=True) if right is None else right
    wrong = asked.probabilities(cut, several, batch)
    revised: dict[int, str] = {}
    for count in reversed((right + AGREE >= wrong).nonzero()[:, 0].add(1).tolist()):
        answer = asked.answered(cut.shown(masks[count]))
        revised[count] = asked.text(answer)
        if asked.is_right(answer):
            return count, revised
    return None, revised


def minimal_region(
    explainer: Setup, found: Diagnosis, order: Sequence[int], method: Eagle | None = None, *, max_new_tokens: Any = None
) -> float:
    """The `minimal_region` of a diagnosis if its regions stood in another order: what chance gives beside EAGLE.

    Args:
        explainer, method, max_new_tokens: those of the diagnosis.
        order: the numbers of `found.explanation.diagnostics["eagle"]["order"]`, in any order.
    Raises:
        InputError: other regions.
    """
    if found.explanation is None:
        return found.minimal_region
    eagle = given(method)
    asked = Question(explainer, found.before, found.question, found.right, max_new_tokens)
    by = Ordered.of(found.explanation.diagnostics["eagle"]).again(order)
    shown, _ = smallest(asked, divided(found.explanation, eagle.fill), by, eagle.batch)
    return by.hidden(shown)
