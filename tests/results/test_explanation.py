"""Explanation: what is checked, where a map is drawn, and that a file gives back what was saved."""

import io
import json
import os
import sys
import warnings
from dataclasses import fields as fields_of
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from made_explanations import QUICK, explanations, grey, make
from PIL import Image
from safetensors import safe_open
from safetensors.torch import save_file

from dexar_fast.errors import FileError, ImageError, InputError, NumericalError
from dexar_fast.explanation import Explanation
from dexar_fast.report.drawing.overlay import draw_overlay, lines
from dexar_fast.report.words import pieces
from dexar_fast.results import storage
from dexar_fast.results.schema import ARRAYS
from dexar_fast.vision.grid import Grid
from dexar_fast.vision.maps import Canvas, min_max
from dexar_fast.vision.regions import Regions

REGIONS = np.arange(12, dtype=np.int32).reshape(3, 4)


def with_map(values, grids, images=(), *, token_weight=1.0) -> Explanation:
    """One token whose filtered map is `values`; its unfiltered map is all ones."""
    maps = torch.as_tensor(np.asarray(values), dtype=torch.float32)[None]
    ones = torch.ones_like(maps)
    return make(
        1, maps.shape[1], token_weights=torch.tensor([token_weight]), token_maps=maps, sequence_map=maps[0],
        unfiltered_token_maps=ones, unfiltered_sequence_map=ones[0], grids=grids, images=images,
    )  # fmt: skip


def assert_same(actual: Explanation, expected: Explanation) -> None:
    for field in fields_of(Explanation):
        a, e = getattr(actual, field.name), getattr(expected, field.name)
        if field.name in ARRAYS:
            assert a.dtype == e.dtype and a.shape == e.shape and a.numpy().tobytes() == e.numpy().tobytes()
        elif field.name == "images":
            assert [(i.mode, i.size, i.tobytes()) for i in a] == [(i.mode, i.size, i.tobytes()) for i in e]
        else:
            assert a == e, field.name


def rewrite(source: Path, target: Path, change_document=None, change_tensors=None) -> None:
    """The file `source` with its JSON document or its tensors changed in place."""
    with safe_open(source, framework="pt") as file:
        document = json.loads(file.metadata()["dexar_fast"])
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    document = change_document(document) if change_document else document
    if change_tensors:
        change_tensors(tensors)
    text = document if isinstance(document, str) else json.dumps(document)
    save_file(tensors, target, {"dexar_fast": text})


@pytest.fixture
def saved(tmp_path) -> Path:
    make().save(tmp_path / "saved.safetensors")
    return tmp_path / "saved.safetensors"


# --- the object


def test_length_and_text():
    explanation = make(3, token_weights=torch.tensor([0.0, 0.25, 2.0]))
    assert len(explanation) == 3
    assert repr(explanation) == (
        "<Explanation: 3 tokens, 12 visual tokens, 2 layers x 4 heads; "
        "token weights: ' word0' 0, ' word1' 0.25, ' word2' 2>"
    )
    assert str(explanation) == repr(explanation)
    assert len(repr(make(500))) < 400


def test_a_layers_weight_is_the_sum_of_its_heads():
    explanation = make(3, layers=2, heads=4, dtype=torch.float64)
    assert explanation.layer_weights.shape == (3, 2) and explanation.layer_weights.dtype == torch.float64
    expected = [[sum(heads) for heads in layers] for layers in explanation.head_weights.tolist()]
    torch.testing.assert_close(explanation.layer_weights, torch.tensor(expected, dtype=torch.float64))
    assert make(0).layer_weights.shape == (0, 2)


def test_is_frozen():
    with pytest.raises(AttributeError):
        make().tokens = []


def test_no_tokens_at_all(tmp_path):
    empty = make(0, sequence_map=torch.zeros(12))
    assert len(empty) == 0
    assert not empty.heatmap().any()
    _, axes = empty.plot()
    assert len(axes) == 2
    empty.save(tmp_path / "empty")
    assert_same(Explanation.load(tmp_path / "empty"), empty)


