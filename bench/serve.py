"""What the page of `dexar-fast serve` adds to an answer, and how soon its first map stands.

With the embedded model, a token at a time. The page's own overhead is what one answer takes through the page's code
(chips, states, the report at its beginning and its end), over reading the same stream; the first
map is timed in Chromium, with Gradio's queue, the network stack and all that is drawn.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator
from typing import Any

from bench.bare import ASSETS, QUESTION
from bench.gates import Gate
from bench.groups import Benchmark, Group, timed
from bench.options import Options
from bench.timing import Job

SAMPLE = ASSETS / "sample.png"
TOKENS = 12  # of the answer


def gates(options: Options) -> list[Gate]:
    """The page says what the stream says."""
    plain, asked = _jobs()
    return [Gate("the page's answer = the stream's", float(plain() != asked()), 0)]


def groups(options: Options) -> Iterator[Group]:
    rounds = options.rounds_of(15)
    plain, asked = _jobs()
    jobs = [Job("stream", "the pieces, read", plain), Job("page", "the states of the frame made of them", asked)]
    yield timed("an answer", {"tokens": TOKENS}, jobs, rounds=rounds, floor="stream")
    browser = shutil.which("chromium")
    if browser is not None:
        yield from _first_map(browser, rounds)


def _jobs() -> tuple[Callable[[], str], Callable[[], str]]:
    """One answer, read as a stream, and through the page's code."""
    from PIL import Image

    from dexar_fast import Explainer
    from dexar_fast.serve.uploads import Given
    from dexar_fast.serve.work.asking import Asked, Choices, written
    from dexar_fast.serve.work.growing import Growing
    from dexar_fast.vision.images import Loaded

    explainer = Explainer.from_pretrained()
    question = Asked("m", Given(Loaded([Image.open(SAMPLE).convert("RGB")]), [], []), QUESTION, (), Choices())

    def plain() -> str:
        with explainer.stream(question.given.pictures, QUESTION, chunk_size=1) as pieces:
            return "".join(piece.text for piece in pieces)

    def asked() -> str:
        growing, text = Growing("m"), ""
        for piece, explanation in written(explainer, question, 1):
            if piece is None:
                growing.end(explanation, "token")
                return text
            growing.take(piece, explanation)
            text += piece.text
        raise AssertionError("an answer ends with its explanation")

    return plain, asked


def _first_map(browser: str, rounds: int) -> Iterator[Group]:
    """From the click on an example until a chip of the answer, and so its map, stands in Chromium."""
    from playwright.sync_api import sync_playwright

    from dexar_fast.serve import server
    from dexar_fast.serve.limits import Limits
    from dexar_fast.serve.models import Models

    limits = Limits(a_minute=10_000)
    blocks, _ = server.page(Models.load([]), limits)
    url = server.start(blocks, limits, "127.0.0.1", None, None)
    try:
        with sync_playwright() as playwright:
            chromium = playwright.chromium.launch(executable_path=browser, args=["--no-sandbox"])
            seconds = [_until_map(chromium, url) for _ in range(rounds + 1)][1:]
    finally:
        blocks.close(verbose=False)
    yield Group("first map", {}, {"in_chromium": "from the click to the map"}, {"in_chromium": seconds})


def _until_map(chromium: Any, url: str) -> float:
    page = chromium.new_page()
    page.goto(url)
    page.wait_for_selector("#examples button")
    start = time.perf_counter()
    page.locator("#examples button").first.click()
    page.frame_locator("#report iframe").locator("html[data-ready] .chip").first.wait_for()
    seconds = time.perf_counter() - start
    page.close()
    return seconds


BENCHMARK = Benchmark("serve", "the page of `dexar-fast serve` over the stream that it reads", gates, groups)
