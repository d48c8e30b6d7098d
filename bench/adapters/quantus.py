"""Quantus: one of its metrics, over our model of answers and over a plain one."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from bench.adapters.tool import Common, Row, Tool
from bench.subjects import Subject
from dexar_fast.adapters.quantus import AnswerModel, a_batch

PICTURES, RUNS = 32, 2


def rows(common: Common) -> Sequence[Row]:
    import quantus

    x = np.stack([np.asarray(common.picture, np.float32).transpose(2, 0, 1) / 255] * PICTURES)
    maps = a_batch([common.explainer.explain(common.picture, common.prompt, common.answer)] * PICTURES)
    metric = quantus.FaithfulnessCorrelation(
        nr_runs=RUNS, subset_size=x[0].size // 4, abs=False, normalise=False, disable_warnings=True
    )
    given = {"x_batch": x, "y_batch": np.zeros(PICTURES, int), "a_batch": maps, "device": "cpu"}
    ours = AnswerModel(common.explainer, common.prompt, [common.answer])
    return [
        Row(
            f"FaithfulnessCorrelation, {PICTURES} pictures, {RUNS} runs",
            partial(metric, ours, **given),
            partial(metric, _Plain(common, common.subject()).eval(), **given),
            "the same metric and forwards: ours in batches, beside a module that runs one picture after the other",
            rounds=3,
        )
    ]


class _Plain(nn.Module):
    """The answer's log-probability [B, 1] for each picture, as one would write it."""

    def __init__(self, common: Common, found: Subject) -> None:
        super().__init__()
        self._known = (common.explainer.processor.image_processor, found)

    @torch.no_grad()
    def forward(self, x: Any) -> Tensor:
        return torch.stack([self._of(Image.fromarray(each)) for each in self._pictures(x)])[:, None]

    def _pictures(self, x: Any) -> Any:
        return (np.asarray(x) * 255).round().astype(np.uint8).transpose(0, 2, 3, 1)

    def _of(self, picture: Image.Image) -> Tensor:
        processor, found = self._known
        pixels = processor(picture, return_tensors="pt")["pixel_values"]
        logits = found.model(**found.whole(len(found.targets)) | {"pixel_values": pixels}).logits[0]
        rows = logits[found.prompt - 1 : -1].log_softmax(-1)
        return rows.gather(1, found.targets[:, None]).sum()


TOOL = Tool("Quantus", "quantus", rows)
