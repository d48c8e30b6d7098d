"""EAGLE on videos: regions of frames are hidden, and what is left is scored as the model itself scores it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import videos
import zoo
from pictures import picture
from PIL import Image
from transformers.utils import is_torchvision_available

from dexar_fast import Explainer, InputError
from dexar_fast.explanation import Explanation
from dexar_fast.methods.cut.divided import divided
from dexar_fast.methods.cut.labels import video_cells
from dexar_fast.methods.eagle.method import Eagle
from dexar_fast.prompt.remade.pixels import Pixels
from dexar_fast.report.page import pictures as page

ANSWER = [70, 71, 72]
WIDTH, HEIGHT = 30, 22
FRAMES = [picture((WIDTH, HEIGHT), n) for n in range(2)]


@dataclass(frozen=True)
class VideoProcessor:
    """Resizes frames to 16 x 16. Where it samples, it takes every second one."""

    def __call__(self, given: Any, return_tensors: str, do_sample_frames: bool = True) -> dict[str, torch.Tensor]:
        (frames,) = given
        shown = frames[:: 2 if do_sample_frames else 1]
        pixels = np.stack([np.asarray(frame.resize((16, 16)), np.float32) for frame in shown]) / 100 - 1
        return {"pixel_values_videos": torch.from_numpy(pixels).permute(0, 3, 1, 2)[None]}


PROCESSOR = SimpleNamespace(image_processor=object(), video_processor=VideoProcessor(), tokenizer=None)


@lru_cache
def onevision() -> tuple[Any, dict[str, torch.Tensor]]:
    """A model of two frames, in float64."""
    model, inputs = zoo.build("llava_onevision_video")
    return model, inputs | VideoProcessor()([FRAMES], "pt", do_sample_frames=False)


def found_by(method: Eagle, frames: Any = FRAMES, processor: Any = PROCESSOR, **others: Any) -> Explanation:
    model, inputs = onevision()
    return Explainer(model, processor, method=method).explain_inputs(
        inputs | others, torch.tensor(ANSWER), images=frames
    )


def probabilities(labels: np.ndarray, revealed: set[int]) -> np.ndarray:
    """[T], of the answer's tokens where only these regions of the frames are not black."""
    model, inputs = onevision()
    kept = np.isin(labels, [*revealed])[..., None]
    shown = [Image.fromarray(np.asarray(frame) * keep) for frame, keep in zip(FRAMES, kept, strict=True)]
    ids = torch.cat([inputs["input_ids"], torch.tensor([ANSWER])], 1)
    pixels = VideoProcessor()([shown], "pt", do_sample_frames=False)
    with torch.no_grad():
        logits = model(input_ids=ids, attention_mask=torch.ones_like(ids), **pixels).logits
    scores = logits[0, -len(ANSWER) - 1 : -1].softmax(-1)
    return scores[range(len(ANSWER)), ANSWER].numpy()


def greedy(labels: np.ndarray) -> tuple[list[int], np.ndarray, np.ndarray]:
    """The order of an exact search, and its insertion and deletion [N, T]."""
    regions = {*labels.ravel().tolist()}
    order: list[int] = []
    insertion, deletion = [], []
    while len(order) < len(regions):
        tried = {}
        for region in sorted(regions - {*order}):
            shown = {*order, region}
            tried[region] = probabilities(labels, shown), probabilities(labels, regions - shown)
        best = max(tried, key=lambda region: float(np.mean(tried[region][0] + 1 - tried[region][1])))
        order.append(best)
        insertion.append(tried[best][0])
        deletion.append(tried[best][1])
    return order, np.array(insertion), np.array(deletion)


def in_tubes() -> np.ndarray:
    """Four regions; the second and the third lie in both frames."""
    labels = np.zeros((2, HEIGHT, WIDTH), np.int64)
    labels[:, :, 10:20], labels[:, 9:, 20:] = 5, 6
    labels[1, labels[1] == 0] = 9
    return labels


@pytest.mark.parametrize("labels", [video_cells(2, HEIGHT, WIDTH, 2, 2), in_tubes()], ids=["cells", "tubes"])
def test_frames_are_searched_as_the_model_scores_them(labels: np.ndarray) -> None:
    found = found_by(Eagle(labels=labels, variant="exact"))
    details = found.diagnostics["eagle"]
    numbers = np.unique(labels, return_inverse=True)[1].reshape(labels.shape)
    order, insertion, deletion = greedy(numbers)
    assert details["order"] == order and details["unseen_regions"] == []
    np.testing.assert_allclose(details["insertion"], insertion, rtol=1e-5)
    np.testing.assert_allclose(details["deletion"], deletion, rtol=1e-5)
    shares = [(numbers == region).mean() for region in order]
    np.testing.assert_allclose(details["areas"], np.cumsum(shares))
    for frame, cells in enumerate(found.grids):
        assert np.array_equal(cells.start + cells.labels, numbers[frame])


