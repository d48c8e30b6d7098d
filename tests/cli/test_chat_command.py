"""`dexar-fast chat`: questions from a pipe, what it shows, what each turn leaves behind."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
import small_llava
from typer.testing import CliRunner, Result

from dexar_fast import Explanation
from dexar_fast.cli import app
from dexar_fast.cli.chat import questions
from dexar_fast.generation.stream import Stream

FILES = {"answer.png", "explanation.safetensors", "report.html", "tokens.png"}

Talk = Callable[..., Result]


@pytest.fixture
def talk(tmp_path: Path, model_folder: Path) -> Talk:
    """Runs the command with some standard input."""
    small_llava.noise(32).save(tmp_path / "image.png")
    fixed = ["chat", str(tmp_path / "image.png"), "--model", str(model_folder), "--out", str(tmp_path / "out")]

    def run(said: str | bytes, *more: str) -> Result:
        arguments = [*fixed, "--max-new-tokens", "5", *more]
        return CliRunner().invoke(app.app, arguments, input=said, env={"COLUMNS": "200"})

    return run


def refused(result: Result) -> str:
    assert result.exit_code == 2
    return result.stderr.splitlines()[-1]


def test_each_line_is_a_turn_with_a_report(talk: Talk, tmp_path: Path) -> None:
    result = talk("what is it\n\n  \nit is red\n")
    assert result.exit_code == 0, result.output
    assert sorted(os.listdir(tmp_path / "out")) == ["turn-1", "turn-2"]
    for turn in ("turn-1", "turn-2"):
        assert set(os.listdir(tmp_path / "out" / turn)) == FILES
        assert str(tmp_path / "out" / turn / "report.html") in result.stdout.splitlines()
    first, second = (Explanation.load(tmp_path / "out" / f"turn-{n}" / "explanation.safetensors") for n in (1, 2))
    assert first.metadata["question"] == "what is it" and second.metadata["question"] == "it is red"
    assert first.metadata["prompt"] in second.metadata["prompt"]
    assert result.stdout.count("5 tokens, ") == 2


def test_the_chunk_size_is_that_of_the_pieces(talk: Talk) -> None:
    result = talk("what is it\n", "--chunk-size", "1", "--method", "attention:layers=[0]")
    assert result.exit_code == 0 and "5 tokens, " in result.stdout and "with weight" not in result.stdout


def test_an_earlier_conversation_is_replaced_by_force_alone(talk: Talk, tmp_path: Path) -> None:
    assert talk("what is it\nit is red\nthe cat\n").exit_code == 0
    assert "holds an earlier result (turn-1, turn-2, turn-3)" in refused(talk("a dog\n"))
    (tmp_path / "out" / "turn-2" / "mine.txt").write_text("kept")
    assert talk("a dog\n", "--force").exit_code == 0
    assert sorted(os.listdir(tmp_path / "out")) == ["turn-1", "turn-2"]
    assert os.listdir(tmp_path / "out" / "turn-2") == ["mine.txt"]
    found = Explanation.load(tmp_path / "out" / "turn-1" / "explanation.safetensors")
    assert found.metadata["question"] == "a dog"


@pytest.mark.parametrize("said", ["", "\n \n"])
def test_no_question_is_refused(talk: Talk, said: str, tmp_path: Path) -> None:
    assert "no question came on the standard input" in refused(talk(said))
    assert os.listdir(tmp_path / "out") == []


def test_bytes_that_are_no_text_are_refused(talk: Talk) -> None:
    assert "the standard input is no text" in refused(talk(b"\xff\xfe\n"))


def test_a_refused_question_in_a_pipe_keeps_the_turns_before(talk: Talk, tmp_path: Path) -> None:
    result = talk("what is it\n" + "the cat " * 400 + "\nit is red\n")
    assert "more than the model's context" in refused(result)
    assert os.listdir(tmp_path / "out") == ["turn-1"]


def test_a_refused_question_on_a_terminal_is_no_end(
    talk: Talk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    typed = iter(["what is it", "the cat " * 400, "it is red"])

    def typing(prompt: str) -> str:
        assert prompt == "> "
        try:
            return next(typed)
        except StopIteration:
            raise EOFError from None

    monkeypatch.setattr(questions, "is_terminal", lambda: True)
    monkeypatch.setattr("builtins.input", typing)
    result = talk("")
    assert result.exit_code == 0, result.output
    assert "more than the model's context" in result.stderr
    assert sorted(os.listdir(tmp_path / "out")) == ["turn-1", "turn-2"]


def test_a_method_that_takes_the_answer_as_a_whole_is_refused(talk: Talk) -> None:
    assert "'tam' explains an answer as a whole" in " ".join(refused(talk("what\n", "--method", "tam")).split())


def test_an_interrupt_leaves_the_turns_before(talk: Talk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    begun, then = [], Stream.then

    def counting(self: Stream, *arguments: object) -> Stream:
        begun.append(self)
        if len(begun) > 1:
            monkeypatch.setattr(Stream, "__next__", interrupted)
        return then(self, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(Stream, "then", counting)
    result = talk("what is it\nit is red\n")
    assert result.exit_code == 130
    assert os.listdir(tmp_path / "out") == ["turn-1"]


def interrupted(_: Stream) -> None:
    raise KeyboardInterrupt
