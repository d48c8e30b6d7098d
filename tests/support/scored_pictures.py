"""Log-probabilities of an answer under one picture, by transformers alone: what hiding parts is tested against."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from PIL import Image

from dexar_fast import Explainer, Explanation


def scored(explainer: Explainer, e: Explanation, picture: np.ndarray) -> np.ndarray:
    """[T] float64, one forward of prompt and answer; the processor is called as a user calls it."""
    inputs = explainer.processor(images=Image.fromarray(picture), text=e.metadata["prompt"], return_tensors="pt")
    return of_logits(explainer.model, e, inputs)


@torch.no_grad()
def of_logits(model: Any, e: Explanation, inputs: Any, **embeds: torch.Tensor) -> np.ndarray:
    """[T], of the answer behind these inputs; `embeds` take the place of pictures and ids."""
    ids = torch.cat([inputs["input_ids"], e.token_ids[None]], 1)
    given = embeds or {"input_ids": ids, "pixel_values": inputs["pixel_values"]}
    logits = model(**given, attention_mask=torch.ones_like(ids)).logits[0].double()
    rows = logits[inputs["input_ids"].shape[1] - 1 : -1].log_softmax(-1)
    return rows.gather(1, e.token_ids[:, None])[:, 0].numpy()