@pytest.mark.parametrize("name", sorted(ARRAYS))
def test_wrong_shape_is_named(name):
    array = getattr(make(), name)
    longer = torch.cat([array, array[:1]])
    with pytest.raises(InputError):
        make(**{name: longer})
    with pytest.raises(InputError, match=name):
        make(**{name: array[None]})


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"tokens": ["a", "b"]}, InputError, "3 token ids, but 2 tokens"),
        ({"tokens": ("a", "b", "c")}, InputError, "list of str"),
        ({"tokens": ["a", "b", 3]}, InputError, "list of str"),
        ({"token_ids": torch.arange(3).int()}, InputError, "token_ids must be torch.int64"),
        ({"sequence_map": torch.zeros(12).double()}, InputError, "sequence_map must be torch.float32"),
        ({"token_maps": torch.zeros(3, 12).half()}, InputError, "float32 or float64"),
        ({"token_maps": np.zeros((3, 12), np.float32)}, InputError, "torch tensor on the CPU"),
        ({"token_maps": torch.zeros(3, 12, device="meta")}, InputError, "torch tensor on the CPU"),
        ({"token_maps": torch.full((3, 12), float("nan"))}, NumericalError, "token_maps holds NaN"),
        ({"text_scores": torch.full((3, 2, 4), float("inf"))}, NumericalError, "text_scores holds NaN"),
        ({"diagnostics": {"share": float("nan")}}, InputError, "diagnostics must be plain JSON"),
        ({"metadata": {"dtype": torch.float32}}, InputError, "metadata must be plain JSON"),
        ({"metadata": []}, InputError, "metadata must be a dict"),
        ({"images": (grey().convert("L"),)}, InputError, "RGB"),
        ({"images": (Image.new("RGB", (0, 5)),)}, InputError, "must have pixels"),
        ({"images": (np.zeros((4, 4, 3), np.uint8),)}, InputError, "RGB"),
        ({"grids": (Grid(1, 0, 3, 4, None),)}, InputError, "beyond the 1 given"),
        ({"grids": (Grid(0, 1, 3, 4, None),)}, InputError, "beyond the 12 visual tokens"),
        ({"grids": (Grid(0, -1, 3, 4, None),)}, InputError, "must hold ints"),
        ({"grids": (Grid(0, 0, 0, 4, None),)}, InputError, "must hold ints"),
        ({"grids": (Grid(0, 0, 3.0, 4, None),)}, InputError, "must hold ints"),
        ({"grids": (Grid(0, 0, 3, 4, video=1),)}, InputError, "video must be True or False"),
        ({"grids": (Regions(0, 0, REGIONS, video=1),)}, InputError, "a video's frame: True or False"),
        ({"grids": (Grid(0, 0, 3, 4, (0, 0, 0, 9)),)}, InputError, "left < right"),
        ({"grids": (Grid(0, 0, 3, 4, (0, 0, float("inf"), 9)),)}, InputError, "finite"),
        ({"grids": (Grid(0, 0, 3, 4, (0, 0, 9)),)}, InputError, "finite numbers"),
    ],
)
def test_bad_fields(change, error, message):
    with pytest.raises(error, match=message):
        make(**change)


# --- normalised maps


@given(npst.arrays(np.float64, npst.array_shapes(max_dims=2, max_side=9), elements=st.floats(-1e308, 1e308)))
@QUICK
def test_min_max_spans_zero_to_one(values):
    shown = min_max(values)
    assert shown.dtype == np.float32 and shown.shape == values.shape
    if values.min() == values.max():
        assert not shown.any()
    else:
        assert shown.min() == 0 and shown.max() == 1
        assert shown.flat[values.argmax()] == 1 and shown.flat[values.argmin()] == 0


@given(
    npst.arrays(np.float32, 12, elements=st.floats(0, 1, width=32)),
    st.integers(-100, 100),
)
@QUICK
def test_heatmap_does_not_depend_on_scale(values, exponent):
    values[:2] = 0, 1  # away from float32's denormals, where scaling itself rounds
    values[values < 2.0**-20] = 0
    scaled = with_map(values * np.float32(2.0**exponent), (Grid(0, 0, 3, 4, None),)).heatmap(0)
    np.testing.assert_array_equal(scaled, with_map(values, (Grid(0, 0, 3, 4, None),)).heatmap(0))


@pytest.mark.parametrize("constant", [0.0, 0.1, 1e-40, 3e38])
@pytest.mark.parametrize("resolution", ["grid", "image"])
def test_a_constant_map_is_blank(constant, resolution):
    image = grey(50, 30)
    explanation = with_map([constant] * 12, (Grid(0, 0, 3, 4, (3, 4, 40, 29)),), (image,))
    assert not explanation.heatmap(0, resolution=resolution).any()
    assert explanation.overlay(0).tobytes() == image.tobytes()


def test_heatmap_puts_tokens_into_cells_row_by_row():
    values = [9.0, 9.0, *range(12)]  # two visual tokens before the grid have no pixels
    heat = with_map(values, (Grid(0, 2, 3, 4, None),)).heatmap()
    assert heat.dtype == np.float32
    np.testing.assert_allclose(heat, np.arange(12).reshape(3, 4) / 11, rtol=1e-6)


