"""The place of visual tokens, measured: against the geometry that the paint of test_geometry_families.py confirms.

The models have the released sizes of their families and random weights: what is measured goes through the real image
processor, the whole tower and the projector.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from random_towers import Drawn

from dexar_fast.vision.grid import Grid, Size
from dexar_fast.vision.measured.entering import layers

WIDE, TALL, SQUARE, ODD, SMALL = (600, 200), (200, 560), (320, 320), (777, 333), (90, 60)
CASES = [
    ("llava", [TALL, SQUARE]),
    ("llava_siglip", [ODD]),
    ("llava_next", [WIDE]),
    ("paligemma", [SMALL]),
    ("qwen2_5_vl", [ODD]),
    ("qwen2_5_vl", [SMALL]),
    ("qwen2_5_vl", [SQUARE, WIDE, (300, 60)]),
    ("mistral3", [TALL]),
]


def boxes(grids: Sequence[Grid], sizes: Sequence[Size]) -> dict[int, tuple[int, NDArray[np.float64]]]:
    """Of each visual token its image, and left, top, right and bottom of its cell."""
    found = {}
    for grid in grids:
        left, top, right, bottom = grid.box or (0, 0, *sizes[grid.image])
        x, y = np.linspace(left, right, grid.columns + 1), np.linspace(top, bottom, grid.rows + 1)
        for (row, column), token in np.ndenumerate(grid.cells):
            found[int(token)] = grid.image, np.array([x[column], y[row], x[column + 1], y[row + 1]])
    return found


@pytest.mark.parametrize(("name", "sizes"), CASES, ids=[f"{name}-{sizes}" for name, sizes in CASES])
def test_every_token_is_found_within_a_cell(name: str, sizes: list[Size]) -> None:
    drawn = Drawn.of(name, sizes)
    measured = boxes(drawn.measuring().grids(), sizes)
    declared = boxes(drawn.declared.grids, sizes)
    assert measured.keys() == declared.keys()  # newlines among neither
    for token, (image, expected) in declared.items():
        cell = np.tile(expected[2:] - expected[:2], 2)
        assert measured[token][0] == image
        assert (np.abs(measured[token][1] - expected) < cell).all(), token


@pytest.mark.parametrize("name", ["llava_next", "qwen2_5_vl"])
def test_the_check_tells_right_grids_from_others(name: str) -> None:
    drawn = Drawn.of(name, [ODD, WIDE])
    measuring, grids = drawn.measuring(), drawn.declared.grids
    assert measuring.confirmed(grids) == list(grids)
    assert measuring.confirmed([shifted(grid, drawn.sizes) for grid in grids]) == []
    assert measuring.confirmed([replace(grid, image=1 - grid.image) for grid in grids]) == []


def shifted(grid: Grid, sizes: Sequence[Size]) -> Grid:
    """A cell to the right of where it lies."""
    left, top, right, bottom = grid.box or (0, 0, *sizes[grid.image])
    cell = (right - left) / grid.columns
    return replace(grid, box=(left + cell, top, right + cell, bottom))


def test_what_a_painted_region_changes_lies_within_a_cell_of_it() -> None:
    drawn = Drawn.of("qwen2_5_vl", [SQUARE])
    measured = boxes(drawn.measuring().grids(), [SQUARE])
    first = layers(drawn.model)[0]
    grey = Image.new("RGB", SQUARE, (90, 90, 90))
    for left, top in ((40, 60), (200, 130), (150, 250)):
        painted = grey.copy()
        painted.paste((250, 250, 250), (left, top, left + 50, top + 40))
        change = (drawn.see(first, [painted]) - drawn.see(first, [grey])).norm(dim=1)
        for token in (change > 0.5 * change.max()).nonzero()[:, 0].tolist():
            x0, y0, x1, y1 = measured[token][1]
            wide, high = x1 - x0, y1 - y0
            assert left - wide < x1 and x0 < left + 50 + wide
            assert top - high < y1 and y0 < top + 40 + high


def test_nothing_of_the_model_is_changed() -> None:
    drawn = Drawn.of("llava", [SMALL])
    before = {name: value.clone() for name, value in drawn.model.state_dict().items()}
    with torch.no_grad():
        logits = drawn.model(**drawn.inputs).logits
        drawn.measuring().confirmed(drawn.declared.grids)
        assert torch.equal(drawn.model(**drawn.inputs).logits, logits)
    assert all(torch.equal(value, before[name]) for name, value in drawn.model.state_dict().items())
    assert not any(module._forward_pre_hooks for module in drawn.model.modules())
