"""Captum's call and result over our methods, with Captum itself: its plots, its own attribution beside ours."""

from __future__ import annotations

import inspect
import sys
from functools import partial
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from answering_server import PROMPT, TOKENS, picture, serving
from PIL import Image, ImageOps

from dexar_fast import Explainer, InputError, LibraryError
from dexar_fast.adapters.captum import LLMAttribution, LLMGradientAttribution, endpoint
from dexar_fast.cli.explain import SAMPLE_IMAGE
from dexar_fast.methods.cut.labels import patches
from dexar_fast.methods.eagle.black_box import explain_black_box
from dexar_fast.methods.eagle.method import Eagle

attr = pytest.importorskip("captum.attr")
QUESTION, ANSWER = "Which shape is yellow?", "The yellow shape is a circle."


@pytest.fixture(scope="module")
def embedded() -> Explainer:
    return Explainer.from_pretrained()


def segments(explainer: Explainer, rows: int, columns: int, **more: Any) -> Any:
    """The sample as Captum takes it, cut into patches."""
    image = Image.open(SAMPLE_IMAGE).convert("RGB")
    mask = torch.from_numpy(patches(image.height, image.width, rows, columns))

    def prompted(image: Image.Image) -> Any:
        text = f"USER: <image>\n{QUESTION} ASSISTANT:"
        return explainer.processor(images=image, text=text, return_tensors="pt")

    return attr.ImageMaskInput(image, **({"mask": mask} | more), processor_fn=prompted)


def test_a_segment_for_each_visual_token_holds_its_value(embedded: Explainer) -> None:
    inp = segments(embedded, 12, 12)
    found = LLMAttribution(embedded).attribute(inp, target=ANSWER)
    ids = embedded.processor.tokenizer.encode(ANSWER, add_special_tokens=False)
    own = embedded.explain_inputs(dict(inp.to_model_input()), ids, images=inp.image)
    assert isinstance(found, attr.LLMAttributionResult) and found.inp is inp
    torch.testing.assert_close(found.token_attr, own.token_maps)
    torch.testing.assert_close(found.seq_attr, own.sequence_map)
    assert found.token_attr.dtype == found.seq_attr.dtype == torch.float32
    assert found.input_tokens == inp.values and found.output_tokens == [token.strip() for token in own.tokens]


@pytest.mark.parametrize("overlapping", [False, True])
def test_a_segment_holds_the_map_of_its_pixels(embedded: Explainer, overlapping: bool) -> None:
    """Pixel by pixel: each visual token spreads its value over the 32 x 32 pixels that it sees."""
    inp = segments(embedded, 5, 7)
    masks = inp.get_mask_list()
    if overlapping:
        masks = [masks[0] | masks[1], masks[1], torch.zeros_like(masks[0])]
        inp = segments(embedded, 5, 7, mask_list=masks)
    found = LLMGradientAttribution(embedded.with_method("attention-gradient")).attribute(inp, target=ANSWER)
    ids = embedded.processor.tokenizer.encode(ANSWER, add_special_tokens=False)
    own = embedded.with_method("attention-gradient").explain_inputs(dict(inp.to_model_input()), ids, images=inp.image)
    heat = own.token_maps.double().unflatten(1, (12, 12)).repeat_interleave(32, 1).repeat_interleave(32, 2) / 32**2
    expected = torch.stack([heat[:, mask.bool()].sum(1) for mask in masks], 1)
    torch.testing.assert_close(found.token_attr.double(), expected, rtol=1e-5, atol=1e-9)


def test_its_plots_take_our_result(embedded: Explainer) -> None:
    inp = segments(embedded, 3, 4)
    found = LLMAttribution(embedded).attribute(inp)
    assert " ".join(found.output_tokens).startswith("The yellow shape is a circle")
    for figure, axes in (found.plot_token_attr(), found.plot_seq_attr(), found.plot_image_heatmap()):
        assert axes.images or axes.patches
        plt.close(figure)
    figure, axes = found.plot_image_heatmap(target_token_pos=(3, 6))
    drawn = np.asarray(axes.images[1].get_array())
    np.testing.assert_allclose(drawn[200, 200], found.token_attr[3:6, 6].sum(), rtol=1e-5)
    plt.close(figure)
    figure, _ = inp.plot_mask_overlay()
    plt.close(figure)


def test_captums_own_method_on_our_forwards_finds_what_captum_finds(embedded: Explainer) -> None:
    """Where segments are hidden in black, and what speaks for a token; what speaks against it shows 0 here."""
    inp = segments(embedded, 3, 3, baseline=(0, 0, 0))
    ids = torch.tensor(embedded.processor.tokenizer.encode(ANSWER, add_special_tokens=False))
    ours = LLMAttribution(embedded.with_method("captum:method=FeatureAblation,fill=black"))
    theirs = attr.LLMAttribution(attr.FeatureAblation(embedded.model), embedded.processor.tokenizer)
    expected = theirs.attribute(inp, target=ids, forward_in_tokens=False).token_attr
    torch.testing.assert_close(ours.attribute(inp, target=ids).token_attr, expected.relu(), rtol=1e-3, atol=1e-4)


