"""The page of a job."""

import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from small_data import picture

from dexar_fast.data import DataSet, read
from dexar_fast.jobs.asked import Asked
from dexar_fast.jobs.finished import page
from dexar_fast.report.drawing import colours


class Read(HTMLParser):
    """Texts and links of a page, as a browser finds them."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.texts: list[str] = []
        self.spans: list[tuple[str, str]] = []
        self._style: str | None = None
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        own = dict(attrs)
        self.links += [own[name] for name in ("href", "src") if name in own]
        self._style = own.get("style", "") if tag == "span" else None

    def handle_data(self, data: str) -> None:
        self.texts.append(data)
        if self._style is not None:
            self.spans.append((data, self._style))
            self._style = None


def test_it_shows_answers_by_weight_and_what_failed(photos: DataSet, tmp_path: Path, finish: Any) -> None:
    out = tmp_path / "out"
    finish.run(photos, out, pictures=True)
    merged, rows = finish.merged(out)
    found = Read(merged.page.read_text())
    assert merged.page == out / "_report.html" and "1 failed" in found.texts
    (error,) = merged.failed.values()
    assert any(error in text for text in found.texts)
    assert len(found.links) == 2 * 3 and all((out / link).exists() for link in found.links)
    tokens = [row for row in rows if row["error"] is None]
    assert [text for text, _ in found.spans] == [row["token"] for row in tokens]
    heaviest: dict[str, float] = {}
    for row in tokens:
        heaviest[row["item"]] = max(row["weight"], heaviest.get(row["item"], 0))
    for row, (_, style) in zip(tokens, found.spans, strict=True):
        ground = re.search("background:(#[0-9a-f]{6})", style)
        if row["weight"] > 0:
            assert ground and ground[1] == colours.css(colours.of(row["weight"] / heaviest[row["item"]]))
        else:
            assert style == ""
    assert len(pd.read_parquet(out)) == len(rows)
    before = merged.page.read_bytes()
    assert finish.merged(out)[0].page.read_bytes() == before


def test_markup_in_what_is_asked_is_shown_as_it_is(tmp_path: Path, finish: Any) -> None:
    picture(tmp_path / "photos" / "<b>&.png")
    out, prompt = tmp_path / "out", "<script>alert(1)</script> & <image>"
    finish.run(read("folder", tmp_path / "photos"), out, Asked(prompt, arguments={"max_new_tokens": 3}))
    text = finish.merged(out)[0].page.read_text()
    assert "<script>" not in text and "<b>" not in text
    assert prompt in Read(text).texts and "<b>&.png" in Read(text).texts


def test_it_is_bounded(photos: DataSet, tmp_path: Path, finish: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(page, "MOST", 2)
    out = tmp_path / "out"
    finish.run(photos, out)
    text = finish.merged(out)[0].page.read_text()
    assert "This page shows the first 2 answers of 3." in " ".join(text.split())
    assert text.count("<article>") == 2 and "<img" not in text
