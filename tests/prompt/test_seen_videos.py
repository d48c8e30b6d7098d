"""Pictures and videos in one prompt, by the real processors of their families.

The oracle knows no layout: where one frame is another, the visual tokens that the decoder then reads otherwise are
those of its cells, and no others, once no token of the tower reads another.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import pytest
import torch
import videos
from pictures import picture
from PIL import Image
from transformers.utils import is_torchvision_available

from dexar_fast import Explainer, Explanation
from dexar_fast.generation.places import kept
from dexar_fast.report.page import pictures as page
from dexar_fast.vision.geometry import visual_positions
from dexar_fast.vision.measured.entering import entering, layers

pytestmark = pytest.mark.skipif(not is_torchvision_available(), reason="video processors need torchvision")
EQUAL = ("llava_onevision", "llava_next_video", "internvl", "video_llava")  # processors that take no unequal videos
ALONE = ("smolvlm", "glm4v")  # processors, or models, that take no pictures beside videos
TWO = ("qwen3_vl", "glm4v")  # processors that take no video of one frame
CASES = {"one video": (0, (4,)), "odd": (0, (5,)), "two videos": (0, (4, 4)), "unequal": (0, (3, 4))}
CASES |= {"one frame": (0, (1,)), "a picture beside": (1, (3,)), "pictures beside": (2, (4, 4))}


@pytest.fixture(autouse=True)
def _empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(kept, "_known", {})


@lru_cache
def family(name: str) -> videos.Family:
    return videos.FAMILIES[name]()


def shots(counts: Sequence[int], size: tuple[int, int] = (48, 36)) -> list[list[Image.Image]]:
    return [[picture(size, 10 * video + n) for n in range(count)] for video, count in enumerate(counts)]


def explained(name: str, inputs: Any, pictures: Sequence[Image.Image]) -> Explanation:
    model, processor, *_ = family(name)
    return Explainer(model, processor).explain_inputs(inputs, [70, 71], images=[*pictures])


def read(name: str, inputs: Any) -> torch.Tensor:
    """[N, d] what the decoder gets at the visual tokens."""
    model = family(name)[0]
    given = {key: value for key, value in inputs.items() if isinstance(value, torch.Tensor)}
    return entering(model, layers(model)[0], given, visual_positions(model.config, given["input_ids"]))


def fits(name: str, stills: int, counts: Sequence[int]) -> bool:
    return not ((name in EQUAL and len({*counts}) > 1) or (name in ALONE and stills) or (name in TWO and 1 in counts))


@pytest.mark.parametrize(
    ("name", "case"), [(name, case) for name in videos.FAMILIES for case in CASES if fits(name, *CASES[case])]
)
def test_a_frame_lies_where_the_tokens_change_with_it(name: str, case: str) -> None:
    stills, counts = CASES[case]
    images, clips = [picture((64, 30), 100 + n) for n in range(stills)], shots(counts)
    frames = [frame for clip in clips for frame in clip]
    found = explained(name, videos.watched(family(name), *clips, images=images), [*images, *frames])
    before = read(name, videos.watched(family(name), *clips, images=images))
    number = stills
    for video, clip in enumerate(clips):
        for n in range(len(clip)):
            others = [*clips[:video], [*clip[:n], picture((48, 36), 77), *clip[n + 1 :]], *clips[video + 1 :]]
            after = read(name, videos.watched(family(name), *others, images=images))
            changed = (after != before).any(1).nonzero()[:, 0].tolist()
            cells = [int(token) for grid in found.grids if number in grid.images for token in grid.cells.ravel()]
            assert {*cells} == {*changed} & {int(t) for grid in found.grids for t in grid.cells.ravel()}
            assert cells and all(grid.video for grid in found.grids if number in grid.images)
            number += 1
    assert {n for grid in found.grids for n in grid.images} == {*range(number)}
    assert found.diagnostics["warnings"] == []


@pytest.mark.parametrize("name", videos.FAMILIES)
def test_frames_are_called_by_their_video_and_number(name: str) -> None:
    clips = shots((4, 4))
    pictures = [frame for clip in clips for frame in clip]
    found = explained(name, videos.watched(family(name), *clips), pictures)
    names = [f"video {video}, frame {n}" for video in (1, 2) for n in (1, 2, 3, 4)]
    if name == "internvl":  # its inputs do not say where one video ends and the next begins
        names = [f"frame {n + 1}" for n in range(8)]
    assert [shown.name for shown in page.pictures(found)] == names


@pytest.mark.parametrize("name", ["qwen2_vl", "qwen2_5_vl", "qwen3_vl", "llava_onevision", "llava_next_video"])
@pytest.mark.parametrize("given", ["all frames", "sampled frames"])
def test_the_inputs_say_which_frames_were_sampled(name: str, given: str) -> None:
    """Four of eight, at two a second; the others of what is given are not among the pictures of the result."""
    (clip,) = shots((8,))
    told = [{"total_num_frames": 8, "fps": 2.0, "duration": 4.0, "frames_indices": [*range(8)]}]
    calls = {"do_sample_frames": True, "num_frames": 4, "video_metadata": [told], "return_metadata": True}
    inputs = videos.watched(family(name), clip, **calls, fps=None)
    numbers = inputs["video_metadata"][0].frames_indices
    shown = clip if given == "all frames" else [clip[int(n)] for n in numbers]
    found = explained(name, inputs, shown)
    assert len(numbers) == 4 and found.grids and found.diagnostics["warnings"] == []
    assert [image.tobytes() for image in found.images] == [clip[int(n)].tobytes() for n in numbers]
    names = [f"frame {n + 1} ({n / 2:.2f} s)" for n in numbers]
    assert [each.name for each in page.pictures(found)] == names


def test_a_picture_among_frames_stands_where_the_prompt_has_it() -> None:
    """InternVL gives tiles and frames one name and one id."""
    _, processor, image, video = family("internvl")
    (clip,), still = shots((3,)), picture((64, 30), 9)
    for before in (True, False):
        text = " ".join([image, video] if before else [video, image]) + " What is it?"
        calls = {"return_tensors": "pt", "do_sample_frames": False}
        inputs = processor(images=[still], videos=[[videos.stacked(clip)]], text=text, **calls)
        found = explained("internvl", inputs, [still, *clip])
        order = [grid.image for grid in found.grids]
        assert order == ([0, 0, 0, 1, 2, 3] if before else [1, 2, 3, 0, 0, 0])
        assert [each.name for each in page.pictures(found)] == ["image 1", "frame 1", "frame 2", "frame 3"]
        assert explained("internvl", inputs, [still, *clip[::-1]]).grids == ()