def test_heatmap_chooses_token_and_filter():
    explanation = make()
    shown = {
        None: (explanation.sequence_map, explanation.unfiltered_sequence_map),
        1: (explanation.token_maps[1], explanation.unfiltered_token_maps[1]),
        -1: (explanation.token_maps[2], explanation.unfiltered_token_maps[2]),
    }
    for token, (filtered, unfiltered) in shown.items():
        np.testing.assert_array_equal(explanation.heatmap(token).ravel(), min_max(filtered.numpy()))
        np.testing.assert_array_equal(explanation.heatmap(token, filtered=False).ravel(), min_max(unfiltered.numpy()))


PHRASES = [slice(1, 3), [2, 1], (-2, -1), range(1, 3), np.array([1, 2]), torch.tensor([1, 2])]


@pytest.mark.parametrize("phrase", PHRASES, ids=repr)
@pytest.mark.parametrize("weights", [(5.0, 0.5, 2.0), (5.0, 0.0, 0.0), (5.0, 1e-30, 0.0)])
def test_the_map_of_a_phrase_sums_its_tokens_times_their_weights(phrase, weights):
    explanation = make(token_weights=torch.tensor(weights))
    first, second = explanation.token_maps[1:].double().numpy()
    total = first + second if weights[1:] == (0, 0) else weights[1] * first + weights[2] * second
    np.testing.assert_allclose(explanation.heatmap(phrase), min_max(total.reshape(3, 4)), atol=1e-6)
    plain = explanation.unfiltered_token_maps[1:].double().sum(0).numpy()
    found = explanation.heatmap(phrase, filtered=False)
    np.testing.assert_allclose(found, min_max(plain.reshape(3, 4)), atol=1e-6)


def test_the_map_of_a_phrase_is_that_of_the_reports_words():
    explanation = make(4, tokens=["un", "believ", "able", " cat"], token_weights=torch.tensor([0.5, 2.0, 0.0, 3.0]))
    (unbelievable, _) = pieces(explanation, "word").maps
    np.testing.assert_array_equal(explanation.heatmap(slice(3)), min_max(unbelievable.reshape(3, 4)))


def test_a_phrase_of_all_tokens_is_the_sequence_map():
    explanation = make()
    weighted = (explanation.token_weights[:, None] * explanation.token_maps).sum(0)
    explanation = replace(explanation, sequence_map=weighted)
    np.testing.assert_allclose(explanation.heatmap(slice(None)), explanation.heatmap(), atol=1e-6)
    assert np.array_equal(explanation.heatmap([1]), explanation.heatmap(1))


def test_the_overlay_of_a_phrase():
    explanation = make(token_weights=torch.tensor([1.0, 0.0, 0.0]))
    assert explanation.overlay([0, 1]).tobytes() == explanation.overlay(0).tobytes()
    assert explanation.overlay([1, 2]).tobytes() != explanation.overlay(1).tobytes()
    flat = make(token_maps=torch.full((3, 12), 3e38), token_weights=torch.full((3,), 3e38))
    assert flat.heatmap(slice(None)).max() == 0  # beyond float32, and constant


@pytest.mark.parametrize(
    ("phrase", "message"),
    [
        ([], "chooses none of the 3 tokens"),
        (slice(3, None), "chooses none of the 3 tokens"),
        (slice(2, 1), "chooses none"),
        (slice("a", "b"), "no slice of indices"),
        (slice(0, 2, 0), "no slice of indices"),
        ([0, 3], "token 3 is out of range: there are 3"),
        ([-4], "token -4 is out of range"),
        ([1, -2], "names a token twice"),
        (["0"], "token '0' is no index"),
        ("01", "token '01' is no index"),
        ([1.0, 2.0], "token 1.0 is no index"),
        ([[0, 1]], "is no index"),
        ([False, True, True], "is no index but a truth value"),
        (torch.tensor([False, True, True]), "is no index but a truth value"),
        (np.array([False, True, True]), "is no index"),
        (True, "is no index but a truth value"),
    ],
)
def test_a_phrase_is_refused(phrase, message):
    for show in (make().heatmap, make().overlay):
        with pytest.raises(InputError, match=message):
            show(phrase)


def test_an_image_is_no_truth_value():
    with pytest.raises(InputError, match="image True is no index but a truth value"):
        make(images=(grey(), grey())).overlay(image=True)


