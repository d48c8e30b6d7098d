"""The command line, with the model replaced by a fake: its lines, its exit codes."""

import json
import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from command_line import FILES, FakeExplainer, explanation, refused, run
from PIL import Image

import dexar_fast
from dexar_fast import Explanation, FileError, InputError, ModelError
from dexar_fast.cli import explain


def test_explain_writes_the_explanation_and_its_pictures(fake: type[FakeExplainer], image: str, tmp_path: Path) -> None:
    out = tmp_path / "a" / "b"
    result = run("explain", image, "What?", "--out", str(out))
    assert result.exit_code == 0, result.output
    assert sorted(os.listdir(out)) == FILES
    assert torch.equal(Explanation.load(out / FILES[1]).token_maps, fake.result.token_maps)
    with Image.open(out / "answer.png") as answer:
        overlay = fake.result.overlay()
        left = (answer.width - overlay.width) // 2
        assert answer.crop((left, 0, left + 32, 24)).tobytes() == overlay.tobytes()
    assert all(str(out / name) in result.stdout.splitlines() for name in FILES)


def test_explain_prints_tokens_weights_and_what_the_filters_left(
    fake: type[FakeExplainer], image: str, tmp_path: Path
) -> None:
    printed = run("explain", image, "What?", "--out", str(tmp_path / "out")).stdout
    rows = [line.split() for line in printed.splitlines()]
    assert ["red", "0.5", "█" * 30] in rows
    assert ["[b]\\n", "0.25", "█" * 15] in rows
    text = " ".join(printed.split())
    assert "None of the 2 tokens have weight 0." in text
    assert "12 % of the heads, counted for each token (2 of 16), found more in the image than in the text;" in text
    assert "Among the text, `<s>` is the strongest for the most heads (75 %)." in text


def test_explain_says_when_the_map_is_blank(fake: type[FakeExplainer], image: str, tmp_path: Path) -> None:
    fake.result = explanation(weights=(0.0, 0.0))
    result = run("explain", image, "What?", "--out", str(tmp_path / "out"))
    assert result.exit_code == 0
    text = " ".join(result.stdout.split())
    assert "their sum by weight, is blank; the token `<s>` wins" in text


@pytest.mark.parametrize("error", [InputError("bad\n  answer: say more"), ModelError("no such model: check it")])
def test_an_error_is_one_line_and_leaves_no_file(
    fake: type[FakeExplainer], image: str, tmp_path: Path, error: Exception
) -> None:
    fake.result = error
    line = refused(run("explain", image, "What?", "--out", str(tmp_path / "out")))
    assert line == f"dexar-fast: {' '.join(str(error).split())}\n"
    assert os.listdir(tmp_path / "out") == []


def test_debug_shows_the_traceback(fake: type[FakeExplainer], image: str, tmp_path: Path) -> None:
    fake.result = InputError("bad answer")
    result = run("explain", image, "What?", "--out", str(tmp_path / "out"), "--debug")
    assert result.exit_code == 2
    assert result.stderr.startswith("Traceback") and result.stderr.endswith("InputError: bad answer\n")


def test_the_report_shows_tokens_or_words(fake: type[FakeExplainer], image: str, tmp_path: Path) -> None:
    fake.result = explanation(tokens=["un", "able"])
    out = tmp_path / "out"
    for option, found in ((["--by", "word"], True), (["--by", "token"], False), ([], False)):
        assert run("explain", image, "What?", "--out", str(out), "--force", *option).exit_code == 0
        assert (">unable<" in (out / "report.html").read_text("utf-8")) == found


def test_a_missing_image_is_found_before_the_model_is_loaded(fake: type[FakeExplainer], tmp_path: Path) -> None:
    line = refused(run("explain", str(tmp_path / "none.png"), "What?", "--out", str(tmp_path / "out")))
    assert "none.png does not exist" in line
    assert fake.loaded is None
    assert not (tmp_path / "out").exists()


