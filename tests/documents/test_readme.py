"""Every snippet of README.md runs as it stands, but for those whose first line says why not."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import torch
from paths import ROOT
from typer.testing import CliRunner

from dexar_fast import Explanation
from dexar_fast.cli import app
from dexar_fast.cli.explain import SAMPLE_IMAGE

README = (ROOT / "README.md").read_text("utf-8")
SNIPPETS: list[tuple[str, str]] = re.findall(r"^```(.*)\n((?:.*\n)*?)```$", README, re.MULTILINE)
NOT_RUN = re.compile(r"# Not run by the tests: (.+)\n")
MOST_LINES = 180


def reason(snippet: str) -> str | None:
    """Why a snippet is not run."""
    found = NOT_RUN.match(snippet)
    return found and found[1]


def run_commands(snippet: str) -> None:
    """Runs `dexar-fast ...`, line by line."""
    for line in snippet.splitlines():
        program, *arguments = shlex.split(line, comments=True)
        assert program == "dexar-fast"
        result = CliRunner().invoke(app.app, arguments)
        assert result.exit_code == 0, f"{line}\n{result.output}"


def test_every_snippet_runs(checkout: Path) -> None:
    names: dict[str, Any] = {}
    for language, snippet in SNIPPETS:
        if reason(snippet):
            continue
        if language == "python":
            exec(compile(snippet, "README.md", "exec"), names)
        else:
            run_commands(snippet)
    named = set(re.findall(r'"([\w-]+\.(?:html|png|gif|safetensors))"', "".join(code for _, code in SNIPPETS)))
    assert len(named) == 5 and named <= {path.name for path in checkout.iterdir()}
    assert {path.name for path in (checkout / "sampled").iterdir()} == {
        path.name for path in (checkout / "streamed").iterdir()
    }
    streamed = Explanation.load(checkout / "long")
    assert "circle" in streamed.text and not streamed.metadata["complete"]
    assert names["b"].text == " The square is blue."


def test_what_is_said_beside_a_call_is_so(checkout: Path) -> None:
    """The snippet of `explain_inputs` gives what `explain` gave; token 6 is the circle; a phrase has a map."""
    names: dict[str, Any] = {}
    code = next(snippet for language, snippet in SNIPPETS if language == "python")
    exec(compile(code, "README.md", "exec"), names)
    again = names["ex"].explain(str(SAMPLE_IMAGE), "Which shape is yellow?")
    torch.testing.assert_close(names["e"].token_maps, again.token_maps, rtol=1e-4, atol=1e-6)
    described = Explanation.load("answer.safetensors")
    assert described.tokens[6] == " circle" and described.heatmap(slice(5, 7)).max() == 1


def test_only_what_makes_an_environment_is_not_run() -> None:
    assert {language for language, _ in SNIPPETS} == {"python", "sh"}
    assert README.count("```") == 2 * len(SNIPPETS)
    reasons = {reason(snippet): snippet for _, snippet in SNIPPETS if reason(snippet)}
    made = "each builds an environment of its own"
    assert set(reasons) == {made}
    targets = re.findall(r"^make (\S+)", reasons[made], re.MULTILINE)
    makefile = (ROOT / "Makefile").read_text("utf-8")
    assert targets and all(re.search(rf"^{target}:", makefile, re.MULTILINE) for target in targets)


def test_its_links_lead_somewhere() -> None:
    links = [link for link in re.findall(r"\]\(([^)#]+)\)", README) if "://" not in link]
    assert links and [link for link in links if not (ROOT / link).exists()] == []


def test_it_is_short() -> None:
    assert len(README.splitlines()) <= MOST_LINES
