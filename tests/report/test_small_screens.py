"""The report where there is little room and no mouse: on a phone, on a tablet, and in the frame of the web page."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from opened_reports import Opened
from PIL import Image, ImageDraw
from report_examples import explanation, plain, read

from dexar_fast.explanation import Explanation
from dexar_fast.report.page import document
from dexar_fast.vision.grid import Grid

FRAMED = (Path(document.__file__).parents[2] / "serve/assets/framed.css").read_text("utf-8")
TOUCH: dict[str, Any] = {"has_touch": True, "is_mobile": True}
SCREENS = {"upright": (360, 740), "tablet": (820, 1180), "on its side": (740, 360), "small, on its side": (667, 375)}
FRAMES = {"upright": (296, 1600), "tablet": (388, 1600), "on its side": (576, 1030), "large, on its side": (780, 1500)}
BOXES = """() => [...document.querySelectorAll("article")].map((article) => Object.fromEntries(
  [".frame", ".bar", ".answer"].map((name) => [name, article.querySelector(name).getBoundingClientRect()])
))"""
# Of each edge of the answer: whether it fades.
FADES = """(answer) => getComputedStyle(answer).maskImage !== "none" && ["--above", "--below"].map(
  (edge) => getComputedStyle(answer).getPropertyValue(edge) !== "0px"
)"""
CUT = """(all) => all.filter(({ scrollWidth, clientWidth, scrollHeight, clientHeight }) =>
  scrollWidth > clientWidth || scrollHeight > clientHeight + 1).map((one) => one.textContent)"""


def sized(size: tuple[int, int]) -> dict[str, Any]:
    return {"viewport": {"width": size[0], "height": size[1]}, **TOUCH}


def written(made: list[Explanation], folder: Path, beside: document.Beside = document.ALONE) -> Path:
    """The page of one explanation, or of several side by side."""
    path = folder / f"{len(made)}{bool(beside.style)}.html"
    path.write_bytes(document.render(made, [f"model {n}" for n in range(len(made))], "token", beside))
    return path


def answering(words: int = 60, **changes: Any) -> Explanation:
    return explanation([f" word{n}" for n in range(words)], images=(plain(400, 400),), **changes)


# --- where things stand


@pytest.mark.parametrize("methods", [1, 2])
@pytest.mark.parametrize("screen", SCREENS)
def test_answer_and_picture_are_in_sight_at_once(opened: Any, tmp_path: Path, screen: str, methods: int) -> None:
    page = opened(written([answering()] * methods, tmp_path), **sized(SCREENS[screen]))
    for boxes in page.page.evaluate(BOXES):
        top, bottom = boxes[".frame"]["top"], boxes[".answer"]["bottom"]
        assert max(bottom, boxes[".frame"]["bottom"]) - top <= SCREENS[screen][1]
        assert boxes[".answer"]["bottom"] - boxes[".answer"]["top"] > 100


@pytest.mark.parametrize("methods", [1, 2])
@pytest.mark.parametrize("screen", FRAMES)
def test_in_a_frame_nothing_stands_between_picture_and_answer(
    opened: Any, tmp_path: Path, screen: str, methods: int
) -> None:
    """The frame is as tall as what it holds: its height tells nothing of the screen."""
    path = written([answering()] * methods, tmp_path, document.Beside(FRAMED))
    width, tall = FRAMES[screen]
    for height in (tall, 600):
        for boxes in opened(path, **sized((width, height))).page.evaluate(BOXES):
            picture, answer = boxes[".frame"], boxes[".bar"]
            beside = answer["left"] >= picture["right"] and abs(answer["top"] - picture["top"]) < 24
            below = 0 <= answer["top"] - picture["bottom"] < 24
            assert beside if screen.endswith("on its side") else below


def test_upright_the_answer_comes_before_what_changes_how_the_map_looks(opened: Any, tmp_path: Path) -> None:
    page = opened(written([answering()], tmp_path), **sized(SCREENS["upright"])).page
    order = [".frame", ".bar", ".answer", ".facts", ".controls", ".look > .scale", ".heads"]
    tops = [page.locator(each).bounding_box()["y"] for each in order]
    assert tops == sorted(tops)


@pytest.mark.parametrize("width", [328, 360, 390, 480, 740, 1280])
def test_the_facts_of_a_token_are_never_cut_off(opened: Any, width: int) -> None:
    made = read([" a", " red", " incomprehensibilities"], weights=[0.001234, 0.01234, 0.02468], layers=32, heads=32)
    page = opened(made, viewport={"width": width, "height": 740})
    heights = set()
    for chip in range(3):
        page.chip(chip).click()
        page.settle()
        assert page.page.locator(".facts dd, .rests").evaluate_all(CUT) == []
        heights.add(page.page.locator(".facts").bounding_box()["height"])
    assert page.value("weight") == "0.0247 (100 % of top)"
    assert len(heights) == 1, "nothing below moves"


@pytest.mark.parametrize("size", [(1200, 300), (200, 1200), (300, 300)])
def test_thumbnails_keep_the_proportions_of_their_pictures(opened: Any, size: tuple[int, int]) -> None:
    picture = Image.new("RGB", size, (0, 0, 255))
    middle, radius = [edge // 2 for edge in size], min(size) // 2
    ImageDraw.Draw(picture).circle(middle, radius, (0, 255, 0))
    grids = (Grid(0, 0, 2, 2), Grid(1, 4, 2, 2))
    page = opened(explanation(grids=grids, images=(picture, plain())))
    page.show("image")
    path = page.path.with_suffix(".png")
    page.page.locator(".thumb canvas").first.screenshot(path=path)
    red, green, blue = np.moveaxis(np.asarray(Image.open(path).convert("RGB")).astype(int), -1, 0)
    shape = green > np.maximum(red, blue) + 60
    across, down = (np.ptp(np.flatnonzero(shape.any(axis))) + 1 for axis in (0, 1))
    assert across > 8 and abs(across - down) <= 2


# --- by touch


class Finger:
    """One on the screen: what the browser makes of it is the browser's own."""

    def __init__(self, page: Opened) -> None:
        self.page, self.session = page.page, page.context.new_cdp_session(page.page)

    def press(self, chip: Any) -> None:
        box = chip.bounding_box()
        self.at = [box["x"] + box["width"] / 2, box["y"] + box["height"] / 2]
        self._send("touchStart", [self.at])

    def move(self, down: float) -> None:
        self.at = [self.at[0], self.at[1] + down]
        self._send("touchMove", [self.at])

    def lift(self, after: float) -> None:
        """After so many milliseconds."""
        self.page.wait_for_timeout(after)
        self._send("touchEnd", [])

    def _send(self, kind: str, points: list[list[float]]) -> None:
        self.session.send(
            "Input.dispatchTouchEvent", {"type": kind, "touchPoints": [{"x": x, "y": y} for x, y in points]}
        )


