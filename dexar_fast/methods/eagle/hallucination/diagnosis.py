"""What is found about a wrong answer."""

from __future__ import annotations

from dataclasses import dataclass, field

from PIL import Image

from dexar_fast.explanation import Explanation


@dataclass(frozen=True)
class Diagnosis:
    """The regions that keep a model from the right answer.

    Attributes:
        question: what was asked. right: what the answer should begin with. answer: what the model writes seeing all.
        before, after: the pictures, whole and without the smallest removal; alike where there is none.
        minimal_region: the share of all pixels that it hides: 0 if the answer is right as it is, 1 where there is none.
        token: the first token of the answer that must be another one; None if the answer is right as it is.
        explanation: EAGLE's, for the right token in its place: the regions that speak for it come first. None as above.
        shown: how many of these regions the smallest removal leaves; None where there is none.
        removed: the regions that it hides, the one that speaks most against the right answer last.
        revised: the answers to the pictures that were asked about, by how many regions these show.
    """

    question: str
    right: str
    answer: str
    before: list[Image.Image]
    after: list[Image.Image]
    minimal_region: float
    token: int | None = None
    explanation: Explanation | None = None
    shown: int | None = None
    removed: list[int] = field(default_factory=list)
    revised: dict[int, str] = field(default_factory=dict)

    @property
    def corrected(self) -> str | None:
        """The answer after the removal; None where no removal puts it right."""
        if self.explanation is None:
            return self.answer
        return None if self.shown is None else self.revised[self.shown]
