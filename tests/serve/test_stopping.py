"""The page in Chromium where a question is refused, stopped or asked again."""

from typing import Any

import pytest
from halting import halting
from serving import SAMPLE, Served
from visited import Visitor, expect

RUNNING = """() => {
  const off = (selector) => document.querySelector(selector).disabled;
  return off("#ask") && off("#examples button") && !off("#stop");
}"""


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
    visitor.open_choices()
    visitor.page.get_by_label("Layers").fill("0,99")
    visitor.click_example(0)
    visitor.until_said("Layer 99 is out of range")
    visitor.page.get_by_label("Layers").fill("0,1")
    visitor.click_example(0)
    visitor.until_said("Answered")
    assert visitor.page.locator("#said p").get_attribute("data-kind") == "news"


def test_stop_ends_what_runs_and_the_next_question_is_answered(visit: Any, served: Served) -> None:
    visitor = visit()
    visitor.open_choices()
    visitor.choose_method("igos++")
    visitor.click_example(0)
    visitor.until_said("Writing the answer, then explaining it by igos++")
    running = [each.work for each in served.answers.visits._visits.values() if each.work and not each.work.join(0)]
    visitor.page.locator("#stop").click()
    visitor.until_said("Stopped.")
    expect(visitor.page.locator("#stop")).to_be_disabled()
    assert len(running) == 1 and running[0].join(5)
    visitor.choose_method("dex-ar")
    visitor.page.locator("#ask").click()
    visitor.until_said("Answered")


def test_buttons_are_pressed_when_they_can_do_something(visit: Any) -> None:
    visitor = visit()
    able = visitor.page.locator
    expect(able("#ask")).to_be_enabled()
    expect(able("#explain")).to_be_disabled()
    expect(able("#stop")).to_be_disabled()
    visitor.click_example(0)
    visitor.page.wait_for_function(RUNNING)  # asked at once: an answer is short
    visitor.until_said("Answered")
    expect(able("#ask")).to_be_enabled()
    expect(able("#explain")).to_be_enabled()
    expect(able("#stop")).to_be_disabled()
    visitor.tab("Check")
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
