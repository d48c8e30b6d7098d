"""The page in Chromium: ask, look, click, compare, go on asking."""

import json
from typing import Any

import numpy as np
from PIL import Image
from serving import ANSWER, SAMPLE
from visited import Visitor, expect

from dexar_fast import Explainer


def test_an_example_is_answered_and_its_map_follows_the_chips(answered: Visitor) -> None:
    assert " ".join(answered.chips()).replace(" ,", ",").replace(" .", ".") == ANSWER
    expect(answered.page.locator("#question textarea")).to_have_value("Describe the image.")
    chip = answered.frame.locator(".chip", has_text="circle")
    chip.click()
    assert chip.get_attribute("aria-selected") == "true"
    answered.until_chosen("circle")
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
    expect(visitor.page.locator("#pictures li")).to_have_count(1)


def test_two_pictures_have_a_map_each(visit: Any) -> None:
    visitor = visit()
    visitor.choose([SAMPLE, SAMPLE])
    visitor.page.wait_for_function("document.querySelectorAll('#pictures li').length === 2")
    visitor.ask("Describe the image.")
    visitor.until_said("Answered")
    expect(visitor.frame.locator(".thumb")).to_have_count(2)
    visitor.frame.locator(".thumb").nth(1).click()
    expect(visitor.frame.locator(".frame:not([hidden])")).to_have_count(1)
    expect(visitor.frame.locator(".frame").nth(1)).to_be_visible()


def test_the_next_question_stands_behind_the_last(answered: Visitor) -> None:
    answered.page.locator("#question textarea").fill("Which shape is yellow?")
    answered.page.locator("#follow").click()
    answered.page.locator("#turns li").nth(1).wait_for()
    answered.page.wait_for_function(f"!document.querySelector('#said p').textContent.includes({json.dumps(ANSWER)})")
    answered.until_said("Answered")
    expect(answered.page.locator("#turns li")).to_have_text(["Describe the image.", ANSWER])


def test_two_methods_stand_side_by_side(visit: Any) -> None:
    visitor = visit()
    visitor.open_choices()
    visitor.choose_method("attention", "Compare with")
    visitor.click_example(0)
    visitor.until_said("Side by side: dex-ar | attention")
    expect(visitor.frame.locator("article")).to_have_count(2)
    assert [text.lower() for text in visitor.frame.locator("h2").all_inner_texts()] == ["dex-ar", "attention"]


def test_text_relevance_underlines_the_words_before(visit: Any) -> None:
    visitor = visit()
    visitor.open_choices()
    visitor.page.get_by_label("Text relevance").check()
    visitor.click_example(1)
    visitor.until_said("Answered")
    visitor.frame.locator(".rests").wait_for()
    visitor.frame.locator("summary").first.click()
    visitor.frame.locator(".chip").nth(5).click()
    visitor.frame.locator(".rests", has_text="Rests on").wait_for()
    assert visitor.frame.locator(".prompt .word").count() > 0
    expect(visitor.frame.get_by_text("Underlined: what it rests on, the thicker the more")).to_be_visible()
    expect(visitor.frame.get_by_text("Marks such as <s> are special tokens")).to_be_visible()


def test_words_are_shown_as_one_where_asked(visit: Any) -> None:
    visitor = visit()
    visitor.open_choices()
    visitor.page.get_by_label("word", exact=True).check()
    visitor.click_example(0)
    visitor.until_said("Answered")
    visitor.frame.locator("body:not(.growing)").wait_for()
    assert len(visitor.chips()) <= 12


def test_a_method_that_needs_the_whole_answer_shows_it_at_once(visit: Any) -> None:
    visitor = visit()
    visitor.open_choices()
    visitor.choose_method("tam")
    visitor.click_example(0)
    visitor.until_said("Answered")
    visitor.frame.locator(".chip").first.wait_for()


def test_the_page_says_what_the_model_can_and_where_an_answer_was_cut(visit: Any) -> None:
    visitor = visit()
    head = visitor.page.locator("#head").inner_text()
    assert "the embedded model" in head and "coloured shapes alone" in head
    visitor.open_choices()
    visitor.page.get_by_label("Method", exact=True).click()
    options = visitor.page.get_by_role("option").all_inner_texts()
    assert options[0].endswith("dex-ar") and options[-1].endswith("chance: uniform")
    assert visitor.page.locator("#method-line").inner_text().startswith("Gradients of each layer's logit lens")
    visitor.page.get_by_role("option", name="chance: uniform").click()
    visitor.page.locator("#method-line", has_text="nothing of the model: chance. Beware: what does not").wait_for()
    visitor.choose_method("dex-ar")
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
    answered.until_chosen("yellow circle and · tokens 6")
    shown = np.array(answered.frame.locator("body").evaluate("() => Array.from(shared.viewers[0].values)"))
    truth = Explainer.from_pretrained().explain(str(SAMPLE), "Describe the image.")
    phrase = truth.token_weights[5:8].double().numpy() @ truth.token_maps[5:8].double().numpy()
    steps = 255 * (phrase - phrase.min()) / (phrase.max() - phrase.min())
    assert np.abs(shown - steps).max() <= 2
    answered.page.keyboard.press("Escape")
    chips.nth(5).click()
    answered.page.keyboard.press("Shift+ArrowLeft")
    answered.until_chosen("a yellow · tokens 5")
    answered.page.keyboard.press("ArrowRight")
    expect(answered.frame.locator(".chip[aria-selected=true]")).to_have_count(1)
