"""How likely given answers to one question are, for many pictures of one size."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from dexar_fast.attribution.masked import MaskedForwards
from dexar_fast.evaluation.hiding import LEAST
from dexar_fast.generation.planning import check_method
from dexar_fast.generation.runner import Runner
from dexar_fast.generation.setup import Setup
from dexar_fast.model.kinds import opening_of
from dexar_fast.prompt import request
from dexar_fast.prompt.remade.pixels import Pixels


def log_probabilities(
    setup: Setup, pictures: Sequence[Image.Image], prompt: str, answers: Sequence[str]
) -> NDArray[np.float64]:
    """[B, A], in nats: the sum over the tokens of each of A answers, for each of B pictures; their forwards in batches.

    Raises:
        InputError: as `Explainer.explain`; pictures that the processor cuts otherwise than the first one.
    """
    return np.stack([_of(setup, pictures, prompt, answer) for answer in answers], axis=1)


def _of(setup: Setup, pictures: Sequence[Image.Image], prompt: str, answer: str) -> NDArray[np.float64]:
    check_method(setup)
    read = request.read(
        setup.processor, [pictures[0]], prompt, answer, with_content=False, opening=opening_of(setup.model)
    )
    with Runner(setup, read, {}, None).answered() as asked:
        pixels = Pixels(asked.processor, asked.inputs, asked.images)
        run = MaskedForwards(asked.model, asked.inputs, asked.targets, asked.decoder, asked.visual)
        found = run(len(pictures), lambda chosen: pixels.of_each([[pictures[i]] for i in chosen]))
    return np.log(found.double().numpy().clip(LEAST, 1)).sum(1)