def test_images_of_one_prompt_share_a_scale():
    grids = (Grid(0, 0, 1, 2, None), Grid(1, 2, 1, 2, None))
    explanation = with_map([0, 1, 2, 4], grids, (grey(), grey(20, 10)))
    np.testing.assert_array_equal(explanation.heatmap(image=0), [[0, 0.25]])
    np.testing.assert_array_equal(explanation.heatmap(image=1), [[0.5, 1]])
    np.testing.assert_array_equal(explanation.heatmap(image=-1), [[0.5, 1]])
    assert explanation.heatmap(image=1, resolution="image").shape == (10, 20)
    assert explanation.overlay(image=1).size == (20, 10)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"token": 3}, "token 3 is out of range: there are 3"),
        ({"token": -4}, "token -4 is out of range"),
        ({"image": 1}, "image 1 is out of range: there are 1"),
        ({"resolution": "pixels"}, "'grid' or 'image'"),
    ],
)
def test_heatmap_refuses(arguments, message):
    with pytest.raises(InputError, match=message):
        make().heatmap(**arguments)


def test_an_image_without_a_grid():
    with pytest.raises(InputError, match="no grid"):
        make(images=(grey(), grey())).heatmap(image=1)


def test_unknown_geometry():
    explanation = make(grids=())
    for draw in (explanation.heatmap, explanation.overlay, explanation.plot):
        with pytest.raises(InputError, match=r"geometry .* unknown.* token_maps"):
            draw()


def test_no_image_kept():
    explanation = make(images=())
    for draw in (explanation.overlay, explanation.plot, lambda: explanation.heatmap(resolution="image")):
        with pytest.raises(InputError, match=r"image=\.\.\."):
            draw()
    assert explanation.overlay(image=grey(7, 5)).size == (7, 5)
    assert explanation.heatmap().shape == (3, 4)


# --- maps over pixels


def test_image_resolution_is_bilinear_inside_the_box_and_zero_outside():
    explanation = with_map([0, 1], (Grid(0, 0, 1, 2, (2, 1, 10, 4)),), (grey(12, 5),))
    heat = explanation.heatmap(0, resolution="image")
    # Cells of 4 pixels with centres at x = 4 and 8; pixel centres lie on halves.
    row = [0, 0, 0, 0, 0.125, 0.375, 0.625, 0.875, 1, 1, 0, 0]
    np.testing.assert_allclose(heat, [[0] * 12, row, row, row, [0] * 12], atol=1e-6)


def test_a_box_may_reach_beyond_the_image():
    inside = Canvas([np.array([[0.0, 1.0]], np.float32)], [(-4, -3, 8, 9)], (4, 2))[:]
    np.testing.assert_allclose(inside, [[3 / 12, 5 / 12, 7 / 12, 9 / 12]] * 2, atol=1e-6)


def test_a_pixel_is_the_mean_over_the_grids_that_cover_it():
    left, whole = np.array([[1.0]], np.float32), np.array([[0.5]], np.float32)
    heat = Canvas([left, whole], [(0, 0, 2, 2), (0, 0, 4, 1)], (4, 2))[:]
    np.testing.assert_allclose(heat, [[0.75, 0.75, 0.5, 0.5], [1, 1, 0, 0]])


def test_grids_that_share_a_pixel_count_by_the_share_they_cover():
    left, right, below = np.array([[1.0]], np.float32), np.array([[0.0]], np.float32), np.array([[0.4]], np.float32)
    heat = Canvas([left, right, below], [(0, 0, 1.25, 1), (1.25, 0, 2.5, 1), (0, 1.75, 3, 2)], (3, 2))[:]
    np.testing.assert_allclose(heat, [[1, 0.25, 0], [0.4, 0.4, 0.4]], atol=1e-6)


def test_rounding_of_an_edge_covers_nothing():
    heat = Canvas([np.array([[1.0]], np.float32)], [(0, 0, 1 + 1e-9, 2)], (2, 2))[:]
    np.testing.assert_array_equal(heat, [[1, 0], [1, 0]])


def test_several_grids_merge_at_image_resolution_only():
    tiles = (Grid(0, 0, 1, 1, (0, 0, 2, 4)), Grid(0, 1, 1, 1, (2, 0, 4, 4)), Grid(0, 2, 1, 1, None))
    explanation = with_map([0, 1, 0], tiles, (grey(4, 4),))
    np.testing.assert_allclose(explanation.heatmap(resolution="image"), [[0, 0, 0.5, 0.5]] * 4)
    with pytest.raises(InputError, match=r"3 grids: resolution='image'"):
        explanation.heatmap()