def test_warnings_of_an_explanation_go_to_stderr_once(
    fake: type[FakeExplainer], image: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fake, "warnings", ["weights are missing"])
    fake.result = explanation()
    fake.result.diagnostics["warnings"] = ["weights are missing", "the inputs\nlack types"]
    result = run("explain", image, "What?", "--out", str(tmp_path / "out"))
    assert result.exit_code == 0, result.output
    lines = ["weights are missing", "the inputs lack types"]
    assert result.stderr.splitlines() == [f"dexar-fast: warning: {line}" for line in lines]


def test_the_demo_asks_the_embedded_model_about_the_sample(fake: type[FakeExplainer], tmp_path: Path) -> None:
    result = run("demo", "--out", str(tmp_path / "out"))
    assert result.exit_code == 0, result.output
    assert fake.loaded == (None, {})
    assert fake.asked is not None
    (picture,), *asked = fake.asked
    with Image.open(explain.SAMPLE_IMAGE) as sample:
        assert picture.tobytes() == sample.convert("RGB").tobytes()
    assert asked == [explain.SAMPLE_PROMPT, None, {}]
    assert sorted(os.listdir(tmp_path / "out")) == FILES


def test_an_error_of_the_system_inside_the_model_is_not_blamed_on_the_output(
    fake: type[FakeExplainer], image: str, tmp_path: Path
) -> None:
    fake.result = ConnectionError("a bug")
    result = run("explain", image, "What?", "--out", str(tmp_path / "out"))
    assert result.exception is fake.result


def test_a_file_error_keeps_its_own_words(fake: type[FakeExplainer], image: str, tmp_path: Path) -> None:
    fake.result = FileError("weights are gone: fetch them again")
    line = refused(run("explain", image, "What?", "--out", str(tmp_path / "out")))
    assert line == "dexar-fast: weights are gone: fetch them again\n"


def test_interrupt_exits_with_130_and_leaves_no_file(fake: type[FakeExplainer], image: str, tmp_path: Path) -> None:
    fake.result = KeyboardInterrupt()
    result = run("explain", image, "What?", "--out", str(tmp_path / "out"))
    assert result.exit_code == 130
    assert os.listdir(tmp_path / "out") == []


def test_doctor_prints_its_findings() -> None:
    result = run("doctor")
    assert result.exit_code == 0
    for text in ("versions", torch.__version__, "machine", "C++ extension", "operations"):
        assert text in result.stdout


def test_what_the_terminal_cannot_show_does_not_stop_the_program() -> None:
    code = "from dexar_fast.cli import app; app.app = lambda **options: print('█ 猫 cat'); app.main()"
    environment = os.environ | {"PYTHONIOENCODING": "ascii"}
    assert subprocess.check_output([sys.executable, "-c", code], env=environment) == b"? ? cat\n"


def test_the_hubs_client_does_not_report_every_retry() -> None:
    run_nothing = "from dexar_fast.cli import app; app.app = lambda **options: None; app.main()"
    level = "from huggingface_hub.utils import logging; print(logging.get_verbosity())"
    environment = {name: value for name, value in os.environ.items() if name != "HF_HUB_VERBOSITY"}
    printed = subprocess.check_output([sys.executable, "-c", f"{run_nothing}; {level}"], env=environment)
    assert int(printed) == logging.ERROR


def test_help_needs_neither_torch_nor_transformers() -> None:
    code = "import sys, dexar_fast.cli.app; sys.exit('torch' in sys.modules or 'transformers' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_json_is_all_that_explain_prints(fake: type[FakeExplainer], image: str, tmp_path: Path) -> None:
    fake.result = explanation(metadata={"model": "m"})
    fake.result.diagnostics["warnings"] = ["the inputs lack types"]
    out = tmp_path / "out"
    result = run("explain", image, "What?", "--out", str(out), "--json")
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert "None of the 2 tokens have weight 0." in found.pop("summary")
    assert sorted(found.pop("files")) == [str(out / name) for name in FILES]
    assert found == {
        "answer": "red[b]\n",
        "tokens": [{"text": "red", "id": 0, "weight": 0.5}, {"text": "[b]\n", "id": 1, "weight": 0.25}],
        "warnings": ["the inputs lack types"],
        "metadata": {"model": "m"},
    }


