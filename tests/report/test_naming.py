"""What the pictures of a result are called."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from dexar_fast.report.page.naming import names
from dexar_fast.vision.grid import Grid

GRIDS = (Grid(0, 0, 1, 1), Grid(1, 1, 1, 1, video=True), Grid(2, 2, 1, 1, video=True))


def called(frames: Any, grids: tuple[Grid, ...] = GRIDS, images: int = 3) -> list[str]:
    return names(SimpleNamespace(images=[None] * images, grids=grids, metadata={"frames": frames}))  # type: ignore[arg-type]


def test_frames_have_the_number_and_the_time_that_they_have_in_their_video() -> None:
    told = [{"video": 0, "frame": 4, "seconds": 2.0}, {"video": 0, "frame": 9}]
    assert called(told) == ["image 1", "frame 5 (2.00 s)", "frame 10"]
    assert called(told, grids=()) == ["image 1", "frame 5 (2.00 s)", "frame 10"]


def test_several_videos_are_told_apart() -> None:
    told = [{"video": 0, "frame": 0}, {"video": 1, "frame": 0}]
    assert called(told) == ["image 1", "video 1, frame 1", "video 2, frame 1"]


@pytest.mark.parametrize("told", [None, [], [{}], "frames", 7, [{"video": 0, "frame": "last"}], [5], [{"video": []}]])
def test_without_that_the_grids_tell_which_are_frames(told: Any) -> None:
    assert called(told) == ["image 1", "frame 1", "frame 2"]


def test_there_are_never_more_names_than_pictures() -> None:
    assert called([{"video": 0, "frame": n} for n in range(5)]) == ["frame 3", "frame 4", "frame 5"]
    assert called([], grids=(), images=0) == []
