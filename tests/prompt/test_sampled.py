"""Which frames of its videos a processor sampled, as the inputs say it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from dexar_fast.prompt.sampled import Sampled, described, picked, sampled

TWO = [
    {"frames_indices": [0, 3], "total_num_frames": 5, "fps": 2.0},
    {"frames_indices": [1], "total_num_frames": 2, "fps": None},
]
VIDEOS = (Sampled((0, 3), 5, 2.0), Sampled((1,), 2, None))


@pytest.mark.parametrize("listed", [TWO, [TWO], [[each] for each in TWO], tuple(TWO)])
def test_it_is_read_however_deep_it_is_nested(listed: Any) -> None:
    assert sampled(listed) == VIDEOS


@pytest.mark.parametrize("numbers", [np.array([0, 3]), torch.tensor([0, 3]), (0, 3)])
def test_numbers_may_be_of_any_kind(numbers: Any) -> None:
    assert sampled({**TWO[0], "frames_indices": numbers}) == VIDEOS[:1]


@pytest.mark.parametrize(
    "changed",
    [
        {"frames_indices": None},
        {"frames_indices": [0, 5]},
        {"frames_indices": [-1]},
        {"frames_indices": "all"},
        {"total_num_frames": None},
        {"fps": "fast"},
        {"frames_indices": [[0], [1]]},
    ],
    ids=str,
)
def test_what_is_no_sampling_says_nothing(changed: dict[str, Any]) -> None:
    """Nor do the others then: which frames belong to which video is not known."""
    assert sampled([TWO[0], {**TWO[1], **changed}]) == ()


@pytest.mark.parametrize("metadata", [None, [], "sampled", 5, [None], [3, "x"]])
def test_what_is_no_metadata_says_nothing(metadata: Any) -> None:
    assert sampled(metadata) == ()


def test_sampled_frames_are_picked_behind_the_images() -> None:
    pictures = [Image.new("L", (n + 1, 1)) for n in range(9)]
    assert [each.width - 1 for each in picked(pictures, VIDEOS) or ()] == [0, 1, 2, 5, 8]
    assert picked(pictures[:6], VIDEOS) is None and picked(pictures, ()) is None


def test_frames_are_described_by_the_numbers_that_they_have_in_their_video() -> None:
    assert described((2, 1), VIDEOS) == [
        {"video": 0, "frame": 0, "seconds": 0.0},
        {"video": 0, "frame": 3, "seconds": 1.5},
        {"video": 1, "frame": 1},
    ]
    assert described((1, 2), VIDEOS) == [
        {"video": 0, "frame": 0},
        {"video": 1, "frame": 0},
        {"video": 1, "frame": 1},
    ]
