"""Regions as what they hold, and maps of one kind of cells read in the regions of another."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from dexar_fast.vision import sampling
from dexar_fast.vision.grid import Grid
from dexar_fast.vision.regions import Regions


def patches(across: int, size: int, image: int = 0, start: int = 0) -> Regions:
    """across x across square regions."""
    edge = np.arange(size) * across // size
    return Regions(image, start, (edge[:, None] * across + edge).astype(np.int32))


def table(targets: tuple[Regions | Grid, ...], sources: tuple[Regions | Grid, ...], size: int) -> NDArray[np.float64]:
    """[targets' values, sources' values]: the shares."""
    target, source, share = sampling.parts(targets, sources, [(size, size)])
    found = np.zeros((target.max() + 1, source.max() + 1))
    found[target, source] = share
    return found


def test_regions_of_the_same_labels_are_equal() -> None:
    one, other = patches(4, 16), patches(4, 16)
    assert one == other and hash(one) == hash(other) and len({one, other}) == 1
    assert (one,) == (other,) and (one,) != (patches(2, 16),)


@pytest.mark.parametrize(
    "other",
    [
        patches(2, 16),
        patches(4, 20),
        replace(patches(4, 16), image=1),
        replace(patches(4, 16), start=1),
        replace(patches(4, 16), video=True),
        Grid(0, 0, 4, 4),
    ],
)
def test_other_regions_are_not(other: Regions | Grid) -> None:
    assert patches(4, 16) != other and other != patches(4, 16)


def test_a_region_has_the_shares_of_what_lies_in_it() -> None:
    """Each quarter holds four of sixteen regions, or as many cells of a grid."""
    blocks = np.kron(np.eye(4).reshape(4, 2, 2), np.ones((1, 2, 2))).reshape(4, 16) / 4
    assert table((patches(2, 16),), (patches(4, 16),), 16).tolist() == blocks.tolist()
    assert table((patches(2, 16),), (Grid(0, 0, 4, 4),), 16).tolist() == blocks.tolist()
    assert table((patches(4, 16),), (patches(2, 16),), 16).tolist() == (blocks.T > 0).tolist()


@pytest.mark.parametrize("size", [16, 337, 600, 1025])
def test_regions_read_themselves_whatever_their_size(size: int) -> None:
    """Cells are labels apart in large pictures: none reads its neighbour's."""
    labels = np.arange(size) * 7 // size
    regions = Regions(0, 0, (labels[:, None] * 7 + labels).astype(np.int32))
    assert table((regions,), (replace(regions),), size).tolist() == np.eye(49).tolist()


def test_regions_that_see_nothing_are_left_out() -> None:
    half = Grid(0, 0, 1, 1, box=(0.0, 0.0, 8.0, 16.0))
    target, source, share = sampling.parts((patches(2, 16),), (half,), [(16, 16)])
    assert (target.tolist(), source.tolist(), share.tolist()) == ([0, 2], [0, 0], [1, 1])
    assert [len(each) for each in sampling.parts((patches(2, 16),), (Grid(1, 0, 1, 1),), [(16, 16)])] == [0, 0, 0]


def test_the_finest_regions_are_the_most_in_any_order() -> None:
    few, many = (patches(2, 16),), (patches(4, 16),)
    mirrored = (replace(many[0], labels=many[0].labels.T.copy()),)
    assert [sampling.finest(each) for each in ([few, many], [many, few])] == [1, 0]
    both = [many, mirrored]
    assert both[sampling.finest(both)] == both[::-1][sampling.finest(both[::-1])]
