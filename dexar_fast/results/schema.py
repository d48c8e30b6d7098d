"""The fields of an explanation and what they must be, checked whenever one is made or loaded."""

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from dexar_fast.errors import InputError, NumericalError
from dexar_fast.results.text_relevance import TextRelevance
from dexar_fast.vision.grid import Grid
from dexar_fast.vision.regions import Cells, Regions

ARRAYS = {
    "token_ids": "T",
    "visual_positions": "N",
    "visual_scores": "TLH",
    "text_scores": "TLH",
    "head_weights": "TLH",
    "token_weights": "T",
    "token_maps": "TN",
    "unfiltered_token_maps": "TN",
    "sequence_map": "N",
    "unfiltered_sequence_map": "N",
}
"""Name of every tensor field -> its axes: T tokens, N visual tokens, L layers, H heads."""

MOST_IMAGES = 2**16
_INTEGERS = ("token_ids", "visual_positions")


@dataclass(frozen=True, eq=False, repr=False)
class Result:
    """What was found about the T tokens of an answer; `dexar_fast.Explanation` says what each field is.

    Raises:
        InputError: a field of the wrong type, shape, dtype or device.
        NumericalError: NaN or infinity in an array.
    """

    token_ids: Tensor
    tokens: list[str]
    visual_positions: Tensor
    visual_scores: Tensor
    text_scores: Tensor
    head_weights: Tensor
    token_weights: Tensor
    token_maps: Tensor
    unfiltered_token_maps: Tensor
    sequence_map: Tensor
    unfiltered_sequence_map: Tensor
    grids: tuple[Cells, ...]
    diagnostics: dict[str, Any]
    metadata: dict[str, Any]
    images: tuple[Image.Image, ...] = ()
    text_relevance: TextRelevance | None = None

    def __post_init__(self) -> None:
        _check(self)

    def __len__(self) -> int:
        """T, the number of tokens explained."""
        return len(self.tokens)

    @property
    def values(self) -> str:
        """What the N values of a map belong to: visual tokens, or regions."""
        return "regions" if any(isinstance(each, Regions) for each in self.grids) else "visual tokens"

    @property
    def weighted(self) -> bool:
        """Whether the method weighs tokens; where it does not, every weight is 1."""
        return self.diagnostics.get("weighted") is not False

    @property
    def layer_weights(self) -> Tensor:
        """[T, L], how much each layer counts for each token: the sum of w, `head_weights`, over its heads.

        The paper weights heads, not layers; this sum is ours. A layer of 0 adds nothing to the token's map. It is not
        the layer's share of the map, since that also depends on the G of the heads.
        """
        return self.head_weights.sum(2)


def _check(result: Result) -> None:
    arrays = {name: getattr(result, name) for name in ARRAYS}
    for name, array in arrays.items():
        if not isinstance(array, Tensor) or array.device.type != "cpu":
            raise InputError(f"{name} must be a torch tensor on the CPU: call .cpu() first")
    _check_shapes(arrays)
    _check_dtypes(arrays)
    _check_finite(arrays)
    _check_tokens(result.tokens, len(result.token_ids))
    for grid in result.grids:
        if isinstance(grid, Regions):
            _check_regions(grid, len(result.visual_positions))
        else:
            _check_grid(grid, len(result.visual_positions))
    _check_images(result.images, result.grids)
    _check_text(result.text_relevance, len(result.token_ids))
    _check_json("diagnostics", result.diagnostics)
    _check_json("metadata", result.metadata)


def _check_text(found: Any, tokens: int) -> None:
    if found is not None and not (isinstance(found, TextRelevance) and len(found.maps) == tokens):
        raise InputError(f"text_relevance must be None or a TextRelevance of the {tokens} tokens")


def _check_shapes(arrays: dict[str, Tensor]) -> None:
    sizes: dict[str, int] = {}
    for name, axes in ARRAYS.items():
        shape = list(arrays[name].shape)
        expected = [sizes.get(axis) for axis in axes]
        if len(shape) != len(axes) or any(e not in (None, s) for e, s in zip(expected, shape, strict=True)):
            known = ", ".join(f"{axis}={size}" for axis, size in sizes.items())
            raise InputError(f"{name} must have shape [{', '.join(axes)}], not {shape}; so far {known or 'none'}")
        sizes |= dict(zip(axes, shape, strict=True))


