"""pytorch-grad-cam's call: the maps of the explanations, drawn by its own `show_cam_on_image`."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from dexar_fast import Explainer, InputError
from dexar_fast.adapters.grad_cam import VLMCam
from dexar_fast.cli.explain import SAMPLE_IMAGE

QUESTION, ANSWERS = "Which shape is yellow?", ["The yellow shape is a circle.", "The yellow shape is a square."]


@pytest.fixture(scope="module")
def embedded() -> Explainer:
    return Explainer.from_pretrained()


@pytest.fixture(scope="module")
def rgb() -> np.ndarray:
    return np.asarray(Image.open(SAMPLE_IMAGE).convert("RGB").resize((300, 260)))


def tensor(*pictures: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2) / 255


@pytest.mark.parametrize("method", ["dex-ar", "tam"])
def test_the_cams_are_the_maps_of_the_answers(embedded: Explainer, rgb: np.ndarray, method: str) -> None:
    with VLMCam(embedded.model, embedded.processor, QUESTION, method=method) as cam:
        found = cam(tensor(rgb, rgb[::-1]), targets=ANSWERS)
    assert found.shape == (2, 260, 300) and found.dtype == np.float32
    assert found.min() == 0 and found.max() <= 1
    for picture, answer, map_ in zip((rgb, rgb[::-1]), ANSWERS, found, strict=True):
        own = embedded.with_method(method).explain(Image.fromarray(picture), QUESTION, answer)
        np.testing.assert_allclose(map_, own.heatmap(resolution="image"), atol=1e-4)
    assert [each.text.strip() for each in cam.outputs] == ANSWERS


def test_its_own_function_draws_them(embedded: Explainer, rgb: np.ndarray) -> None:
    image = pytest.importorskip("pytorch_grad_cam.utils.image")
    cam = VLMCam(embedded.model, embedded.processor, QUESTION)
    (found,) = cam(input_tensor=tensor(rgb))
    assert cam.outputs[0].text.strip() == ANSWERS[0]
    drawn = image.show_cam_on_image(np.float32(rgb) / 255, found, use_rgb=True)
    assert drawn.shape == rgb.shape and drawn.dtype == np.uint8
    hot, cold = (np.unravel_index(at, found.shape) for at in (found.argmax(), found.argmin()))
    assert drawn[hot][0] > drawn[hot][2] and drawn[cold][2] > 0  # red where it is hot


def test_what_is_refused(embedded: Explainer, rgb: np.ndarray) -> None:
    cam = VLMCam(embedded.model, embedded.processor)
    with pytest.raises(InputError, match=r"\[B, 3, height, width\] in \[0, 1\]: the model's processor"):
        cam(tensor(rgb) * 255)
    with pytest.raises(InputError, match="targets are 1 texts"):
        cam(tensor(rgb), targets=[lambda output: output[281]])
    with pytest.raises(InputError, match="targets are 1 texts"):
        cam(tensor(rgb), targets=ANSWERS)
    with pytest.raises(InputError, match="is none of attention"):
        VLMCam(embedded.model, embedded.processor, method="grad-cam++")