@given(st.integers(0, 11), st.sampled_from([(60, 40), (120, 80), (33, 90)]))
@QUICK
def test_the_hot_patch_is_drawn_where_it_lies(cell, size):
    left, top, right, bottom = box = (10, 4, 50, 34)
    explanation = with_map(np.eye(12)[cell], (Grid(0, 0, 3, 4, box),), (grey(60, 40),))
    picture = grey(*size)
    before, after = (np.asarray(i, int) for i in (picture, explanation.overlay(0, picture)))
    assert after.shape == before.shape
    row, column = divmod(cell, 4)
    across, down = size[0] / 60, size[1] / 40
    x0, x1 = (left + (right - left) * (column + i) / 4 for i in (0, 1))
    y0, y1 = (top + (bottom - top) * (row + i) / 3 for i in (0, 1))
    changed = np.abs(after - before).sum(-1)
    y, x = np.unravel_index(changed.argmax(), changed.shape)
    assert x0 * across <= x + 0.5 <= x1 * across
    assert y0 * down <= y + 0.5 <= y1 * down
    outside = np.ones_like(changed, bool)
    outside[int(top * down) : int(bottom * down) + 1, int(left * across) : int(right * across) + 1] = False
    assert not changed[outside].any()


def test_overlay_draws_over_what_it_is_given(tmp_path):
    explanation = make()
    file = tmp_path / "a pícture.png"
    grey().save(file)
    same = explanation.overlay(1).tobytes()
    for image in (0, -1, np.int64(0), grey(), file, str(file), np.full((40, 60, 3), 128, np.uint8)):
        assert explanation.overlay(1, image).tobytes() == same
    assert explanation.overlay(1, filtered=False).tobytes() != same
    assert explanation.overlay(1).mode == "RGB"
    with pytest.raises(ImageError, match=r"none\.png"):
        explanation.overlay(1, tmp_path / "none.png")


def test_opacity_grows_with_heat():
    image = grey(4, 1, level=255)
    explanation = with_map([0, 1, 2, 3], (Grid(0, 0, 1, 4, None),), (image,))
    darkness = 255 - np.asarray(explanation.overlay(0), int)[0, :, 2]
    assert darkness[0] == 0 and darkness[1] > 0
    blank = np.asarray(image, int)
    assert np.abs(np.asarray(explanation.overlay(0), int) - blank).max() < 255  # the image still shows through


def test_lines_follow_the_levels_of_heat_and_nothing_else():
    heat = np.repeat(np.linspace(0, 1, 480, dtype=np.float32)[None], 40, axis=0)
    columns = np.flatnonzero(lines(heat).all(0))
    assert columns.tolist() == [120, 121, 240, 241, 360, 361], "two pixels on the warm side of 1/4, 1/2 and 3/4"
    assert np.array_equal(lines(heat.T), lines(heat).T)
    for even in (0, 0.3, 1):
        assert not lines(np.full((30, 40), even, np.float32)).any()
    assert lines(np.zeros((1, 1), np.float32)).shape == (1, 1)


def test_what_lies_under_the_heat_keeps_its_colour():
    image = Image.new("RGB", (400, 400), (30, 90, 220))
    hot = np.asarray(with_map(np.eye(16)[5], (Grid(0, 0, 4, 4),), (image,)).overlay(0), int)[150, 150]
    assert hot[2] == max(hot) and np.ptp(hot) > 40, "blue under the hottest place is still blue"


# --- the figure


def test_plot_has_a_panel_for_the_image_the_answer_and_each_token():
    explanation = make(3, token_weights=torch.tensor([0.0, 0.25, 2.0]))
    figure, axes = explanation.plot()
    assert [ax.get_title() for ax in axes] == [
        "image", "whole answer", "word0\nweight 0: nothing shown", "word1\nweight 0.25", "word2\nweight 2",
    ]  # fmt: skip
    assert list(axes) == figure.axes[:-1], "the last one is the colour bar"
    pictures = [np.asarray(ax.images[0].get_array()) for ax in axes]
    np.testing.assert_array_equal(pictures[0], np.asarray(explanation.images[0]))
    for picture, token in zip(pictures[1:], (None, 0, 1, 2), strict=True):
        np.testing.assert_array_equal(picture, np.asarray(explanation.overlay(token, scale="weight")))


