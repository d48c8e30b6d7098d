"""The scripts of examples/serve: a client of a running page, and the page as a Space."""

import runpy
import sys
from pathlib import Path
from typing import Any

import pytest
from paths import ROOT
from serving import SAMPLE, Served

FOLDER = ROOT / "examples" / "serve"


def test_the_client_prints_the_answer_and_writes_the_report(
    served: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["client.py", served.url, str(SAMPLE)])
    runpy.run_path(str(FOLDER / "client.py"), run_name="__main__")
    lines = capsys.readouterr().out.splitlines()
    assert "Answered: A red triangle, a yellow circle and a blue square." in lines
    assert any(line.startswith("Without the hottest tenth") for line in lines)
    assert "triangle" in (tmp_path / "report.html").read_text()


def test_the_space_serves_what_its_variables_say(monkeypatch: pytest.MonkeyPatch) -> None:
    launched: list[Any] = []
    monkeypatch.setenv("MODELS", "")
    monkeypatch.setenv("PASSWORD", "secret")
    monkeypatch.setattr("dexar_fast.serve.server.start", lambda *given: launched.append(given))
    monkeypatch.setattr("dexar_fast.serve.server.wait", lambda blocks: None)
    runpy.run_path(str(FOLDER / "app.py"), run_name="__main__")
    _, limits, host, port, password = launched[0]
    assert (host, port, password, limits.tokens) == ("0.0.0.0", 7860, "secret", 64)
