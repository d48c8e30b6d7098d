"""Every example of ADAPTERS.md runs as it stands, where what it imports is installed."""

from __future__ import annotations

import re
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import pytest
from paths import ROOT

import dexar_fast.adapters
from dexar_fast.errors import LibraryError

PAGE = (ROOT / "dexar_fast" / "ADAPTERS.md").read_text("utf-8")
SECTIONS: dict[str, str] = dict(re.findall(r"^## (.+)\n((?:(?!## ).*\n)*)", PAGE, re.MULTILINE))
TOOLS = [title for title in SECTIONS if title != "What they cost"]
SNIPPET = re.compile(r"^```python\n((?:.*\n)*?)```$", re.MULTILINE)
IMPORTED = re.compile(r"^ *(?:from|import) (\w+)", re.MULTILINE)


@pytest.mark.parametrize("title", TOOLS)
def test_an_example_runs(title: str, checkout: Path) -> None:
    snippets = SNIPPET.findall(SECTIONS[title])
    assert snippets, f"{title} has no example"
    for code in snippets:
        if code.startswith("# Not run by the tests: "):
            pytest.skip(code.splitlines()[0])
        missing = [name for name in IMPORTED.findall(code) if find_spec(name) is None]
        if missing:
            pytest.skip(f"{title}: {', '.join(missing)} is not installed")
        names: dict[str, Any] = {}
        try:
            exec(compile(code, "ADAPTERS.md", "exec"), names)
        except (LibraryError, ModuleNotFoundError) as error:
            if str(getattr(error, "name", "")).startswith("dexar_fast"):
                raise
            pytest.skip(f"{title}: {error}")
        finally:
            plt.close("all")  # tests of other files look for figures that are left open


def test_each_adapter_has_its_example() -> None:
    folder = Path(dexar_fast.adapters.__file__).parent
    files = {path.stem for path in folder.glob("*.py")} - {"__init__", "pictures"}
    assert files == set(re.findall(r"from dexar_fast\.adapters\.(\w+) import", PAGE))


def test_its_links_lead_somewhere() -> None:
    links = [link for link in re.findall(r"\]\(([^)#]+)\)", PAGE) if "://" not in link]
    assert [link for link in links if not (ROOT / "dexar_fast" / link).exists()] == []
