"""Of every family the pictures behind its inputs are recognised, and others refused."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from importlib import import_module
from types import SimpleNamespace
from typing import Any

import numpy as np
import processors
import pytest
import torch
import transformers
import videos
from pictures import picture, seen
from PIL import Image
from processors import IMAGES, VIDEOS, Family, around, ask, real, real_onevision, watch
from transformers.utils import is_torchvision_available

from dexar_fast.prompt import request
from dexar_fast.prompt.remade.seen import UNCHECKED
from dexar_fast.vision.geometry import layout


@lru_cache
def family(name: str) -> Family:
    return (IMAGES | VIDEOS | {"onevision_nested": processors.onevision_nested})[name]()


@pytest.mark.parametrize("name", [*IMAGES, "onevision_nested"])
def test_the_pictures_of_every_family_are_recognised(name: str) -> None:
    """And another order of them is not taken for theirs."""
    made = family(name)
    images = [picture((300, 500), 1), picture((640, 320), 2), picture((500, 300), 3)]
    inputs = made.process(images)
    expected = layout(made.config, made.processor, inputs, [image.size for image in images])
    found = seen(made.processor, made.config, inputs, images)
    assert found.grids == expected.grids != () and found.warning is None
    swapped = seen(made.processor, made.config, inputs, [images[0], images[2], images[1]])
    assert swapped.grids == () and swapped.warning


@pytest.mark.parametrize("name", VIDEOS)
def test_a_video_is_unchecked_without_its_processor(name: str) -> None:
    made = family(name)
    frames = [picture((420, 240), n) for n in range(5)]
    inputs = made.process(frames)
    found = seen(made.processor, made.config, inputs, frames)
    assert found.warning == UNCHECKED
    assert found.grids == layout(made.config, made.processor, inputs, [frame.size for frame in frames]).grids != ()
    assert seen(made.processor, made.config, inputs, frames[:-1]).grids == ()


@pytest.mark.parametrize("before", [True, False], ids=["before", "behind"])
def test_a_video_whose_frames_carry_the_image_id(before: bool) -> None:
    """InternVL: frames and picture are squares under one id, in the order of the prompt."""
    made = family("internvl")
    frames, image = [picture((320, 240), n) for n in range(3)], picture((320, 240), 9)
    order = [*frames, image] if before else [image, *frames]
    pixels = made.processor.image_processor(order, return_tensors="pt", crop_to_patches=False).pixel_values
    run = "<img>" + "<IMG_CONTEXT>" * 256 + "</img>"
    inputs = {"pixel_values": pixels, "input_ids": processors.written([run] * 4)}
    found = seen(made.processor, made.config, inputs, order)
    assert [(grid.image, grid.start) for grid in found.grids] == [(n, 256 * n) for n in range(4)]
    others = [image, *frames] if before else [*frames, image]
    assert seen(made.processor, made.config, inputs, others).grids == ()


@pytest.mark.parametrize("name", ["qwen2_vl", "qwen3_vl", "mistral3", "pixtral"])
def test_a_picture_that_was_resized_on_its_way_is_still_itself(name: str) -> None:
    """As qwen_vl_utils does, or a size in the call: the inputs name the grid, which is all of the picture."""
    made = family(name)
    image = picture((640, 480))
    inputs = made.process([image.resize((336, 224), Image.Resampling.BICUBIC)])
    assert seen(made.processor, made.config, inputs, image).grids
    for turn in (Image.Transpose.ROTATE_180, Image.Transpose.FLIP_LEFT_RIGHT, Image.Transpose.ROTATE_90):
        found = seen(made.processor, made.config, inputs, image.transpose(turn))
        assert found.grids == () and found.warning


def test_crops_that_a_call_switched_on_are_found() -> None:
    """Gemma 3's combined processor says no in every call that does not say otherwise, whatever its settings are."""
    made = family("gemma3_crops")
    made.processor.image_processor.pan_and_scan_min_crop_size = 16
    image = picture((1200, 400))
    found = seen(made.processor, made.config, made.process([image]), image)
    assert len(found.grids) == 4 and found.warning is None
    plain = seen(made.processor, made.config, family("gemma3").process([image]), image)
    assert len(plain.grids) == 1 and plain.warning is None


