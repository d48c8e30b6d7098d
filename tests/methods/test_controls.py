"""The chance lines: seeded, on the grids, and of the shapes that they say."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from asked import asked_of
from PIL import Image

from dexar_fast.errors import InputError
from dexar_fast.methods.controls import Centre, Random, SmoothRandom, Uniform
from dexar_fast.vision.grid import Grid

ALL = (Random(), SmoothRandom(), Centre(), Uniform())


@pytest.mark.parametrize("method", ALL, ids=lambda method: method.name)
@pytest.mark.parametrize("family", ["llava", "mistral3", "qwen2_5_vl_two_images", "llava_onevision_video"])
def test_maps_are_finite_not_negative_and_the_same_again(method: Any, family: str) -> None:
    with asked_of(family, 3) as request:
        found, again = method.maps(request), method.maps(request)
    assert found.token_maps.shape == (3, len(request.visual)) and found.token_maps.dtype == torch.float32
    assert found.token_maps.isfinite().all() and found.token_maps.min() >= 0 and found.token_maps.max() > 0
    torch.testing.assert_close(found.sequence_map, found.token_maps.sum(0))
    assert torch.equal(found.token_maps, again.token_maps) and found.cells == request.grids


@pytest.mark.parametrize("kind", [Random, SmoothRandom])
def test_noise_differs_by_token_and_by_seed(kind: Any) -> None:
    with asked_of("llava", 2) as request:
        maps, others = kind(seed=1).maps(request).token_maps, kind(seed=2).maps(request).token_maps
    assert not torch.equal(maps[0], maps[1]) and not torch.equal(maps, others)


def test_a_seed_leaves_the_callers_random_numbers_alone() -> None:
    torch.manual_seed(3)
    expected = torch.rand(4)
    with asked_of("llava", 2) as request:
        torch.manual_seed(3)
        Random().maps(request), SmoothRandom().maps(request)
    assert torch.equal(torch.rand(4), expected)


def test_smooth_noise_varies_less_between_neighbours_than_across() -> None:
    with asked_of("llava", 40) as request:
        wide = replace(request, grids=(Grid(0, 0, 4, 4),))
        maps = SmoothRandom(width=0.2).maps(wide).token_maps.unflatten(1, (4, 4))
    near = (maps[:, :, 1:] - maps[:, :, :-1]).square().mean()
    far = (maps[:, :, 3] - maps[:, :, 0]).square().mean()
    assert near < far / 2


def test_the_centre_of_one_grid() -> None:
    with asked_of("llava", 1) as request:
        (found,) = Centre(width=0.25).maps(request).token_maps.unflatten(1, (4, 4))
    assert torch.equal(found, found.flip(0)) and torch.equal(found, found.flip(1)) and torch.equal(found, found.T)
    assert float(found[1, 1]) == pytest.approx(float(torch.tensor(-0.25).exp()))  # 1/8 of each side from the centre
    assert float(found[0, 0]) < float(found[0, 1]) < float(found[1, 1])


def test_the_centre_of_tiles_is_that_of_their_image() -> None:
    """Two tiles side by side and a thumbnail over both; another image counts for itself."""
    tiles = (
        Grid(0, 0, 2, 2, box=(0, 0, 10, 10)),
        Grid(0, 4, 2, 2, box=(10, 0, 20, 10)),
        Grid(0, 8, 2, 2, box=(0, 0, 20, 10)),
        Grid(1, 12, 2, 2, box=(0, 0, 4, 4)),
    )
    with asked_of("llava", 1) as request:
        (found,) = Centre().maps(replace(request, grids=tiles)).token_maps
    first, second, both, other = found.split(4)
    assert first[1] == second[0] and first[0] == second[1] and first[1] > first[0]
    assert torch.equal(both, other) and len(set(both.tolist())) == 1


def test_the_centre_of_a_grid_without_a_box_is_that_of_its_picture() -> None:
    """The thumbnail covers the picture whether that is written down or not."""
    tiles = (Grid(0, 0, 2, 2, box=(0, 0, 10, 10)), Grid(0, 4, 2, 2, box=(10, 0, 20, 10)))
    pictures = (Image.new("RGB", (20, 10)), Image.new("RGB", (400, 300)))
    with asked_of("llava", 1) as request:
        told, untold = (
            Centre()
            .maps(replace(request, grids=(*tiles, Grid(0, 8, 2, 2, box=box), last), images=pictures))
            .token_maps[0]
            for box, last in (((0, 0, 20, 10), Grid(1, 12, 2, 2)), (None, Grid(1, 12, 2, 2)))
        )
    assert torch.equal(untold, told) and len(set(untold[8:].tolist())) == 1


@pytest.mark.parametrize("method", [SmoothRandom(), Centre()])
def test_grids_that_are_not_known_are_refused(method: Any) -> None:
    with asked_of("internvl", 1) as request, pytest.raises(InputError, match="where these lie is not known"):
        method.maps(request)


@pytest.mark.parametrize("kind", [SmoothRandom, Centre])
def test_no_width_is_refused(kind: Any) -> None:
    with pytest.raises(InputError, match="width 0 must be above 0"):
        kind(width=0)
