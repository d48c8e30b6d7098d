"""The scripts in examples/ run as they stand, print what a user should see, and leave the files that they name."""

from __future__ import annotations

import re
import runpy
from pathlib import Path

import pytest
from paths import ROOT
from PIL import Image

EXAMPLES = ROOT / "examples"
PRINTED = {
    "explain_and_read_a_map": (
        "The model answers: A red triangle, a yellow circle and a blue square.",
        "'circle' weighs most. Its map, [rows, columns] = [12, 12]",
        "It is hottest in row 3, column 6.",
    ),
    "stream_and_stop": ("tokens 1 to 2: ' A red'", "tokens 7 to 8: ' circle and'", "Stopped after"),
    "several_questions": ("The yellow shape is a circle.", "The triangle is red.", "No, there is no red star."),
    "attention_of_some_rows": (
        "layer 3: [4, 2, 162] of 162 keys, each row sums to 1.000",
        "The last token's heads look at the picture with 87%, 88%, 72%, 81%",
        "It looks most at row 3, column 6 of 12 x 12.",
    ),
    "gradients_of_each_layer": (
        "layer 3: u [12, 4, 32], V [2, 166, 32], of which 161 keys are read",
        "'circle' is hottest in row 3, column 6.",
    ),
    "score_arrays_of_your_own": ("[4, 8, 16], no graph", "map [4, 25], heads that pass: ", "off the reference by "),
    "why_a_wrong_answer": (
        "Is there a red square? Yes, there is a red square.",
        "Without 2.8 % of the picture the model answers: No, there is no red square.",
        "What was hidden holds  34 % of the red cross.",
    ),
}


def run(name: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    runpy.run_path(str(EXAMPLES / f"{name}.py"), run_name="__main__")


def test_each_example_is_tested_and_short() -> None:
    assert {path.stem for path in EXAMPLES.iterdir() if path.suffix == ".py"} == set(PRINTED)
    for name in PRINTED:
        assert 20 <= len((EXAMPLES / f"{name}.py").read_text("utf-8").splitlines()) <= 40


@pytest.mark.parametrize("name", PRINTED)
def test_an_example_prints_what_a_user_should_see(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run(name, tmp_path, monkeypatch)
    out = capsys.readouterr().out
    for line in PRINTED[name]:
        assert line in out
    named = re.findall(r"[\w-]+\.(?:png|gif|html)", out)
    assert {path.name for path in tmp_path.iterdir()} == set(named)
    for path in tmp_path.glob("*.[pg][ni][gf]"):
        with Image.open(path) as picture:
            picture.load()


def test_a_stopped_stream_ends_early(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run("stream_and_stop", tmp_path, monkeypatch)
    stopped = re.search(r"Stopped after (\d+) tokens", capsys.readouterr().out)
    assert stopped and 8 <= int(stopped[1]) < 12


def test_right_claims_weigh_more_than_wrong_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run("several_questions", tmp_path, monkeypatch)
    right, wrong = (float(weight) for weight in re.findall(r"total weight (\S+)", capsys.readouterr().out))
    assert right > 3 * wrong
