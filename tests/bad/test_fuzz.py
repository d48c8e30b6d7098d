"""The public API under random input: an Explanation of finite values, or a documented error, and nothing else.

A run of the tests tries the same few hundred cases each time. `make fuzz` looks for new ones, for as long as
DEXAR_FAST_FUZZ_SECONDS says.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import zoo
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from PIL import Image
from report_examples import check_report

from dexar_fast import DexarError, Explainer, Explanation
from dexar_fast.results.schema import ARRAYS

SECONDS = float(os.environ.get("DEXAR_FAST_FUZZ_SECONDS", 0))
EXAMPLES = settings(
    max_examples=60,
    database=None,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    phases=[Phase.generate],
)


def run(search: Callable[[], None]) -> None:
    """The same cases each time; with DEXAR_FAST_FUZZ_SECONDS, new ones after them until the time is up."""
    end = time.monotonic() + SECONDS
    seed(0)(search)()
    while time.monotonic() < end:
        seed(time.time_ns())(search)()


def outcome(explain: Callable[[], Any]) -> Explanation | DexarError:
    """What a call of the API comes to; anything else it raises fails the test."""
    try:
        found = explain()
    except DexarError as error:
        assert str(error).strip()
        return error
    assert isinstance(found, Explanation) and len(found) >= 1
    for name in ARRAYS:
        assert getattr(found, name).isfinite().all(), name
    assert (found.token_weights >= 0).all() and (found.head_weights >= 0).all()
    return found


def shown(found: Explanation | DexarError) -> None:
    """Whatever was explained can be drawn and printed."""
    if isinstance(found, DexarError):
        return
    repr(found)
    with tempfile.TemporaryDirectory() as folder:
        check_report(found, Path(folder))
    if found.grids and found.images:
        heat = found.heatmap(resolution="image")
        assert heat.shape == found.images[0].size[::-1] and heat.min() >= 0 and heat.max() <= 1
        found.overlay(token=-1)


# What users might pass

junk = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=5), st.just([]), st.just({}))
number = st.one_of(st.integers(-12, 12), junk)
SPECIAL = [
    "<image>",
    "</s>",
    "<s>",
    "<pad>",
    "<unk>",
    "\x00",
    "\u202e",
    "\ud800",
    "👩‍👩‍👧",
    "مرحبا",
    "\ufffd",
    " ",
    "\n",
]
text = st.one_of(
    st.text(max_size=40),
    st.lists(st.sampled_from([*SPECIAL, "the", "red", "circle", "What", "color?"]), max_size=8).map(" ".join),
    st.sampled_from(["Describe the image.", "word " * 400]),
)
knobs = st.fixed_dictionaries(
    {},
    optional={
        "mode": st.sampled_from(["paper", "official", "both"]) | junk,
        "layers": st.lists(number, max_size=4) | junk,
        "layer_index": number,
        "text_set": st.sampled_from(["all", "content", "prompt", "generated"]) | junk,
        "head_score": st.sampled_from(["max", "mean"]) | st.tuples(st.just("topk"), number) | junk,
        "map_filter": st.tuples(st.just("rank"), number) | junk,
        "sequence_norm": st.sampled_from(["none", "token"]) | junk,
        "chunk_size": number,
        "backend": st.sampled_from(["auto", "torch", "cpp", "triton"]) | junk,
    },
)
sane_knobs = st.fixed_dictionaries(
    {},
    optional={
        "mode": st.sampled_from(["paper", "official"]),
        "layers": st.lists(st.integers(0, 2), min_size=1, max_size=3),
        "text_set": st.sampled_from(["all", "content", "prompt", "generated"]),
        "head_score": st.sampled_from(["max", "mean", ("topk", 3), ("topk", 10**9)]),
        "map_filter": st.tuples(st.just("rank"), st.integers(1, 9)),
        "sequence_norm": st.sampled_from(["none", "token"]),
        "chunk_size": st.integers(1, 9),
    },
)


@st.composite
def arrays(draw: st.DrawFn) -> np.ndarray:
    """Any shape and dtype, of images and of much else."""
    channels = draw(st.sampled_from([(), (1,), (2,), (3,), (4,), (3, 1)]))
    side = st.integers(0, 3) | st.integers(1, 200)
    shape = (draw(side), draw(side), *channels)
    dtype = draw(st.sampled_from(["uint8", "float32", "float64", "int64", "bool", "complex64", "object"]))
    values = np.random.default_rng(draw(st.integers(0, 9))).random(shape)
    scale = draw(st.sampled_from([1, 255, -1, np.nan, np.inf]))
    with np.errstate(invalid="ignore"):
        return (values * scale).astype(dtype)


@st.composite
def pictures(draw: st.DrawFn) -> Image.Image:
    mode = draw(st.sampled_from(["RGB", "RGBA", "L", "LA", "P", "CMYK", "1", "I", "I;16", "F", "HSV", "LAB", "YCbCr"]))
    return Image.new(mode, (draw(st.integers(0, 300)), draw(st.integers(0, 300))), draw(st.integers(0, 1)))


image = st.one_of(pictures(), arrays(), junk, st.just("no such file.png"), st.just("/"), st.just("\x00"))
images = image | st.lists(image, max_size=3)


@cache
def embedded() -> Explainer:
    return Explainer.from_pretrained(device="cpu")


def test_explain() -> None:
    """Any image, prompt, answer and knobs, on the embedded model."""

    @EXAMPLES
    @given(images, text | junk, st.none() | text | junk, knobs | sane_knobs, number)
    def search(image: Any, prompt: Any, response: Any, knobs: dict[str, Any], new_tokens: Any) -> None:
        one = embedded()
        shown(
            outcome(
                lambda: Explainer(one.model, one.processor, **knobs).explain(
                    image, prompt, response, max_new_tokens=new_tokens
                )
            )
        )

    run(search)


@pytest.mark.parametrize("family", ["qwen2_5_vl", "gemma3"])
def test_explain_inputs(family: str) -> None:
    """Inputs with one thing wrong, any answer and any knobs, on two tiny families."""
    model, inputs = zoo.build(family, torch.float32)

    @EXAMPLES
    @given(st.sampled_from(sorted(inputs)), st.sampled_from(list(CHANGES)), targets(), sane_knobs | knobs, number)
    def search(name: str, change: str, targets: Any, knobs: dict[str, Any], new_tokens: Any) -> None:
        given = changed(inputs, name, change)
        shown(outcome(lambda: Explainer(model, **knobs).explain_inputs(given, targets, max_new_tokens=new_tokens)))

    run(search)


def targets() -> st.SearchStrategy[Any]:
    ids = st.lists(st.integers(-2, zoo.VOCABULARY + 1), max_size=6)
    return st.one_of(st.lists(st.integers(4, 170), min_size=1, max_size=9), ids, ids.map(torch.tensor), junk)


CHANGES: dict[str, Callable[[torch.Tensor], Any]] = {
    "nothing": lambda x: x,
    "none": lambda x: None,
    "list": lambda x: x.tolist(),
    "cut": lambda x: x[..., : x.shape[-1] // 2],
    "empty": lambda x: x[:0],
    "twice": lambda x: torch.cat([x, x]),
    "flat": lambda x: x.flatten(),
    "float": lambda x: x.float(),
    "zero": torch.zeros_like,
    "negative": lambda x: -1 - x,
    "huge": lambda x: x + 10**6,
    "nan": lambda x: torch.full_like(x.float(), float("nan")),
}


def changed(inputs: dict[str, torch.Tensor], name: str, change: str) -> dict[str, Any]:
    """A processor's output with one entry changed."""
    return inputs | {name: CHANGES[change](inputs[name])}
