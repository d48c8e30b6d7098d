"""A browser that opens reports."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from chromium import launched
from opened_reports import Opened

from dexar_fast.explanation import Explanation


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    yield from launched()


@pytest.fixture
def opened(browser: Any, tmp_path: Path) -> Iterator[Any]:
    """Opens an explanation's report, or a file; at the end no page may have had an error, or asked for anything."""
    pages: list[Opened] = []

    def go(made: Explanation | Path, *, by: Any = "token", **options: Any) -> Opened:
        path = made if isinstance(made, Path) else tmp_path / "a report with späces.html"
        if isinstance(made, Explanation):
            made.to_html(path, by=by)
        pages.append(Opened(browser, path, **options))
        return pages[-1]

    yield go
    for one in pages:
        assert one.wrong == []
        one.context.close()