def image_processor(module: str, kind: str, **settings: Any) -> Any:
    made = import_module(f"transformers.models.{module}.image_processing_pil_{module}")
    return getattr(made, f"{kind}ImageProcessorPil")(**settings)


SQUARE = {"size": {"height": 384, "width": 384}}
CROP = {"size": {"shortest_edge": 384}, "crop_size": {"height": 384, "width": 384}}
SQUARES: dict[str, tuple[Callable[[], Any], tuple[float, ...]]] = {
    "deepseek_vl": (lambda: image_processor("deepseek_vl", "DeepseekVL", **SQUARE), (0, -80, 240, 160)),
    "janus": (lambda: image_processor("janus", "Janus", **SQUARE), (0, -80, 240, 160)),
    "fast_vlm": (lambda: image_processor("clip", "CLIP", **CROP), (80, 0, 160, 80)),
    "pp_chart2table": (lambda: image_processor("siglip", "Siglip", **SQUARE), (0, 0, 240, 80)),
    "shieldgemma2": (lambda: image_processor("siglip", "Siglip", **SQUARE), (0, 0, 240, 80)),
}


@pytest.mark.parametrize("kind", SQUARES)
def test_families_that_see_one_square_for_certain(kind: str) -> None:
    """DeepSeek-VL and Janus letterbox, FastVLM's tower has no patches, the others stretch."""
    processor, box = SimpleNamespace(image_processor=SQUARES[kind][0]()), SQUARES[kind][1]
    vision = SimpleNamespace(**({} if kind == "fast_vlm" else {"patch_size": 16}))
    config = SimpleNamespace(model_type=kind, image_token_id=7, vision_config=vision)
    inputs = dict(processor.image_processor([picture()], return_tensors="pt"))
    inputs["input_ids"] = torch.tensor([[1, *[7] * 144, 2]])
    found = seen(processor, config, inputs, picture())
    (grid,) = found.grids
    assert (grid.rows, grid.columns) == (12, 12) and found.warning is None
    assert grid.box == pytest.approx(box)


# Videos, by the real processors


VIDEO_PROMPTS = {name: around("<video>") for name in ("qwen2_vl_video", "qwen2_5_vl_video", "qwen3_vl_video")}


def combined(name: str) -> Any:
    """The real processor that reads videos."""
    images = family(name).processor.image_processor
    if name == "onevision_video":
        return real_onevision(images)
    kind = {"qwen2_vl_video": "Qwen2VL", "qwen2_5_vl_video": "Qwen2_5_VL", "qwen3_vl_video": "Qwen3VL"}[name]
    return real(f"{kind}Processor", images, f"{'Qwen3VL' if kind == 'Qwen3VL' else 'Qwen2VL'}VideoProcessor")


@pytest.mark.skipif(not is_torchvision_available(), reason="video processors need torchvision")
@pytest.mark.parametrize("name", VIDEOS)
@pytest.mark.parametrize("count", [4, 5])
def test_the_frames_of_a_video_are_recognised(name: str, count: int) -> None:
    """One forgotten, or in another order, they have no place."""
    processor, config = combined(name), family(name).config
    frames = [picture((420, 240), n) for n in range(count)]
    inputs = watch(processor, VIDEO_PROMPTS.get(name, "<video>"))(frames)
    found = seen(processor, config, inputs, frames)
    assert sorted(n for grid in found.grids for n in grid.images) == list(range(count)) and found.warning is None
    for others in (frames[1:], frames[:-1], frames[::-1]):
        assert seen(processor, config, inputs, others).grids == ()


