"""Models of published dimensions with random weights, made on the device: to measure speed without a checkpoint.

Speed does not depend on the weights' values. Nothing passes through host memory: a 7B model appears on the GPU.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor
from transformers import AutoConfig, AutoModelForImageTextToText, PreTrainedModel

from dexar_fast.errors import InputError
from dexar_fast.model.modules import parameters
from dexar_fast.profile.dimensions import DIMENSIONS, TINY, llava_512

Inputs = dict[str, Tensor]
Size = int | tuple[int, int]  # pixels of a square image, or (height, width)

MODEL_TYPES = {
    "llava-1.5-7b": "llava",
    "qwen2.5-vl-7b": "qwen2_5_vl",
    "paligemma-3b": "paligemma",
    "llava-512": "llava",
}
KNOWN = parameters(llava_512).keys()  # dimensions
TEXT_TOKENS = 44  # of a prompt whose length is left open: a template and a short question
FIRST_WORD, LAST_WORD = 10, 190  # token ids that are special in none of these vocabularies


class Built(NamedTuple):
    """A model in eval mode that never ends an answer by itself, and a function that makes inputs for it."""

    model: PreTrainedModel
    inputs_for: Callable[..., Inputs]  # (prompt_tokens: int | None = None, image_size: Size | None = None)


def build(
    name: str, device: Any = "cpu", dtype: torch.dtype = torch.float32, *, tiny: bool = False, **dimensions: int
) -> Built:
    """(model, inputs_for): a named shape with random weights, the same ones each time, and prompts for it.

    `inputs_for(prompt_tokens, image_size)` gives the tensors of one prompt of `prompt_tokens` tokens in all, the visual
    ones included (None: 44 more than these), around one random image; families of a fixed resolution take no other.

    Args:
        name: one of `DIMENSIONS`.
        device, dtype: of every weight, from the start.
        tiny: a model of the same family with two narrow layers, for dry runs.
        dimensions: for `llava-512` only: `layers` (4), `grid` (24: 24 x 24 visual tokens), `width` (512) and
            `vocabulary` (1000 ids, or more).
    Raises:
        InputError: an unknown name, dimensions of another shape, or a prompt that is shorter than its image.
    """
    config = _config(name, tiny, dimensions)
    device = torch.device(device)
    with _seeded(device), device:
        model = AutoModelForImageTextToText.from_config(config, dtype=dtype).eval()
    model.generation_config.eos_token_id = None
    model.generation_config.pad_token_id = 0
    return Built(model, partial(_inputs_for, config, device, dtype))


def _config(name: str, tiny: bool, dimensions: dict[str, int]) -> Any:
    if name not in DIMENSIONS:
        raise InputError(f"unknown shape {name!r}: choose one of {', '.join(DIMENSIONS)}")
    if dimensions and (name != "llava-512" or not dimensions.keys() <= KNOWN):
        raise InputError(f"{', '.join(dimensions)}: only llava-512 takes dimensions, and these are {', '.join(KNOWN)}")
    chosen = llava_512(**dimensions) if dimensions else DIMENSIONS[name]
    return AutoConfig.for_model(MODEL_TYPES[name], **(chosen | (TINY[name] if tiny else {})))


@contextlib.contextmanager
def _seeded(device: torch.device) -> Iterator[None]:
    """One seed for the weights, without a trace in the caller's random state."""
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(0)
        yield


def _inputs_for(
    config: Any,
    device: torch.device,
    dtype: torch.dtype,
    prompt_tokens: int | None = None,
    image_size: Size | None = None,
) -> Inputs:
    inputs = INPUTS[config.model_type](config, prompt_tokens, image_size)
    return {name: x.to(device, dtype if x.is_floating_point() else None) for name, x in inputs.items()}


def _words(count: int) -> list[int]:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(FIRST_WORD, LAST_WORD, (count,), generator=generator).tolist()


def _pixels(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


def _text(prompt_tokens: int | None, image_block: int) -> int:
    """How many text tokens join an image's block of tokens, at least two."""
    text = TEXT_TOKENS if prompt_tokens is None else prompt_tokens - image_block
    if text < 2:
        raise InputError(f"a prompt of {prompt_tokens} tokens does not hold an image of {image_block}: ask for more")
    return text


def _fixed(config: Any, image_size: Size | None) -> int:
    """The side of a square image in pixels; raises InputError for a size that the family does not take."""
    side = int(config.vision_config.image_size)
    if image_size not in (None, side, (side, side)):
        raise InputError(f"{config.model_type} works at {side} x {side} pixels: leave the image size out")
    return side


def _prompt(ids: list[int], **more: Tensor) -> Inputs:
    input_ids = torch.tensor([ids])
    return {"input_ids": input_ids, "attention_mask": torch.ones_like(input_ids), **more}


def _llava_inputs(config: Any, prompt_tokens: int | None, image_size: Size | None) -> Inputs:
    side = _fixed(config, image_size)
    visual = (side // config.vision_config.patch_size) ** 2
    words = _words(_text(prompt_tokens, visual))
    half = len(words) // 2
    ids = [*words[:half], *[config.image_token_id] * visual, *words[half:]]
    return _prompt(ids, pixel_values=_pixels(1, 3, side, side))


def _qwen_inputs(config: Any, prompt_tokens: int | None, image_size: Size | None) -> Inputs:
    """Any size: rounded to whole merged cells of 28 pixels, as the processor does."""
    vision = config.vision_config
    cell = vision.patch_size * vision.spatial_merge_size
    height, width = (image_size, image_size) if isinstance(image_size, int) else image_size or (24 * cell, 24 * cell)
    rows, columns = max(1, round(height / cell)), max(1, round(width / cell))
    words = _words(_text(prompt_tokens, rows * columns + 2))
    half = len(words) // 2
    block = [config.vision_start_token_id, *[config.image_token_id] * (rows * columns), config.vision_end_token_id]
    inputs = _prompt([*words[:half], *block, *words[half:]])
    merge = vision.spatial_merge_size
    features = 3 * vision.temporal_patch_size * vision.patch_size**2
    inputs["pixel_values"] = _pixels(rows * columns * merge**2, features)
    inputs["image_grid_thw"] = torch.tensor([[1, rows * merge, columns * merge]])
    inputs["mm_token_type_ids"] = (inputs["input_ids"] == config.image_token_id).int()
    return inputs


def _paligemma_inputs(config: Any, prompt_tokens: int | None, image_size: Size | None) -> Inputs:
    """The image first, then the text, all of it one bidirectional prefix."""
    side = _fixed(config, image_size)
    visual = (side // config.vision_config.patch_size) ** 2
    inputs = _prompt([*[config.image_token_id] * visual, *_words(_text(prompt_tokens, visual))])
    inputs["token_type_ids"] = torch.zeros_like(inputs["input_ids"])
    inputs["pixel_values"] = _pixels(1, 3, side, side)
    return inputs


# (config, prompt_tokens, image_size) to the inputs of one prompt, on the CPU
INPUTS: dict[str, Callable[[Any, int | None, Size | None], Inputs]] = {
    "llava": _llava_inputs,
    "qwen2_5_vl": _qwen_inputs,
    "paligemma": _paligemma_inputs,
}
