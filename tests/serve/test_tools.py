"""The tools below the map in Chromium: edit an answer, hide a part, check the map, take it along."""

import io
from pathlib import Path

from PIL import Image
from serving import ANSWER
from visited import PAINTED, Visitor, expect

from dexar_fast import Explanation


def test_an_edited_answer_is_explained_and_compared(answered: Visitor) -> None:
    answered.page.locator("#answer textarea").fill("A green star.")
    answered.page.locator("#explain").click()
    answered.until_said("Explained by dex-ar: A green star.")
    expect(answered.frame.locator(".chip").first).to_have_text("A")
    answered.page.locator("#compare").click()
    answered.until_said("Side by side")
    expect(answered.frame.locator("h2")).to_have_text([ANSWER, "A green star."])
    answered.page.locator("#answer textarea").fill(ANSWER)
    answered.page.locator("#compare").click()
    answered.until_said("The edited answer is still the model's")


def test_an_edited_answer_is_explained_as_the_switches_say_now(answered: Visitor) -> None:
    answered.open_choices()
    answered.choose_method("attention")
    answered.page.get_by_label("word", exact=True).check()
    answered.page.locator("#answer textarea").fill("A turquoise star.")
    answered.page.locator("#explain").click()
    answered.until_said("Explained by attention: A turquoise star.")
    answered.frame.locator(".sizes", has_text="attention").wait_for()
    assert answered.chips()[:2] == ["A", "turquoise"]
    answered.page.locator("#compare").click()
    answered.until_said("Side by side")
    assert "attention" in answered.frame.locator(".sizes").first.inner_text()
    expect(answered.page.locator("#answer textarea")).to_have_value("A turquoise star.")


def test_two_answers_share_a_scale(answered: Visitor) -> None:
    answered.page.locator("#answer textarea").fill("green purple star")
    answered.page.locator("#compare").click()
    answered.until_said("Side by side")
    tops = answered.frame.locator(".legend").all_inner_texts()
    assert len(tops) == 2 and tops[0] == tops[1]


def test_a_painted_part_is_hidden_by_pointer_and_by_keys(answered: Visitor) -> None:
    answered.tab("Hide")
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
    answered.until_said("Fell most")
    expect(answered.page.locator("#changes tbody tr")).to_have_count(12)
    answered.page.get_by_role("button", name="Clear").click()
    answered.page.locator("#hide").click()
    answered.until_said("Nothing is painted")
    canvas.focus()
    for key in ("ArrowRight", "ArrowDown", "Space"):
        answered.page.keyboard.press(key)
    answered.page.locator("#hide").click()
    answered.until_said("Fell most")


def test_the_hottest_tenth_is_hidden_without_a_pointer(answered: Visitor) -> None:
    """It is painted, so that what was hidden can be seen, and hidden again: then nothing differs."""
    answered.tab("Hide")
    answered.page.locator("#hide-top").click()
    answered.until_said("The hottest tenth")
    rows = answered.page.locator("#changes tbody tr").all_inner_texts()
    assert len(rows) == 12
    answered.until_painted("0.09 < share && share < 0.11")
    answered.page.locator("#hide").click()
    answered.page.wait_for_function("document.body.classList.contains('runs')")
    answered.until_said("Fell most")
    assert answered.page.locator("#changes tbody tr").all_inner_texts() == rows


def test_what_is_painted_stays_until_it_is_cleared_or_hidden_anew(answered: Visitor) -> None:
    answered.tab("Hide")
    canvas = answered.page.locator("#brush canvas")
    answered.page.locator("#hide-top").click()
    answered.until_said("The hottest tenth")
    answered.until_painted("share > 0")
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
    answered.until_said("The hottest tenth")
    answered.until_painted(f"share === {of_server}")


def test_the_map_is_checked_and_its_evidence_stands_in_the_report(answered: Visitor) -> None:
    answered.tab("Check")
    answered.page.locator("#check").click()
    said = answered.page.locator("#said p", has_text="19 draws").inner_text()
    answered.frame.locator("summary").first.click()
    assert said.startswith("Hiding other places costs as much in 1 of 19 draws: no evidence for the map. At chance")
    assert said.partition("the map. ")[2] in answered.frame.locator(".notes").inner_text()


def test_downloads_are_what_they_say(answered: Visitor, tmp_path: Path) -> None:
    answered.tab("Save")
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
