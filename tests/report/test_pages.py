"""The pages of the report in Chromium: what pointer, finger, keys and controls do, and that nothing leaves the page."""

import dataclasses
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from opened_reports import Opened
from PIL import Image, ImageFilter
from report_examples import explanation, noise, plain, read

import dexar_fast
from dexar_fast.cli.explain import SAMPLE_IMAGE
from dexar_fast.explanation import Explanation
from dexar_fast.report.drawing import colours, overlay
from dexar_fast.report.page import data
from dexar_fast.report.words import pieces
from dexar_fast.vision.grid import Grid

TILES = (
    Grid(0, 0, 2, 3, (0, 0, 60, 40), row_stride=4),
    Grid(0, 8, 3, 3, (60, 0, 120, 40)),
    Grid(0, 17, 4, 4, (-10, 5, 100, 90)),
)
# In fifths of a pixel they meet within pixels, where each counts by its share.
NEIGHBOURS = (
    Grid(0, 0, 2, 3, (0, 0, 60.05, 40.15)),
    Grid(0, 6, 2, 2, (60.05, 0, 120, 40.15)),
    Grid(0, 10, 1, 2, (0, 40.15, 120, 80)),
)
STORY = [" un", "believ", "able", "", "", "\U0001f642", "!", "\n", "The", " red", " cat", " is", " here", "."]


def story(**changes: Any) -> Explanation:
    return explanation(STORY, **{"weights": np.linspace(0, 1, len(STORY)).tolist()} | changes)


# --- maps


@pytest.mark.parametrize(
    ("grids", "size"), [((Grid(0, 0, 3, 4),), (600, 400)), (TILES, (601, 483)), (NEIGHBOURS, (600, 400))]
)
def test_the_canvas_shows_what_heatmap_computes(opened: Any, grids: tuple[Grid, ...], size: tuple[int, int]) -> None:
    scaled = tuple(
        Grid(g.image, g.start, g.rows, g.columns, None if g.box is None else tuple(5 * e for e in g.box), g.row_stride)
        for g in grids
    )
    made = story(grids=scaled, images=(plain(*size),))
    page = opened(made)
    page.show("map")
    page.scale("own")
    ramp = colours.palette().astype(int)
    for token, chip in ((None, None), (0, 0), (8, 6)):
        if chip is not None:
            page.chip(chip).click()
        drawn = page.pixels()
        heat = made.heatmap(token, resolution="image")
        assert drawn.shape[:2] == heat.shape
        expected = ramp[np.minimum(255, (heat * 256).astype(int))]
        seen = drawn[..., 3] == 255
        assert (heat[~seen] == 0).all()
        # Cells are rounded to 255 steps: one step of the palette up or down.
        steps = [ramp[np.clip((heat * 256).astype(int) + d, 0, 255)] for d in (-1, 0, 1)]
        off = np.min([np.abs(drawn[..., :3].astype(int) - step).max(-1) for step in steps], axis=0)
        assert off[seen].max() == 0
        assert (drawn[seen][:, :3] == expected[seen]).all(-1).mean() > 0.5


def test_the_overlay_is_that_of_the_library(opened: Any) -> None:
    made = story(images=(plain(600, 400),))
    heat = opened(made).pixels().astype(float)
    opacity = heat[..., 3:] / 255
    blended = (1 - opacity) * np.asarray(made.images[0]) + opacity * heat[..., :3]
    # The page rounds heat to 255 steps: the lines of both may lie a little apart.
    levels = made.heatmap(resolution="image") * overlay.LEVELS
    unsure = Image.fromarray(np.abs(levels - levels.round()) < overlay.LEVELS / 255)
    sure = ~np.asarray(unsure.convert("L").filter(ImageFilter.MaxFilter(7))).astype(bool)
    assert np.abs(blended - np.asarray(made.overlay(), float)).max(-1)[sure].max() < 6
    assert sure.mean() > 0.5
    veil = overlay.MOST_OPAQUE * made.heatmap(resolution="image") ** overlay.OPACITY_POWER
    lined = overlay.lines(made.heatmap(resolution="image"))
    assert (opacity[..., 0] > 1.5 * veil)[lined].mean() > 0.6


def test_what_the_model_did_not_see_has_no_colour(opened: Any) -> None:
    page = opened(story(grids=(Grid(0, 0, 3, 4, (100, 0, 500, 400)),), images=(plain(600, 400),)))
    page.show("map")
    opacity = page.pixels()[..., 3]
    assert (opacity[:, 100:500] == 255).all() and not opacity[:, :100].any() and not opacity[:, 500:].any()


PHRASED = {
    "all": np.linspace(0.1, 1, len(STORY)).tolist(),
    "a word without weight": [0.0] * 3 + np.linspace(1, 0.1, len(STORY) - 3).tolist(),
    "none": [0.0] * len(STORY),
}


