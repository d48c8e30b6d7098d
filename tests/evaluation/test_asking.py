"""An explanation's request read again: its pictures in the nesting that they were explained in."""

from __future__ import annotations

import copy
from types import SimpleNamespace
from typing import Any

import processors
import pytest
import torch
from pictures import picture
from PIL import Image
from transformers import AutoModelForImageTextToText

from dexar_fast import Explainer, InputError
from dexar_fast.data.shapes import draw_scene
from dexar_fast.evaluation import asking, occlusion
from dexar_fast.prompt import request

PROMPT, ANSWER = "Compare them.", " A red circle."


def nesting(processor: Any) -> Any:
    """The processor, which writes pictures otherwise where they are no conversation's."""

    def call(self: Any, images: Any = None, text: Any = None, **more: Any) -> Any:
        listed = isinstance(images, list) and len(images) > 1 and isinstance(images[0], Image.Image)
        pictures = images[0] if isinstance(images, list) and isinstance(images[0], list) else images
        return type(processor).__call__(self, images=pictures, text=f"Each alone. {text}" if listed else text, **more)

    made = copy.copy(processor)
    made.__class__ = type(type(processor).__name__, (type(processor),), {"__call__": call})
    return made


@pytest.fixture(scope="module")
def nested(embedded: Explainer) -> Explainer:
    return Explainer(embedded.model, nesting(embedded.processor))


@pytest.mark.parametrize("kind", ["chat", "text"])
def test_several_pictures_are_read_as_they_were_explained(nested: Explainer, kind: str) -> None:
    images = [draw_scene(n).image for n in (3, 9)]
    token = nested.processor.image_token
    prompt = PROMPT if kind == "chat" else f"{token}{token}{PROMPT}"
    found = nested.explain(images, prompt, ANSWER)
    assert ("Each alone" in nested.processor.tokenizer.decode(read(nested, found).ids)) is (kind == "text")
    assert len(nested.check(found).falls) == 3
    assert len(occlusion.agreement(nested, found, side=2).falls) == 8


def read(explainer: Explainer, found: Any) -> request.Request:
    return asking._request(SimpleNamespace(processor=explainer.processor), found, None)  # type: ignore[arg-type]


def test_another_prompt_is_still_refused(nested: Explainer) -> None:
    found = nested.explain([draw_scene(n).image for n in (3, 9)], PROMPT, ANSWER)
    found.metadata["prompt"] = found.metadata["prompt"].replace("Compare", "Do compare")
    with pytest.raises(InputError, match="tokens with this processor"):
        nested.check(found)


def onevision() -> Any:
    """LLaVA-OneVision's own processor, but for its videos, which need torchvision."""
    made = processors.onevision_processor(processors.onevision().processor.image_processor)
    made.tokenizer, made.video_processor, made.feature_extractor = processors.tokenizer(), None, None
    made.image_token, made.image_token_id = "<image>", processors.token("<image>")
    made.video_token, made.video_token_id = "<video>", processors.token("<video>")
    made.vision_feature_select_strategy = "full"
    made.chat_template = (
        "{% for m in messages %}{% for p in m.content %}{{ '<image>' if p.type == 'image' else p.text }}"
        "{% endfor %}{% endfor %}"
    )
    return made


def tiny_onevision() -> Any:
    """A model of the sizes that the processor cuts for, with all its nonlinear parts."""
    config = processors.onevision_model().config
    torch.manual_seed(0)
    return AutoModelForImageTextToText.from_config(config, attn_implementation="sdpa").eval()


@pytest.mark.parametrize("count", [1, 2])
def test_onevisions_pictures_are_read_as_its_chat_template_passes_them_on(count: int) -> None:
    explainer = Explainer(tiny_onevision(), onevision())
    found = explainer.explain([picture((300 + 90 * n, 240), n) for n in range(count)], PROMPT, ANSWER)
    again = read(explainer, found)
    assert again.inputs["batch_num_images"].tolist() == [count]
    assert len(again.ids) == found.metadata["prompt_tokens"]
    assert len(explainer.check(found, draws=1).falls) == 3
