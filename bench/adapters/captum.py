"""Captum: its LLM attribution over the segments of a picture."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch

from bench.adapters.tool import Common, Row, Tool
from dexar_fast.adapters.captum import LLMAttribution
from dexar_fast.methods.cut.labels import patches

SEGMENTS = (4, 4)
SAMPLES = 4


def rows(common: Common) -> Sequence[Row]:
    from captum import attr

    inp, ids = _input(common, attr), common.subject().targets
    one_pass = "one pass by dex-ar; one forward for each segment, all tokens in it"
    return [
        Row("each token, 16 segments", _ours(common, "dex-ar", inp, ids), _theirs(common, attr, inp, ids), one_pass),
        Row(
            "FeatureAblation, 16 segments",
            _ours(common, "captum:method=FeatureAblation,fill=black", inp, ids),
            _theirs(common, attr, inp, ids),
            "the same forwards of the same pictures: ours in batches; the largest difference is rounding",
        ),
        Row(
            f"ShapleyValueSampling, 16 segments, {SAMPLES} orders",
            _ours(common, f"captum:method=ShapleyValueSampling,samples={SAMPLES},fill=black", inp, ids),
            _theirs(common, attr, inp, ids, "ShapleyValueSampling", n_samples=SAMPLES),
            "as many orders of the segments, drawn apart",
            rounds=3,
        ),
    ]


def _input(common: Common, attr: Any) -> Any:
    processor, (width, height) = common.explainer.processor, common.picture.size
    asked = f"USER: <image>\n{common.prompt} ASSISTANT:"
    return attr.ImageMaskInput(
        common.picture,
        torch.from_numpy(patches(height, width, *SEGMENTS)),
        baseline=(0, 0, 0),
        processor_fn=lambda image: processor(images=image, text=asked, return_tensors="pt"),
    )


def _ours(common: Common, method: str, inp: Any, ids: torch.Tensor) -> Callable[[], Any]:
    return partial(LLMAttribution(common.explainer.with_method(method)).attribute, inp, target=ids)


def _theirs(
    common: Common, attr: Any, inp: Any, ids: torch.Tensor, method: str = "FeatureAblation", **how: Any
) -> Callable[[], Any]:
    wrapped = getattr(attr, method)(common.explainer.model)
    attribution = attr.LLMAttribution(wrapped, common.explainer.processor.tokenizer)
    return torch.no_grad()(partial(attribution.attribute, inp, target=ids, forward_in_tokens=False, **how))


TOOL = Tool("Captum", "captum", rows)