def test_each_frame_has_patches_of_its_own() -> None:
    """Along the edges of its visual tokens: two by two of 16 x 16 pixels."""
    found = found_by(Eagle(regions=4))
    assert [(cells.image, cells.start, cells.video) for cells in found.grids] == [(0, 0, True), (1, 4, True)]
    expected = (np.arange(HEIGHT) >= HEIGHT / 2)[:, None] * 2 + (np.arange(WIDTH) >= WIDTH / 2)
    assert all(np.array_equal(cells.labels, expected) for cells in found.grids)


def test_a_saved_result_knows_its_frames(tmp_path: Path) -> None:
    found = found_by(Eagle(regions=4))
    found.save(tmp_path / "video")
    loaded = Explanation.load(tmp_path / "video")
    assert [cells.video for cells in loaded.grids] == [True, True]
    assert [one.name for one in page.pictures(loaded)] == ["frame 1", "frame 2"]
    for frame in range(2):
        heat = found.heatmap(image=frame, resolution="image")
        assert heat.shape == (HEIGHT, WIDTH) and np.array_equal(loaded.heatmap(image=frame, resolution="image"), heat)
    assert loaded.to_dict()["grids"][1]["video"] is True


def test_frames_that_the_processor_leaves_out_have_no_rank() -> None:
    """It samples frames 0 and 2 of four."""
    frames = [FRAMES[0], picture((WIDTH, HEIGHT), 7), FRAMES[1], picture((WIDTH, HEIGHT), 8)]
    found = found_by(Eagle(regions=1), frames)
    assert found.diagnostics["eagle"]["unseen_regions"] == [1, 3]
    assert sorted(found.diagnostics["eagle"]["order"]) == [0, 2]
    assert found.sequence_map[[1, 3]].tolist() == [0, 0]
    assert found.diagnostics["warnings"] == []  # where the visual tokens lie is not known, but where the regions do


def test_several_prompts_give_what_each_gives() -> None:
    _, inputs = onevision()
    pixels = Pixels(PROCESSOR, inputs, FRAMES)
    assert pixels.frames == 2
    many = pixels.of_each([FRAMES, FRAMES[::-1], FRAMES])
    assert [one["pixel_values_videos"].shape for one in many] == [(1, 2, 3, 16, 16)] * 3
    assert torch.equal(many[1]["pixel_values_videos"], pixels.of(FRAMES[::-1])["pixel_values_videos"])
    assert torch.equal(many[1]["pixel_values_videos"][0, 0], many[0]["pixel_values_videos"][0, 1])


def test_labels_are_a_map_of_all_frames_or_a_list_of_maps() -> None:
    one, two = np.array([[0, 0, 1]]), np.array([[4, 5, 5]])
    image, frames = picture((3, 1)), [picture((3, 1), n) for n in range(2)]
    listed = divided(frames, (), 1, "grid", [one, one], "black")
    assert [each.tolist() for each in listed.labels] == [[[0, 0, 1]], [[2, 2, 3]]] and listed.count == 4
    shared = divided(frames, (), 1, "grid", np.stack([one, two - 4]), "black")
    assert [each.tolist() for each in shared.labels] == [[[0, 0, 1]], [[0, 1, 1]]] and shared.count == 2
    mixed = divided([image, *frames], (), 1, "grid", [two, np.stack([one, one])], "black", frames=2)
    assert [each.tolist() for each in mixed.labels] == [[[0, 1, 1]], [[2, 2, 3]], [[2, 2, 3]]]
    assert [cells.video for cells in mixed.cells] == [False, True, True]
    np.testing.assert_allclose(mixed.areas, [1 / 9, 2 / 9, 4 / 9, 2 / 9])


@pytest.mark.parametrize(
    ("ask", "message"),
    [
        (lambda: found_by(Eagle(), FRAMES[::-1]), "makes other pixels of the pictures than the inputs hold"),
        (lambda: found_by(Eagle(), None), "takes the picture and the model's processor"),
        (
            lambda: found_by(Eagle(), processor=SimpleNamespace(image_processor=object(), tokenizer=None)),
            "takes a processor that reads videos",
        ),
        (lambda: found_by(Eagle(labels=in_tubes()[:1])), r"one map for each picture, \[\[22, 30\], \[22, 30\]\], not"),
    ],
    ids=["other frames", "no frames", "no video processor", "labels of one frame"],
)
def test_what_cannot_be_hidden_is_named(ask: Callable[[], Explanation], message: str) -> None:
    with pytest.raises(InputError, match=message):
        ask()


# The real processors


real = pytest.mark.skipif(not is_torchvision_available(), reason="video processors need torchvision")
SEEN = [picture((48, 32), n) for n in range(3)]


