"""pytorch-grad-cam's call over this engine: pictures in, maps out that its `show_cam_on_image` draws.

    from dexar_fast.adapters.grad_cam import VLMCam      # was: from pytorch_grad_cam import GradCAM

    with VLMCam(model, processor, "What is it?") as cam:
        grayscale_cam = cam(input_tensor, targets=["A cat."])[0]

Its CAMs hook the activations of a layer and score a class; here a method of ours takes the place of the layer, and an
answer that of the class. pytorch-grad-cam itself is not imported.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from dexar_fast.adapters.pictures import explained, maps, pictures
from dexar_fast.errors import InputError
from dexar_fast.explainer import Explainer
from dexar_fast.explanation import Explanation


class VLMCam:
    """Maps of answers about pictures.

    Args:
        model, processor: as `Explainer` takes them.
        prompt: the question about each picture.
        options: of `Explainer`: method="tam", layers=..., and so on.
    Attributes:
        outputs: the explanations of the last call, in order: what was answered, the map of each token.
    """

    def __init__(self, model: Any, processor: Any, prompt: str = "Describe the image.", **options: Any) -> None:
        self._explainer = Explainer(model, processor, **options)
        self._prompt = prompt
        self.outputs: list[Explanation] = []

    def __call__(self, input_tensor: Any, targets: Sequence[str] | None = None) -> NDArray[np.float32]:
        """[B, height, width] in [0, 1], each picture's map of the whole answer at the size of the picture.

        Args:
            input_tensor: [B, 3, height, width] in [0, 1], not normalised.
            targets: an answer to each picture; None generates them.
        Raises:
            InputError: other pictures, or targets that are no answers. Else as `Explainer.explain`.
        """
        images = pictures(input_tensor)
        answers: Sequence[str | None] = [None] * len(images) if targets is None else targets
        if len(answers) != len(images) or not all(each is None or isinstance(each, str) for each in answers):
            raise InputError(f"targets are {len(images)} texts, the answer to each picture, and not classes of its own")
        self.outputs = explained(self._explainer, images, self._prompt, answers)
        return maps(self.outputs)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Nothing to release: no hook outlives a call."""
