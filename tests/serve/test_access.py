"""The page in Chromium for everyone: phones, keys, screen readers, dark rooms, two at once; and hostile words."""

import re
import time
from typing import Any

import numpy as np
import pytest
from PIL import Image
from serving import SAMPLE, Served
from visited import Visitor, expect

PHONE = {"viewport": {"width": 360, "height": 740}, "is_mobile": True, "has_touch": True}
MARKUP = "<img src=x onerror=alert(1)><script>alert(2)</script>"
# Of each control that can be seen: its tag where it has no accessible name.
NAMELESS = """() => [...document.querySelectorAll("button, input, select, textarea, canvas[tabindex], iframe, img")]
  .filter((each) => each.checkVisibility() && each.getAttribute("aria-hidden") !== "true")
  .filter((each) => !(each.ariaLabel || each.title || each.alt || each.labels?.length || each.innerText?.trim()
    || each.closest("button")?.innerText.trim() || each.getAttribute("aria-labelledby")))
  .map((each) => each.outerHTML.slice(0, 160))"""


def test_on_a_phone_nothing_sticks_out_and_the_map_comes_into_view(visit: Any) -> None:
    visitor = visit(**PHONE)
    visitor.page.locator("#examples button").first.tap()
    visitor.until_said("Answered")
    visitor.frame.locator("body:not(.growing) .chip").first.wait_for()
    assert visitor.page.evaluate("document.documentElement.scrollWidth") <= 360
    frame = visitor.page.frames[1]
    assert frame.evaluate("document.documentElement.scrollWidth <= innerWidth")
    top = visitor.page.evaluate("document.querySelector('#report').getBoundingClientRect().top")
    assert 0 <= top < 370
    visitor.frame.locator(".chip", has_text="circle").tap()
    visitor.until_chosen("circle")


def test_the_frame_is_as_tall_as_what_it_holds(visit: Any) -> None:
    visitor = visit()
    visitor.click_example(0)
    visitor.until_said("Answered")
    visitor.frame.locator("summary").first.click()
    frame, difference = visitor.page.frames[1], "document.body.getBoundingClientRect().height - innerHeight"
    for _ in range(100):
        if abs(frame.evaluate(difference)) <= 2:
            break
        visitor.page.wait_for_timeout(100)
    assert abs(frame.evaluate(difference)) <= 2


def test_with_keys_alone(visit: Any) -> None:
    visitor = visit()
    visitor.choose(SAMPLE)
    question = visitor.page.locator("#question textarea")
    question.focus()
    visitor.page.keyboard.type("Describe the image.")
    visitor.page.keyboard.press("Enter")
    visitor.until_said("Answered")
    visitor.frame.locator("body:not(.growing) .chip").first.focus()
    for key in ("ArrowRight", "End", "Home", "ArrowRight"):
        visitor.page.keyboard.press(key)
    visitor.until_chosen("red")
    visitor.page.keyboard.press("Escape")
    visitor.until_chosen("Whole answer")


def test_every_control_has_a_name_and_news_are_spoken(visit: Any) -> None:
    visitor = visit()
    visitor.open_choices()
    visitor.click_example(3)
    visitor.until_said("Answered")
    for name in ("Hide", "Check", "Save", "Edit"):
        visitor.tab(name)
        assert visitor.page.evaluate(NAMELESS) == [], name
    expect(visitor.page.locator("#said [role=status]")).to_have_count(1)
    assert visitor.page.locator("#report iframe").get_attribute("title") == "What the model looked at"
    expect(visitor.page.get_by_role("heading", level=1)).to_have_count(1)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_page_and_frame_share_the_colour_scheme(visit: Any, scheme: str) -> None:
    visitor = visit(color_scheme=scheme)
    visitor.click_example(0)
    visitor.until_said("Answered")
    visitor.frame.locator("summary").first.click()
    ink = brightness(visitor.frame.locator(".notes li").first.evaluate("(each) => getComputedStyle(each).color"))
    paper = brightness(visitor.page.evaluate("getComputedStyle(document.body).backgroundColor"))
    assert (ink > 180 and paper < 60) if scheme == "dark" else (ink < 80 and paper > 200)


def test_the_scheme_of_the_page_wins_over_that_of_the_system(served: Served, browser: Any) -> None:
    visitor = Visitor(browser, f"{served.url}?__theme=dark", color_scheme="light")
    visitor.click_example(0)
    visitor.until_said("Answered")
    visitor.frame.locator("summary").first.click()
    ink = brightness(visitor.frame.locator(".notes li").first.evaluate("(each) => getComputedStyle(each).color"))
    visitor.close()
    assert ink > 180


def brightness(colour: str) -> float:
    """The mean of red, green and blue, from 0 to 255."""
    return float(np.mean([float(part) for part in re.findall(r"[\d.]+", colour)[:3]]))