@lru_cache
def family(name: str) -> videos.Family:
    return videos.FAMILIES[name]()


def explained(name: str, inputs: Any, images: list[Image.Image], **knobs: Any) -> Explanation:
    model, processor, *_ = family(name)
    explainer = Explainer(model, processor, method=Eagle(**knobs))
    return explainer.explain_inputs(inputs, torch.tensor(ANSWER), images=images)


def scored(name: str, *clips: list[Image.Image]) -> torch.Tensor:
    """[T], by the real processor and the model as they are."""
    inputs = dict(videos.watched(family(name), *clips))
    ids = torch.cat([inputs["input_ids"], torch.tensor([ANSWER])], 1)
    inputs |= {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    if "mm_token_type_ids" in inputs:
        inputs["mm_token_type_ids"] = torch.nn.functional.pad(inputs["mm_token_type_ids"], (0, len(ANSWER)))
    with torch.no_grad():
        logits = family(name)[0](**inputs).logits
    return logits[0, -len(ANSWER) - 1 : -1].softmax(-1)[range(len(ANSWER)), ANSWER]


@real
@pytest.mark.parametrize("name", videos.FAMILIES)
def test_real_processors_get_the_frames_with_regions_hidden(name: str) -> None:
    found = explained(name, videos.watched(family(name), SEEN), SEEN, regions=2, variant="exact")
    details = found.diagnostics["eagle"]
    labels = np.stack([cells.start + cells.labels for cells in found.grids])
    assert sorted(details["order"]) == [*range(6)] and all(cells.video for cells in found.grids)
    for count in (1, 4):
        kept = np.isin(labels, details["order"][:count])[..., None]
        for curve, keep in (("insertion", kept), ("deletion", ~kept)):
            shown = [Image.fromarray(np.asarray(frame) * one) for frame, one in zip(SEEN, keep, strict=True)]
            np.testing.assert_allclose(details[curve][count - 1], scored(name, shown), rtol=1e-4, atol=1e-7)


@real
@pytest.mark.parametrize("name", ["qwen2_5_vl", "llava_onevision", "llava_next_video", "internvl"])
def test_a_picture_beside_a_video(name: str) -> None:
    image = picture((40, 40), 9)
    inputs = videos.watched(family(name), SEEN, images=[image])
    found = explained(name, inputs, [image, *SEEN], regions=1, variant="exact")
    assert [cells.video for cells in found.grids] == [False, True, True, True]
    assert sorted(found.diagnostics["eagle"]["order"]) == [0, 1, 2, 3]


@real
def test_the_sides_of_frames_that_are_cropped_away_have_no_rank() -> None:
    frames = [picture((48, 16), n) for n in range(2)]
    labels = np.broadcast_to(np.arange(48) // 16, (2, 16, 48)) + np.array([0, 3])[:, None, None]
    inputs = videos.watched(family("llava_next_video"), frames)
    found = explained("llava_next_video", inputs, frames, labels=labels, variant="exact")
    assert found.diagnostics["eagle"]["unseen_regions"] == [0, 2, 3, 5]
    assert sorted(found.diagnostics["eagle"]["order"]) == [1, 4]


@real
@pytest.mark.parametrize("name", ["qwen2_vl", "llava_onevision"])
def test_frames_that_a_real_processor_does_not_sample_have_no_rank(name: str) -> None:
    model, processor, *others = videos.FAMILIES[name]()
    processor.video_processor.do_sample_frames, processor.video_processor.num_frames = True, 2
    frames = [*SEEN, picture((48, 32), 4)]
    inputs = videos.watched((model, processor, *others), frames, do_sample_frames=True)
    explainer = Explainer(model, processor, method=Eagle(regions=1, variant="exact"))
    found = explainer.explain_inputs(inputs, torch.tensor(ANSWER), images=frames)
    assert found.diagnostics["eagle"]["unseen_regions"] == [1, 3]


@real
@pytest.mark.parametrize("name", ["qwen2_vl", "smolvlm", "internvl"])
def test_the_frames_of_two_videos_are_searched_together(name: str) -> None:
    clips = [SEEN[:2], [picture((48, 32), n) for n in (7, 8)]]
    frames = [frame for clip in clips for frame in clip]
    found = explained(name, videos.watched(family(name), *clips), frames, regions=1, variant="exact")
    order = found.diagnostics["eagle"]["order"]
    assert sorted(order) == [0, 1, 2, 3]
    black = Image.new("RGB", (48, 32))
    shown = [frame if n == order[0] else black for n, frame in enumerate(frames)]
    insertion = found.diagnostics["eagle"]["insertion"][0]
    np.testing.assert_allclose(insertion, scored(name, shown[:2], shown[2:]), rtol=1e-4, atol=1e-7)