def _check_dtypes(arrays: dict[str, Tensor]) -> None:
    real = arrays["token_maps"].dtype
    if real not in (torch.float32, torch.float64):
        raise InputError(f"token_maps must be float32 or float64, not {real}")
    for name, array in arrays.items():
        expected = torch.int64 if name in _INTEGERS else real
        if array.dtype != expected:
            raise InputError(f"{name} must be {expected} (all real arrays of one dtype), not {array.dtype}")


def _check_finite(arrays: dict[str, Tensor]) -> None:
    for name, array in arrays.items():
        if not all_finite(array):
            raise NumericalError(f"{name} holds NaN or infinity: use float32 or bfloat16 if the model overflowed")


def all_finite(array: Tensor) -> bool:
    """Whether an array holds neither NaN nor infinity. A finite sum shows it in one read; huge numbers need another."""
    return bool(array.sum().isfinite()) or bool(array.isfinite().all())


def _check_tokens(tokens: Any, count: int) -> None:
    if not isinstance(tokens, list) or not all(isinstance(token, str) for token in tokens):
        raise InputError("tokens must be a list of str")
    if len(tokens) != count:
        raise InputError(f"there must be one text per token: {count} token ids, but {len(tokens)} tokens")


def _check_grid(grid: Grid, visual_tokens: int) -> None:
    stride = grid.columns if grid.row_stride is None else grid.row_stride
    numbers = (grid.image, grid.start, grid.rows, grid.columns, grid.frames, stride)
    smallest = (0, 0, 1, 1, 1, grid.columns)
    if type(grid.video) is not bool:
        raise InputError(f"{grid}: video must be True or False")
    if not all(type(n) is int and n >= least for n, least in zip(numbers, smallest, strict=True)):
        raise InputError(
            f"{grid} must hold ints: image, start from 0; rows, columns, frames from 1; row_stride >= columns"
        )
    if grid.images.stop > MOST_IMAGES:
        raise InputError(f"{grid} covers more images than the {MOST_IMAGES} that an explanation may hold")
    if grid.start + (grid.rows - 1) * stride + grid.columns > visual_tokens:
        raise InputError(f"{grid} reaches beyond the {visual_tokens} visual tokens")
    if grid.box is not None and not _is_box(grid.box):
        raise InputError(f"{grid}: box must be finite numbers (left, top, right, bottom), left < right, top < bottom")


def _check_regions(regions: Regions, values: int) -> None:
    labels = regions.labels
    if not isinstance(labels, np.ndarray) or labels.dtype != np.int32 or labels.ndim != 2 or labels.size == 0:
        raise InputError("regions must have labels [height, width] of int32: a numpy array")
    if type(regions.image) is not int or type(regions.start) is not int or not 0 <= regions.image < MOST_IMAGES:
        raise InputError("regions must hold ints: image, start from 0")
    if type(regions.video) is not bool:
        raise InputError("regions must say whether they are of a video's frame: True or False")
    if regions.start < 0 or int(labels.min()) < 0 or regions.start + int(labels.max()) >= values:
        raise InputError(f"the labels of regions name others than the {values} values of a map")


def _is_box(box: Sequence[float]) -> bool:
    return (
        len(box) == 4
        and all(isinstance(edge, int | float) and abs(edge) <= sys.float_info.max for edge in box)
        and box[0] < box[2]
        and box[1] < box[3]
    )


def _check_images(images: Sequence[Image.Image], grids: Sequence[Cells]) -> None:
    if not all(isinstance(image, Image.Image) and image.mode == "RGB" for image in images):
        raise InputError("images must be PIL images in RGB: call .convert('RGB') first")
    if any(0 in image.size for image in images):
        raise InputError("images must have pixels: leave an empty one out")
    if images and any(grid.images.stop > len(images) for grid in grids):
        raise InputError(f"a grid belongs to an image beyond the {len(images)} given: pass all images, or none")


def _check_json(name: str, value: Any) -> None:
    if not isinstance(value, dict):
        raise InputError(f"{name} must be a dict")
    try:
        json.dumps(value, allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise InputError(f"{name} must be plain JSON of finite numbers: {error}") from error
