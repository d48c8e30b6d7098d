"""Conversations with the real processors of families, at the sizes of released checkpoints; pictures in two turns."""

from __future__ import annotations

from typing import Any

import processors
import pytest
import small_llava
import torch
from alike import assert_same
from transformers import AutoModelForImageTextToText
from zoo_dialogues import counted

from dexar_fast import Explainer
from dexar_fast.kvcache.reuse import takes_images_behind

PICTURES = {"what is it": small_llava.noise(300), "it is red": small_llava.noise(200).resize((380, 150)), "a dog": None}
TOKENS = {"gemma3": "<start_of_image>"}
WORDS = "the cat is on the mat"
NEW = 30  # tokens of a turn without a picture, at most


def explainer(name: str) -> Explainer:
    """A family's real processor and config, with random weights."""
    family = processors.IMAGES[name]()
    token = TOKENS.get(name, family.processor.image_token)
    family.processor.chat_template = small_llava.TEMPLATE.replace("<image>", token)
    torch.manual_seed(0)
    model: Any = AutoModelForImageTextToText.from_config(family.config)
    model.set_attn_implementation("sdpa")
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.normal_(0, 0.3)
    return Explainer(model.eval(), family.processor)


@pytest.mark.parametrize("name", ["llava", "bakllava", "llava_siglip", "gemma3", "aya"])
def test_a_turn_is_explained_as_the_whole_dialogue_and_runs_what_is_new(name: str) -> None:
    talking = explainer(name)
    chat, alone = talking.chat(), Explainer(talking.model, talking.processor)
    messages: list[dict[str, Any]] = []
    length = 0
    for question, picture in PICTURES.items():
        shown = [] if picture is None else [{"type": "image", "image": picture}]
        messages.append({"role": "user", "content": [*shown, {"type": "text", "text": question}]})
        expected = alone.explain(None, messages, WORDS)
        with counted(talking.model.get_decoder().layers[0]) as positions:
            found = chat.ask(question, picture, WORDS)
        messages.append({"role": "assistant", "content": WORDS})
        assert_same(found, expected, 2e-5)
        assert found.metadata["prompt"] == expected.metadata["prompt"]
        whole, length = length == 0 or not takes_images_behind(talking.model), found.metadata["prompt_tokens"]
        assert whole or sum(positions) <= NEW or picture is not None
        assert whole or sum(positions) < length
