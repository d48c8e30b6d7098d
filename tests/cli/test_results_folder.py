"""What a run of the command line writes, keeps and replaces, and what it says when it cannot."""

import os
from pathlib import Path
from typing import Any

import pytest
import torch
from command_line import FILES, FakeExplainer, explanation, refused, run
from PIL import Image

import dexar_fast
from dexar_fast import Explanation, FileError
from dexar_fast.cli import explain
from dexar_fast.report.drawing import sheet


def test_an_explanation_without_geometry_has_no_pictures(fake: type[FakeExplainer], image: str, tmp_path: Path) -> None:
    fake.result = explanation(grids=False)
    result = run("explain", image, "What?", "--out", str(tmp_path / "out"))
    assert result.exit_code == 0
    assert sorted(os.listdir(tmp_path / "out")) == ["explanation.safetensors", "report.html"]
    assert "There are no pictures" in result.stdout


def test_unwritable_output_is_found_before_the_model_is_loaded(
    fake: type[FakeExplainer], image: str, tmp_path: Path
) -> None:
    line = refused(run("explain", image, "What?", "--out", image))
    assert "choose another folder with --out" in line
    assert fake.loaded is None


def test_a_file_that_cannot_be_replaced_is_named(fake: type[FakeExplainer], image: str, tmp_path: Path) -> None:
    (tmp_path / "answer.png").mkdir()
    line = refused(run("explain", image, "What?", "--out", str(tmp_path), "--force"))
    assert (
        line
        == f"dexar-fast: cannot write to {tmp_path / 'answer.png'} (Is a directory): choose another folder with --out\n"
    )
    assert not [name for name in os.listdir(tmp_path) if name.startswith(".")]


def test_a_disk_that_fills_up_leaves_no_file(
    fake: type[FakeExplainer], image: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(explanation: Explanation) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(sheet, "draw_sheet", full)
    line = refused(run("explain", image, "What?", "--out", str(tmp_path / "out")))
    assert f"{tmp_path / 'out' / 'tokens.png'} (No space left on device)" in line
    assert os.listdir(tmp_path / "out") == []


@pytest.mark.parametrize(("kind", "writer", "name"), [(Path, "write_bytes", FILES[2]), (Image.Image, "save", FILES[0])])
def test_the_file_that_the_user_knows_is_named(
    fake: type[FakeExplainer],
    image: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    kind: Any,
    writer: str,
    name: str,
) -> None:
    """Not the one in a hidden folder that was to take its place."""

    def full(self: Any, path: Any, *_: Any, **options: Any) -> None:
        if isinstance(self, Path) or isinstance(path, Path):
            raise OSError(28, "No space left on device", str(path))
        save(self, path, *_, **options)  # into memory

    save = Image.Image.save
    monkeypatch.setattr(kind, writer, full)
    out = tmp_path / "out"
    line = refused(run("explain", image, "What?", "--out", str(out)))
    assert f"cannot write to {out / name} (No space left on device): choose another folder with --out" in line
    assert os.listdir(out) == []


def test_an_earlier_result_is_kept_unless_forced(fake: type[FakeExplainer], image: str, tmp_path: Path) -> None:
    assert run("explain", image, "What?", "--out", str(tmp_path / "out")).exit_code == 0
    before = {file.name: file.read_bytes() for file in (tmp_path / "out").iterdir()}
    fake.loaded, fake.result = None, explanation(weights=(0.5,), grids=False)
    line = refused(run("explain", image, "What?", "--out", str(tmp_path / "out")))
    assert "holds an earlier result (report.html, " in line and "--force" in line
    assert fake.loaded is None
    assert {file.name: file.read_bytes() for file in (tmp_path / "out").iterdir()} == before
    assert run("explain", image, "What?", "--out", str(tmp_path / "out"), "--force").exit_code == 0
    assert sorted(os.listdir(tmp_path / "out")) == ["explanation.safetensors", "report.html"]  # no picture of the first


def test_further_images_are_of_the_same_prompt(tmp_path: Path) -> None:
    with Image.open(explain.SAMPLE_IMAGE) as sample:
        turned = [sample.convert("RGB").rotate(90 * turn) for turn in range(3)]
    paths = [str(tmp_path / f"{turn}.png") for turn in range(3)]
    for picture, path in zip(turned, paths, strict=True):
        picture.save(path)
    out = tmp_path / "out"
    asked = ["explain", paths[0], "What?", "--image", paths[1], "--image", paths[2], "--response", "red"]
    assert run(*asked, "--out", str(out)).exit_code == 0
    expected = dexar_fast.Explainer.from_pretrained().explain(paths, "What?", "red")
    torch.testing.assert_close(Explanation.load(out / FILES[1]).token_maps, expected.token_maps)
    for number, name in enumerate(("answer.png", "answer-2.png", "answer-3.png")):
        with Image.open(out / name) as drawn:
            overlay = expected.overlay(image=number)  # above its caption
            assert drawn.crop((0, 0, *overlay.size)).tobytes() == overlay.tobytes()
    assert run("explain", paths[0], "What?", "--response", "red", "--out", str(out), "--force").exit_code == 0
    assert sorted(os.listdir(out)) == FILES  # none of the further images


def test_a_further_image_that_is_missing_is_refused(fake: type[FakeExplainer], image: str, tmp_path: Path) -> None:
    line = refused(
        run("explain", image, "What?", "--image", str(tmp_path / "none.png"), "--out", str(tmp_path / "out"))
    )
    assert "none.png does not exist" in line
    assert fake.loaded is None


def test_a_picture_with_the_name_of_a_result_is_kept(fake: type[FakeExplainer], tmp_path: Path) -> None:
    Image.new("RGB", (32, 24), "red").save(tmp_path / "answer.png")
    refused(run("explain", str(tmp_path / "answer.png"), "What?", "--out", str(tmp_path)))


def test_an_explanation_that_cannot_be_saved_is_told_in_its_own_words(
    fake: type[FakeExplainer], image: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(self: Explanation, path: Path) -> None:
        raise FileError("cannot write it: free some space")

    monkeypatch.setattr(Explanation, "save", full)
    line = refused(run("explain", image, "What?", "--out", str(tmp_path / "out")))
    assert line == "dexar-fast: cannot write it: free some space\n"
    assert os.listdir(tmp_path / "out") == []


def test_the_demo_replaces_its_own_result_alone(image: str, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert run("demo", "--out", str(out)).stderr == ""
    again = run("demo", "--out", str(out))
    assert (again.exit_code, again.stderr) == (0, f"dexar-fast: replaced the earlier demo in {out}\n")
    assert run("explain", image, "What?", "--response", "red", "--out", str(out), "--force").exit_code == 0
    assert "holds an earlier result" in refused(run("demo", "--out", str(out)))
    (out / "explanation.safetensors").write_bytes(b"other")
    assert "holds an earlier result" in refused(run("demo", "--out", str(out)))
