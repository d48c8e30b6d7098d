"""What is profiled: a model, an image, a prompt and an answer of a fixed length."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from dexar_fast.errors import InputError, ModelError, reason
from dexar_fast.explainer import Explainer
from dexar_fast.explanation import Explanation
from dexar_fast.loading import models
from dexar_fast.loading.adapters import unwrapped
from dexar_fast.model.cache import goes_back, to_generate, whole_cache
from dexar_fast.profile.dimensions import DIMENSIONS
from dexar_fast.profile.shapes import build
from dexar_fast.prompt import prompting
from dexar_fast.prompt.inputs import on_device
from dexar_fast.vision.geometry import visual_positions
from dexar_fast.vision.images import load_images

WORD = " the"
QUESTION = "Describe the image."


@dataclass(frozen=True)
class Workload:
    """The jobs that are compared, on one model, and what they work on."""

    model: Any
    explain: Callable[[], Explanation]  # generates, then explains
    generate: Callable[[], Tensor]  # the same without explaining
    batch: Callable[[int], list[Any]]  # generates and explains so many at once
    about: dict[str, Any]

    @property
    def device(self) -> torch.device:
        return self.model.device


def workload(
    name: str | None,
    *,
    image_size: int | None = None,
    prompt_tokens: int | None = None,
    new_tokens: int = 32,
    device: str | None = None,
    dtype: str | None = None,
    **knobs: Any,
) -> Workload:
    """A named shape with random weights, a model by id or folder, or the embedded one (None).

    Args:
        image_size: pixels of a square image; None is what a named shape takes, and 336 for other models.
        prompt_tokens: of the whole prompt, its visual tokens included; None is a short question.
        new_tokens: how many tokens are generated and explained.
        knobs: of the Explainer.
    Raises:
        InputError: a size the model does not take. ModelError: no such model.
    """
    if image_size is not None and image_size < 1:
        raise InputError(f"an image of {image_size} pixels a side: give at least 1")
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    length: dict[str, Any] = {"max_new_tokens": new_tokens, "min_new_tokens": new_tokens, "do_sample": False}
    if name in DIMENSIONS:
        return _of_shape(str(name), image_size, prompt_tokens, length, device, dtype, knobs)
    model, processor, _ = models.load(name, device, dtype)
    picture = _picture(image_size or 336)
    prompt = _prompt(processor, picture, prompt_tokens)
    explainer = Explainer(model, processor, **knobs)

    def inputs() -> Mapping[str, Any]:
        pictures = load_images(picture)
        processed = prompting.process(processor, prompting.render(processor, prompt, pictures))
        return on_device(model, processed)

    return Workload(
        model,
        lambda: explainer.explain(picture, prompt, **length),
        lambda: _generated(model, inputs(), length),
        lambda size: explainer.explain_batch([(picture, prompt)] * size, size, **length),
        _about(name or "embedded", model, inputs(), list(picture.size), new_tokens),
    )


def _of_shape(
    name: str,
    image_size: int | None,
    prompt_tokens: int | None,
    length: dict[str, Any],
    device: str,
    dtype: str | None,
    knobs: dict[str, Any],
) -> Workload:
    default = torch.bfloat16 if device.startswith("cuda") else torch.float32
    models.checked_dtype(dtype)
    try:
        built = build(
            name, device, getattr(torch, dtype.removeprefix("torch.")) if dtype not in (None, "auto") else default
        )
    except (RuntimeError, AssertionError) as error:  # out of memory, or what torch says of a device that is not there
        raise ModelError(f"cannot build {name} on device {device!r}: {reason(error)}") from error
    inputs = built.inputs_for(prompt_tokens, image_size)
    explainer = Explainer(built.model, **knobs)
    return Workload(
        built.model,
        lambda: explainer.explain_inputs(inputs, **length),
        lambda: _generated(built.model, inputs, length),
        lambda size: explainer.explain_batch_inputs([(inputs, None)] * size, size, **length),
        _about(name, built.model, inputs, None, length["max_new_tokens"]),
    )


def _generated(model: Any, inputs: Mapping[str, Any], length: dict[str, Any]) -> Tensor:
    cache = to_generate(whole_cache(model.config)) if goes_back(model.config) else {}
    return model.generate(**inputs, **cache, **length)


def _picture(side: int) -> Image.Image:
    """Noise: no processor can take a short way with it."""
    return Image.effect_noise((side, side), 64).convert("RGB")


def _prompt(processor: Any, picture: Image.Image, tokens: int | None) -> str:
    """A question after as many words as bring the whole prompt to `tokens` tokens, give or take one or two."""
    if tokens is None:
        return QUESTION

    def length(words: int) -> int:
        rendered = prompting.render(processor, WORD * words + QUESTION, [picture])
        return prompting.process(processor, rendered)["input_ids"].shape[1]

    short = length(0)
    if tokens < short:
        raise InputError(f"a prompt of {tokens} tokens does not hold the image and a question, {short}: ask for more")
    return (WORD * (tokens - short)).lstrip() + QUESTION


def _about(
    name: str, model: Any, inputs: Mapping[str, Any], image: list[int] | None, new_tokens: int
) -> dict[str, Any]:
    return {
        "model": name,
        "model_class": type(unwrapped(model)).__name__,
        "device": torch.cuda.get_device_name(model.device) if model.device.type == "cuda" else "cpu",
        "dtype": str(model.dtype).removeprefix("torch."),
        "image": image,
        "prompt_tokens": inputs["input_ids"].shape[1],
        "visual_tokens": len(visual_positions(model.config, inputs["input_ids"])),
        "new_tokens": new_tokens,
    }