@pytest.mark.parametrize("by", ["token", "word"])
@pytest.mark.parametrize("weights", PHRASED.values(), ids=PHRASED)
def test_a_phrase_is_the_map_of_its_tokens_however_they_are_cut(opened: Any, by: Any, weights: list[float]) -> None:
    """A word of several tokens is weighed once: its map is their sum by weight already."""
    made = story(weights=weights)
    spans = pieces(made, by).spans
    page = opened(made, by=by)
    page.chip(0).click()
    page.chip(len(spans) - 3).click(modifiers=["Shift"])
    page.settle()
    drawn = np.array(page.page.evaluate("() => Array.from(shared.viewers[0].values)"))
    heat = made.heatmap(slice(0, spans[-3].stop)).ravel() * 255
    assert np.abs(drawn - heat).max() <= 2


def test_heads_of_a_phrase_are_counted_though_they_are_faint(opened: Any) -> None:
    made = explanation([" a", " b"], layers=2, heads=4, weights=[1.0, 1.0])
    made.head_weights[:] = torch.tensor([[1.0, 1e-6, 1e-6, 0.0]])
    page = opened(made)
    page.chip(0).click()
    page.chip(1).click(modifiers=["Shift"])
    page.settle()
    assert page.value("heads").startswith("6 of 8")


