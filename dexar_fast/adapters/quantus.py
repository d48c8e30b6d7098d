"""Our maps as Quantus takes them: as its `a_batch`, and as its `explain_func`. Quantus itself is not imported.

    metric = quantus.PointingGame(abs=False, normalise=False)
    metric(model=None, x_batch=x, y_batch=y, a_batch=a_batch(explanations), s_batch=masks)
    metric(model=None, x_batch=x, y_batch=y, explain_func=explain_func(explainer, question, answers), s_batch=masks)

`dexar-fast eval --metrics quantus:PointingGame` runs its metrics of localisation and complexity over a data set.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from dexar_fast.errors import InputError
from dexar_fast.explainer import Explainer
from dexar_fast.explanation import Explanation

Batch = NDArray[np.float32]


def a_batch(explanations: Sequence[Explanation]) -> Batch:
    """[B, 1, height, width], in [0, 1]: the maps of the answers over their pictures, which must be of one size.

    Raises:
        InputError: none, pictures of several sizes, or a map that has no place in its picture.
    """
    if not explanations:
        raise InputError("there is no explanation to make a batch of")
    maps = [each.heatmap(resolution="image") for each in explanations]
    sizes = sorted({each.shape for each in maps})
    if len(sizes) > 1:
        raise InputError(f"a batch is of pictures of one size, and these are {sizes[0]} and {sizes[1]}")
    return np.stack(maps)[:, None]


def explain_func(explainer: Explainer, question: str, answers: Sequence[str]) -> Callable[..., Batch]:
    """What Quantus calls to explain pictures: one question, and the answer that each target numbers.

    The function takes `inputs` [B, 3, height, width] in [0, 1], as NumPy arrays or tensors, and `targets` [B]; `model`
    and whatever else Quantus passes is not used, since the explainer has its own model.

    Raises:
        InputError: by the function, other inputs or targets, and as `Explainer.explain`.
    """

    def explain(*_: Any, inputs: Any, targets: Any, **more: Any) -> Batch:
        chosen = _chosen(targets, answers)
        pictures = [_picture(each) for each in _checked(inputs)]
        return a_batch(
            [explainer.explain(*each) for each in zip(pictures, [question] * len(pictures), chosen, strict=True)]
        )

    return explain


def _chosen(targets: Any, answers: Sequence[str]) -> list[str]:
    numbers = np.asarray(targets).ravel()
    if numbers.dtype.kind not in "iu" or (numbers < 0).any() or (numbers >= len(answers)).any():
        raise InputError(f"targets number the {len(answers)} answers from 0")
    return [answers[int(number)] for number in numbers]


def _checked(inputs: Any) -> NDArray[np.floating]:
    pixels = np.asarray(inputs)
    if pixels.ndim != 4 or pixels.shape[1] != 3 or not 0 <= pixels.min() <= pixels.max() <= 1:
        raise InputError("inputs are pictures [B, 3, height, width] in [0, 1]")
    return pixels


def _picture(pixels: NDArray[np.floating]) -> Image.Image:
    return Image.fromarray((pixels * 255).round().astype(np.uint8).transpose(1, 2, 0))