def test_tokens_share_a_scale_by_weight_or_keep_their_own():
    explanation = make(3, token_weights=torch.tensor([0.0, 0.5, 2.0]))
    image = np.asarray(explanation.images[0])
    shown = {scale: [drawn(ax) for ax in explanation.plot(scale=scale)[1]] for scale in ("weight", "own")}
    by_weight, own = shown["weight"], shown["own"]
    np.testing.assert_array_equal(by_weight[1], own[1], "the whole answer")
    np.testing.assert_array_equal(by_weight[2], image, "weight 0 shows no heat")
    quarter = explanation.heatmap(1, resolution="image") * np.float32(0.25)
    np.testing.assert_array_equal(by_weight[3], np.asarray(draw_overlay(explanation.images[0], quarter)))
    np.testing.assert_array_equal(by_weight[4], own[4], "the largest weight")
    for picture, token in zip(own[2:], range(3), strict=True):
        np.testing.assert_array_equal(picture, np.asarray(explanation.overlay(token)))
    assert (own[2] != image).any()
    titles = [ax.get_title() for ax in explanation.plot(scale="own")[1]]
    assert titles[2] == "word0\nweight 0"


def test_maps_without_filters_know_no_weights():
    explanation = make(3, token_weights=torch.tensor([0.0, 0.5, 2.0]))
    _, axes = explanation.plot(filtered=False)
    for ax, token in zip(axes[2:], range(3), strict=True):
        np.testing.assert_array_equal(drawn(ax), np.asarray(explanation.overlay(token, filtered=False)))
    assert axes[2].get_title() == "word0\nweight 0"


def test_all_weights_0_show_no_heat():
    explanation = make(2, token_weights=torch.zeros(2), sequence_map=torch.zeros(12))
    _, axes = explanation.plot()
    for ax in axes:
        np.testing.assert_array_equal(drawn(ax), np.asarray(explanation.images[0]))


@pytest.mark.parametrize("scale", ["weights", "", None, 1, ["own"]])
def test_an_unknown_scale_is_refused(scale):
    for draw in (make().overlay, make().plot, lambda scale: make().overlay(0, filtered=False, scale=scale)):
        with pytest.raises(InputError, match="scale must be 'weight' or 'own'"):
            draw(scale=scale)


def drawn(ax):
    return np.asarray(ax.images[0].get_array())


def test_question_answer_and_the_meaning_of_colours_stand_on_the_figure():
    metadata = {"question": "What is\n there?", "prompt": "USER: What is\n there? ASSISTANT:"}
    explanation = make(2, token_weights=torch.tensor([1.0, 2.5]), metadata=metadata)
    for scale, told in (("weight", "the largest weight (2.5)"), ("own", "compare tokens by their weights")):
        figure, _ = explanation.plot(scale=scale)
        assert figure.get_suptitle() == "Question: What is there?\nAnswer: word0 word1"
        assert told in figure.axes[-1].get_xlabel()


def test_long_questions_are_broken_and_cut():
    metadata = {"question": "Why? " * 2000}
    figure, _ = make(2, metadata=metadata).plot()
    lines = figure.get_suptitle().split("\n")
    assert len(lines) == 9 and lines[7].endswith("…") and lines[8].startswith("Answer")
    figure.canvas.draw()
    page, text = figure.bbox, figure._suptitle.get_window_extent()
    assert text.x0 >= 0 and text.x1 <= page.x1 and text.y1 <= page.y1


def test_plot_of_chosen_tokens():
    _, axes = make().plot([-1, 0])
    assert [ax.get_title().split("\n")[0] for ax in axes[2:]] == ["word2", "word0"]
    with pytest.raises(InputError, match="token 7"):
        make().plot([7])


@pytest.mark.parametrize("wrong", [{"tokens": 3}, {"tokens": [0.5]}, *({"max_tokens": n} for n in (1.5, -1, 0, "2"))])
def test_plot_of_what_cannot_be_chosen(wrong):
    with pytest.raises(InputError, match=r"must be a list|is no index|max_tokens .* is no positive number"):
        make().plot(**wrong)


def test_plot_of_a_long_answer_shows_the_weightiest_tokens_and_says_so():
    weights = torch.tensor([1.0, 5.0, 2.0, 5.0, 0.0])
    figure, axes = make(5, token_weights=weights).plot(max_tokens=3)
    assert [ax.get_title().split("\n")[0] for ax in axes[2:]] == ["word1", "word2", "word3"]
    assert figure.get_suptitle().endswith("\n3 of 5 tokens: those of the greatest weight")


def test_plot_shrinks_large_images_and_keeps_the_box_in_place():
    image = grey(1000, 500)
    explanation = with_map([0, 1], (Grid(0, 0, 1, 2, (500, 0, 1000, 500)),), (image,))
    _, axes = explanation.plot()
    drawn = np.asarray(axes[1].images[0].get_array(), int)
    assert drawn.shape == (224, 448, 3)
    changed = np.abs(drawn - 128).sum(-1).any(axis=0)
    assert not changed[:224].any() and changed[400:].all()