def test_json_of_a_refusal_is_empty(fake: type[FakeExplainer], image: str, tmp_path: Path) -> None:
    fake.result = InputError("bad answer")
    result = run("explain", image, "What?", "--out", str(tmp_path / "out"), "--json")
    assert (refused(result), result.stdout) == ("dexar-fast: bad answer\n", "")


def test_json_is_no_stream(image: str) -> None:
    assert "leave out --json" in refused(run("explain", image, "What?", "--stream", "--json"))


def test_json_is_all_that_the_doctor_prints() -> None:
    found = json.loads(run("doctor", "--json").stdout)
    assert list(found) == ["versions", "machine", "operations", "verdicts"]
    assert {"name": "torch", "value": torch.__version__, "note": ""} in found["versions"]


@pytest.mark.parametrize("command", [[], ["explain"], ["demo"], ["profile"], ["doctor"]])
def test_help_says_the_exit_status(command: list[str]) -> None:
    text = " ".join(run(*command, "--help").stdout.split())
    assert "0 done; 2 refused" in text and "130 interrupted" in text


@pytest.mark.parametrize("arguments", [["doctor"], ["demo"]])
def test_a_library_that_does_not_import_is_one_line(arguments: list[str]) -> None:
    code = "import sys; sys.modules['torch'] = None; from dexar_fast.cli.app import main; main()"
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("dexar-fast: a library does not import (") and done.stderr.count("\n") == 1


def test_the_version_is_that_of_the_package() -> None:
    result = run("--version")
    assert (result.exit_code, result.stdout) == (0, f"dexar-fast {dexar_fast.__version__}\n")


def test_the_package_is_the_program_too() -> None:
    done = subprocess.run([sys.executable, "-m", "dexar_fast", "--help"], capture_output=True, text=True)
    assert done.returncode == 0 and "Usage: dexar-fast" in done.stdout


def test_check_says_what_it_found_in_the_summary_and_the_report(tmp_path: Path) -> None:
    out = tmp_path / "out"
    result = run("explain", str(explain.SAMPLE_IMAGE), "Describe the image.", "--check", "--json", "--out", str(out))
    assert result.exit_code == 0
    saved = Explanation.load(out / "explanation.safetensors").diagnostics["evidence"]
    assert saved["sentence"] in json.loads(result.stdout)["summary"]
    assert saved["sentence"].replace("'", "&#39;") in (out / "report.html").read_text()
    assert len(saved["random"]) == 4 and saved["verdict"] in ("above chance", "at chance", "blank")


def test_what_cannot_be_checked_is_written_all_the_same(
    fake: type[FakeExplainer], image: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def check(self: FakeExplainer, explanation: Explanation) -> None:
        raise InputError("the geometry of this explanation is unknown")

    fake.result = explanation()
    monkeypatch.setattr(fake, "check", check, raising=False)
    result = run("explain", image, "What?", "--check", "--out", str(tmp_path / "out"))
    assert result.exit_code == 0 and "the map was not checked: the geometry" in result.stderr
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == FILES


@pytest.mark.parametrize(
    ("command", "said"),
    [
        ("explain", "[default: the embedded model, which knows coloured shapes only]"),
        ("run", "[default: up to 16, as many as fit]"),
        ("eval", "[default: those of maps beside masks]"),
        ("compare", "[default: dex-ar,attention]"),
        ("profile", "[default: a short question]"),
    ],
)
def test_help_shows_defaults_that_are_written_out(command: str, said: str) -> None:
    """Square brackets in a help text are markup to rich unless they are escaped."""
    text = run(command, "--help").output
    assert said in " ".join(text.replace("│", " ").split())