@pytest.mark.skipif(not is_torchvision_available(), reason="video processors need torchvision")
@pytest.mark.parametrize("name", ["qwen2_vl_video", "qwen3_vl_video"])
def test_a_video_before_a_picture(name: str) -> None:
    """The frames are given behind the picture, wherever they stand in the prompt."""
    processor, config = combined(name), family(name).config
    frames, image = [picture((420, 240), n) for n in range(4)], picture((420, 240), 9)
    video = torch.stack([torch.tensor(np.asarray(frame)).permute(2, 0, 1) for frame in frames])
    text = f"{around('<video>')} {around('<image>')} What is it?"
    inputs = processor(images=[image], videos=[video], text=text, return_tensors="pt", do_sample_frames=False)
    found = seen(processor, config, inputs, [image, *frames])
    assert found.grids[-1].image == 0 and not found.grids[-1].video and found.warning is None
    assert seen(processor, config, inputs, [*frames, image]).grids == ()


@pytest.mark.skipif(not is_torchvision_available(), reason="video processors need torchvision")
@pytest.mark.parametrize("counts", [(4, 4), (3, 4), (2, 5), (3, 3), (1, 2, 3)])
@pytest.mark.parametrize("name", ["qwen2_vl", "qwen2_5_vl"])
def test_the_frames_of_several_videos_are_shared_out(name: str, counts: tuple[int, ...]) -> None:
    """Two frames a step; the last of an odd number stands alone. In another order they have no place."""
    model, processor, *_ = reader = videos.FAMILIES[name]()
    shots = [[picture((64, 48), 10 * video + n) for n in range(count)] for video, count in enumerate(counts)]
    frames = [frame for shot in shots for frame in shot]
    inputs = videos.watched(reader, *shots)
    found = seen(processor, model.config, inputs, frames)
    steps = [n for count in counts for n in [2] * (count // 2) + [1] * (count % 2)]
    assert [grid.frames for grid in found.grids] == steps and found.warning is None
    assert [n for grid in found.grids for n in grid.images] == list(range(sum(counts)))
    assert seen(processor, model.config, inputs, frames[::-1]).grids == ()


@pytest.mark.skipif(not is_torchvision_available(), reason="InternVL's processor needs torchvision")
@pytest.mark.parametrize(("call", "grids"), [({}, 16), ({"crop_to_patches": False}, 2)])
def test_tiles_that_internvl_switches_on_whatever_its_settings_say(call: dict[str, Any], grids: int) -> None:
    images = transformers.GotOcr2ImageProcessor(size={"height": 448, "width": 448}, min_patches=1, max_patches=12)
    processor = real("InternVLProcessor", images, "InternVLVideoProcessor")
    pictures = [picture((900, 400), 3), picture((320, 240), 4)]
    inputs = ask(processor, "<IMG_CONTEXT>", **call)(pictures)
    found = seen(processor, family("internvl").config, inputs, pictures)
    assert len(found.grids) == grids and found.warning is None
    assert seen(processor, family("internvl").config, inputs, pictures[::-1]).grids == ()


@pytest.mark.skipif(not is_torchvision_available(), reason="LLaVA-OneVision's processor needs torchvision")
@pytest.mark.parametrize("count", [1, 2, 3])
def test_explain_asks_what_the_chat_template_asks(count: int) -> None:
    """LLaVA-OneVision sees several pictures of one conversation as squares, those of a list as if each were alone."""
    processor = real_onevision(family("onevision").processor.image_processor)
    processor.chat_template = (
        "{% for m in messages %}{% for p in m.content %}{{ '<image>' if p.type == 'image' else p.text }}"
        "{% endfor %}{% endfor %}"
    )
    pictures = [picture((300 + 90 * n, 240), n) for n in range(count)]
    parts = [*({"type": "image", "image": each} for each in pictures), {"type": "text", "text": "Compare them."}]
    told = [{"role": "user", "content": parts}]
    expected = processor.apply_chat_template(told, tokenize=True, return_dict=True, return_tensors="pt")
    asked = request.read(processor, pictures, "Compare them.", None, with_content=False)
    for name in ("input_ids", "pixel_values", "image_sizes", "batch_num_images"):
        assert torch.equal(asked.inputs[name], expected[name]), name
    assert asked.inputs["pixel_values"].shape[1] == (1 if count > 1 else 2)