def test_any_token_can_be_a_title(tmp_path):
    tokens = [
        "$x_1$",
        "\\frac{",
        "▁the",
        "\n",
        "",
        " ",
        "中文",
        "\U0001f642",
        "\ud800",
        "\x00\x07",
        "שלום",
        "a" * 90,
        "%#^&",
    ]
    explanation = make(len(tokens), tokens=tokens)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        figure, axes = explanation.plot()
        figure.savefig(tmp_path / "figure.png")
    titles = [ax.get_title().split("\n")[0] for ax in axes[2:]]
    assert titles[:6] == ["$x_1$", "\\frac{", "the", "↵", "''", "' '"]
    assert titles[8:10] == ["□", "□□"]
    assert len(titles[11]) == 22
    assert titles[12] == "%#^&"


def test_plot_leaves_pyplot_alone_and_shows_itself_in_notebooks():
    before = set(sys.modules["matplotlib.pyplot"].get_fignums()) if "matplotlib.pyplot" in sys.modules else set()
    plot = make().plot()
    with Image.open(io.BytesIO(plot._repr_png_())) as shown:
        np.testing.assert_array_equal(shown.size, plot.figure.bbox.size.astype(int))
    pyplot = pytest.importorskip("matplotlib.pyplot")
    assert set(pyplot.get_fignums()) == before


def test_a_notebook_cell_that_ends_with_a_plot_shows_it():
    formatters = pytest.importorskip("IPython.core.formatters")
    shown, _ = formatters.DisplayFormatter().format(make().plot())
    assert shown["image/png"].startswith(b"\x89PNG")


# --- files


@given(explanations())
@QUICK
def test_round_trip(tmp_path_factory, explanation):
    path = tmp_path_factory.mktemp("round") / "trip.safetensors"
    explanation.save(path)
    assert_same(Explanation.load(path), explanation)


def test_round_trip_of_unusual_tensors_and_tokens(tmp_path):
    shared = torch.rand(12, 3).T  # not contiguous, and one memory under two names
    explanation = make(token_maps=shared, unfiltered_token_maps=shared)
    explanation = replace(explanation, tokens=["\ud800", "\x00", "é"])
    explanation.save(tmp_path / "x")
    assert_same(Explanation.load(tmp_path / "x"), explanation)


@pytest.mark.parametrize("as_type", [str, Path])
def test_paths_with_spaces_and_accents(tmp_path, as_type):
    path = as_type(tmp_path / "eine Datei mit Ümläuten 猫.safetensors")
    make().save(path)
    assert len(Explanation.load(path)) == 3


def test_save_replaces_and_leaves_nothing_else(tmp_path):
    path = tmp_path / "x.safetensors"
    make(2).save(path)
    first = Explanation.load(path)
    make(4).save(path)
    assert len(Explanation.load(path)) == 4
    assert len(first) == 2 and first.token_maps.isfinite().all()  # what was loaded does not depend on the file
    assert os.listdir(tmp_path) == ["x.safetensors"]


def test_save_names_a_missing_folder(tmp_path):
    with pytest.raises(FileError, match=r"nowhere does not exist; create it"):
        make().save(tmp_path / "nowhere" / "x")


def test_save_onto_a_folder(tmp_path):
    (tmp_path / "folder").mkdir()
    with pytest.raises(FileError, match=r"cannot write .*folder"):
        make().save(tmp_path / "folder")
    assert os.listdir(tmp_path) == ["folder"]


@pytest.mark.parametrize("failure", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_an_interrupted_save_keeps_the_old_file_and_no_temporary(saved, monkeypatch, failure):
    before = saved.read_bytes()

    def half_written(path, data):
        with open(path, "wb") as file:
            file.write(data[:100])
        raise failure

    monkeypatch.setattr(Path, "write_bytes", half_written)
    expected = FileError if isinstance(failure, OSError) else KeyboardInterrupt
    with pytest.raises(expected):
        make(5).save(saved)
    assert os.listdir(saved.parent) == [saved.name]
    assert saved.read_bytes() == before


def test_save_where_writing_is_refused(tmp_path, monkeypatch):
    def refused(path, data):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "write_bytes", refused)  # the tests may run as root, whom folders do not refuse
    with pytest.raises(FileError, match="Permission denied"):
        make().save(tmp_path / "x")


