"""What the documents' snippets run in."""

from pathlib import Path

import pytest
from paths import ROOT

from dexar_fast.cli.explain import SAMPLE_IMAGE


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder in which the sample lies where it does in a checkout, and where nothing else lies yet."""
    assets = tmp_path / SAMPLE_IMAGE.parent.relative_to(ROOT)
    assets.parent.mkdir(parents=True)
    assets.symlink_to(SAMPLE_IMAGE.parent)
    monkeypatch.chdir(tmp_path)
    return tmp_path
