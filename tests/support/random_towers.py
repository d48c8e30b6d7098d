"""The families of processors.py with random weights in place of linear ones: what enters their decoders, measured."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import processors
import torch
import zoo
from PIL import Image
from torch import Tensor, nn
from transformers import AutoModelForImageTextToText

from dexar_fast.vision.geometry import Layout, layout
from dexar_fast.vision.grid import Size
from dexar_fast.vision.measured.entering import entering, layers
from dexar_fast.vision.measured.measuring import Measuring

GREY = (90, 90, 90)


@dataclass(frozen=True)
class Drawn:
    """A family's model of random weights, and its inputs for pictures of these sizes."""

    family: processors.Family
    model: Any
    sizes: Sequence[Size]
    inputs: dict[str, Any]
    declared: Layout

    @classmethod
    def of(cls, name: str, sizes: Sequence[Size]) -> Drawn:
        family = processors.IMAGES[name]()
        config = family.config
        for part in (config, config.vision_config, config.text_config):
            widen(part)
        inputs = dict(family.process([Image.new("RGB", size, GREY) for size in sizes]))
        declared = layout(config, family.processor, inputs, sizes)
        return cls(
            family, drawn(AutoModelForImageTextToText.from_config(config)), sizes, forward(config, inputs), declared
        )

    def see(self, layer: nn.Module, images: list[Image.Image]) -> Tensor:
        made = {**self.inputs, **self.family.process(images)}
        return entering(self.model, layer, forward(self.model.config, made), self.declared.positions)

    def measuring(self) -> Measuring:
        found = Measuring.at_first(layers(self.model), self.see, self.sizes)
        assert found is not None
        return found


def widen(config: Any) -> None:
    """Widths of 32: among the 8 that are enough for linear towers some tokens answer to nothing."""
    for name, value in vars(config).items():
        if value == 8 and name.endswith(
            ("hidden_size", "intermediate_size", "embed_dim", "projection_dim", "head_dim")
        ):
            setattr(config, name, 32)
    if config.model_type.startswith("qwen") and config.model_type.endswith("text"):
        config.rope_parameters = {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [6, 5, 5]}


@torch.no_grad()
def drawn(model: Any) -> Any:
    """Weights that keep the scale of what goes through them."""
    draw = zoo.Draw(0)
    for name, parameter in sorted(model.named_parameters()):
        noise = draw.normal(*parameter.shape)
        if parameter.ndim > 1:
            parameter.copy_(noise / parameter[0].numel() ** 0.5)
        else:
            parameter.copy_(0.3 * noise + float(name.endswith("weight")))
    return model.eval()


def forward(config: Any, made: Any) -> dict[str, Any]:
    """What the model takes of a processor's output, and what the older processors do not write."""
    inputs = {name: value for name, value in made.items() if name not in ("labels", "num_patches")}
    inputs["attention_mask"] = torch.ones_like(inputs["input_ids"])
    if config.model_type.startswith("qwen"):
        inputs["mm_token_type_ids"] = (inputs["input_ids"] == config.image_token_id).int()
    return inputs
