"""A report in Chromium, and all that went wrong in it."""

import base64
import io
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image


class Opened:
    """A page in a browser of its own, and all that went wrong in it."""

    def __init__(self, browser: Any, path: Path, **options: Any) -> None:
        options = {"viewport": {"width": 1280, "height": 900}} | options
        self.context = browser.new_context(**options)
        self.page = self.context.new_page()
        self.wrong: list[str] = []
        self.page.on("console", lambda message: self.wrong.append(f"console: {message.text}"))
        self.page.on("pageerror", lambda error: self.wrong.append(f"error: {error}"))
        self.page.on("dialog", lambda dialog: (self.wrong.append("dialog"), dialog.dismiss()))
        self.page.on("request", self._note)
        self.page.add_init_script(
            "window.shifts = 0; new PerformanceObserver((list) => list.getEntries().forEach((entry) => "
            "{ window.shifts += entry.value; })).observe({type: 'layout-shift', buffered: true});"
        )
        self.path = path
        self.page.goto(path.as_uri())
        self.page.wait_for_selector("html[data-ready]")
        self.settle()

    def _note(self, request: Any) -> None:
        if request.url != self.path.as_uri() and not request.url.startswith("data:"):
            self.wrong.append(f"request: {request.url}")

    def settle(self) -> None:
        """Until the next drawing is done."""
        self.page.evaluate("new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")

    def chip(self, index: int) -> Any:
        return self.page.locator(".chip").nth(index)

    def value(self, name: str) -> str:
        return self.page.locator(f"[data-value={name}]").first.inner_text()

    @property
    def chosen(self) -> str:
        self.settle()
        return self.page.locator(".chosen").first.inner_text()

    def pixels(self, selector: str = ".frame:not([hidden]) .heat") -> np.ndarray:
        """[height, width, 4] of a canvas, opacity not multiplied in."""
        self.settle()
        url = self.page.locator(selector).first.evaluate("(canvas) => canvas.toDataURL()")
        return np.asarray(Image.open(io.BytesIO(base64.b64decode(url.partition(",")[2]))).convert("RGBA"))

    def show(self, view: str) -> None:
        self.page.locator(f"[name=view][value={view}]").check(force=True)
        self.settle()

    def scale(self, scale: str) -> None:
        self.page.locator(f"[name=scale][value={scale}]").check(force=True)
        self.settle()
