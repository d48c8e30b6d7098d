"""Explanations made up, of any shape."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from PIL import Image

from dexar_fast.explanation import Explanation
from dexar_fast.results.schema import ARRAYS
from dexar_fast.vision.grid import Grid

QUICK = settings(max_examples=25, deadline=None, derandomize=True)


def grey(width: int = 60, height: int = 40, level: int = 128) -> Image.Image:
    return Image.new("RGB", (width, height), (level, level, level))


def make(length=3, visual=12, layers=2, heads=4, *, dtype=torch.float32, seed=0, **changes) -> Explanation:
    generator = torch.Generator().manual_seed(seed)
    sizes = {"T": length, "N": visual, "L": layers, "H": heads}
    made = {}
    for name, axes in ARRAYS.items():
        shape = [sizes[axis] for axis in axes]
        made[name] = torch.rand(shape, generator=generator, dtype=dtype)
    made["token_ids"] = torch.arange(length) + 2**40
    made["visual_positions"] = torch.arange(visual) + 5
    made |= {
        "tokens": [f" word{i}" for i in range(length)],
        "grids": (Grid(0, 0, 3, 4, None),),
        "diagnostics": {"tokens_with_weight": 1},
        "metadata": {"model": "tiny", "layers": [0, 1]},
        "images": (grey(),),
    }
    return Explanation(**(made | changes))


plain_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)


@st.composite
def explanations(draw) -> Explanation:
    tokens, layers, heads = draw(st.tuples(st.integers(0, 4), st.integers(1, 3), st.integers(1, 3)))
    rows, columns, extra = draw(st.tuples(st.integers(1, 4), st.integers(1, 4), st.integers(0, 2)))
    count = draw(st.integers(0, 2))
    edges = st.floats(-1e4, 1e4)
    low, high = draw(st.tuples(edges, edges).filter(lambda pair: pair[0] < pair[1]))
    images = [
        Image.fromarray(draw(npst.arrays(np.uint8, st.tuples(st.integers(1, 9), st.integers(1, 9), st.just(3)))))
        for _ in range(count)
    ]
    return make(
        tokens,
        rows * columns + extra,
        layers,
        heads,
        dtype=draw(st.sampled_from([torch.float32, torch.float64])),
        seed=draw(st.integers(0, 2**31)),
        tokens=draw(st.lists(st.text(), min_size=tokens, max_size=tokens)),
        grids=tuple(
            Grid(0, extra, rows, columns, box) for box in (None, (low, low, high, high))[: draw(st.integers(0, 2))]
        ),
        diagnostics=draw(st.dictionaries(st.text(), plain_json, max_size=3)),
        metadata=draw(st.dictionaries(st.text(), plain_json, max_size=3)),
        images=tuple(images),
    )
