"""Families whose visual tokens are codes, by their real image processors and their own towers.

Norms over all of the image and the choice of a code stand between a token and its part of the picture, so that neither
measuring nor painted regions tell where it lies. Without these norms, and attention off, what a code is chosen for
depends on what lies around its cell alone.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import types_explained
import types_places
import types_zoo
from PIL import Image
from random_towers import drawn
from torch import Tensor, nn

from dexar_fast import Explainer
from dexar_fast.generation.places import placing
from dexar_fast.prompt import request
from dexar_fast.prompt.remade.seen import placed
from dexar_fast.vision.families import CODED
from dexar_fast.vision.measured.unmixed import Unmixed

SETTINGS: dict[str, dict[str, Any]] = {
    "chameleon": {"size": {"shortest_edge": 32}, "crop_size": {"height": 32, "width": 32}},
    "emu3": {"min_pixels": 24**2, "max_pixels": 48**2, "spatial_factor": 2},
    "apertus1p5": {"size": {"min_pixels": 24**2, "max_pixels": 48**2}, "spatial_factor": 2},
}


def build(name: str) -> tuple[Any, Any]:
    """A small model of several hundred tokens, and its processor."""
    types_places.TYPES.setdefault(name, types_places.Sizes())
    make = types_places.image_processor(name)
    if make is None:
        pytest.skip("its image processor needs torchvision")
    config = types_zoo.config_of(name, **types_explained.EXPLAINED[name].changes)
    config.get_text_config().max_position_embeddings = 8192
    return drawn(types_zoo.model_of(config, torch.float32)), make(**SETTINGS[name])


def asked(model: Any, processor: Any, picture: Image.Image) -> request.Request:
    made = {name: value for name, value in processor([picture], return_tensors="pt").items()}
    return request.given(types_places.inputs(model, made), [picture])


@pytest.mark.parametrize("size", [(60, 40), (40, 60), (50, 50)], ids=str)
@pytest.mark.parametrize("name", CODED)
def test_what_a_code_is_chosen_for_lies_in_its_cell(
    name: str, size: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(nn.GroupNorm, "forward", lambda self, hidden: hidden.tanh())
    model, processor = build(name)
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 255, (*size[::-1], 3), np.uint8))
    given = asked(model, processor, picture)
    _, found = placed(model.config, SimpleNamespace(image_processor=processor), given)
    (grid,) = found.grids
    assert found.warning is None
    left, top, right, bottom = grid.box or (0, 0, *size)
    for x, y in ((0.1, 0.1), (0.9, 0.1), (0.5, 0.9)):
        region = [round(left + x * (right - left)), round(top + y * (bottom - top))]
        other = picture.copy()
        other.paste((255, 255, 255), (region[0] - 2, region[1] - 2, region[0] + 2, region[1] + 2))
        change = (latents(model, given) - latents(model, asked(model, processor, other))).square().sum(0)  # [h, w]
        assert change.shape == (grid.rows, grid.columns)
        rows, columns = (change.sum(axis) / change.sum() for axis in (1, 0))
        row, column = (float((share * (torch.arange(len(share)) + 0.5)).sum()) for share in (rows, columns))
        assert abs(row - y * grid.rows) < 1.5 and abs(column - x * grid.columns) < 1.5


def latents(model: Any, given: request.Request) -> Tensor:
    """[channels, height, width] what codes are chosen for."""
    (chooser,) = [module for module in model.modules() if type(module).__name__.endswith("VectorQuantizer")]
    seen: list[Tensor] = []
    hook = chooser.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    with Unmixed(), torch.no_grad():
        model(**given.inputs)
    hook.remove()
    return seen[0].flatten(0, -4)[0] if seen[0].ndim > 3 else seen[0]


@pytest.mark.parametrize("name", CODED)
def test_their_layout_stays_unchecked(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(placing, "measured", lambda *_: pytest.fail("measured"))
    model, processor = build(name)
    picture = Image.effect_noise((60, 40), 80).convert("RGB")
    given = asked(model, processor, picture)
    explainer = Explainer(model, SimpleNamespace(image_processor=processor))
    found = explainer.explain_inputs(given.inputs, [5, 6], images=picture)
    assert found.metadata["places"] == "declared" and len(found.grids) == 1