def test_heads_of_a_phrase_in_coarse_steps_are_a_least_number(opened: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(data, "_MOST_FINE", 0)
    made = explanation([" a", " b"], layers=2, heads=4, weights=[1.0, 1.0])
    made.head_weights[:] = torch.tensor([[[1.0, 1e-6, 1e-6, 0.0]], [[1.0, 0.0, 0.0, 0.0]]])
    page = opened(made)
    page.chip(0).click()
    page.settle()
    assert page.value("heads").startswith("6 of 8")
    page.chip(1).click(modifiers=["Shift"])
    page.settle()
    assert page.value("heads").startswith("at least 6 of 8")


def test_a_blank_map_says_so(opened: Any) -> None:
    maps = explanation().token_maps.clone()
    maps[1] = 0
    page = opened(explanation(token_maps=maps, weights=[1.0, 0.0, 0.5]))
    assert page.page.locator(".badge").is_hidden()
    page.chip(1).click()
    page.settle()
    assert page.page.locator(".badge").inner_text() == "Blank map: no head found more in the image than in the text"
    assert page.value("place") == "–"  # noqa: RUF001
    blank = opened(explanation(weights=[0.0, 0.0, 0.0], sequence_map=torch.zeros(12)))
    assert blank.page.locator(".badge").inner_text() == "Blank map: every token has weight 0"


def test_a_map_that_hardly_varies_is_not_called_blank(opened: Any) -> None:
    maps = 1000 + explanation().token_maps / 100
    hardly = opened(explanation(token_maps=maps, weights=[1.0, 1.0, 1.0], sequence_map=maps.sum(0)))
    assert hardly.page.locator(".badge").is_hidden()
    even = torch.full((3, 12), 2.0)
    flat = opened(explanation(token_maps=even, weights=[1.0, 1.0, 1.0], sequence_map=even.sum(0)))
    assert flat.page.locator(".badge").inner_text() == "Even map: every patch counts alike"


def test_tokens_share_a_scale_by_weight_or_keep_their_own(opened: Any) -> None:
    page = opened(explanation(weights=[0.0, 1.0, 4.0], images=(plain(600, 400),)))
    page.show("map")
    whole = page.pixels()
    shown = {}
    for scale in ("weight", "own"):
        page.scale(scale)
        assert (page.pixels() == whole).all()
        for token in range(3):
            page.chip(token).click()
            shown[scale, token] = page.pixels()[..., :3].astype(int)
            if token == 0:
                said = "Weight 0: nothing shown. “Own scale” shows its map"
                assert page.page.locator(".badge").is_visible() == (scale == "weight")
                assert page.page.locator(".badge").inner_text() == (said if scale == "weight" else "")
                assert (page.value("place") == "–") == (scale == "weight")  # noqa: RUF001
        page.page.keyboard.press("Escape")
    assert np.ptp(shown["weight", 0].reshape(-1, 3), axis=0).tolist() == [0, 0, 0], "one colour: no heat"
    assert (shown["weight", 2] == shown["own", 2]).all()
    brightest = [shown[scale, 1].sum(-1).max() for scale in ("weight", "own")]
    expected = [colours.of(value).astype(int).sum() for value in (0.25, 1.0)]
    assert np.abs(np.subtract(brightest, expected)).max() < 12


@pytest.mark.parametrize(
    ("columns", "place"), [((8, 9, 10), "middle right"), ((0, 1), "middle left"), ((5, 6), "centre")]
)
def test_a_place_is_that_of_the_whole_bright_spot(opened: Any, columns: tuple[int, ...], place: str) -> None:
    """Its brightest pixel lies at the edge of the spot, and a spot elsewhere is nearly as bright."""
    cells = np.zeros((12, 12), np.float32)
    cells[5:7, list(columns)] = 0.97
    cells[5, columns[0]] = 1
    cells[0, 0] = 0.96
    made = explanation(grids=(Grid(0, 0, 12, 12),), token_maps=torch.from_numpy(cells.reshape(1, -1)).repeat(3, 1),
                       weights=[1.0, 1.0, 1.0], images=(plain(600, 600),))  # fmt: skip
    page = opened(made)
    page.chip(0).click()
    page.settle()
    assert page.value("place") == place


def test_a_spot_that_fills_the_picture_has_no_place(opened: Any) -> None:
    cells = torch.ones(3, 12)
    cells[:, 0] = 0
    page = opened(explanation(token_maps=cells, weights=[1.0, 1.0, 1.0]))
    page.chip(0).click()
    page.settle()
    assert page.value("place") == "most of it"


def test_a_blank_map_of_a_method_without_heads_is_not_laid_to_a_head_filter(opened: Any) -> None:
    none = torch.zeros(len(STORY), 0, 0)
    heads: dict[str, Any] = {"head_weights": none, "visual_scores": none, "text_scores": none}
    zeros = {"token_maps": torch.zeros(len(STORY), 12), "sequence_map": torch.zeros(12)}
    page = opened(story(diagnostics={"weighted": False}, **heads, **zeros))
    badge = page.page.locator(".badge")
    assert badge.inner_text() == "Blank map: 0 everywhere"
    page.chip(0).click()
    page.settle()
    assert badge.inner_text() == "Blank map: 0 everywhere"
    assert page.page.locator("[name=scale]").count() == 0


def test_the_question_stands_at_the_top(opened: Any, tmp_path: Path) -> None:
    made = story(metadata={"question": "What is it?\nSay so.", "prompt": "USER: ASSISTANT:"})
    asked = opened(made).page.locator(".question")
    assert asked.inner_text() == "What is it?\nSay so."
    assert asked.evaluate("(p) => getComputedStyle(p, '::before').content") == '"Question: "'
    assert asked.bounding_box()["y"] < 200
    path = tmp_path / "both.html"
    dexar_fast.compare_html([made, story()], path)
    assert opened(path).page.locator(".question").count() == 1


def test_the_brightest_place_in_words(opened: Any) -> None:
    places = ["upper left", "upper centre", "upper right", "middle left", "centre", "middle right",
              "lower left", "lower centre", "lower right"]  # fmt: skip
    page = opened(explanation([f" {place}" for place in places], (Grid(0, 0, 3, 3),), token_maps=torch.eye(9)))
    page.scale("own")
    for n, place in enumerate(places):
        page.chip(n).click()
        page.settle()
        assert page.value("place") == place


# --- choosing


def test_the_pointer_shows_a_token_and_leaves_the_answer_as_it_was(opened: Any) -> None:
    page = opened(story())
    whole = page.pixels()
    assert page.chosen == "Whole answer"
    page.chip(0).hover()
    assert page.chosen == "un · token 1"
    assert (page.pixels() != whole).any()
    page.page.mouse.move(5, 5)
    assert page.chosen == "Whole answer"
    assert (page.pixels() == whole).all()


def test_a_click_keeps_a_token_and_a_second_one_lets_it_go(opened: Any) -> None:
    page = opened(story())
    page.chip(1).click()
    page.page.mouse.move(5, 5)
    assert page.chosen == "believ · token 2"
    assert page.chip(1).get_attribute("aria-selected") == "true"
    page.chip(1).click()
    assert page.page.locator("[aria-selected=true]").count() == 0
    page.chip(2).click()
    page.page.locator(".whole").click()
    assert page.chosen == "Whole answer"


def test_a_tap_chooses(opened: Any) -> None:
    page = opened(story(), viewport={"width": 390, "height": 844}, has_touch=True, is_mobile=True)
    page.chip(4).tap()
    assert page.chosen == "! · token 7"
    page.chip(4).tap()
    assert page.chosen == "Whole answer"


def test_a_finger_that_passes_over_a_token_does_not_choose_it(opened: Any) -> None:
    page = opened(story())
    for kind, chosen in (("touch", "Whole answer"), ("mouse", "! · token 7")):
        page.chip(4).dispatch_event("pointerover", {"pointerType": kind, "bubbles": True})
        assert page.chosen == chosen


def test_the_keyboard_reaches_every_token(opened: Any) -> None:
    page = opened(story())
    keys = page.page.keyboard
    page.page.locator(".whole").focus()
    keys.press("Tab")
    assert page.chosen == "un · token 1"
    for key, expected in (
        ("ArrowRight", "believ"), ("ArrowLeft", "un"), ("ArrowLeft", "un"), ("End", "."), ("ArrowRight", "."),
        ("Home", "un"), ("ArrowDown", "The"), ("ArrowUp", "un"),
    ):  # fmt: skip
        keys.press(key)
        assert page.chosen.split(" · ")[0] == expected, key
        assert page.page.evaluate("document.activeElement.textContent") == expected
    assert page.page.locator(".chip[tabindex='0']").count() == 1
    keys.press("Escape")
    assert page.chosen == "Whole answer"
    outline = page.page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
    assert outline == "solid"


def test_arrows_follow_the_reading_direction(opened: Any) -> None:
    page = opened(explanation([" القط", "ة", " هنا"]))
    page.chip(0).click()
    page.page.keyboard.press("ArrowLeft")
    assert page.chosen.startswith("ة")
    left, right = (page.chip(i).bounding_box()["x"] for i in (2, 0))
    assert left < right


def test_the_facts_of_a_token(opened: Any) -> None:
    made = story()
    page = opened(made)
    assert page.value("weight") == "11 of 12"
    page.chip(3).click()
    page.settle()
    weight, heaviest = made.token_weights[5], made.token_weights.max()
    assert page.chosen == "\U0001f642 · tokens 4–6"  # noqa: RUF001
    assert page.value("weight") == f"{weight:.3g} ({round(float(100 * weight / heaviest))} % of top)"
    assert page.value("heads") == f"{int((made.head_weights[3:6].amax(0) > 0).sum())} of 8"
    high = page.page.locator("[data-scale=map] [data-high]").inner_text()
    merged = (made.token_weights[3:6, None] * made.token_maps[3:6]).sum(0)
    assert float(high) == pytest.approx(float(merged.max()), rel=0.006)


def test_characters_are_whole_and_words_on_demand(opened: Any) -> None:
    texts = opened(story()).page.locator(".chip").all_inner_texts()
    assert texts == ["un", "believ", "able", "\U0001f642", "!", "↵", "The", "red", "cat", "is", "here", "."]
    texts = opened(story(), by="word").page.locator(".chip").all_inner_texts()
    assert texts[:2] == ["unbelievable", "\U0001f642"]


def test_letters_join_across_chips(opened: Any) -> None:
    apart, joined = explanation([" كت", "اب"]), explanation([" كتاب"])
    widths = []
    for made in (apart, joined):
        page = opened(made)
        boxes = [chip.bounding_box() for chip in page.page.locator(".chip").all()]
        widths.append(max(b["x"] + b["width"] for b in boxes) - min(b["x"] for b in boxes))
    assert abs(widths[0] - widths[1]) < 1


# --- the words that a token rests on


UNDERLINES = """(words) => words.map((word) => {
  const { textDecorationLine, textDecorationThickness, textDecorationColor } = getComputedStyle(word);
  return textDecorationLine === "none" ? 0 : parseFloat(textDecorationThickness);
})"""


def underlined(page: Opened) -> list[float]:
    """How thick the lines are: of the prompt's words, then of the chips; 0 where there is none."""
    page.settle()
    found = [page.page.locator(each).evaluate_all(UNDERLINES) for each in (".prompt .word", ".chip")]
    return found[0] + found[1]


@pytest.mark.parametrize("layout", ["desktop", "phone", "dark"])
def test_lines_under_the_words_before_a_token_are_as_thick_as_it_rests_on_them(opened: Any, layout: str) -> None:
    made = read(weights=[0.0, 1.0, 0.5])
    relevance = made.text_relevance.maps
    page = opened(made, **LAYOUTS[layout])
    rows = {None: made.token_weights.double() @ relevance} | dict(enumerate(relevance))
    for token, row in rows.items():
        if token is not None:
            (page.chip(token).tap if layout == "phone" else page.chip(token).hover)()
        share = np.append(row / row.max(), 0)
        expected = np.where(share > 0, 1 + 3 * share, 0)
        np.testing.assert_allclose(underlined(page), expected, atol=3 * 0.5 / 255 + 1e-3)
    assert page.page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth") == 0
    assert page.page.evaluate("window.shifts") < 0.01


def test_lines_fade_with_what_they_stand_for(opened: Any) -> None:
    page = opened(read(prompt=["a", " b", " c"], image=range(1, 2), weights=[1.0] * 3))
    colour = "(words) => words.map((word) => getComputedStyle(word).textDecorationColor)"
    thick = np.array(underlined(page)[:3])
    colours_of = page.page.locator(".prompt .word").evaluate_all(colour)
    opacity = [float(text.rstrip(")").split("/")[-1]) if "/" in text else 1.0 for text in colours_of]
    lined = thick > 0
    assert lined.sum() > 1
    np.testing.assert_allclose(np.array(opacity)[lined], (0.45 + 0.55 * (thick - 1) / 3)[lined], atol=0.01)


def test_the_strongest_words_are_named_to_eyes_and_ears(opened: Any) -> None:
    made = read(weights=[0.0, 1.0, 0.5])
    words = ["<s>", "Which", "one", "?", "a", "red"]
    page = opened(made)
    rows = [*made.text_relevance.maps, made.token_weights.double() @ made.text_relevance.maps]
    for token, row in [(2, rows[2]), (None, rows[3])]:
        best = [k for k in np.argsort(-row.numpy()) if row[k] > 0][:3]
        page.chip(2).click()
        page.settle()
        if token is None:
            page.page.keyboard.press("Escape")
            page.settle()
        names = ", ".join(words[k] for k in best)
        weight = "Whole answer" if token is None else f"square, weight {0.5}"
        heard = f"{weight}, rests on {names}"
        assert page.page.locator(".facts [role=status]").inner_text() == heard
        tree = page.page.locator("body").aria_snapshot()
        assert f'"{heard}"' in tree
        seen = " · ".join(f"“{words[k]}” {float(f'{row[k]:.3g}'):g}" for k in best)
        assert page.page.locator(".rests").inner_text() == f"Rests on {seen}"


def test_a_word_rests_on_words(opened: Any) -> None:
    made = read([" un", "able", " to"], ["<s>", " Wh", "ich"], range(1, 3), weights=[0.0, 0.0, 0.0])
    page = opened(made, by="word")
    assert page.page.locator(".prompt").inner_text() == "<s> ⟨2 visual tokens⟩  Which"
    page.chip(1).click()
    row = made.text_relevance.maps[2]
    sums = np.array([row[0], row[1] + row[2], row[3] + row[4], 0])
    np.testing.assert_allclose(underlined(page), np.where(sums > 0, 1 + 3 * sums / sums.max(), 0), atol=0.007)
    page.chip(0).click()
    assert underlined(page)[2:] == [0, 0], "a word does not rest on itself"


def test_chips_look_as_before_without_text_relevance_and_keep_their_edge_with_it(opened: Any) -> None:
    edge = "(chips) => chips.map((chip) => getComputedStyle(chip).boxShadow)"
    pages = [opened(read(weights=[0.0, 1.0, 0.5], **more)) for more in ({}, {"text_relevance": None})]
    for page in pages:
        page.chip(2).hover()
        page.settle()
    with_it, without = (page.page.locator(".chip").evaluate_all(edge) for page in pages)
    assert with_it == without and with_it[0] != with_it[1]
    assert pages[1].page.locator(".rests, .rested, .word").count() == 0
    nothing = torch.zeros(3, 6, dtype=torch.float64)
    blank = opened(read(text_relevance=dataclasses.replace(read().text_relevance, maps=nothing)))
    assert blank.page.locator(".rests").inner_text() == "Rests on no word before it"


def test_pages_side_by_side_have_lines_of_their_own(opened: Any, tmp_path: Path) -> None:
    path = tmp_path / "both.html"
    dexar_fast.compare_html([read(), explanation(), read(seed=3)], path)
    page = opened(path)
    assert page.page.locator(".rests").count() == 2
    page.chip(2).click()
    page.settle()
    lines = page.page.locator(".rests").all_inner_texts()
    assert lines[0] != lines[1]
    counts = [article.locator(".rested").count() for article in page.page.locator("article").all()]
    expected = [int((made.text_relevance.maps[2] > 0).sum()) for made in (read(), read(seed=3))]
    assert counts == [expected[0], 0, expected[1]]


# --- controls


def test_the_slider_sets_the_opacity(opened: Any) -> None:
    made = story(images=(plain(600, 400),))
    page = opened(made)
    slider = page.page.locator("#opacity")
    heat = made.heatmap(resolution="image")
    hottest, line = heat.argmax(), np.flatnonzero(overlay.lines(heat))
    assert hottest not in line

    def opacity(pixel: int) -> int:
        return int(page.pixels()[..., 3].ravel()[pixel])

    assert opacity(hottest) == round(overlay.MOST_OPAQUE * 255)
    highest = page.pixels()[..., 3].max()
    assert highest > 1.5 * opacity(hottest), "lines stand out"
    slider.fill("30")
    assert opacity(hottest) == round(0.3 * 255)
    assert page.page.locator("output").inner_text() == "30 %"
    slider.focus()
    page.page.keyboard.press("ArrowRight")
    assert page.page.locator("output").inner_text() == "31 %"
    slider.fill("0")
    assert not page.pixels()[..., 3].any()


def test_the_switch_shows_image_overlay_or_map(opened: Any) -> None:
    page = opened(story())
    image, heat = page.page.locator(".frame img"), page.page.locator(".heat")
    for view, expected in (("image", (True, False)), ("map", (False, True)), ("overlay", (True, True))):
        page.show(view)
        assert (image.is_visible(), heat.is_visible()) == expected
        assert page.page.locator("#opacity").is_enabled() == (view == "overlay")
    page.page.locator("[value=overlay]").focus()
    page.page.keyboard.press("ArrowRight")
    page.settle()
    assert not image.is_visible()


def test_the_matrix_tells_each_heads_weight(opened: Any) -> None:
    made = story(metadata={"settings": {"layers": [3, 7]}})
    page = opened(made)
    page.chip(0).click()
    page.page.locator(".matrix").focus()
    for _ in range(2):
        page.page.keyboard.press("ArrowDown")
    for _ in range(9):
        page.page.keyboard.press("ArrowRight")
    said = page.page.locator(".cell").inner_text()
    name, weight = said.split(": ")
    assert name == "Layer 7, head 3"
    assert float(weight) == pytest.approx(float(made.head_weights[0, 1, 3]), abs=0.004)
    page.page.mouse.move(0, 0)
    box = page.page.locator(".matrix").bounding_box()
    page.page.mouse.move(box["x"] + 46 + 2.5 * 26, box["y"] + 7 + 13)
    assert page.page.locator(".cell").inner_text().startswith("Layer 3, head 2:")
    high = page.page.locator("[data-scale=heads] [data-high]").inner_text()
    assert float(high) == pytest.approx(float(made.head_weights[0].max()), rel=0.006)
    page.page.mouse.move(box["x"] + 46 + 2.5 * 26, box["y"] - 20)
    assert page.page.locator(".cell").inner_text() == "Point at a cell"


def test_the_curve_tells_each_layers_weight(opened: Any) -> None:
    made = story(layers=5, metadata={"settings": {"layers": [3, 7, 8, 9, 12]}})
    page = opened(made)
    page.chip(0).click()
    page.settle()
    said, curve = page.page.locator(".layer"), page.page.locator(".layers svg")
    weights = made.layer_weights[0]
    highest = f"Highest: layer {[3, 7, 8, 9, 12][int(weights.argmax())]}, {float(weights.max()):.3g}"
    assert said.inner_text() == highest
    assert curve.get_attribute("aria-label") == f"Weight by layer: {highest}"
    assert curve.locator("text").all_text_contents()[-7:] == ["3", "7", "8", "9", "12", "layer", "weight"]
    drawn = [float(circle.get_attribute("cy")) for circle in curve.locator("circle").all()]
    low, high = (float(line.get_attribute("y1")) for line in curve.locator("line").all())
    np.testing.assert_allclose((low - np.array(drawn)) / (low - high), weights / weights.max(), atol=0.003)
    box = curve.bounding_box()
    page.page.mouse.move(box["x"] + box["width"] / 2 + 18, box["y"] + 20)
    name, weight = said.inner_text().split(": ")
    assert name == "Layer 8" and float(weight) == pytest.approx(float(weights[2]), abs=0.01)
    page.page.mouse.move(0, 0)
    assert said.inner_text() == highest


def test_the_curve_follows_the_chosen_token_and_the_matrix(opened: Any) -> None:
    page = opened(story())
    whole = page.page.locator(".layers polyline").get_attribute("points")
    page.chip(3).click()
    page.settle()
    assert page.page.locator(".layers polyline").get_attribute("points") != whole
    page.page.locator(".matrix").focus()
    page.page.keyboard.press("ArrowDown")
    page.page.keyboard.press("ArrowDown")
    assert page.page.locator(".layer").inner_text().startswith("Layer 1: ")


@pytest.mark.parametrize("layers", [1, 300])
def test_one_layer_and_very_many_have_a_curve_whose_labels_stand_apart(opened: Any, layers: int) -> None:
    page = opened(story(layers=layers, heads=8))
    assert page.page.locator(".layers circle").count() == layers
    texts = page.page.locator(".layers text").all()[2:-2]
    assert texts[0].text_content() == "0" and 1 <= len(texts) <= 20
    boxes = [text.bounding_box() for text in texts]
    assert all(left["x"] + left["width"] < right["x"] for left, right in pairwise(boxes))


def test_no_layer_of_weight_is_said(opened: Any) -> None:
    page = opened(explanation(head_weights=torch.zeros(3, 2, 4)))
    assert page.page.locator(".layer").inner_text() == "No layer has weight"


def test_a_screen_of_more_pixels_gets_them(opened: Any) -> None:
    page = opened(story())
    before = page.pixels(".matrix").shape
    screen = {"width": 1200, "height": 900, "deviceScaleFactor": 2, "mobile": False}
    page.context.new_cdp_session(page.page).send("Emulation.setDeviceMetricsOverride", screen)
    page.settle()
    assert page.pixels(".matrix").shape == (2 * before[0], 2 * before[1], 4)


def test_a_filmstrip_of_images_and_frames(opened: Any) -> None:
    grids = (Grid(0, 0, 2, 2), Grid(1, 4, 2, 2, frames=2, video=True))
    page = opened(story(grids=grids, images=(plain(300, 200), plain(200, 300), plain(200, 300), plain(50, 50))))
    thumbs = page.page.locator(".thumb")
    assert thumbs.all_inner_texts() == ["image 1", "frame 1", "frame 2", "frame 3"]
    first = page.pixels()
    thumbs.nth(1).click()
    second = page.pixels()
    assert second.shape != first.shape
    page.page.keyboard.press("ArrowRight")
    assert (page.pixels() == second).all(), "two frames share a grid"
    assert page.page.locator(".frame:visible").count() == 1
    assert thumbs.nth(2).get_attribute("aria-selected") == "true"
    drawn = page.pixels(".thumb:nth-child(1) canvas")
    page.chip(0).click()
    page.scale("own")
    assert (page.pixels(".thumb:nth-child(1) canvas") != drawn).any(), "thumbnails show heat of their own"
    page.page.keyboard.press("Escape")
    thumbs.nth(3).click()
    page.settle()
    assert "None of the visual tokens" in page.page.locator(".badge:visible").inner_text()


def test_only_thumbnails_in_view_are_painted(opened: Any) -> None:
    grids = tuple(Grid(i, 4 * i, 2, 2, video=True) for i in range(40))
    page = opened(story(grids=grids, images=tuple(plain(200, 200) for _ in grids)))
    page.settle()
    first, last = (page.pixels(f".thumb:nth-child({n}) canvas") for n in (1, 40))
    assert first[..., 3].all() and not last.any(), "never painted"
    page.page.locator(".strip").evaluate("(strip) => { strip.scrollLeft = strip.scrollWidth; }")
    page.settle()
    whole = page.pixels(".thumb:nth-child(40) canvas")
    assert whole.shape == first.shape and whole[..., 3].all()
    page.chip(0).click()
    page.settle()
    assert (page.pixels(".thumb:nth-child(40) canvas") != whole).any()
    assert (page.pixels(".thumb:nth-child(1) canvas") == first).all(), "not painted while it cannot be seen"
    page.page.locator(".strip").evaluate("(strip) => { strip.scrollLeft = 0; }")
    page.settle()
    assert (page.pixels(".thumb:nth-child(1) canvas") != first).any()


@pytest.mark.parametrize("width", [360, 1280])
def test_what_is_said_over_a_thin_picture_can_be_read(opened: Any, width: int) -> None:
    blank = explanation(weights=[0.0] * 3, sequence_map=torch.zeros(12), images=(plain(1, 5000),))
    page = opened(blank, viewport={"width": width, "height": 900})
    box = page.page.locator(".badge").bounding_box()
    assert box["width"] > 150 and box["height"] < 60
    assert box["x"] >= 0 and box["x"] + box["width"] <= width
    middle = page.page.locator(".frame").bounding_box()
    assert abs(box["x"] + box["width"] / 2 - middle["x"] - middle["width"] / 2) < 1


# --- pages that lack something, and several in one


def test_unknown_geometry_and_images_that_were_not_kept(opened: Any) -> None:
    page = opened(story(grids=()))
    assert "no map to show" in page.page.locator(".note").inner_text()
    assert page.page.locator("#opacity").count() == 0
    page.chip(0).click()
    assert page.chosen == "un · token 1"
    assert opened(story(grids=(), images=())).page.locator(".matrix").is_visible()
    bare = opened(story(images=()))
    assert bare.pixels()[..., 3].min() == 255
    assert bare.page.locator("[value=map]").is_checked() and bare.page.locator("[value=image]").is_disabled()


def test_an_empty_answer(opened: Any) -> None:
    page = opened(explanation([]))
    assert page.page.locator(".answer").inner_text() == "(no tokens)"
    assert not page.pixels()[..., 3].any()


def test_side_by_side(opened: Any, tmp_path: Path) -> None:
    path = tmp_path / "both.html"
    dexar_fast.compare_html([story(), story(seed=1)], path, titles=["paper", "official"])
    page = opened(path)
    assert page.page.locator("h2").all_inner_texts() == ["paper", "official"]
    left, right = (box.bounding_box() for box in page.page.locator("article").all())
    assert left["y"] == right["y"] and left["x"] + left["width"] < right["x"]
    page.chip(1).click()
    page.settle()
    assert page.page.locator(".chosen").all_inner_texts() == ["believ · token 2"] * 2
    page.page.locator("#linked").uncheck()
    page.chip(0).click()
    page.settle()
    assert page.page.locator(".chosen").all_inner_texts() == ["un · token 1", "believ · token 2"]
    page.show("map")
    assert page.page.locator(".frame img:visible").count() == 0
    different = tmp_path / "different.html"
    dexar_fast.compare_html([story(), explanation(), story()], different)
    assert opened(different).page.locator(".linked").is_hidden()


def test_side_by_side_without_a_map_there_is_nothing_to_set(opened: Any, tmp_path: Path) -> None:
    blind, path = story(grids=()), tmp_path / "both.html"
    for others, controls, bar in (([blind], 0, True), ([explanation(grids=())], 0, False), ([story()], 1, True)):
        dexar_fast.compare_html([blind, *others], path)
        page = opened(path).page
        assert page.locator(".controls").count() == page.locator("#opacity").count() == controls
        assert page.locator(".shared").is_visible() == bar


def test_the_embedded_models_answer(opened: Any) -> None:
    made = dexar_fast.Explainer.from_pretrained().explain(str(SAMPLE_IMAGE), "Describe the image.", "A red triangle.")
    page = opened(made)
    assert page.page.locator(".chip").count() == len(made)
    heaviest = int(made.token_weights.argmax())
    page.chip(heaviest).click()
    page.show("map")
    hot = np.unravel_index(made.heatmap(heaviest, resolution="image").argmax(), made.images[0].size[::-1])
    drawn = page.pixels()[..., :3].astype(int).sum(-1)
    scale = drawn.shape[0] / made.images[0].height
    y, x = (int(edge * scale) for edge in hot)
    assert drawn[y, x] > drawn.max() - 12


# --- the page as a page


LAYOUTS = {
    "desktop": {},
    "phone": {
        "viewport": {"width": 360, "height": 740},
        "has_touch": True,
        "is_mobile": True,
        "device_scale_factor": 3,
    },
    "dark": {"color_scheme": "dark"},
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_nothing_moves_and_nothing_sticks_out(opened: Any, tmp_path: Path, layout: str) -> None:
    grids = (Grid(0, 0, 3, 4), Grid(1, 12, 2, 2, frames=2, video=True))
    tokens = [f" word{i}" for i in range(300)] + [" " + "long" * 60]
    made = explanation(
        tokens, grids, (noise(700, 500), plain(200, 300), plain(200, 300)), layers=32, heads=32,
        metadata={"prompt": "x" * 3000, "model": "m" * 200, "settings": {"layers": list(range(32))}},
    )  # fmt: skip
    page = opened(made, **LAYOUTS[layout])
    for index in (3, 0, 300):
        (page.chip(index).tap if layout == "phone" else page.chip(index).hover)()
        page.settle()
    wide = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
    assert page.page.evaluate(wide) == 0
    assert page.page.evaluate("window.shifts") < 0.01
    page.page.wait_for_timeout(50)


def test_dark_and_light(opened: Any) -> None:
    grounds = [
        opened(story(), color_scheme=scheme).page.evaluate("getComputedStyle(document.body).backgroundColor")
        for scheme in ("light", "dark")
    ]
    light, dark = (sum(map(int, ground[4:-1].split(","))) for ground in grounds)
    assert light > 700 and dark < 60


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_can_be_read(opened: Any, scheme: Any) -> None:
    page = opened(story(), color_scheme=scheme)
    worst = page.page.evaluate(CONTRAST)
    assert worst["contrast"] >= 4.5, worst


CONTRAST = """() => {
  const parse = (text) => text.match(/[\\d.]+/g).map(Number);
  const light = ([r, g, b]) => [r, g, b].map((c) => c / 255)
    .map((c) => (c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4))
    .reduce((sum, c, i) => sum + c * [0.2126, 0.7152, 0.0722][i], 0);
  const ground = (element) => {
    const colour = parse(getComputedStyle(element).backgroundColor);
    return colour[3] === 0 && element.parentElement ? ground(element.parentElement) : colour;
  };
  let worst = { contrast: 21 };
  for (const element of document.querySelectorAll("body *")) {
    const own = [...element.childNodes].some((node) => node.nodeType === 3 && node.textContent.trim());
    if (!own || !element.checkVisibility() || element.closest(".unseen, script, .badge")) continue;
    const [a, b] = [light(parse(getComputedStyle(element).color)), light(ground(element))];
    const contrast = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    if (contrast < worst.contrast) worst = { contrast, text: element.textContent.slice(0, 40), tag: element.className };
  }
  return worst;
}"""


def test_everything_has_a_name(opened: Any) -> None:
    page = opened(story(grids=(Grid(0, 0, 3, 4), Grid(1, 0, 2, 2)), images=(plain(), plain())))
    tree = page.page.locator("body").aria_snapshot()
    for line in (
        'heading "What the model looked at" [level=1]', 'listbox "Answer"', 'option "un, weight 0"', 'radio "Overlay"',
        'slider "Opacity', 'listbox "Images and frames"', 'option "image 1"', 'img "Image 1 of 2',
        'button "Whole answer"', 'application "Head weights', 'img "Weight by layer: Highest: layer ',
    ):  # fmt: skip
        assert line in tree, line
    nameless = "[...document.querySelectorAll('img:not([alt]), input:not([id]):not([name])')].length"
    assert page.page.evaluate(nameless) == 0
    assert page.page.evaluate("document.documentElement.lang") == "en"
    ids = page.page.evaluate("[...document.querySelectorAll('[id]')].map((element) => element.id)")
    assert len(ids) == len(set(ids))


HOSTILE = "\"'></span></script><script>alert(1)</script><img src=http://127.0.0.1:9/x onerror=alert(2)><!--"


def test_markup_from_users_and_models_does_not_run(opened: Any, tmp_path: Path) -> None:
    made = explanation(
        [HOSTILE, " b"],
        diagnostics={"text_winners": [{"token": HOSTILE, "share": 0.9}], "warnings": [HOSTILE]},
        metadata={"model": HOSTILE, "prompt": HOSTILE, "settings": {HOSTILE: HOSTILE}, HOSTILE: [HOSTILE]},
    )
    page = opened(made)
    assert page.chip(0).inner_text() == HOSTILE
    page.chip(0).click()
    assert page.chosen.startswith(HOSTILE[:20])
    path = tmp_path / "'><script>alert(1)<" / "x.html"
    path.parent.mkdir()
    dexar_fast.compare_html([made, made], path, titles=[HOSTILE, HOSTILE])
    assert opened(path).page.locator("h2").first.inner_text() == HOSTILE


def test_only_the_pages_own_script_may_run(opened: Any) -> None:
    page = opened(story())
    page.page.evaluate(
        "() => { const script = document.createElement('script'); script.textContent = 'window.ran = true';"
        "document.body.append(script); }"
    )
    assert page.page.evaluate("window.ran") is None
    assert any("Content Security Policy" in line for line in page.wrong)
    page.wrong.clear()
