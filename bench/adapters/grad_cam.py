"""pytorch-grad-cam: its GradCAM of the vision tower's last layer, for one token after the other."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bench.adapters.tool import Common, Row, Tool
from bench.subjects import Subject
from dexar_fast.adapters.grad_cam import VLMCam


def rows(common: Common) -> Sequence[Row]:
    from pytorch_grad_cam import GradCAM

    pixels = torch.from_numpy(np.asarray(common.picture, np.float32)).permute(2, 0, 1)[None] / 255
    ours = VLMCam(common.explainer.model, common.explainer.processor, common.prompt)
    return [
        Row(
            "a map of each token",
            partial(ours, pixels, [common.answer]),
            partial(_theirs, GradCAM, common.subject()),
            "ours: one pass by dex-ar, and the processor; theirs: for each token a forward and a backward to the last "
            "layer of the vision tower",
        )
    ]


class _Classifier(torch.nn.Module):
    """The logits at one place of a given answer, from the pixels."""

    def __init__(self, found: Subject, token: int) -> None:
        super().__init__()
        self.model = found.model
        self.rest = found.whole(token)

    def forward(self, pixels: Tensor) -> Tensor:
        return self.model(**self.rest | {"pixel_values": pixels}, use_cache=False).logits[:, -1]


def _theirs(cams: Any, found: Subject) -> list[Any]:
    layer = found.model.model.vision_tower.encoder.layers[-1].layer_norm1
    maps = []
    for token, target in enumerate(found.targets.tolist()):
        with cams(_Classifier(found, token), [layer], reshape_transform=_grid) as cam:
            maps.append(cam(found.inputs["pixel_values"], [lambda logits, target=target: logits[target]]))
    found.model.zero_grad()
    return maps


def _grid(states: Tensor) -> Tensor:
    """[B, channels, rows, columns] of a tower's states behind its class token."""
    side = round((states.shape[1] - 1) ** 0.5)
    return states[:, 1:].unflatten(1, (side, side)).permute(0, 3, 1, 2)


TOOL = Tool("pytorch-grad-cam", "grad-cam", rows)
