"""Captum's LLM attribution of every answer token to every visual token: one forward without each of them."""

from __future__ import annotations

import re
from collections.abc import Callable
from importlib import import_module
from typing import Any

import numpy as np
import torch
from PIL import Image

from bench.subjects import Subject


def missing() -> str | None:
    """Why Captum cannot run here; None where it can."""
    try:
        attr = import_module("captum.attr")
    except ImportError as error:
        return f"captum does not import ({error})"
    return None if hasattr(attr, "ImageMaskInput") else "this captum has no ImageMaskInput: 0.9 has"


class _Tokenizer:
    """What Captum asks of one where the answer is given as ids: a word for each, and the words' offsets."""

    def decode(self, ids: torch.Tensor) -> str:
        return " ".join(map(str, ids.tolist()))

    def __call__(self, text: str, **unused: Any) -> dict[str, list[Any]]:
        words = [(int(found[0]), found.span()) for found in re.finditer(r"\d+", text)]
        return {"input_ids": [word for word, _ in words], "offset_mapping": [span for _, span in words]}


def attribution(subject: Subject) -> Callable[[], torch.Tensor]:
    """A job that returns [T, N]: how much each token's log-probability falls without each visual token."""
    from captum.attr import FeatureAblation, ImageMaskInput, LLMAttribution

    side = subject.inputs["pixel_values"].shape[-1]
    grid = round(len(subject.visual) ** 0.5)
    cells = torch.arange(grid).repeat_interleave(side // grid)
    generator = np.random.default_rng(0)
    image = Image.fromarray(generator.integers(0, 255, (side, side, 3), dtype=np.uint8))
    method = LLMAttribution(FeatureAblation(subject.model), _Tokenizer(), attr_target="log_prob")

    def model_inputs(image: Image.Image) -> dict[str, torch.Tensor]:
        pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1)[None] / 127.5 - 1
        return subject.inputs | {"pixel_values": pixels.to(subject.inputs["pixel_values"])}

    @torch.no_grad()
    def run() -> torch.Tensor:
        masked = ImageMaskInput(image, mask=cells[:, None] * grid + cells, processor_fn=model_inputs)
        return method.attribute(masked, target=subject.targets, forward_in_tokens=False).token_attr

    return run
