"""EAGLE: a repository and no package, so the loop of its baselines stands here."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from PIL import Image

from bench.adapters.tool import Common, Row, Tool
from bench.subjects import Subject
from dexar_fast.adapters.eagle import write
from dexar_fast.explanation import Explanation
from dexar_fast.metrics.hiding.ordering import STEPS


def rows(common: Common) -> Sequence[Row]:
    found = common.explainer.explain(common.picture, common.prompt, common.answer)
    return [
        Row(
            "files of a map",
            partial(_ours, common, found),
            partial(_theirs, common, found, common.subject()),
            f"{2 * STEPS} forwards of the same pictures: ours in batches, theirs one by one through the processor",
            rounds=3,
        )
    ]


def _ours(common: Common, found: Explanation) -> None:
    with TemporaryDirectory() as folder:
        write(common.explainer, found, Path(folder), "sample")


@torch.no_grad()
def _theirs(common: Common, found: Explanation, subject: Subject) -> list[tuple[Any, Any]]:
    pixels, heat = np.asarray(common.picture), found.heatmap(resolution="image")
    order, curves = np.argsort(-heat.ravel()), []
    for step in range(1, STEPS + 1):
        shown = np.zeros(heat.size, bool)
        shown[order[: heat.size * step // STEPS]] = True
        both = [_probabilities(common, subject, pixels * each.reshape(*heat.shape, 1)) for each in (shown, ~shown)]
        curves.append((both[0], both[1]))
    return curves


def _probabilities(common: Common, subject: Subject, pixels: Any) -> Any:
    made = common.explainer.processor.image_processor(Image.fromarray(pixels), return_tensors="pt")
    logits = subject.model(**subject.whole(len(subject.targets)) | {"pixel_values": made["pixel_values"]}).logits[0]
    return logits[subject.prompt - 1 : -1].softmax(-1).gather(1, subject.targets[:, None])[:, 0]


TOOL = Tool("EAGLE", None, rows)
