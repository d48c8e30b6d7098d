"""What the tests of the command line share."""

from pathlib import Path

import pytest
from command_line import FakeExplainer, explanation
from PIL import Image

import dexar_fast


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> type[FakeExplainer]:
    FakeExplainer.result, FakeExplainer.loaded, FakeExplainer.asked = explanation(), None, None
    monkeypatch.setattr(dexar_fast, "Explainer", FakeExplainer, raising=False)
    return FakeExplainer


@pytest.fixture
def image(tmp_path: Path) -> str:
    path = tmp_path / "image.png"
    Image.new("RGB", (32, 24), "red").save(path)
    return str(path)
