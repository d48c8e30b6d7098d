"""Finds which pictures a model saw, and with which settings: makes the pixels again and compares them.

Whoever made the inputs may have called the processor with other settings than it holds, with a photo that lies on its
side, or with another picture altogether. A map is drawn only if the processor makes the inputs' pixels of a picture.
The first reading of the pictures and the first settings that do so count.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from PIL import Image
from torch import Tensor

from dexar_fast.prompt.remade.making import CLOSE, VIDEO, made, same, usual_settings, variants
from dexar_fast.prompt.remade.ways import Ways
from dexar_fast.prompt.request import Request
from dexar_fast.prompt.sampled import picked
from dexar_fast.vision.blocks import Shown
from dexar_fast.vision.geometry import Layout, layout, nowhere, visual_positions
from dexar_fast.vision.images import is_turned, readings

ALIKE = 0.05  # how far a picture may be off that was resized before the processor got it

UNCHECKED = "without the model's image processor it is not checked that the images given are those behind the inputs"
OTHERS = (
    "the inputs' pixels are not those that the processor makes of the images given: pass the very pictures it got, in "
    "the order of the prompt, and give the processor itself the settings that its call was given, as in "
    "processor.image_processor.do_center_crop = False"
)
TURNED = (
    "an image says that it is to be turned (EXIF), and without the model's image processor it cannot be told whether "
    "the model saw it turned: make the Explainer with the processor"
)


@dataclass(frozen=True)
class Settings:
    """An image processor whose settings a call changed."""

    base: Any
    changed: Mapping[str, Any]

    def __getattr__(self, name: str) -> Any:
        return self.changed[name] if name in self.changed else getattr(self.base, name)

    def get_number_of_image_patches(self, height: int, width: int, images_kwargs: dict[str, Any]) -> Any:
        """transformers' own count of the tiles of an image."""
        return self.base.get_number_of_image_patches(height, width, {**self.changed, **images_kwargs})


@dataclass(frozen=True)
class Called:
    """A processor with the settings of one call."""

    image_processor: Any


def placed(config: Any, processor: Any, request: Request) -> tuple[list[Image.Image], Layout]:
    """The pictures that the model saw, upright or as they lay, and where the visual tokens lie in them.

    Raises:
        InputError, ModelError: as `layout`.
    """
    inputs, images = request.inputs, request.images
    base = getattr(processor, "image_processor", None)
    usual = Called(None if base is None else Settings(base, usual_settings(processor)))
    if request.given is None:
        return images, layout(config, usual, inputs, [image.size for image in images] or None)
    if not _can_check(processor, inputs):
        if is_turned(request.given):
            return images, nowhere(visual_positions(config, inputs["input_ids"]).cpu(), TURNED)
        found = layout(config, usual, inputs, [image.size for image in images])
        return images, replace(found, warning=found.warning or UNCHECKED)
    for seen, called, shown in _ways(processor, request):
        return seen, layout(config, called, inputs, [image.size for image in seen], shown)
    found = layout(config, usual, inputs, [image.size for image in images])
    return images, nowhere(found.positions, OTHERS) if found.grids else found


def _can_check(processor: Any, inputs: Mapping[str, Any]) -> bool:
    """Whether there are processors to make the pixels again."""
    names = ["image_processor"] + (["video_processor"] if VIDEO in inputs else [])
    return all(callable(getattr(processor, name, None)) for name in names)


def _ways(processor: Any, request: Request) -> Iterator[tuple[list[Image.Image], Called, Shown]]:
    """Each reading of the pictures that gives the inputs' pixels, the settings with which it does, and as what."""
    base, usual, inputs = processor.image_processor, usual_settings(processor), request.inputs
    told = tuple(len(video.frames) for video in request.videos)
    for pictures in _chosen(request):
        for changed in variants(base, usual):
            for way in Ways(processor, inputs, changed, told).of(pictures):
                if way.shown is not None and same(way.make(pictures), inputs, CLOSE):
                    yield pictures, Called(Settings(base, changed)), way.shown
    for pictures in readings(request.given):
        resized = _resized(pictures, inputs, base)
        if resized and same(made(base, resized, {**usual, "do_resize": False}), inputs, ALIKE):
            yield pictures, Called(Settings(base, usual)), Shown(len(pictures))


def _chosen(request: Request) -> Iterator[list[Image.Image]]:
    """Each reading of the pictures; also with the sampled frames alone, where all of the videos may be given."""
    for pictures in readings(request.given):
        yield pictures
        sampled = picked(pictures, request.videos)
        if sampled is not None:
            yield sampled


def _resized(images: list[Image.Image], inputs: Mapping[str, Any], base: Any) -> list[Image.Image] | None:
    """The images resized to the sizes that the inputs name; None where these are their own, or the inputs name none."""
    grids, sizes, patch = inputs.get("image_grid_thw"), inputs.get("image_sizes"), getattr(base, "patch_size", None)
    if isinstance(grids, Tensor) and isinstance(patch, int):
        targets = [(width * patch, height * patch) for _, height, width in grids.tolist()]
    elif isinstance(sizes, Tensor):
        targets = [(width, height) for height, width in sizes.tolist()]
    else:
        return None
    if len(targets) != len(images) or targets == [image.size for image in images]:
        return None
    return [image.resize(target, Image.Resampling.BICUBIC) for image, target in zip(images, targets, strict=True)]
