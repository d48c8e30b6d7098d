"""Metrics of made cases: a picture of one row of pixels, each a patch, whose maps are told."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from dexar_fast.data import Item, Phrase
from dexar_fast.data.item import Outline, Region
from dexar_fast.jobs.eval.case import Case
from dexar_fast.jobs.eval.measures import quantus, registry
from dexar_fast.jobs.eval.measures.base import SkippedError
from dexar_fast.metrics import segmentation
from dexar_fast.vision.grid import Grid

CAT = "1111000000"
VOID = "0000110000"


class Told(SimpleNamespace):
    """What a case reads of an explanation."""

    def __len__(self) -> int:
        return len(self.tokens)


def case_of(
    maps: dict[str, str], phrases: tuple[Phrase, ...], regions: Sequence[str] = (CAT,), void: str = VOID
) -> Case:
    """Tokens with their maps, and masks: a digit a pixel."""
    width = len(void)
    unused: Any = None
    heat = torch.tensor([[float(one) for one in each] for each in maps.values()])
    explanation: Any = Told(
        tokens=[*maps],
        token_maps=heat,
        grids=[Grid(0, 0, 1, width)],
        heatmap=lambda tokens, resolution: heat[tokens or slice(None)].sum(0, keepdim=True).numpy(),
    )
    marked = tuple(Region("", outline=outline(each)) for each in regions)
    item = Item("a", partial(Image.new, "RGB", (width, 1)), None, "".join(maps), regions=marked, phrases=phrases)
    return Case(unused, replace(item, void=outline(void)), explanation, None, 0, unused)


def outline(text: str) -> Outline:
    return lambda height, width: np.array([[one == "1" for one in text]])


def scored(case: Case, name: str) -> list[float]:
    metric = registry.of(name)
    return [*metric.parts(case, metric.fill)]


def test_void_pixels_count_in_no_metric_of_words() -> None:
    """A word that lights up the object and the void, and one that lights up the void alone."""
    case = case_of({"cat": "1111110000", " a": "0000110000"}, (Phrase(0, 3, (0,)),))
    assert scored(case, "obj-iou") == scored(case, "word-iou") == [1.0]
    assert scored(case, "func-iou") == [1.0] and scored(case, "f1-iou") == [1.0, 1.0]


def test_an_object_or_a_picture_that_is_all_void_is_skipped() -> None:
    for void, name, words in (
        ("10", "obj-iou", "no pixel that counts"),
        ("10", "word-epg", "no pixel that counts"),
        ("11", "obj-iou", "all of the picture is void"),
        ("11", "func-iou", "all of the picture is void"),
        ("11", "quantus", "the same everywhere"),
    ):
        case = case_of({"cat": "12", " a": "01"}, (Phrase(0, 3, (0,)),), ["10"], void)
        with pytest.raises(SkippedError, match=words):
            quantus.parts(None, True, case, None) if name == "quantus" else scored(case, name)


def test_quantus_gets_the_pixels_that_count_and_may_write_on_them() -> None:
    case = case_of({"cat": "1111330001"}, ())

    def mass(a_batch: Any, s_batch: Any, **_: Any) -> list[float]:
        found = [a_batch[s_batch].sum() / a_batch.sum()]
        a_batch += 5
        return found

    expected = segmentation.energy_inside(case.answer_map[case.counted], case.masks[0][case.counted])
    assert quantus.parts(mass, True, case, None) == quantus.parts(mass, True, case, None) == [expected] == [0.8]
    with pytest.raises(SkippedError, match="the same everywhere"):
        quantus.parts(mass, True, case_of({"cat": "1111331111"}, ()), None)


def test_words_of_one_object_are_merged_by_the_better() -> None:
    """Two words of the first object, one of the second: .5 (not .25) and 1."""
    maps = {"a": "1100000000", " cat": "1000000011", " it": "0000000011"}
    phrases = (Phrase(0, 1, (0,)), Phrase(2, 5, (0,)), Phrase(6, 8, (1,)))
    case = case_of(maps, phrases, [CAT, "0000000011"], void=10 * "0")
    assert scored(case, "obj-iou") == [pytest.approx((0.5 + 1) / 2)]
