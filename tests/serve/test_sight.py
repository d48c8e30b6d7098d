"""What can be seen of the page in Chromium: maps, verdicts, tables and thumbnails, whole, in view and readable."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from halting import halting
from PIL import Image
from serving import SAMPLE
from visited import PAINTED, Visitor, expect

PHONE = {"viewport": {"width": 360, "height": 740}, "is_mobile": True, "has_touch": True}
WATCH_OPACITY = """() => {
  const frame = document.querySelector("#report iframe");
  window.palest = 1;
  (function look() {
    if (!frame.hidden) window.palest = Math.min(window.palest, getComputedStyle(frame).opacity);
    requestAnimationFrame(look);
  })();
}"""
# The contrast of a text with what lies behind it, by WCAG 2, and its colour.
CONTRAST = """(text) => {
  const parts = (colour) => colour.match(/[\\d.]+/g).map(Number);
  const light = ([r, g, b]) => [r, g, b].map((value) => value / 255)
    .map((value) => (value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4))
    .reduce((sum, value, n) => sum + value * [0.2126, 0.7152, 0.0722][n], 0);
  let behind = text;
  const paper = () => parts(getComputedStyle(behind).backgroundColor);
  while (paper()[3] === 0) behind = behind.parentElement;
  const ink = parts(getComputedStyle(text).color), [low, high] = [light(ink), light(paper())].sort((a, b) => a - b);
  return [(high + 0.05) / (low + 0.05), ink[0] - ink[1]];
}"""
RING = """(board) => {
  const { visibility, width } = getComputedStyle(board, "::after");
  return [visibility, parseFloat(width)];
}"""


def test_the_map_is_never_pale_while_its_answer_is_written(visit: Any) -> None:
    visitor = visit()
    visitor.page.evaluate(WATCH_OPACITY)
    visitor.click_example(0)
    visitor.until_said("Answered")
    assert visitor.page.evaluate("palest") == 1
    visitor.tab("Check")
    visitor.page.locator("#check").click()
    visitor.page.wait_for_function("palest < 0.5")  # it is of the time before
    visitor.page.locator(".told", has_text="draws").wait_for()


def test_on_a_phone_each_column_of_what_was_hidden_can_be_read(visit: Any) -> None:
    visitor = visit(**PHONE)
    visitor.page.locator("#examples button").first.tap()
    visitor.until_said("Answered")
    visitor.tab("Hide")
    visitor.page.locator("#hide-top").tap()
    visitor.until_said("The hottest tenth")
    ends = "(table) => [table.getBoundingClientRect().right, table.parentElement.getBoundingClientRect().right]"
    table_ends, box_ends = visitor.page.locator("#changes table").evaluate(ends)
    assert table_ends <= box_ends + 0.5 and box_ends <= 360


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_errors_and_falls_can_be_read(visit: Any, tmp_path: Path, scheme: str) -> None:
    (tmp_path / "text.png").write_text("no picture")
    visitor = visit(color_scheme=scheme)
    visitor.page.locator("#ask").click()
    visitor.until_said("No picture and no question yet")
    visitor.choose(tmp_path / "text.png")
    coloured = ["#said p[data-kind=error]", ".asking .told[data-kind=error]", "#pictures .complaint"]
    found = {each: visitor.page.locator(each).evaluate(CONTRAST) for each in coloured}
    visitor.click_example(0)
    visitor.until_said("Answered")
    visitor.tab("Hide")
    visitor.page.locator("#hide-top").click()
    visitor.until_said("The hottest tenth")
    visitor.page.locator("#changes tbody tr").first.evaluate("(row) => row.classList.add('fell')")
    for each in ("th", "td:last-child"):
        found[each] = visitor.page.locator(f"#changes tbody .fell {each}").first.evaluate(CONTRAST)
    assert all(contrast >= 4.5 and redder > 40 for contrast, redder in found.values()), found


def test_a_verdict_comes_into_view_and_nothing_moves(visit: Any) -> None:
    visitor = visit(viewport={"width": 1366, "height": 900})
    visitor.click_example(0)
    visitor.until_said("Answered")
    visitor.frame.locator("body:not(.growing)").wait_for()
    visitor.tab("Check")
    visitor.page.wait_for_timeout(300)
    check = visitor.page.locator("#check")
    before = check.evaluate("(button) => button.getBoundingClientRect().top + scrollY")
    check.click()
    visitor.page.locator(".told", has_text="draws").wait_for()
    assert in_view(visitor, "[role=tabpanel] .told:not(:empty)")
    visitor.page.wait_for_timeout(500)
    assert in_view(visitor, "[role=tabpanel] .told:not(:empty)")
    assert abs(check.evaluate("(button) => button.getBoundingClientRect().top + scrollY") - before) <= 2
    visitor.tab("Hide")
    visitor.page.locator("#hide-top").click()
    visitor.until_said("The hottest tenth")
    assert in_view(visitor, "#changes table") and in_view(visitor, "[role=tabpanel] .told:not(:empty)")


def in_view(visitor: Visitor, selector: str) -> bool:
    box = visitor.page.locator(selector).bounding_box()
    size = visitor.page.viewport_size
    return bool(box and size and box["y"] >= 0 and box["y"] + box["height"] <= size["height"])


@pytest.mark.parametrize("size", [(1200, 60), (60, 1200)])
def test_a_thumbnail_shows_the_whole_picture(visit: Any, tmp_path: Path, size: tuple[int, int]) -> None:
    """Red at one end, blue at the other."""
    picture = Image.new("RGB", size, "white")
    picture.paste((255, 0, 0), (0, 0, 60, 60))
    picture.paste((0, 0, 255), (size[0] - 60, size[1] - 60, *size))
    picture.save(tmp_path / "long.png")
    visitor = visit()
    for count in (1, 2):
        visitor.choose(tmp_path / "long.png")
        expect(visitor.page.locator("#pictures li")).to_have_count(count)
        for thumbnail in visitor.page.locator("#pictures li img").all():
            shown = np.asarray(Image.open(io.BytesIO(thumbnail.screenshot())).convert("RGB")).astype(int)
            red, blue = shown[..., 0] - shown[..., 2], shown[..., 2] - shown[..., 0]
            assert red.max() > 200 and blue.max() > 200


def test_the_picture_that_is_painted_is_open_and_named(visit: Any, tmp_path: Path) -> None:
    Image.new("RGB", (224, 224)).save(tmp_path / "black.png")
    visitor = visit()
    visitor.choose([tmp_path / "black.png", SAMPLE, SAMPLE])
    visitor.page.wait_for_function("document.querySelectorAll('#pictures li').length === 3")
    visitor.ask("Describe the image.")
    visitor.until_said("Answered")
    visitor.tab("Hide")
    visitor.page.locator("#hide-top").click()
    visitor.until_said("The hottest tenth")
    select = visitor.page.locator("#brush select")
    visitor.page.wait_for_function("document.querySelector('#brush select').textContent.includes('painted')")
    visitor.until_painted("share > 0")
    names = select.locator("option").all_inner_texts()
    first = next(n for n, name in enumerate(names) if name.endswith("(painted)"))
    assert select.input_value() == str(first)
    for n, name in enumerate(names):
        select.select_option(index=n)
        visitor.until_painted("share > 0" if name.endswith("(painted)") else "share === 0")
    visitor.page.locator("#brush .clear").click()
    assert select.locator("option").all_inner_texts()[2] == "3"


@pytest.mark.parametrize("pressed", ["#examples button >> nth=1", "#ask", "#explain", "#check", "#hide-top"])
def test_the_pressed_button_keeps_the_focus(answered: Visitor, pressed: str) -> None:
    tabs = {"#check": "Check", "#hide-top": "Hide"}
    if pressed in tabs:
        answered.tab(tabs[pressed])
    button = answered.page.locator(pressed)
    button.focus()
    answered.page.keyboard.press("Enter")
    answered.page.wait_for_function("document.body.classList.contains('runs')")
    answered.page.wait_for_function("!document.body.classList.contains('runs')")
    answered.page.wait_for_timeout(500)  # Gradio may draw once more
    assert button.evaluate("(button) => button === document.activeElement")


def test_the_focus_comes_back_from_stop(visit: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dexar_fast.serve.work.asking.written", halting)
    visitor = visit()
    visitor.page.locator("#examples button").first.focus()
    visitor.page.keyboard.press("Enter")
    visitor.frame.locator(".chip").nth(2).wait_for()
    visitor.page.locator("#stop").focus()
    visitor.page.keyboard.press("Enter")
    visitor.until_said("Stopped")
    visitor.page.wait_for_function("document.activeElement === document.querySelector('#examples button')")


def test_each_example_has_a_name_of_its_own(visit: Any) -> None:
    visitor = visit()
    names = visitor.page.locator("#examples button").evaluate_all("(all) => all.map((each) => each.ariaLabel)")
    assert names[0] == "Example 1: Describe the image." and names[3] == "Example 4: Describe the image."
    assert visitor.page.locator("#examples button").all_inner_texts()[3].strip() == "Describe the image."


def test_the_brush_has_an_outline_and_strokes_are_taken_back(answered: Visitor) -> None:
    answered.tab("Hide")
    canvas, board = answered.page.locator("#brush canvas"), answered.page.locator("#brush .board")
    canvas.scroll_into_view_if_needed()
    answered.page.mouse.move(0, 0)
    assert board.evaluate(RING)[0] == "hidden"
    box = canvas.bounding_box()
    assert box
    shares = [0]
    for x in (0.2, 0.5, 0.8):
        answered.page.mouse.move(box["x"] + box["width"] * x, box["y"] + box["height"] * 0.5)
        assert board.evaluate(RING) == ["visible", pytest.approx(box["width"] * 0.24, abs=2)]
        answered.page.mouse.down()
        answered.page.mouse.up()
        shares.append(canvas.evaluate(PAINTED))
    assert shares == sorted(set(shares))
    answered.page.keyboard.press("Control+z")
    answered.until_painted(f"share === {shares[2]}")
    answered.page.get_by_role("button", name="Clear").click()
    answered.until_painted("share === 0")
    for share in (shares[2], shares[1], 0, 0):
        answered.page.get_by_role("button", name="Undo").click()
        answered.until_painted(f"share === {share}")
    answered.page.locator("#hide").click()
    answered.until_said("Nothing is painted")


def test_what_the_server_has_painted_is_taken_back_too(answered: Visitor) -> None:
    answered.tab("Hide")
    canvas = answered.page.locator("#brush canvas")
    canvas.focus()
    answered.page.keyboard.press("Space")
    own = canvas.evaluate(PAINTED)
    answered.page.locator("#hide-top").click()
    answered.until_said("The hottest tenth")
    answered.until_painted(f"share !== {own}")
    answered.page.get_by_role("button", name="Undo").click()
    answered.until_painted(f"share === {own}")


def test_a_finger_has_no_outline(visit: Any) -> None:
    visitor = visit(**PHONE)
    visitor.page.locator("#examples button").first.tap()
    visitor.until_said("Answered")
    visitor.tab("Hide")
    visitor.page.locator("#brush canvas").tap()
    visitor.until_painted("share > 0")
    assert visitor.page.locator("#brush .board").evaluate(RING)[0] == "hidden"
