"""The picture that the model saw is drawn on, whatever the call of its processor was; else a map has no place."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import processors
import pytest
import small_llava
import torch
from bad_input import MODEL, PROCESSOR, TOKENIZER
from pictures import WIDE, picture, seen
from PIL import Image

from dexar_fast import Explainer, Explanation, InputError
from dexar_fast.prompt.remade.seen import OTHERS, TURNED, UNCHECKED

ORIENTATION = 0x0112


def photo(size: tuple[int, int] = WIDE, orientation: int = 6) -> Image.Image:
    """It lies on its side, and says so."""
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    made = picture(size)
    made.info["exif"] = exif.tobytes()
    made.getexif()[ORIENTATION] = orientation
    return made


def asked(images: Sequence[Image.Image], processor: Any = PROCESSOR, **call: Any) -> dict[str, Any]:
    text = small_llava.IMAGE * len(images) + "\nDescribe the image."
    return dict(processor(images=list(images), text=text, return_tensors="pt", **call))


def explain(inputs: dict[str, Any], images: Any, processor: Any = PROCESSOR) -> Explanation:
    return Explainer(MODEL, processor).explain_inputs(inputs, [5, 6], images=images)


def warning(found: Explanation) -> str:
    return " ".join(found.diagnostics["warnings"])


def nowhere(found: Explanation, reason: str) -> None:
    """Its maps are there, and say why they have no place."""
    assert found.grids == () and found.token_maps.any()
    assert reason in warning(found)


# What was said in the call


def test_the_pictures_of_the_inputs_have_their_place() -> None:
    """As explain() does that made the inputs itself, without a word."""
    found = explain(asked([picture()]), picture())
    assert warning(found) == ""
    assert found.grids == Explainer(MODEL, PROCESSOR).explain(picture(), "Describe the image.", "red").grids
    assert found.grids[0].box == pytest.approx((80, 0, 160, 80))


STRETCH = {"size": {"height": 16, "width": 16}}


@pytest.mark.parametrize(
    "call",
    [STRETCH, {**STRETCH, "do_center_crop": False}, {"size": {"shortest_edge": 24}}, {"do_resize": False}],
    ids=["stretched", "crop switched off", "another size", "not resized"],
)
def test_what_was_switched_in_the_call_is_never_drawn_as_the_settings_say(call: dict[str, Any]) -> None:
    """LLaVA-1.5's pixels have one shape, cropped or stretched: no place, or the true one."""
    found = explain(asked([picture()], **call), picture())
    if call == {"do_resize": False}:
        assert found.grids[0].box == pytest.approx((112, 32, 128, 48))
    else:
        nowhere(found, OTHERS)


def squeezed() -> Any:
    """A processor that stretches each image to a square."""
    made = small_llava.processor(TOKENIZER)
    made.image_processor.size, made.image_processor.do_center_crop = {"height": 16, "width": 16}, False
    return made


def test_a_crop_switched_on_in_the_call() -> None:
    processor = squeezed()
    assert explain(asked([picture()], processor), picture(), processor).grids[0].box == (0, 0, *WIDE)
    call = {"size": {"shortest_edge": 16}, "do_center_crop": True}
    nowhere(explain(asked([picture()], processor, **call), picture(), processor), OTHERS)


def padding() -> Any:
    """LLaVA's own image processor, which can pad to a square."""
    from transformers.models.llava.image_processing_pil_llava import LlavaImageProcessorPil

    made = small_llava.processor(TOKENIZER)
    crop = {"height": 16, "width": 16}
    made.image_processor = LlavaImageProcessorPil(size={"shortest_edge": 16}, crop_size=crop)
    return made


@pytest.mark.parametrize("where", ["call", "settings"])
@pytest.mark.parametrize(("size", "box"), [((240, 80), (0, -80, 240, 160)), ((60, 180), (-60, 0, 120, 180))])
def test_a_letterboxed_picture_lies_in_its_padded_square(size: tuple[int, int], box: Any, where: str) -> None:
    processor = padding()
    if where == "settings":
        processor.image_processor.do_pad = True
        found = Explainer(MODEL, processor).explain(picture(size), "Describe the image.", "red")
        assert found.grids[0].box == pytest.approx(box)
    call = {"do_pad": True} if where == "call" else {}
    found = explain(asked([picture(size)], processor, **call), picture(size), processor)
    assert found.grids[0].box == pytest.approx(box) and warning(found) == ""


def test_a_processor_that_may_pad_in_a_way_of_its_own_is_measured() -> None:
    """It has the setting and does not use it: the picture is stretched to a square."""
    processor = squeezed()
    processor.image_processor.do_pad = True
    found = Explainer(MODEL, processor).explain(picture(), "Describe the image.", "red")
    assert warning(found) == "" and [(grid.rows, grid.columns) for grid in found.grids] == [(4, 4)]
    assert found.grids[0].box in (None, pytest.approx((0, 0, *WIDE), abs=WIDE[0] / 8))


