"""`dexar-fast compare`: what it writes, prints and refuses."""

import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from command_line import FakeExplainer, explanation, refused, run
from PIL import Image

import dexar_fast
from dexar_fast import Explanation
from dexar_fast.comparison import Comparison
from dexar_fast.methods import registry
from dexar_fast.methods.activation.tam import Tam
from dexar_fast.methods.controls import Random

ANSWER = " A red circle."


class Comparing(FakeExplainer):
    """Compares as many times its result as methods are asked for."""

    def compare(self, image: Any, prompt: str, methods: Any, response: str | None = None, **options: Any) -> Comparison:
        self.explain(image, prompt)
        type(self).asked = (image, prompt, methods, response, options)
        return Comparison([method.name for method in methods], [self.result for _ in methods])


@pytest.fixture
def comparing(monkeypatch: pytest.MonkeyPatch) -> type[Comparing]:
    known = {"settings": {}, "seconds": {"explain": 0.25}}
    Comparing.result, Comparing.loaded, Comparing.asked = explanation(metadata=known), None, None
    monkeypatch.setattr(dexar_fast, "Explainer", Comparing, raising=False)
    return Comparing


def test_a_page_a_picture_and_the_numbers_of_each_method(image: str, tmp_path: Path) -> None:
    out = tmp_path / "a" / "b"
    options = ["--methods", "attention, uniform", "--method", "tam:filter=false,correction=false", "--response", ANSWER]
    result = run("compare", image, "What?", *options, "--out", str(out))
    assert result.exit_code == 0, result.output
    names = ["compare.html", "compare.png", "attention.safetensors", "uniform.safetensors", "tam.safetensors"]
    assert sorted(os.listdir(out)) == sorted(names)
    assert [line for line in result.stdout.splitlines() if line.startswith(str(out))] == [str(out / n) for n in names]
    assert "A red circle." in result.stdout.splitlines()
    found = Explanation.load(out / "tam.safetensors")
    assert found.metadata["settings"] == {"method": "tam", "correction": False, "filter": False}
    assert (Explanation.load(out / "uniform.safetensors").token_maps == 1).all()
    with Image.open(out / "compare.png") as picture:
        assert picture.width == 1200
    page = (out / "compare.html").read_text("utf-8")
    assert all(f"<h2>{name}</h2>" in page for name in ("attention", "uniform", "tam"))


def test_one_json_document(image: str, tmp_path: Path) -> None:
    options = ["--methods", "dex-ar,uniform", "--response", ANSWER, "--json", "--out", str(tmp_path / "out")]
    result = run("compare", image, "What?", *options)
    assert result.exit_code == 0, result.output
    document = json.loads(result.stdout)
    weighted, uniform = document["methods"]
    assert document["answer"] == ANSWER and len(document["tokens"]) == 4
    assert weighted["name"] == "dex-ar" and all(weight >= 0 for weight in weighted["weights"])
    assert uniform["settings"] == {"method": "uniform"} and uniform["weights"] == [None] * 4
    assert "weighs no tokens" in uniform["summary"] and uniform["seconds"]["explain"] >= 0
    assert document["metadata"]["question"] == "What?" and "settings" not in document["metadata"]
    assert [Path(file).name for file in document["files"]] == sorted(os.listdir(tmp_path / "out"))


def test_options_reach_the_explainer(comparing: type[Comparing], image: str, tmp_path: Path) -> None:
    methods = ["--methods", "tam,tam", "--method", "random:seed=3"]
    options = ["--model", "m", "--device", "cpu", "--dtype", "float64", "--revision", "v2"]
    result = run("compare", image, "What?", *methods, *options, "--max-new-tokens", "5", "--out", str(tmp_path / "out"))
    assert result.exit_code == 0, result.output
    given = {"device": "cpu", "dtype": "float64", "revision": "v2", "allow_missing_weights": False}
    assert comparing.loaded == ("m", given)
    assert comparing.asked is not None
    assert comparing.asked[1:] == ("What?", [Tam(), Tam(), Random(seed=3)], None, {"max_new_tokens": 5})
    assert sorted(os.listdir(tmp_path / "out"))[2:] == ["random.safetensors", "tam-1.safetensors", "tam-2.safetensors"]


def test_an_earlier_comparison_is_kept_or_replaced_and_other_files_stay(
    comparing: type[Comparing], image: str, tmp_path: Path
) -> None:
    def again(*options: str) -> Any:
        return run("compare", image, "What?", "--out", str(tmp_path), *options)

    assert again("--methods", "tam,tam").exit_code == 0
    (tmp_path / "model.safetensors").touch()
    kept = sorted(os.listdir(tmp_path))
    line = refused(again("--methods", "uniform,random"))
    assert "(compare.html, compare.png, tam-1.safetensors, tam-2.safetensors)" in line and "--force" in line
    assert sorted(os.listdir(tmp_path)) == kept
    assert again("--methods", "uniform,random", "--force").exit_code == 0
    assert {*os.listdir(tmp_path)} - {*kept} == {"uniform.safetensors", "random.safetensors"}
    assert {*kept} - {*os.listdir(tmp_path)} == {"tam-1.safetensors", "tam-2.safetensors"}


