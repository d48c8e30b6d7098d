"""COCO's masks: runs against pixel by pixel, polygons against an even-odd test of each centre."""

import re

import numpy as np
import pytest
from small_data import box_mask, compressed, polygon, runs

from dexar_fast.data import coco_masks
from dexar_fast.errors import InputError


def inside(polygons, height, width):
    """Counts, for each pixel, the edges that a ray from its centre to the left crosses."""
    mask = np.zeros((height, width), dtype=bool)
    for flat in polygons:
        corners = list(zip(flat[::2], flat[1::2], strict=True))
        for y in range(height):
            for x in range(width):
                crossed = 0
                for (x0, y0), (x1, y1) in zip(corners, [*corners[1:], corners[0]], strict=True):
                    if min(y0, y1) <= y + 0.5 < max(y0, y1):
                        crossed += x0 + (y + 0.5 - y0) * (x1 - x0) / (y1 - y0) <= x + 0.5
                mask[y, x] |= crossed % 2 == 1
    return mask


@pytest.mark.parametrize("seed", range(12))
def test_polygons(seed):
    rng = np.random.default_rng(seed)
    height, width = (int(one) for one in rng.integers(1, 24, 2))
    shape = [(rng.random(2 * int(rng.integers(3, 9))) * 30 - 4).tolist() for _ in range(1 + seed % 2)]
    assert np.array_equal(coco_masks.outline(shape)(height, width), inside(shape, height, width))


def test_a_polygon_of_whole_pixels_is_their_box():
    assert np.array_equal(coco_masks.outline([polygon(2, 3, 7, 8)])(9, 13), box_mask(2, 3, 7, 8))


@pytest.mark.parametrize("seed", range(20))
def test_runs_plain_and_compressed(seed):
    rng = np.random.default_rng(seed)
    height, width = (int(one) for one in rng.integers(1, 70, 2))
    mask = rng.random((height, width)) < rng.choice([0.0, 0.02, 0.5, 1.0])
    lengths = runs(mask)
    for counts in (lengths, compressed(lengths), compressed(lengths).encode()):
        outline = coco_masks.outline({"size": [height, width], "counts": counts})
        assert np.array_equal(outline(height, width), mask)


def test_compressed_runs_of_a_known_mask():
    """By hand: a 3 x 3 centre in 5 x 5 pixels has the runs 6 3 2 3 2 3 6; from the fourth on less that two before."""
    assert coco_masks.decompressed("6320003") == [6, 3, 2, 3, 2, 3, 5]
    assert coco_masks.decompressed(compressed([6, 3, 2, 3, 2, 3, 6])) == [6, 3, 2, 3, 2, 3, 6]
    assert coco_masks.decompressed(compressed([100_000, 1, 70, 5])) == [100_000, 1, 70, 5]


@pytest.mark.parametrize(
    ("segmentation", "message"),
    [
        ([], "no segmentation"),
        ("text", "no segmentation"),
        ({"size": [2, 2]}, "no segmentation"),
        ([[0, 0, 1, 1]], "at least 3 points"),
        ([[0, 0, 1, 1, 2]], "at least 3 points"),
        ([[0, 0, 1, 1, 2, float("nan")]], "at least 3 points"),
        ({"size": [9, 12], "counts": [108]}, "the picture has [9, 13]"),
        ({"size": [9, 13], "counts": [100]}, "do not add up to the 117 pixels"),
        ({"size": [9, 13], "counts": [118, -1]}, "do not add up to the 117 pixels"),
        ({"size": [9, 13], "counts": "\x10"}, "compressed runs are damaged"),
        ({"size": [9, 13], "counts": "ee"}, "compressed runs are damaged"),
    ],
)
def test_broken_segmentations_say_what_is_wrong(segmentation, message):
    with pytest.raises(InputError, match=re.escape(message)):
        coco_masks.outline(segmentation)(9, 13)
