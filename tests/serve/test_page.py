"""The page in Chromium: ask, look, click, compare, edit, go on asking, hide, check, download."""

import io
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from serving import SAMPLE, Served
from visited import Visitor

from dexar_fast import Explainer, Explanation

ANSWER = "A red triangle, a yellow circle and a blue square."
PAINTED = """(canvas) => {
  const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
  return data.filter((value, n) => n % 4 === 3 && value > 127).length / (canvas.width * canvas.height);
}"""  # the share of the picture


@pytest.fixture
def answered(visit: Any) -> Visitor:
    visitor: Visitor = visit()
    visitor.click_example(0)
    visitor.until_said("Answered")
    visitor.frame.locator("body:not(.growing)").wait_for()
    return visitor


def tab(visitor: Visitor, name: str) -> None:
    visitor.page.get_by_role("tab", name=name).click()


def test_an_example_is_answered_and_its_map_follows_the_chips(answered: Visitor) -> None:
    assert " ".join(answered.chips()).replace(" ,", ",").replace(" .", ".") == ANSWER
    assert answered.page.locator("#question textarea").input_value() == "Describe the image."
    chip = answered.frame.locator(".chip", has_text="circle")
    chip.click()
    assert chip.get_attribute("aria-selected") == "true"
    assert answered.frame.locator(".chosen").inner_text().startswith("circle")
    truth = Explainer.from_pretrained().explain(str(SAMPLE), "Describe the image.")
    rows, columns = np.unravel_index(truth.heatmap(6).argmax(), truth.heatmap(6).shape)
    said = answered.frame.locator("[data-value=place]").inner_text()
    height, width = truth.heatmap(6).shape
    assert ("upper", "middle", "lower")[3 * rows // height] in said
    assert ("left", "centre", "right")[3 * columns // width] in said


def test_a_chosen_picture_is_asked_about_and_shown(visit: Any) -> None:
    visitor = visit()
    visitor.choose(SAMPLE)
    visitor.ask("Which shape is yellow?")
    visitor.until_said("Answered: The yellow shape is a circle.")
    width = visitor.frame.locator(".frame img").evaluate("(image) => image.naturalWidth")
    assert width == Image.open(SAMPLE).width


def test_pasted_and_dropped_pictures_are_taken(visit: Any) -> None:
    visitor = visit()
    data = list(SAMPLE.read_bytes())
    visitor.page.evaluate(
        """(data) => {
          const files = new DataTransfer();
          files.items.add(new File([new Uint8Array(data)], "pasted.png", { type: "image/png" }));
          document.dispatchEvent(new ClipboardEvent("paste", { clipboardData: files }));
          const target = document.querySelector("#pictures .choose");
          target.dispatchEvent(new DragEvent("drop", { dataTransfer: files, bubbles: true, cancelable: true }));
        }""",
        data,
    )
    visitor.page.wait_for_function("document.querySelectorAll('#pictures li').length === 2")
    visitor.page.get_by_role("button", name="Remove pasted.png").first.click()
    assert visitor.page.locator("#pictures li").count() == 1


def test_two_pictures_have_a_map_each(visit: Any) -> None:
    visitor = visit()
    visitor.choose([SAMPLE, SAMPLE])
    visitor.page.wait_for_function("document.querySelectorAll('#pictures li').length === 2")
    visitor.ask("Describe the image.")
    visitor.until_said("Answered")
    assert visitor.frame.locator(".thumb").count() == 2
    visitor.frame.locator(".thumb").nth(1).click()
    assert visitor.frame.locator(".frame:not([hidden])").count() == 1
    assert visitor.frame.locator(".frame").nth(1).is_visible()


def test_the_next_question_stands_behind_the_last(answered: Visitor) -> None:
    answered.page.locator("#question textarea").fill("Which shape is yellow?")
    answered.page.locator("#follow").click()
    answered.page.locator("#turns li").nth(1).wait_for()
    answered.page.wait_for_function(f"!document.querySelector('#said p').textContent.includes({json.dumps(ANSWER)})")
    answered.until_said("Answered")
    assert answered.page.locator("#turns li").all_inner_texts() == ["Describe the image.", ANSWER]


def test_two_methods_stand_side_by_side(visit: Any) -> None:
    visitor = visit()
    visitor.page.get_by_text("How to explain").click()
    visitor.page.get_by_label("Compare with").fill("attention")
    visitor.page.get_by_role("option", name="attention", exact=True).click()
    visitor.click_example(0)
    visitor.until_said("Side by side: dex-ar | attention")
    assert visitor.frame.locator("article").count() == 2
    assert [text.lower() for text in visitor.frame.locator("h2").all_inner_texts()] == ["dex-ar", "attention"]


def test_an_edited_answer_is_explained_and_compared(answered: Visitor) -> None:
    answered.page.locator("#answer textarea").fill("A green star.")
    answered.page.locator("#explain").click()
    answered.until_said("Explained by dex-ar: A green star.")
    assert answered.frame.locator(".chip").first.inner_text() == "A"
    answered.page.locator("#compare").click()
    answered.until_said("Side by side")
    assert answered.frame.locator("h2").all_inner_texts() == [ANSWER, "A green star."]
    answered.page.locator("#answer textarea").fill(ANSWER)
    answered.page.locator("#compare").click()
    answered.until_said("The edited answer is still the model's")


def test_an_edited_answer_is_explained_as_the_switches_say_now(answered: Visitor) -> None:
    answered.page.get_by_text("How to explain").click()
    answered.page.get_by_label("Method", exact=True).fill("attention")
    answered.page.get_by_role("option", name="attention", exact=True).click()
    answered.page.get_by_label("word", exact=True).check()
    answered.page.locator("#answer textarea").fill("A turquoise star.")
    answered.page.locator("#explain").click()
    answered.until_said("Explained by attention: A turquoise star.")
    answered.frame.locator(".sizes", has_text="attention").wait_for()
    assert answered.chips()[:2] == ["A", "turquoise"]
    answered.page.locator("#compare").click()
    answered.until_said("Side by side")
    assert "attention" in answered.frame.locator(".sizes").first.inner_text()
    assert answered.page.locator("#answer textarea").input_value() == "A turquoise star."


def test_a_painted_part_is_hidden_by_pointer_and_by_keys(answered: Visitor) -> None:
    tab(answered, "Hide")
    canvas = answered.page.locator("#brush canvas")
    answered.page.locator("#hide").click()
    answered.until_said("Nothing is painted")
    canvas.scroll_into_view_if_needed()
    box = canvas.bounding_box()
    assert box
    answered.page.mouse.move(box["x"] + box["width"] * 0.72, box["y"] + box["height"] * 0.6)
    answered.page.mouse.down()
    answered.page.mouse.move(box["x"] + box["width"] * 0.84, box["y"] + box["height"] * 0.7, steps=6)
    answered.page.mouse.up()
    answered.page.locator("#hide").click()
    answered.until_said("Most changed")
    assert answered.page.locator("#changes tbody tr").count() == 12
    answered.page.get_by_role("button", name="Clear").click()
    answered.page.locator("#hide").click()
    answered.until_said("Nothing is painted")
    canvas.focus()
    for key in ("ArrowRight", "ArrowDown", "Space"):
        answered.page.keyboard.press(key)
    answered.page.locator("#hide").click()
    answered.until_said("Most changed")


def test_the_map_is_checked_and_its_evidence_stands_in_the_report(answered: Visitor) -> None:
    tab(answered, "Check")
    answered.page.locator("#check").click()
    said = answered.page.locator("#said p", has_text="19 draws").inner_text()
    answered.frame.locator("summary").first.click()
    assert said.startswith("Hiding other places hurts the answer as much: this is no evidence for the map. At chance")
    assert said.partition("the map. ")[2] in answered.frame.locator(".notes").inner_text()


def test_the_hottest_tenth_is_hidden_without_a_pointer(answered: Visitor) -> None:
    """It is painted, so that what was hidden can be seen, and hidden again: then nothing differs."""
    tab(answered, "Hide")
    answered.page.locator("#hide-top").click()
    answered.until_said("Most changed")
    rows = answered.page.locator("#changes tbody tr").all_inner_texts()
    assert len(rows) == 12
    share = answered.page.locator("#brush canvas").evaluate(PAINTED)
    assert 0.09 < share < 0.11
    answered.page.locator("#hide").click()
    answered.page.wait_for_function("document.body.classList.contains('runs')")
    answered.until_said("Most changed")
    assert answered.page.locator("#changes tbody tr").all_inner_texts() == rows


def test_what_is_painted_stays_until_it_is_cleared_or_hidden_anew(answered: Visitor) -> None:
    tab(answered, "Hide")
    canvas = answered.page.locator("#brush canvas")
    answered.page.locator("#hide-top").click()
    answered.until_said("Most changed")
    of_server = canvas.evaluate(PAINTED)
    canvas.focus()
    answered.page.keyboard.press("Space")
    painted = canvas.evaluate(PAINTED)
    assert painted > of_server
    answered.page.locator("#ask").click()
    answered.page.wait_for_function("document.body.classList.contains('runs')")
    answered.until_said("Answered")
    assert canvas.evaluate(PAINTED) == painted
    answered.page.locator("#hide-top").click()
    answered.page.wait_for_function("document.body.classList.contains('runs')")
    answered.until_said("Most changed")
    assert canvas.evaluate(PAINTED) == of_server


def test_downloads_are_what_they_say(answered: Visitor, tmp_path: Path) -> None:
    tab(answered, "Save")
    found = {}
    for name in ("save-report", "save-arrays", "save-gif"):
        with answered.page.expect_download() as download:
            answered.page.locator(f"#{name}").click()
        path = tmp_path / download.value.suggested_filename
        download.value.save_as(path)
        found[name] = path
    report = found["save-report"].read_text()
    assert "triangle" in report and "postMessage" not in report  # the page for a frame is another one
    assert Explanation.load(found["save-arrays"]).text.strip() == ANSWER
    gif = Image.open(io.BytesIO(found["save-gif"].read_bytes()))
    assert gif.format == "GIF" and gif.n_frames == 12  # type: ignore[attr-defined]


def test_text_relevance_underlines_the_words_before(visit: Any) -> None:
    visitor = visit()
    visitor.page.get_by_text("How to explain").click()
    visitor.page.get_by_label("Text relevance").check()
    visitor.click_example(1)
    visitor.until_said("Answered")
    visitor.frame.locator(".rests").wait_for()
    visitor.frame.locator("summary").first.click()
    visitor.frame.locator(".chip").nth(5).click()
    assert visitor.frame.locator(".rests").inner_text().startswith("Rests on")
    assert visitor.frame.locator(".prompt .word").count() > 0
    assert visitor.frame.get_by_text("Underlined: what it rests on, the thicker the more").is_visible()
    assert visitor.frame.get_by_text("Marks such as <s> are special tokens").is_visible()


def test_words_are_shown_as_one_where_asked(visit: Any) -> None:
    visitor = visit()
    visitor.page.get_by_text("How to explain").click()
    visitor.page.get_by_label("word", exact=True).check()
    visitor.click_example(0)
    visitor.until_said("Answered")
    visitor.frame.locator("body:not(.growing)").wait_for()
    assert len(visitor.chips()) <= 12


def test_a_method_that_needs_the_whole_answer_shows_it_at_once(visit: Any) -> None:
    visitor = visit()
    visitor.page.get_by_text("How to explain").click()
    visitor.page.get_by_label("Method", exact=True).fill("tam")
    visitor.page.get_by_role("option", name="tam", exact=True).click()
    visitor.click_example(0)
    visitor.until_said("Answered")
    visitor.frame.locator(".chip").first.wait_for()


def test_refusals_are_lines_and_the_page_lives_on(visit: Any) -> None:
    visitor = visit()
    visitor.page.locator("#ask").click()
    visitor.until_said("No picture and no question yet")
    assert visitor.page.locator(".asking .told").inner_text().startswith("No picture and no question yet")
    visitor.page.locator("#question textarea").fill("What?")
    visitor.page.locator("#ask").click()
    visitor.until_said("No picture yet")
    visitor.page.locator("#question textarea").fill("What? " * 1000)
    visitor.choose(SAMPLE)
    visitor.page.locator("#ask").click()
    visitor.until_said("The question has 6,000 letters: at most 4,000 are taken")
    visitor.page.get_by_text("How to explain").click()
    visitor.page.get_by_label("Layers").fill("0,99")
    visitor.click_example(0)
    visitor.until_said("Layer 99 is out of range")
    visitor.page.get_by_label("Layers").fill("0,1")
    visitor.click_example(0)
    visitor.until_said("Answered")
    assert visitor.page.locator("#said p").get_attribute("data-kind") == "news"


def test_stop_ends_what_runs_and_the_next_question_is_answered(visit: Any, served: Served) -> None:
    visitor = visit()
    visitor.page.get_by_text("How to explain").click()
    visitor.page.get_by_label("Method", exact=True).fill("igos++")
    visitor.page.get_by_role("option", name="igos++", exact=True).click()
    visitor.click_example(0)
    visitor.until_said("Writing the answer, then explaining it by igos++")
    running = [each.work for each in served.answers.visits._visits.values() if each.work and not each.work.join(0)]
    visitor.page.locator("#stop").click()
    visitor.until_said("Stopped.")
    assert visitor.page.locator("#stop").is_disabled()
    assert len(running) == 1 and running[0].join(5)
    visitor.page.get_by_label("Method", exact=True).fill("dex-ar")
    visitor.page.get_by_role("option", name="dex-ar", exact=True).click()
    visitor.page.locator("#ask").click()
    visitor.until_said("Answered")


def test_buttons_are_pressed_when_they_can_do_something(visit: Any) -> None:
    visitor = visit()
    able = visitor.page.locator
    assert able("#ask").is_enabled() and able("#explain").is_disabled() and able("#stop").is_disabled()
    visitor.click_example(0)
    visitor.page.wait_for_function("document.querySelector('#ask').disabled")
    assert able("#stop").is_enabled() and able("#examples button").first.is_disabled()
    visitor.until_said("Answered")
    assert able("#ask").is_enabled() and able("#explain").is_enabled() and able("#stop").is_disabled()
    tab(visitor, "Check")
    able("#check").click()
    visitor.page.locator("[role=tabpanel] .told", has_text="draws").wait_for()


def test_the_same_question_again_is_shown_to_its_end(answered: Visitor) -> None:
    for _ in range(2):
        answered.page.locator("#ask").click()
        answered.page.wait_for_function("document.querySelector('#ask').disabled")
        answered.until_said("Answered")
        answered.frame.locator("body:not(.growing)").wait_for()
        assert len(answered.chips()) == 12


def test_a_stopped_answer_stands_as_far_as_it_was_written(visit: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dexar_fast.serve.work.asking.written", halting)
    visitor = visit()
    visitor.click_example(0)
    visitor.frame.locator(".chip").nth(2).wait_for()
    visitor.page.locator("#stop").click()
    visitor.until_said("Stopped after: A red triangle")
    visitor.frame.locator("body:not(.growing)").wait_for()
    assert visitor.chips() == ["A", "red", "triangle"] and visitor.page.locator("#explain").is_enabled()


def halting(base: Any, asked: Any, chunk: int) -> Iterator[Any]:
    """Three pieces of an answer, then a long wait."""
    with base.stream(asked.given.pictures, asked.text, chunk_size=1) as pieces:
        for n, piece in enumerate(pieces, 1):
            yield piece, pieces.explanation()
            for _ in range(600 if n == 3 else 0):
                time.sleep(0.05)


def test_the_page_says_what_the_model_can_and_where_an_answer_was_cut(visit: Any) -> None:
    visitor = visit()
    head = visitor.page.locator("#head").inner_text()
    assert "the embedded model" in head and "coloured shapes alone" in head
    visitor.page.get_by_text("How to explain").click()
    visitor.page.get_by_label("Method", exact=True).click()
    options = visitor.page.get_by_role("option").all_inner_texts()
    assert options[0].endswith("dex-ar") and options[-1].endswith("chance: uniform")
    assert visitor.page.locator("#method-line").inner_text().startswith("Gradients of each layer's logit lens")
    visitor.page.get_by_role("option", name="chance: uniform").click()
    visitor.page.locator("#method-line", has_text="nothing of the model: chance. Beware: what does not").wait_for()
    visitor.page.get_by_label("Method", exact=True).fill("dex-ar")
    visitor.page.get_by_role("option", name="dex-ar", exact=True).click()
    visitor.page.keyboard.press("Escape")
    visitor.page.get_by_label("number input for Tokens of an answer, at most").fill("3")
    visitor.click_example(0)
    visitor.until_said("Answered: A red triangle (cut at 3 tokens")
    assert "Describe the image." in visitor.frame.locator(".question").inner_text()


def test_a_phrase_is_one_map(answered: Visitor) -> None:
    chips = answered.frame.locator(".chip")
    chips.nth(5).click()
    chips.nth(7).click(modifiers=["Shift"])
    assert [chip.get_attribute("aria-selected") for chip in chips.all()] == ["false"] * 5 + ["true"] * 3 + ["false"] * 4
    assert answered.frame.locator(".chosen").inner_text().startswith("yellow circle and · tokens 6")
    shown = np.array(answered.frame.locator("body").evaluate("() => Array.from(shared.viewers[0].values)"))
    truth = Explainer.from_pretrained().explain(str(SAMPLE), "Describe the image.")
    phrase = truth.token_weights[5:8].double().numpy() @ truth.token_maps[5:8].double().numpy()
    steps = 255 * (phrase - phrase.min()) / (phrase.max() - phrase.min())
    assert np.abs(shown - steps).max() <= 2
    answered.page.keyboard.press("Escape")
    chips.nth(5).click()
    answered.page.keyboard.press("Shift+ArrowLeft")
    assert answered.frame.locator(".chosen").inner_text().startswith("a yellow · tokens 5")
    answered.page.keyboard.press("ArrowRight")
    assert answered.frame.locator(".chip[aria-selected=true]").count() == 1


def test_two_answers_share_a_scale(answered: Visitor) -> None:
    answered.page.locator("#answer textarea").fill("green purple star")
    answered.page.locator("#compare").click()
    answered.until_said("Side by side")
    tops = answered.frame.locator(".legend").all_inner_texts()
    assert len(tops) == 2 and tops[0] == tops[1]