def test_without_geometry_there_is_no_picture(comparing: type[Comparing], image: str, tmp_path: Path) -> None:
    comparing.result = explanation(grids=False, metadata=comparing.result.metadata)
    result = run("compare", image, "What?", "--methods", "tam,uniform", "--out", str(tmp_path / "out"))
    assert result.exit_code == 0, result.output
    assert "There are no pictures" in result.stdout
    assert not (tmp_path / "out" / "compare.png").exists()


def test_an_interrupt_exits_with_130_and_leaves_no_file(comparing: type[Comparing], image: str, tmp_path: Path) -> None:
    comparing.result = KeyboardInterrupt()
    result = run("compare", image, "What?", "--methods", "tam,uniform", "--out", str(tmp_path / "out"))
    assert result.exit_code == 130 and os.listdir(tmp_path / "out") == []


def test_a_file_that_cannot_be_written_is_named(
    comparing: type[Comparing], image: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Comparison, "picture", full)
    line = refused(run("compare", image, "What?", "--methods", "tam,uniform", "--out", str(tmp_path / "out")))
    assert f"{tmp_path / 'out' / 'compare.png'} (No space left on device)" in line
    assert os.listdir(tmp_path / "out") == []


def test_warnings_of_all_methods_are_said_once(comparing: type[Comparing], image: str, tmp_path: Path) -> None:
    assert isinstance(comparing.result, Explanation)
    comparing.result.diagnostics["warnings"] = ["the inputs\nlack types"]
    result = run("compare", image, "What?", "--methods", "tam,uniform", "--out", str(tmp_path / "out"))
    assert result.stderr.splitlines() == ["dexar-fast: warning: the inputs lack types"]


REFUSED = {
    "no methods": (["--methods", ","], "needs two methods or more, and none is named"),
    "names of nothing": (["--methods", " , "], "none is named"),
    "one method": (["--methods", "tam"], "only 'tam' is named"),
    "one method with knobs": (["--method", "tam:filter=false"], "only 'tam:filter=false' is named"),
    "an unknown method": (["--methods", "tamm,uniform"], "did you mean 'tam'?"),
    "knobs among names": (["--methods", "eagle:regions=4,tam"], "a method with knobs goes to --method"),
    "an unknown knob": (["--methods", "uniform", "--method", "tam:x=1"], "'x' is no knob of 'tam'"),
    "a value that a knob refuses": (["--methods", "uniform", "--method", "centre:width=0"], "width 0"),
    "settings for a given answer": (["--methods", "tam,uniform", "--response", "r", "--generate", "top_k=1"], "leave"),
    "a way to cut that is none": (["--methods", "tam,uniform", "--by", "letter"], "'letter'"),
    "a revision of no model": (["--methods", "tam,uniform", "--revision", "v2"], "--model"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_bad_input_is_one_line_before_a_model_is_loaded(
    comparing: type[Comparing], image: str, tmp_path: Path, case: str
) -> None:
    options, words = REFUSED[case]
    assert words in refused(run("compare", image, "What?", *options, "--out", str(tmp_path / "out")))
    assert comparing.loaded is None and not (tmp_path / "out").exists()


def test_a_broken_image_is_found_before_a_model_is_loaded(comparing: type[Comparing], tmp_path: Path) -> None:
    text = tmp_path / "notes.txt"
    text.write_text("not an image")
    line = refused(run("compare", str(text), "What?", "--methods", "tam,uniform", "--out", str(tmp_path / "out")))
    assert "notes.txt is not an image" in line
    assert comparing.loaded is None and not (tmp_path / "out").exists()


def test_the_help_names_every_method_of_this_package() -> None:
    shown = " ".join(run("compare", "--help").stdout.split())
    assert all(name in shown for name in registry.names())


def test_an_explanation_without_weights_prints_the_answer_instead_of_a_table(
    fake: type[FakeExplainer], image: str, tmp_path: Path
) -> None:
    nothing = torch.zeros(2, 0, 0)
    fields: dict[str, Any] = dict.fromkeys(("visual_scores", "text_scores", "head_weights"), nothing)
    fake.result = explanation((1.0, 1.0), diagnostics={"weighted": False}, **fields)
    result = run("explain", image, "What?", "--method", "tam", "--out", str(tmp_path / "out"))
    assert result.exit_code == 0, result.output
    assert result.stdout.startswith("red[b]\nThis method weighs no tokens")
    assert "█" not in result.stdout and "layers" not in result.stdout