@pytest.fixture
def phone(opened: Any) -> Opened:
    return opened(answering(), **sized(SCREENS["upright"]))


def test_holding_a_second_word_takes_the_phrase_between(phone: Opened) -> None:
    finger = Finger(phone)
    phone.chip(1).tap()
    finger.press(phone.chip(4))
    finger.lift(after=700)
    assert phone.chosen == "word1 word2 word3 word4 · tokens 2–5"  # noqa: RUF001
    assert phone.page.locator(".chip[aria-selected=true]").count() == 4
    finger.press(phone.chip(0))
    finger.lift(after=700)
    assert phone.chosen == "word0 word1 · tokens 1–2"  # noqa: RUF001
    phone.chip(3).tap()
    assert phone.chosen == "word3 · token 4"


def test_the_first_word_that_is_held_is_chosen(phone: Opened) -> None:
    finger = Finger(phone)
    finger.press(phone.chip(2))
    finger.lift(after=700)
    assert phone.chosen == "word2 · token 3"


def test_a_finger_that_scrolls_a_long_answer_takes_no_phrase(phone: Opened) -> None:
    finger = Finger(phone)
    phone.chip(1).tap()
    finger.press(phone.chip(12))
    for _ in range(8):
        finger.move(down=-15)
    finger.lift(after=700)
    assert phone.page.locator(".answer").evaluate("(answer) => answer.scrollTop") > 50
    assert phone.chosen == "word1 · token 2"


def test_the_hint_speaks_of_what_the_screen_can_do(opened: Any, phone: Opened) -> None:
    hint = phone.page.locator(".hint").first.inner_text()
    assert "hold another for the phrase" in hint and "Shift" not in hint
    hint = opened(answering()).page.locator(".hint").first.inner_text()
    assert "Shift takes a phrase" in hint and "hold" not in hint


# --- an answer that scrolls


def test_a_long_answer_fades_where_there_is_more_of_it(phone: Opened) -> None:
    answer = phone.page.locator(".answer")
    for scrolled, fades in [(0, [False, True]), (60, [True, True]), (9999, [True, False])]:
        answer.evaluate("(answer, to) => answer.scrollTo(0, to)", scrolled)
        phone.settle()
        assert answer.evaluate(FADES) == fades


def test_an_answer_that_fits_does_not_fade(opened: Any) -> None:
    assert opened(explanation()).page.locator(".answer").evaluate(FADES) == [False, False]


# --- in words


def test_the_scale_says_why_a_map_is_dim(opened: Any) -> None:
    page = opened(explanation(weights=[0.0, 2.0, 4.0]))
    unit = page.page.locator("[data-scale=map] [data-unit]")
    for chip, said in enumerate(["not drawn: its weight is 0", "dimmed to its weight: 50 % of top", None]):
        page.chip(chip).click()
        page.settle()
        assert unit.inner_text() == ("map value" if said is None else f"map value, {said}")
    page.scale("own")
    page.chip(1).click()
    page.settle()
    assert unit.inner_text() == "map value"
