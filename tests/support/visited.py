"""A visitor of the page of `dexar-fast serve` in Chromium, and all that went wrong on the way."""

import re
from typing import Any

import pytest

expect = pytest.importorskip("playwright.sync_api", reason="needs Playwright: pip install playwright").expect
expect.set_options(timeout=30_000)
SAID = "document.querySelector('#said p').textContent"

PAINTED = """(canvas) => {
  const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
  return data.filter((value, n) => n % 4 === 3 && value > 127).length / (canvas.width * canvas.height);
}"""  # the share of the picture


class Visitor:
    """A page in a context of its own."""

    def __init__(self, browser: Any, url: str, **options: Any) -> None:
        self.context = browser.new_context(**{"viewport": {"width": 1366, "height": 950}} | options)
        self.page = self.context.new_page()
        self.wrong: list[str] = []
        self.url = url
        self.page.on("pageerror", lambda error: self.wrong.append(f"error: {error}"))
        self.page.on("dialog", lambda dialog: (self.wrong.append("dialog"), dialog.dismiss()))
        self.page.on("console", self._note_console)
        self.page.on("request", self._note_request)
        self.page.goto(url)
        self.page.wait_for_selector("#examples button")
        self.frame = self.page.frame_locator("#report iframe")

    def _note_console(self, message: Any) -> None:
        if message.type == "error":
            self.wrong.append(f"console: {message.text}")

    def _note_request(self, request: Any) -> None:
        if not request.url.startswith((self.url.rstrip("/"), "data:", "blob:")):
            self.wrong.append(f"request: {request.url[:200]}")

    def click_example(self, number: int) -> None:
        self.page.locator("#examples button").nth(number).click()

    def choose(self, files: Any) -> None:
        """Picks files as the file dialog would."""
        self.page.locator("#pictures input").set_input_files(files)
        self.page.wait_for_function("!document.querySelector('#pictures input').files.length")

    def ask(self, question: str) -> None:
        self.page.locator("#question textarea").fill(question)
        self.page.locator("#ask").click()

    def until_said(self, beginning: str, seconds: float = 60) -> str:
        """Waits until the line of news begins so; gives it."""
        self.page.wait_for_function(f"(text) => {SAID}.startsWith(text)", arg=beginning, timeout=1000 * seconds)
        return str(self.page.evaluate(SAID))

    def until_painted(self, holds: str) -> None:
        """Until it holds of the share that is painted: a mask is drawn once its picture is decoded."""
        share = f"({PAINTED})(document.querySelector('#brush canvas'))"
        self.page.wait_for_function(f"(() => {{ const share = {share}; return {holds}; }})()")

    def open_choices(self) -> None:
        """And lets Gradio come to rest: what is typed while it draws them, and another event ends, is lost."""
        self.page.get_by_role("button", name="How to explain").click()
        self.page.wait_for_timeout(500)

    def choose_method(self, name: str, label: str = "Method") -> None:
        self.page.get_by_label(label, exact=True).fill(name)
        self.page.get_by_role("option", name=name, exact=True).click()

    def tab(self, name: str) -> None:
        """Again where Gradio, which draws at that moment, has lost the click."""
        tab = self.page.get_by_role("tab", name=name)
        for _ in range(10):
            tab.click()
            self.page.wait_for_timeout(100)
            if tab.get_attribute("aria-selected") == "true":
                return

    def until_chosen(self, beginning: str) -> None:
        """Until the line of what is chosen begins so: it is drawn with the next frame."""
        self.frame.locator(".chosen", has_text=re.compile(f"^{re.escape(beginning)}")).wait_for()

    def chips(self) -> list[str]:
        return [text.strip() for text in self.frame.locator(".chip").all_inner_texts()]

    def close(self) -> None:
        self.context.close()
