"""A question about pictures, its answer, and its answers to pictures of which regions are hidden."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from PIL import Image
from torch import Tensor

from dexar_fast.explanation import Explanation
from dexar_fast.generation.arguments import at_most
from dexar_fast.generation.generate import EmptyAnswer
from dexar_fast.generation.runner import Runner
from dexar_fast.generation.setup import Setup
from dexar_fast.methods import explaining
from dexar_fast.methods.cut.divided import Divided
from dexar_fast.methods.cut.scoring import scorer
from dexar_fast.methods.eagle.method import Eagle
from dexar_fast.prompt import request
from dexar_fast.prompt.remade.pixels import Pixels
from dexar_fast.prompt.request import Request

GREEDY = {"do_sample": False, "num_beams": 1}


class Question:
    """A question that a model has answered, greedily.

    Attributes:
        pictures: all that it sees. answer: [T] ids of what it writes; none where it ends at once.
        right, right_text: [R] ids and the text of the right answer, or of its beginning.
    """

    def __init__(
        self, setup: Setup, pictures: list[Image.Image], text: str, right: str, max_new_tokens: int | None
    ) -> None:
        self._setup = setup
        self.question = text
        self.right_text = right
        self._arguments = at_most(max_new_tokens, GREEDY)
        self.pictures = pictures
        asked = self._read(pictures, right)
        assert asked.targets is not None  # those of `right`
        self.right = asked.targets
        self.answer, end = self._written(pictures)
        self._given = replace(asked, targets=self.answer if end is None else torch.tensor([end]))

    @property
    def first_difference(self) -> int | None:
        """The first token in which the answer differs from the right one; None where they agree.

        An empty answer differs in the first, in whose place the model ends it.
        """
        if not len(self.answer):
            return 0
        length = min(len(self.answer), len(self.right))
        different = (self.answer[:length] != self.right[:length]).nonzero()
        return int(different[0]) if len(different) else None

    def is_right(self, answer: Tensor) -> bool:
        """Whether another answer agrees with the right one where the first one differs, and before."""
        assert self.first_difference is not None
        end = self.first_difference + 1
        return torch.equal(answer[:end], self.right[:end])

    def answered(self, pictures: Sequence[Image.Image]) -> Tensor:
        """[T] ids of what the model writes when it sees these; none where it ends at once."""
        return self._written(pictures)[0]

    def _written(self, pictures: Sequence[Image.Image]) -> tuple[Tensor, int | None]:
        """The same, and the id by which the model ended it where there are none."""
        try:
            with self._runner(self._read(pictures, None)).answered() as asked:
                return asked.targets, None
        except EmptyAnswer as ended:
            return torch.empty(0, dtype=torch.long), ended.end

    def explained(self, eagle: Eagle) -> Explanation:
        """Its answer to all of the pictures, explained."""
        return explaining.explain(self._runner(self._given), eagle)

    def probabilities(self, cut: Divided, masks: list[Tensor], batch: int | None, right: bool = False) -> Tensor:
        """[K] float32: of the first token that differs, with the regions of each mask revealed, bool [N].

        Args:
            right: of the right token in its place.
        """
        if not masks:
            return torch.empty(0)
        token = torch.tensor([self.first_difference])
        ids = self.right[token] if right else None
        with self._runner(self._given).answered() as asked:
            pixels = Pixels(asked.processor, asked.inputs, asked.images)
            return scorer(asked, cut, pixels, token, ids, batch)(torch.stack(masks))[:, 0]

    def text(self, answer: Tensor) -> str:
        return self._setup.processor.tokenizer.decode(answer)

    def _read(self, pictures: Sequence[Image.Image], response: str | None) -> Request:
        return request.read(self._setup.processor, list(pictures), self.question, response, with_content=False)

    def _runner(self, asked: Request) -> Runner:
        return Runner(self._setup, asked, self._arguments, None)
