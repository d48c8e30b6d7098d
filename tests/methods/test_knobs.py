"""Knobs of methods: what each refuses, through its class and by name, and what numpy's numbers are taken for."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import torch
from asked import asked_of

from dexar_fast import InputError
from dexar_fast.methods import Centre, Eagle, LlavaCam, Random, SmoothRandom, Tam, registry

NAN, HUGE = math.nan, 10**400
BAD: list[tuple[Any, str, Any]] = [
    *((kind, "seed", seed) for kind in (Random, SmoothRandom, LlavaCam) for seed in ("one", 1.5, True, -1, 2**64)),
    *((kind, "width", width) for kind in (SmoothRandom, Centre) for width in ("wide", True, NAN, math.inf, 0, None)),
    *((LlavaCam, "samples", samples) for samples in ("many", 0, 2.0, True, None)),
    *((LlavaCam, "noise", noise) for noise in ("loud", NAN, math.inf, -0.1, False, HUGE, [0.1])),
    *((LlavaCam, "layer", layer) for layer in ("last", 1.0, True)),
    *((Tam, name, value) for name in ("correction", "filter") for value in (0, "no", None)),
    *((Eagle, name, value) for name in ("regions", "scope", "refresh") for value in ("many", 0, 1.0, True, None)),
    *((Eagle, name, value) for name in ("batch", "budget") for value in ("big", 0, 2.5, True)),
    *((Eagle, name, value) for name in ("fill", "segmentation", "variant") for value in ("other", 1, None, ["grid"])),
    *((Eagle, name, value) for name in ("lambda1", "lambda2") for value in ("heavy", NAN, -1, True, None, HUGE)),
    *((Eagle, name, value) for name in ("tokens", "ids") for value in ("first", 1, [0.5], [True], [[1]], {"a": 1})),
    *((Eagle, "labels", value) for value in ("map", 1, [], [0, 1], [[0.5]], [[0], [0, 1]], [[[0]], [["a"]]])),
    (Eagle, "pending", -1),
    (Eagle, "tokens", [1, 0, 1]),
]


@pytest.mark.parametrize(("kind", "knob", "value"), BAD)
def test_a_knob_that_means_nothing_is_named(kind: Any, knob: str, value: Any) -> None:
    with pytest.raises(InputError, match=knob):
        kind(**{knob: value})


@pytest.mark.parametrize(
    ("method", "message"),
    [
        ("llava-cam:samples=many", "samples is a whole number of at least 1, not 'many'"),
        ("llava-cam:layer=first", "layer is a whole number, not 'first'"),
        ("llava-cam:noise=NaN", "noise is a finite number of at least 0, not nan"),
        ("tam:filter=1", "filter is True or False, not 1"),
        ("random:seed=x", "seed is a whole number of at least 0, not 'x'"),
        ("centre:width=0", "width 0 must be above 0"),
        ("eagle:regions=0", "regions is a whole number of at least 1, not 0"),
        ("eagle:fill=white", "fill is one of 'black', 'mean', 'blur', 'noise', not 'white'"),
        ("eagle:tokens=[2,2]", r"tokens \[2, 2\] name a token twice"),
        ("eagle:ids=[1,x]", "ids is a list of whole numbers, not '\\[1,x\\]'"),
        ("eagle:labels=[[0,1],[2]]", "labels are no map of whole numbers"),
        ("eagle:labels=" + "[" * 100_000, "labels are"),
    ],
)
def test_the_same_by_name(method: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        registry.of(method)


def test_numbers_of_numpy_are_numbers() -> None:
    small = np.uint8(200)
    with asked_of("llava", 2) as request:
        for ours, plain in (
            (LlavaCam(np.int64(-2), np.int8(2), np.float32(0.25), small), LlavaCam(-2, 2, 0.25, 200)),
            (SmoothRandom(Fraction(1, 4), small), SmoothRandom(0.25, 200)),
            (Centre(Fraction(1, 4)), Centre(0.25)),
            (Random(np.uint64(2**64 - 1)), Random(2**64 - 1)),
        ):
            assert torch.equal(ours.maps(request).token_maps, plain.maps(request).token_maps)
    tokens = Eagle(tokens=np.array([-1, 0]), ids=torch.tensor([3, 4])).chosen(4)
    assert tokens.tolist() == [3, 0] and tokens.dtype == torch.int64


def test_an_eagle_with_labels_has_a_hash_and_equals_itself() -> None:
    labels = np.arange(6).reshape(2, 3)
    one, other = Eagle(labels=labels, tokens=[0]), Eagle(labels=labels.copy(), tokens=[0])
    assert one == one and one != other
    assert {one: 1, other: 2}[one] == 1
