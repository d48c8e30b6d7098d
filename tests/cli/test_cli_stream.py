"""`dexar-fast explain --stream`: what it shows, what it writes, and what Ctrl-C leaves."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from io import StringIO
from pathlib import Path
from typing import Any, Literal

import pytest
import small_llava
import torch
from rich.console import Console
from typer.testing import CliRunner, Result

from dexar_fast import Explainer, Explanation
from dexar_fast.cli import app
from dexar_fast.cli.terminal import Writing
from dexar_fast.generation.stream import Stream

pytestmark = pytest.mark.alone

FILES = {"answer.png", "explanation.safetensors", "report.html", "tokens.png"}


@pytest.fixture
def image(tmp_path: Path) -> str:
    small_llava.noise(32).save(tmp_path / "image.png")
    return str(tmp_path / "image.png")


def run(*arguments: str) -> Result:
    return CliRunner().invoke(app.app, list(arguments), env={"COLUMNS": "60"})


def asked(image: str, model: Path, out: Path, *more: str) -> list[str]:
    return ["explain", image, "what", "--model", str(model), "--out", str(out), "--stream", *more]


def test_it_shows_the_answer_and_writes_what_explain_does(image: str, model_folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    result = run(*asked(image, model_folder, out, "--max-new-tokens", "12", "--chunk-size", "5"))
    assert result.exit_code == 0, result.output
    expected = Explainer.from_pretrained(str(model_folder)).explain(image, "what", max_new_tokens=12)
    found = Explanation.load(out / "explanation.safetensors")
    assert found.tokens == expected.tokens
    torch.testing.assert_close(found.token_maps, expected.token_maps, rtol=1e-4, atol=1e-4)
    assert set(os.listdir(out)) == FILES
    assert "12 tokens" in result.stdout
    assert "weight 0" in result.stdout
    assert str(out / "report.html") in result.stdout.splitlines()


def test_a_method_that_goes_along_is_shown_without_weights(image: str, model_folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    result = run(*asked(image, model_folder, out, "--max-new-tokens", "12", "--method", "attention:layers=[0]"))
    assert result.exit_code == 0, result.output
    found = Explanation.load(out / "explanation.safetensors")
    assert len(found) == 12 and found.metadata["settings"] == {"method": "attention", "layers": [0]}
    assert set(os.listdir(out)) == FILES and "with weight" not in result.stdout
    assert "12 tokens" in result.stdout


def test_a_method_that_takes_the_answer_as_a_whole_is_no_stream(image: str, model_folder: Path, tmp_path: Path) -> None:
    result = run(*asked(image, model_folder, tmp_path / "out", "--method", "tam"))
    assert result.exit_code == 2
    assert "'tam' explains an answer as a whole" in " ".join(result.stderr.split())


def test_a_given_answer_is_no_stream(image: str, model_folder: Path, tmp_path: Path) -> None:
    result = run(*asked(image, model_folder, tmp_path / "out", "--response", "a cat"))
    assert result.exit_code == 2
    assert "leave out --response" in result.stderr
    assert not (tmp_path / "out").exists()


def test_an_interrupt_before_the_first_piece_writes_nothing(
    image: str, model_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(_: Stream) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr(Stream, "__next__", interrupted)
    result = run(*asked(image, model_folder, tmp_path / "out"))
    assert result.exit_code == 130
    assert os.listdir(tmp_path / "out") == []


def test_ctrl_c_leaves_what_was_finished(image: str, model_folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    arguments = asked(image, model_folder, out, "--max-new-tokens", "190", "--chunk-size", "1")
    command = [sys.executable, "-u", "-c", "from dexar_fast.cli.app import main; main()", *arguments]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=os.environ | {"COLUMNS": "8"}
    ) as process:
        assert process.stdout is not None and process.stderr is not None
        process.stdout.readline()  # a full line
        process.send_signal(signal.SIGINT)
        process.stdout.read()
        said = process.stderr.read()
    assert (process.returncode, said) == (130, "dexar-fast: interrupted\n")
    assert set(os.listdir(out)) == FILES
    found = Explanation.load(out / "explanation.safetensors")
    assert 0 < len(found) < 190
    assert not found.metadata["complete"]


class Tokens:
    """As much of a piece as the terminal shows."""

    def __init__(self, *tokens: str, weights: list[float], weighted: bool = True) -> None:
        self.tokens = list(tokens)
        self.weighted = weighted
        self.token_weights = torch.tensor(weights)


def shown(*pieces: Tokens, width: int = 40, terminal: bool = True) -> str:
    colours: Literal["truecolor"] | None = "truecolor" if terminal else None
    console = Console(file=StringIO(), width=width, force_terminal=terminal, color_system=colours, height=20)
    with Writing(console) as page:
        for piece in pieces:
            page.add(piece)  # type: ignore[arg-type]
    assert isinstance(console.file, StringIO)
    return console.file.getvalue()


def test_tokens_have_the_colour_of_their_weight() -> None:
    text = shown(Tokens("no", " half", " most", weights=[0.0, 1.0, 2.0]))
    assert "48;2;252;255;164m most" in text  # the last colour of inferno, behind the token
    assert "48;2;188;55;84m half" in text.replace("37;", "")
    assert "no\x1b" in text


def test_a_method_without_weights_colours_nothing() -> None:
    text = shown(Tokens("no", " half", weights=[1.0, 1.0], weighted=False))
    assert "48;2" not in text and "2 tokens, " in text and "with weight" not in text


def test_the_whole_text_stays_in_lines_with_a_progress_line_under_it() -> None:
    words = [f"word{i} " for i in range(24)] + ["end\n", "new"]
    text = shown(*[Tokens(word, weights=[0.0]) for word in words], width=50, terminal=False)
    *lines, progress, last = text.split("\n")
    assert " ".join(" ".join(lines).split()) == " ".join("".join(words).split())
    assert progress.startswith("26 tokens, 0 with weight, ")
    assert last == ""
    assert all(len(line) <= 50 for line in lines)


def test_what_a_terminal_would_obey_is_spelt_out() -> None:
    text = shown(Tokens("\x1b[2J", "\t[b]", weights=[0.0, 0.0]), terminal=False)
    assert "\\x1b[2J\\t[b]" in text
