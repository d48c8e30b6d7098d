"""Which keys of the sequence are visual, and which patch of an image each of them stands for (METHOD.md section 6)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from dexar_fast.errors import InputError, ModelError
from dexar_fast.vision.blocks import Block, Prompt, Shown, UnknownLayout
from dexar_fast.vision.families import FAMILIES
from dexar_fast.vision.grid import Grid, Size
from dexar_fast.vision.patches import named_grids

IMAGE_TOKENS = ("image_token_id", "image_token_index")
VIDEO_TOKENS = ("video_token_id", "video_token_index")
VIDEOS = "pixel_values_videos"
KINDS, VIDEO_KIND = "mm_token_type_ids", 2  # what processors say of each id: text 0, image 1, video 2


DECLARED, ASSUMED, CHECKED, MEASURED, NONE = "declared", "assumed", "checked", "measured", "none"


@dataclass(frozen=True)
class Layout:
    """The visual tokens of a prompt: where they stand in the sequence [N], and where they lie in the images.

    Attributes:
        warning: why there are no grids, or what they assume.
        how: how the grids are known. "declared": by the family and the inputs; "assumed": by the inputs of a family
            that is not known; "checked": so, and pictures of blocks confirmed them; "measured"; "none": not at all.
        clips: how many frames, behind all images, each video has.
    """

    positions: Tensor
    grids: tuple[Grid, ...]
    warning: str | None = None
    how: str = DECLARED
    clips: tuple[int, ...] = ()

    @property
    def is_exact(self) -> bool:
        """Whether the grids end where the model's view of an image does; measured ones may be a part of a cell off."""
        return self.how != MEASURED


def names_image_token(config: Any) -> bool:
    """Whether a model's config names a placeholder id for images or video frames."""
    return bool(_ids(config, IMAGE_TOKENS + VIDEO_TOKENS))


def visual_token_ids(config: Any) -> list[int]:
    """The placeholder ids a model's config names for images and video frames."""
    found = sorted({*_ids(config, IMAGE_TOKENS), *_ids(config, VIDEO_TOKENS)})
    if not found:
        raise ModelError(
            f"{type(config).__name__} names no image token ({', '.join(IMAGE_TOKENS + VIDEO_TOKENS)}): dexar_fast "
            "explains models that read images as placeholder tokens in the prompt"
        )
    return found


def visual_positions(config: Any, input_ids: Tensor) -> Tensor:
    """Positions [N] int64 in input_ids [1, P] that hold an image or video placeholder."""
    placeholders = torch.tensor(visual_token_ids(config), device=input_ids.device)
    positions = torch.isin(input_ids[0], placeholders).nonzero()[:, 0]
    if len(positions) == 0:
        raise InputError("the prompt holds no image token: pass an image, or put the model's image token in the prompt")
    return positions


def layout(
    config: Any,
    processor: Any,
    inputs: Mapping[str, Any],
    sizes: Sequence[Size] | None,
    shown: Shown | None = None,
) -> Layout:
    """Where the visual tokens of a prompt lie.

    Args:
        config: the model's.
        processor: the model's, or None; only the settings of its image processor are read.
        inputs: what the processor returned: input_ids [1, P], and the shapes of the rest.
        sizes: (width, height) of each original image, then of each frame of the videos; None where they are not known:
            then a grid has no box, and images that are cut into tiles have no grids.
        shown: which of them are frames of which video; None: not known.
    Raises:
        InputError: no visual token. ModelError: a model without any.
    """
    positions = visual_positions(config, inputs["input_ids"]).cpu()
    video = _of_videos(config, inputs)[positions].tolist()
    prompt = Prompt(config, getattr(processor, "image_processor", None), inputs, sizes, video, shown)
    family = FAMILIES.get(config.model_type, named_grids)
    clips = () if shown is None else shown.clips
    try:
        grids = _placed(prompt, *family(prompt))
    except UnknownLayout as reason:
        return nowhere(positions, str(reason), clips)
    known = family is not named_grids
    notes = [*([] if known else [_assumption(config)]), *prompt.notes]
    return Layout(positions, grids, "; ".join(dict.fromkeys(notes)) or None, DECLARED if known else ASSUMED, clips)


def _of_videos(config: Any, inputs: Mapping[str, Any]) -> Tensor:
    """[P] of each id, whether it stands for a part of a video, by itself or by what the processor says beside it."""
    ids, kinds = inputs["input_ids"][0].cpu(), inputs.get(KINDS)
    image_ids, video_ids = (torch.tensor(_ids(config, names), device="cpu") for names in (IMAGE_TOKENS, VIDEO_TOKENS))
    named = torch.isin(ids, video_ids.to(ids)) & ~torch.isin(ids, image_ids.to(ids))
    if VIDEOS in inputs and isinstance(kinds, Tensor) and kinds.shape == inputs["input_ids"].shape:
        return named | (kinds[0].cpu() == VIDEO_KIND)
    return named


def nowhere(positions: Tensor, reason: str, clips: tuple[int, ...] = ()) -> Layout:
    """Visual tokens without a place in the images."""
    return Layout(positions, (), f"the maps have no place in the image, because {reason}", NONE, clips)


def _placed(prompt: Prompt, images: list[Block], videos: list[Block]) -> tuple[Grid, ...]:
    """The grids of all blocks, in the order of the sequence."""
    kinds = _kinds(prompt, images, videos)
    _check(prompt, kinds, images, videos)
    waiting = {False: list(images), True: list(videos)}
    next_image = {False: 0, True: sum(block.images for block in images)}
    grids: list[Grid] = []
    start = 0
    while start < len(kinds):
        kind = kinds[start]
        block = waiting[kind].pop(0)
        if kinds[start : start + block.length] != [kind] * block.length:
            raise UnknownLayout("its images and videos are interleaved in another way than its inputs say")
        grids += [replace(grid, image=next_image[kind] + grid.image, start=start + grid.start) for grid in block.grids]
        next_image[kind] += block.images
        start += block.length
    return tuple(grids)


def _kinds(prompt: Prompt, images: list[Block], videos: list[Block]) -> list[bool]:
    """Of each visual token, whether it belongs to a video."""
    if prompt.shown is None or prompt.shown.order is None:
        return prompt.video
    lengths = {False: iter(images), True: iter(videos)}
    return [kind for kind in prompt.shown.order for _ in range(next(lengths[kind]).length)]


def _check(prompt: Prompt, kinds: list[bool], images: list[Block], videos: list[Block]) -> None:
    """Raises UnknownLayout unless the blocks make up all visual tokens and all images given."""
    wanted = [sum(block.length for block in blocks) for blocks in (images, videos)]
    there = [kinds.count(kind) for kind in (False, True)]
    if wanted != there or len(kinds) != len(prompt.video):
        raise UnknownLayout(
            f"the prompt's {len(prompt.video)} visual tokens are not the {sum(wanted)} that its inputs and settings "
            "make"
        )
    shown = sum(block.images for block in images + videos)
    if prompt.sizes is not None and shown != len(prompt.sizes):
        raise UnknownLayout(f"the inputs hold {shown} images and frames, and {len(prompt.sizes)} were given")


def _assumption(config: Any) -> str:
    return (
        f"the geometry of the model family {config.model_type!r} is not known: the grid that its inputs name is laid "
        "over all of each image"
    )


def _ids(config: Any, names: Sequence[str]) -> list[int]:
    return [int(value) for name in names if (value := getattr(config, name, None)) is not None]