def test_a_file_from_before_grids_knew_of_videos_loads(saved, tmp_path):
    def older(document):
        return document | {"grids": [without(grid, "video") for grid in document["grids"]]}

    rewrite(saved, tmp_path / "older", older)
    assert Explanation.load(tmp_path / "older").grids == make().grids
    make(grids=(Regions(0, 0, REGIONS, video=True),)).save(tmp_path / "regions")
    rewrite(tmp_path / "regions", tmp_path / "older", older)
    assert [regions.video for regions in Explanation.load(tmp_path / "older").grids] == [False]


def test_a_newer_file_is_refused(saved, tmp_path):
    newer = tmp_path / "newer"
    rewrite(saved, newer, lambda document: document | {"format_version": storage.FORMAT_VERSION + 1, "grids": "?"})
    with pytest.raises(FileError, match=r"written by dexar_fast format 3, this version reads up to 2: upgrade"):
        Explanation.load(newer)


def without(document: dict, name: str) -> dict:
    return {key: value for key, value in document.items() if key != name}


GRID = {"image": 0, "start": 0, "rows": 3, "columns": 4, "box": None}


@pytest.mark.parametrize(
    "change",
    [
        *(lambda d, n=n: without(d, n) for n in ("format_version", "tokens", "grids", "metadata", "images")),
        lambda d: d | {"format_version": "1"},
        lambda d: d | {"tokens": ["a"]},
        lambda d: d | {"tokens": [1, 2, 3]},
        lambda d: d | {"grids": [{}]},
        lambda d: d | {"grids": [GRID | {"rows": "3"}]},
        lambda d: d | {"grids": [GRID | {"rows": 10**30}]},
        lambda d: d | {"grids": [GRID | {"box": 3}]},
        lambda d: d | {"grids": [GRID | {"box": [0, 0, 10**400, 5]}]},
        lambda d: d | {"grids": [GRID | {"box": ["a", 0, 1, 1]}]},
        lambda d: d | {"grids": [GRID | {"colour": 1}]},
        lambda d: d | {"images": 10**12},
        lambda d: d | {"images": "../../etc/passwd"},
        lambda d: d | {"diagnostics": 3},
        lambda d: json.dumps(d | {"diagnostics": {"x": float("nan")}}),
        lambda d: json.dumps(d)[:-1] + ', "images": 1}',
        lambda d: [d],
        lambda d: "{",
        lambda d: "[" * 100_000,
    ],
)
def test_a_file_whose_document_is_wrong(saved, tmp_path, change):
    rewrite(saved, tmp_path / "wrong", change)
    with pytest.raises(FileError, match="wrong"):
        Explanation.load(tmp_path / "wrong")


@pytest.mark.parametrize(
    "change",
    [
        lambda t: t.pop("token_maps"),
        lambda t: t.pop("image_0"),
        lambda t: t.update(token_maps=torch.zeros(3, 11)),
        lambda t: t.update(token_maps=torch.full((3, 12), float("inf"))),
        lambda t: t.update(token_ids=torch.zeros(3)),
        lambda t: t.update(image_0=torch.zeros(50, dtype=torch.uint8)),
        lambda t: t.update(image_0=t["image_0"][:60].clone()),
        lambda t: t.update(image_0=torch.zeros(50)),
    ],
)
def test_a_file_whose_tensors_are_wrong(saved, tmp_path, change):
    rewrite(saved, tmp_path / "wrong", change_tensors=change)
    with pytest.raises(FileError, match="wrong"):
        Explanation.load(tmp_path / "wrong")


def test_files_that_hold_no_explanation(saved, tmp_path):
    other = tmp_path / "other"
    contents = [b"", b"\xff" * 64, b"\x00" * 4096, saved.read_bytes()[:-1], saved.read_bytes() + b"x"]
    for content in contents:
        other.write_bytes(content)
        with pytest.raises(FileError, match="other"):
            Explanation.load(other)
    save_file({"weight": torch.zeros(3)}, other)
    with pytest.raises(FileError, match="no explanation"):
        Explanation.load(other)


def test_load_needs_a_file(tmp_path):
    os.mkfifo(tmp_path / "pipe")  # opening one would wait for ever
    for name in ("", "missing", "pipe"):
        with pytest.raises(FileError, match="not a file"):
            Explanation.load(tmp_path / name)


@given(st.data())
@settings(QUICK, max_examples=60)
def test_damaged_bytes_give_an_explanation_or_a_file_error(tmp_path_factory, data):
    path = tmp_path_factory.mktemp("damaged") / "x"
    make().save(path)
    content = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(content)
    try:
        explanation = Explanation.load(path)
    except FileError:
        return
    assert all(getattr(explanation, name).isfinite().all() for name in ARRAYS)