def test_two_visitors_at_once_get_their_own_answers(visit: Any) -> None:
    one, other = visit(), visit()
    one.click_example(1)
    other.click_example(2)
    assert one.until_said("Answered") == "Answered: The yellow shape is a circle."
    assert other.until_said("Answered") == "Answered: The square is blue."
    one.tab("Hide")
    one.page.locator("#hide-top").click()
    one.until_said("The hottest tenth")
    assert one.page.locator("#changes tbody th").all_inner_texts()[1] == "yellow"


def test_a_visit_that_closes_leaves_nothing(served: Served, browser: Any) -> None:
    visits = served.answers.visits
    visitor = Visitor(browser, served.url)
    before = set(visits._visits)
    visitor.click_example(0)
    visitor.until_said("Answered")
    new = set(visits._visits) - before
    assert len(new) == 1
    visitor.close()
    end = time.monotonic() + 10
    while new & set(visits._visits):
        assert time.monotonic() < end
        time.sleep(0.05)


def test_markup_is_words_wherever_it_comes_from(visit: Any, tmp_path: Any) -> None:
    named = tmp_path / "<img src=x onerror=alert(1)>.png"
    named.write_bytes(SAMPLE.read_bytes())
    visitor = visit()
    visitor.choose(named)
    assert visitor.page.locator("#pictures li img").get_attribute("alt") == named.name
    visitor.ask(f"{MARKUP} ${{alert(3)}} {{{{7*7}}}} Describe the image.")
    visitor.until_said("Answered")
    visitor.page.locator("#answer textarea").fill(MARKUP)
    visitor.page.locator("#explain").click()
    assert visitor.until_said("Explained") == f"Explained by dex-ar: {MARKUP}"
    visitor.frame.locator(".chip").first.wait_for()
    visitor.page.locator("#question textarea").fill("And now?")
    visitor.page.locator("#follow").click()
    visitor.page.locator("#turns li").nth(1).wait_for()
    visitor.until_said("Answered")
    assert visitor.page.locator("#turns li").nth(1).inner_text().strip() == MARKUP
    assert visitor.page.evaluate("document.querySelectorAll('#turns img, #said img, #pictures li img').length") == 1


def test_the_frame_reaches_nothing_of_the_page(visit: Any) -> None:
    visitor = visit()
    visitor.click_example(0)
    visitor.until_said("Answered")
    frame = visitor.page.frames[1]
    assert frame.evaluate("origin") == "null"
    assert (
        frame.evaluate("(() => { try { return parent.document.title } catch (e) { return e.name } })()")
        == "SecurityError"
    )


def test_broken_and_large_files_are_refused_in_words(visit: Any, tmp_path: Any) -> None:
    (tmp_path / "broken.png").write_bytes(SAMPLE.read_bytes()[:500])
    (tmp_path / "large.png").write_bytes(b"\0" * (8 * 2**20 + 1))
    (tmp_path / "text.png").write_text("<script>alert(1)</script>")
    (tmp_path / "no.webm").write_bytes(b"\x1aE\xdf\xa3 no video")
    Image.new("1", (6000, 6000)).save(tmp_path / "wide.png")
    visitor = visit()
    visitor.choose(tmp_path / "wide.png")
    expect(visitor.page.get_by_text("it has 6000 x 6000 pixels: at most 32 megapixels are taken")).to_be_visible()
    visitor.choose(tmp_path / "large.png")
    expect(visitor.page.get_by_text("it has more than 8 MiB")).to_be_visible()
    visitor.choose(tmp_path / "no.webm")
    visitor.page.get_by_text("the browser cannot play it: take WebM, or MP4 with H.264").wait_for()
    visitor.choose(tmp_path / "text.png")
    expect(visitor.page.get_by_text("text.png: it is no picture that the browser can read")).to_be_visible()
    expect(visitor.page.locator("#pictures li")).to_have_count(0)
    visitor.choose(tmp_path / "broken.png")  # of which a browser shows what is there
    visitor.ask("What?")
    visitor.until_said("Picture 1 is damaged")


def test_a_short_video_is_asked_about_by_its_frames(visit: Any, tmp_path: Any) -> None:
    cv2 = pytest.importorskip("cv2", reason="writes the video")
    picture = np.asarray(Image.open(SAMPLE).convert("RGB").resize((160, 160)))[..., ::-1]
    path = tmp_path / "clip.webm"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"VP80"), 10, (160, 160))
    for step in range(12):
        writer.write(np.ascontiguousarray(np.roll(picture, 3 * step, 1)))
    writer.release()
    visitor = visit()
    visitor.choose(path)
    visitor.page.wait_for_function("document.querySelectorAll('#pictures li').length === 6")
    visitor.ask("Describe the image.")
    visitor.until_said("Answered")
    names = visitor.frame.locator(".thumb").all_inner_texts()
    assert names == [f"frame {n + 1} ({0.1 + 0.2 * n:.2f} s)" for n in range(6)]
