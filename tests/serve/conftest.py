"""One page for all tests of this folder that need a running one, and a browser to look at it."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from chromium import launched


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """A browser beside other tests has too little of the machine: what it shows for a moment would be missed."""
    for item in items:
        if item.path.parent == Path(__file__).parent and "browser" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.alone)


@pytest.fixture(scope="session")
def served() -> Iterator[Any]:
    from serving import serving  # only here: without Gradio the other tests of the folder run

    with serving() as running:
        yield running


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    yield from launched()


@pytest.fixture
def visit(served: Any, browser: Any) -> Iterator[Any]:
    """Opens the page, as often as it is called; at the end no page may have an error in its console."""
    from visited import Visitor

    visitors: list[Any] = []

    def go(**options: Any) -> Any:
        visitors.append(Visitor(browser, served.url, **options))
        return visitors[-1]

    yield go
    for each in visitors:
        assert each.wrong == []
        each.close()


@pytest.fixture
def answered(visit: Any) -> Any:
    """A visitor whose first example is answered."""
    visitor = visit()
    visitor.click_example(0)
    visitor.until_said("Answered")
    visitor.frame.locator("body:not(.growing)").wait_for()
    return visitor