def test_without_the_picture_a_crop_is_not_taken_for_the_whole() -> None:
    found = Explainer(MODEL, PROCESSOR).explain_inputs(asked([picture()]), [5, 6])
    assert found.grids[0].box is None and "cropped or padded" in warning(found)
    assert warning(Explainer(MODEL, squeezed()).explain_inputs(asked([picture()], squeezed()), [5, 6])) == ""


# Which picture it was


@pytest.mark.parametrize("orientation", [2, 3, 6, 8])
@pytest.mark.parametrize("size", [WIDE, (90, 90)])
def test_a_photo_is_shown_as_the_model_saw_it(size: tuple[int, int], orientation: int) -> None:
    """The processor leaves a PIL image as it lies."""
    lying = photo(size, orientation)
    found = explain(asked([lying]), lying)
    assert found.grids and warning(found) == ""
    assert found.images[0].tobytes() == picture(size).tobytes() and found.images[0].size == size


def test_a_photo_that_was_turned_for_the_model_is_shown_upright(tmp_path: Path) -> None:
    lying = photo()
    lying.save(tmp_path / "photo.png", exif=lying.getexif())
    upright = picture().transpose(Image.Transpose.ROTATE_270)
    for image in (lying, str(tmp_path / "photo.png")):
        found = explain(asked([upright]), image)
        assert found.grids and found.images[0].tobytes() == upright.tobytes()
    found = explain(asked([picture()]), str(tmp_path / "photo.png"))
    assert found.grids and found.images[0].tobytes() == picture().tobytes()


@pytest.mark.parametrize("mode", ["L", "RGBA", "CMYK", "P", "1"])
def test_a_picture_of_another_mode_is_no_other_picture(mode: str) -> None:
    image = picture().convert(mode)
    if mode == "RGBA":
        image.putalpha(Image.linear_gradient("L").resize(WIDE))
    assert explain(asked([image]), image).grids
    assert explain(asked([image.convert("RGB")]), image).grids


def test_an_array_is_no_other_picture() -> None:
    assert explain(asked([picture()]), np.asarray(picture())).grids


def test_a_map_is_not_drawn_over_the_picture_on_its_side(tmp_path: Path) -> None:
    """The photo's file is read upright, and the model saw it as it lies."""
    lying = photo()
    lying.save(tmp_path / "photo.png", exif=lying.getexif())
    found = explain(asked([lying]), lying)
    assert found.overlay(image=picture((480, 160))).size == (480, 160)
    with pytest.raises(InputError, match="80 x 240 pixels is the explained one of 240 x 80 on its side"):
        found.overlay(image=tmp_path / "photo.png")


def test_a_map_without_a_place_says_why_it_is_not_drawn() -> None:
    found = explain(asked([picture()]), picture(seed=1))
    with pytest.raises(InputError, match=r"unknown.*not those that the processor makes"):
        found.overlay()


OTHER = {
    "another picture": lambda: picture(seed=1),
    "mirrored": lambda: picture().transpose(Image.Transpose.FLIP_LEFT_RIGHT),
    "on its head": lambda: picture().transpose(Image.Transpose.ROTATE_180),
    "an upright copy": lambda: picture().transpose(Image.Transpose.ROTATE_270),
    "a part": lambda: picture().crop((0, 0, 200, 80)),
    "one colour": lambda: Image.new("RGB", WIDE, "red"),
}


@pytest.mark.parametrize("other", OTHER)
def test_another_picture_has_no_place(other: str) -> None:
    found = explain(asked([picture()]), OTHER[other]())
    assert found.grids == () and warning(found)


def test_pictures_in_another_order_have_no_place() -> None:
    first, second = picture(seed=1), picture(seed=2)
    inputs = asked([first, second])
    assert len(explain(inputs, [first, second]).grids) == 2
    nowhere(explain(inputs, [second, first]), OTHERS)


@pytest.mark.parametrize("count", [1, 3])
def test_another_number_of_pictures_has_no_place(count: int) -> None:
    images = [picture(seed=n) for n in range(count)]
    found = explain(asked([picture(seed=0), picture(seed=1)]), images)
    assert found.grids == () and warning(found)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_inputs_of_another_dtype_are_the_same(dtype: torch.dtype) -> None:
    inputs = asked([picture()])
    inputs["pixel_values"] = inputs["pixel_values"].to(dtype)
    found = seen(PROCESSOR, MODEL.config, inputs, picture())
    assert found.grids and found.warning is None


# Without the processor


def test_without_the_processor_a_place_is_said_to_be_unchecked() -> None:
    made = processors.qwen2_5_vl()
    inputs = made.process([picture()])
    found = seen(None, made.config, inputs, picture())
    assert found.grids and found.warning == UNCHECKED
    assert seen(None, made.config, inputs, photo()).warning == f"the maps have no place in the image, because {TURNED}"
    nowhere(explain(asked([picture()]), picture(), None), "make the Explainer with the processor")


def test_explain_makes_the_pixels_once(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    kind = type(PROCESSOR.image_processor)
    real = kind.preprocess
    monkeypatch.setattr(kind, "preprocess", lambda self, *args, **kw: calls.append(1) or real(self, *args, **kw))
    Explainer(MODEL, PROCESSOR).explain(picture(), "Describe the image.", "red")
    assert len(calls) == 1