def test_generated_as_captum_generates(embedded: Explainer) -> None:
    found = LLMAttribution(embedded).attribute(segments(embedded, 2, 2), gen_args={"max_new_tokens": 3})
    assert found.token_attr.shape == (3, 4)


def test_the_calls_are_captums() -> None:
    for ours, theirs in ((LLMAttribution, attr.LLMAttribution), (LLMGradientAttribution, attr.LLMGradientAttribution)):
        own, of_captum = (inspect.signature(each.attribute).parameters for each in (ours, theirs))
        assert [*own] == [*of_captum]
        assert [each.kind for each in own.values()] == [each.kind for each in of_captum.values()]
        assert [each.default for each in own.values()] == [each.default for each in of_captum.values()]


def test_gen_args_by_place_and_arguments_of_how_to_run(embedded: Explainer) -> None:
    inp = segments(embedded, 2, 2)
    assert LLMGradientAttribution(embedded).attribute(inp, None, {"max_new_tokens": 3}).token_attr.shape == (3, 4)
    found = LLMAttribution(embedded).attribute(inp, target=ANSWER, show_progress=True, perturbations_per_eval=4)
    assert found.token_attr.shape == (7, 4)


@pytest.mark.parametrize("size", [(5, 3), (7, 30)])
def test_a_picture_of_fewer_pixels_than_visual_tokens_loses_nothing(embedded: Explainer, size: tuple[int, int]) -> None:
    inp = segments(embedded, 2, 2)
    small = inp.image.resize(size)
    mask = torch.arange(size[0]).repeat(size[1], 1) // 3
    found = LLMAttribution(embedded).attribute(attr.ImageMaskInput(small, mask, processor_fn=inp.processor_fn), ANSWER)
    ids = embedded.processor.tokenizer.encode(ANSWER, add_special_tokens=False)
    own = embedded.explain_inputs(dict(inp.processor_fn(small)), ids, images=small)
    torch.testing.assert_close(found.token_attr.sum(1), own.token_maps.sum(1))


def test_what_is_refused(embedded: Explainer) -> None:
    inp = segments(embedded, 2, 2)
    with pytest.raises(InputError, match="attr_method is an Explainer"):
        LLMAttribution(attr.FeatureAblation(embedded.model))
    with pytest.raises(InputError, match="no tokenizer"):
        LLMAttribution(Explainer(embedded.model))
    with pytest.raises(InputError, match="ImageMaskInput, whose segments have maps, not a TextTokenInput"):
        LLMAttribution(embedded).attribute(attr.TextTokenInput("red", embedded.processor.tokenizer))
    with pytest.raises(InputError, match="gen_args are for an answer that is generated"):
        LLMAttribution(embedded).attribute(inp, target=ANSWER, gen_args={"max_new_tokens": 3})
    with pytest.raises(InputError, match="n_samples: knobs are those of the Explainer's method"):
        LLMAttribution(embedded).attribute(inp, target=ANSWER, n_samples=25)
    with pytest.raises(InputError, match="_inspect_forward: no forward"):
        LLMAttribution(embedded).attribute(inp, target=ANSWER, _inspect_forward=print)
    with pytest.raises(InputError, match="processor_fn makes a Image of the picture"):
        LLMAttribution(embedded).attribute(attr.ImageMaskInput(inp.image), target=ANSWER)
    with pytest.raises(InputError, match="VLLMProvider is due"):
        endpoint("http://localhost:8000")


@pytest.mark.parametrize("turning", [False, True])
def test_a_picture_on_its_side(embedded: Explainer, turning: bool) -> None:
    """Its EXIF says that it was turned. Segments are of its pixels: of those that the model saw, or refused."""
    inp = segments(embedded, 2, 2)
    image = inp.image.resize((384, 256))
    image.getexif()[0x0112] = 6

    def prompted(picture: Image.Image) -> Any:
        return inp.processor_fn(ImageOps.exif_transpose(picture) if turning else picture)

    turned = attr.ImageMaskInput(image, torch.zeros(256, 384, dtype=torch.int32), processor_fn=prompted)
    call = partial(LLMAttribution(embedded).attribute, turned, target=ANSWER)
    if turning:
        with pytest.raises(InputError, match="turn it as its EXIF says first"):
            call()
    else:
        assert call().token_attr.shape == (7, 1)


def test_without_captum_its_extra_is_named(embedded: Explainer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "captum.attr", None)
    with pytest.raises(LibraryError, match=r"LLMAttribution needs captum .*: pip install 'dexar-fast\[captum\]'"):
        LLMAttribution(embedded)


def test_its_vllm_provider_scores_eagles_black_box(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("openai")
    with serving() as server:
        scorer = endpoint(attr.VLLMProvider(f"{server.url}/v1", model_name="m"))
        method = Eagle(labels=patches(24, 32, 2, 2))
        found = explain_black_box(picture(), PROMPT, scorer.tokens(picture(), PROMPT, "".join(TOKENS)), scorer, method)
        headers, body = server.seen[-1][1:]
    assert found.tokens == TOKENS and found.token_maps.shape == (4, 4)
    assert body["model"] == "m" and headers["Authorization"] == "Bearer EMPTY"
