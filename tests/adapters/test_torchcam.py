"""torch-cam's DEXAR and TAM one level up: shapes and scales against slow float64, pictures by torch-cam itself."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import zoo
from oracle import full_sequence, oracle
from PIL import Image

from dexar_fast.adapters.torchcam import DEXAR, TAM, Dexar
from dexar_fast.errors import InputError

TARGETS = [11, 57, 23, 140, 11]


def answered(family: str) -> tuple[Any, dict[str, Any], torch.Tensor]:
    model, inputs = zoo.build(family)
    return model, inputs, torch.tensor([TARGETS])


def scaled(values: Any) -> Any:
    return (values - values.min()) / (values.max() - values.min())


@pytest.mark.parametrize("family", ["qwen2_5_vl", "llava"])
def test_dexar_is_that_of_the_equations(family: str) -> None:
    """Their aggregate: each map scaled, weighted, summed, scaled."""
    model, inputs, ids = answered(family)
    found = DEXAR(model)(inputs, ids)
    expected = oracle(model, inputs, ids[0])
    _, count, height, width = found.maps.shape
    assert count == len(TARGETS) and height * width == expected["token_maps"].shape[1]
    maps = np.stack([scaled(each) for each in expected["token_maps"].numpy()])
    weights = expected["token_weights"].numpy()
    np.testing.assert_allclose(found.maps[0].flatten(1), maps, atol=1e-6)
    np.testing.assert_allclose(found.weights[0], weights, rtol=1e-5)
    assert weights.any()
    np.testing.assert_allclose(found.sequence[0].flatten(), scaled((weights[:, None] * maps).sum(0)), atol=1e-6)
    assert isinstance(found, Dexar) and found.sequence.shape == (1, height, width)
    assert {each.dtype for each in found} == {torch.float64}


def test_tam_is_that_of_their_formula_where_nothing_explains_a_word() -> None:
    """One token behind a picture that ends the prompt: its relu'd logits, filtered, scaled by themselves."""
    model, inputs = zoo.build("qwen2_5_vl")
    end = int((inputs["input_ids"][0] == zoo.IMAGE).nonzero()[-1]) + 1
    cut = {name: x[:, :end] if x.shape == inputs["input_ids"].shape else x for name, x in inputs.items()}
    found = TAM(model)(cut, [[33]])
    with torch.no_grad():
        logits = model(**full_sequence(model, cut, torch.tensor([33]))).logits[0, :, 33].relu().double()
    height, width = found.shape[2:]
    image = logits[(cut["input_ids"][0] == zoo.IMAGE).nonzero()[:, 0]].reshape(height, width).numpy()
    padded = np.pad(image, 1, mode="reflect")
    filtered = np.zeros_like(image)
    for row, column in np.ndindex(image.shape):
        near = np.sort(padded[row : row + 3, column : column + 3].ravel())
        weights = np.exp(-(np.arange(-4, 5) ** 2) / 2 / (near.std() / near.mean()) ** 2) if near.any() else np.ones(9)
        filtered[row, column] = (near * weights).sum() / weights.sum()
    assert found.dtype == torch.float32
    np.testing.assert_allclose(found[0, 0], scaled(filtered), atol=1e-5)


def test_torch_cam_draws_the_maps() -> None:
    utils = pytest.importorskip("torchcam.utils")
    model, inputs, ids = answered("qwen2_5_vl")
    dexar, tam = DEXAR(model)(inputs, ids), TAM(model)(inputs, ids)
    picture = Image.new("RGB", (60, 40), "grey")
    assert tam.shape == dexar.maps.shape and tam.min() >= 0 and tam.max() == 1
    for heat in (dexar.sequence[0], dexar.maps[0, 1], tam[0, 1]):
        drawn = utils.overlay_mask(picture, Image.fromarray(heat.float().numpy(), mode="F"))
        assert drawn.size == picture.size and len(np.unique(np.asarray(drawn))) > 2


def test_its_own_normalisation_leaves_our_maps_as_they_are() -> None:
    core = pytest.importorskip("torchcam.methods.core")
    model, inputs, ids = answered("llava")
    found = DEXAR(model)(inputs, ids).maps[0]
    again = core._CAM._normalize(found.clone(), spatial_dims=2, eps=torch.finfo(found.dtype).tiny)
    torch.testing.assert_close(again, found)


def test_what_is_refused() -> None:
    model, inputs, ids = answered("qwen2_5_vl")
    with pytest.raises(InputError, match=r"answer_ids are \[1, tokens\], not \[5\]"):
        DEXAR(model)(inputs, ids[0])
    many, tiles = zoo.build("llava_onevision")
    with pytest.raises(InputError, match="one grid is due"):
        TAM(many)(tiles, ids)
