"""Pixels put together from few processed pictures are bit for bit the processor's, or nothing is put together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from dexar_fast.methods.cut.composing import composed
from dexar_fast.methods.cut.divided import Divided
from dexar_fast.methods.cut.labels import patches


def noise(height: int, width: int, seed: int = 0) -> np.ndarray[Any, Any]:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def cut(*sizes: tuple[int, int], side: int = 4, fill: str = "blur") -> Divided:
    pictures = [noise(*size, seed) for seed, size in enumerate(sizes)]
    return Divided(pictures, [patches(*size, side, side) for size in sizes], fill)


def resizing(
    size: tuple[int, int], resample: Image.Resampling = Image.Resampling.BICUBIC, dtype: torch.dtype = torch.float32
) -> Any:
    """A processor: width and height of what it makes of every picture, channels first."""

    def process(images: Sequence[Image.Image]) -> Mapping[str, Tensor]:
        arrays = [np.asarray(image.resize(size, resample)).transpose(2, 0, 1) for image in images]
        pixels = torch.from_numpy(np.stack(arrays).astype(np.float32))
        return {"pixel_values": ((pixels / 255 - 0.45) / 0.27).to(dtype)}

    return process


def check(divided: Divided, process: Any) -> None:
    found = composed(divided, process)
    assert found is not None
    regions = divided.count
    masks = torch.rand(40, regions, generator=torch.Generator().manual_seed(9)) < 0.5
    for mask in [torch.zeros(regions, dtype=torch.bool), torch.ones(regions, dtype=torch.bool), *masks]:
        made, expected = found(mask), process(divided.shown(mask))
        assert made.keys() == expected.keys()
        for name in made:
            assert made[name].dtype == expected[name].dtype
            assert torch.equal(made[name], expected[name])


@pytest.mark.parametrize("fill", ["black", "mean", "blur"])
@pytest.mark.parametrize("resample", [Image.Resampling.BILINEAR, Image.Resampling.BICUBIC, Image.Resampling.LANCZOS])
def test_every_mask_gives_the_processors_own_bits(fill: str, resample: Image.Resampling) -> None:
    check(cut((145, 211), fill=fill), resizing((63, 47), resample))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_in_the_processors_dtype(dtype: torch.dtype) -> None:
    check(cut((160, 160)), resizing((40, 40), dtype=dtype))


def test_regions_of_several_pictures() -> None:
    check(cut((145, 211), (199, 150)), resizing((48, 48)))


def test_one_region() -> None:
    check(cut((60, 60), side=1), resizing((20, 20)))


def test_too_many_neighbours_are_left_to_the_processor() -> None:
    assert composed(cut((96, 96), side=16), resizing((32, 32))) is None


def test_what_depends_on_the_whole_picture_is_left_to_the_processor() -> None:
    resize = resizing((40, 40))

    def centred(images: Sequence[Image.Image]) -> Mapping[str, Tensor]:
        pixels = resize(images)["pixel_values"]
        return {"pixel_values": pixels - pixels.mean()}

    assert composed(cut((160, 160), side=3), centred) is None


def test_what_grey_pictures_do_not_show_is_found_by_trying() -> None:
    """Contrast is stretched only where a picture has none of one level."""
    resize = resizing((40, 40))

    def stretched(images: Sequence[Image.Image]) -> Mapping[str, Tensor]:
        grey = all(len(image.getcolors(3) or [None] * 3) < 3 for image in images)
        pixels = resize(images)["pixel_values"]
        return {"pixel_values": pixels if grey else pixels / pixels.std()}

    assert composed(cut((160, 160)), stretched) is None


def test_pictures_that_the_processor_makes_no_smaller_go_through_it() -> None:
    assert composed(cut((48, 48)), resizing((48, 48))) is None
