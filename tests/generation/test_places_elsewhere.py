"""Where the keys lie of models that read their image elsewhere than among the prompt's ids, by their real processors.

The oracle knows no grid: of a picture in which one region is painted, the keys whose values change most lie within a
cell of that region.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import types_places
from PIL import Image
from types_beyond import BEYOND

from dexar_fast import Explainer, Explanation
from dexar_fast.generation.places import kept, placing
from dexar_fast.vision.geometry import Layout

TARGETS = torch.tensor([20, 31])
SIDES: dict[str, Any] = {"size": {"height": 16, "width": 16}}


def processor(module: str, kind: str, **settings: Any) -> Any:
    made = import_module(f"transformers.models.{module}.image_processing_pil_{module}")
    return getattr(made, f"{kind}ImageProcessorPil")(**settings)


def cropping() -> Any:
    return processor("clip", "CLIP", size={"shortest_edge": 16}, crop_size=SIDES["size"])


PROCESSORS: dict[str, Callable[[], Any]] = {
    "blip": lambda: processor("blip", "Blip", **SIDES),
    "git": cropping,
    "mllama": lambda: processor("mllama", "Mllama", **SIDES, max_image_tiles=4),
    "pix2struct": lambda: processor("pix2struct", "Pix2Struct", patch_size={"height": 4, "width": 4}, max_patches=8),
    "t5gemma2": lambda: processor("gemma3", "Gemma3", **SIDES),
    "udop": lambda: processor("layoutlmv3", "LayoutLMv3", **SIDES, apply_ocr=False),
    "vision-encoder-decoder/gpt2": lambda: processor("vit", "ViT", **SIDES),
    "vision-encoder-decoder/trocr": lambda: processor("vit", "ViT", **SIDES),
    "blip-2": lambda: processor("blip", "Blip", **SIDES),
    "instructblip/t5": lambda: processor("blip", "Blip", **SIDES),
    "kosmos-2": cropping,
}
QUERIES = ("blip-2", "instructblip/t5", "kosmos-2")


@pytest.fixture(autouse=True)
def _empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(kept, "_known", {})
    yield


def asked(name: str, size: tuple[int, int]) -> tuple[Explainer, dict[str, Any], Image.Image]:
    beyond, make = BEYOND[name](), PROCESSORS[name]()
    image = Image.effect_noise(size, 80).convert("RGB")
    given = [[image]] if name == "mllama" else [image]
    made = {key: value for key, value in make(given, return_tensors="pt").items() if key in beyond.inputs}
    wide = {key: torch.as_tensor(value) for key, value in made.items()}
    pixels = {key: value.double() if value.is_floating_point() else value for key, value in wide.items()}
    explainer = Explainer(beyond.model, SimpleNamespace(image_processor=make, tokenizer=None))
    return explainer, {**beyond.inputs, **pixels}, image


def explained(name: str, size: tuple[int, int] = (80, 40)) -> Explanation:
    explainer, inputs, image = asked(name, size)
    return explainer.explain_inputs(inputs, TARGETS, images=image)


@pytest.mark.parametrize("size", [(80, 40), (40, 70)], ids=str)
@pytest.mark.parametrize("name", [name for name in PROCESSORS if name not in QUERIES])
def test_painted_regions_change_the_keys_that_lie_there(
    name: str, size: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    found_by, checked = placing.found_by, []

    def painting(shown: Any, declared: Any) -> kept.Found:
        found = found_by(shown, declared)
        check_paint(shown, found, size)
        checked.append(found)
        return found

    monkeypatch.setattr(placing, "found_by", painting)
    found = explained(name, size)
    assert found.metadata["places"] == "measured" and found.diagnostics["warnings"] == []
    assert found.grids == checked[0].grids and found.heatmap(resolution="image").shape == size[::-1]


def check_paint(shown: Any, found: kept.Found, size: tuple[int, int]) -> None:
    cells = types_places.cells(Layout(torch.arange(0), found.grids), [size])
    noise = np.random.default_rng(0).integers(0, 256, (*size[::-1], 3), np.uint8)  # some take the mean of it off
    before = shown.wholly(shown.layers[0], [Image.fromarray(noise)])
    for x, y in ((0.3, 0.3), (0.5, 0.5), (0.6, 0.25)):
        left, top, wide, high = int(x * size[0]), int(y * size[1]), size[0] // 6, size[1] // 6
        other = Image.fromarray(noise)
        other.paste((255, 255, 255), (left, top, left + wide, top + high))
        change = (shown.wholly(shown.layers[0], [other]) - before).norm(dim=1)
        most = {*(change > 0.5 * change.max()).nonzero()[:, 0].tolist()} & cells.keys()
        assert change.max() > 0
        for _, box in (cells[key] for key in most):
            across, down = box[2] - box[0], box[3] - box[1]
            assert left - across < box[2] and box[0] < left + wide + across
            assert top - down < box[3] and box[1] < top + high + down


@pytest.mark.parametrize("name", QUERIES)
def test_learned_queries_have_no_place(name: str) -> None:
    found = explained(name)
    assert found.grids == () and found.metadata["places"] == "none"
    assert "no part of it was found" in " ".join(found.diagnostics["warnings"])


@pytest.mark.parametrize("name", ["blip", "mllama", "t5gemma2"])
def test_it_is_measured_once_and_changes_no_number(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    explainer, inputs, image = asked(name, (80, 40))
    blind = explainer.explain_inputs(inputs, TARGETS)
    assert "where its keys lie in it is not known" in " ".join(blind.diagnostics["warnings"])
    found = explainer.explain_inputs(inputs, TARGETS, images=image)
    np.testing.assert_allclose(found.token_maps, blind.token_maps, rtol=1e-9)
    monkeypatch.setattr(placing, "found_by", lambda *_: pytest.fail("measured again"))
    assert explainer.explain_inputs(inputs, TARGETS, images=image).grids == found.grids != ()
    with explainer.stream_inputs(inputs, images=image, max_new_tokens=2, min_new_tokens=2) as pieces:
        list(pieces)
        assert pieces.explanation().grids == found.grids


def test_other_pictures_than_those_of_the_inputs_have_no_place() -> None:
    explainer, inputs, image = asked("blip", (80, 40))
    found = explainer.explain_inputs(inputs, TARGETS, images=image.transpose(Image.Transpose.FLIP_TOP_BOTTOM))
    assert found.grids == ()
