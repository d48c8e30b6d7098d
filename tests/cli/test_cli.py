"""The command line, with the model replaced by a fake: its files, its lines, its exit codes."""

import inspect
import json
import logging
import os
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from matplotlib.figure import Figure
from PIL import Image
from typer.testing import CliRunner, Result

import dexar_fast
from dexar_fast import Explanation, FileError, InputError, ModelError
from dexar_fast.cli import app, explain
from dexar_fast.vision.grid import Grid

FILES = ["answer.png", "explanation.safetensors", "report.html", "tokens.png"]


def explanation(weights: tuple[float, ...] = (0.5, 0.25), grids: bool = True, **changes: Any) -> Explanation:
    count = len(weights)
    heads = torch.zeros(count, 2, 4)
    heads[0, 0, :2] = 1
    kept = sum(weight > 0 for weight in weights)
    fields: dict[str, Any] = {
        "token_ids": torch.arange(count),
        "tokens": ["red", "[b]\n"][:count],
        "visual_positions": torch.arange(4),
        "visual_scores": torch.ones(count, 2, 4),
        "text_scores": torch.ones(count, 2, 4),
        "head_weights": heads,
        "token_weights": torch.tensor(weights),
        "token_maps": torch.rand(count, 4),
        "unfiltered_token_maps": torch.rand(count, 4),
        "sequence_map": torch.rand(4),
        "unfiltered_sequence_map": torch.rand(4),
        "grids": (Grid(0, 0, 2, 2),) if grids else (),
        "diagnostics": {
            "tokens": count,
            "tokens_with_weight": kept,
            "heads": heads.numel(),
            "heads_kept": 2,
            "text_winners": [{"position": 0, "token": "<s>", "share": 0.75}],
        },
        "metadata": {},
        "images": (Image.new("RGB", (32, 24), "red"),),
    }
    return Explanation(**fields | changes)


class FakeExplainer:
    """Answers with `result`, or raises it; remembers what it was asked."""

    warnings = ()
    model = SimpleNamespace(generation_config=SimpleNamespace(do_sample=False))
    result: Explanation | BaseException
    loaded: tuple[Any, dict[str, Any]] | None
    asked: tuple[Any, ...] | None

    @classmethod
    def from_pretrained(cls, name: str | None = None, **options: Any) -> "FakeExplainer":
        cls.loaded = (name, options)
        return cls()

    def explain(self, image: Any, prompt: str, response: str | None = None, **options: Any) -> Explanation:
        type(self).asked = (image, prompt, response, options)
        if isinstance(self.result, BaseException):
            raise self.result
        return self.result


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


def run(*arguments: str) -> Result:
    return CliRunner().invoke(app.app, list(arguments), env={"COLUMNS": "200"})


def refused(result: Result) -> str:
    """The one line that a refused command leaves on stderr."""
    assert result.exit_code == 2
    assert result.stderr.startswith("dexar-fast: ")
    assert result.stderr.count("\n") == 1
    return result.stderr


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


def test_an_explanation_without_geometry_has_no_pictures(fake: type[FakeExplainer], image: str, tmp_path: Path) -> None:
    fake.result = explanation(grids=False)
    result = run("explain", image, "What?", "--out", str(tmp_path / "out"))
    assert result.exit_code == 0
    assert sorted(os.listdir(tmp_path / "out")) == ["explanation.safetensors", "report.html"]
    assert "There are no pictures" in result.stdout


def test_options_reach_the_explainer(fake: type[FakeExplainer], image: str, tmp_path: Path) -> None:
    options = "--model m --device cpu --dtype float64 --mode official --chunk-size 3 --text-set prompt"
    more = "--backend torch --max-new-tokens 5 --response Red. --allow-missing-weights --revision v2"
    knobs = "--layers -1,0 --layer-index -2 --head-score topk:3 --map-filter rank:5 --sequence-norm token"
    given = f"{options} {more} {knobs}".split()
    result = run("explain", image, "What?", "--out", str(tmp_path / "out"), *given)
    assert result.exit_code == 0, result.output
    assert fake.loaded == (
        "m",
        {
            "device": "cpu",
            "dtype": "float64",
            "mode": "official",
            "chunk_size": 3,
            "text_set": "prompt",
            "backend": "torch",
            "allow_missing_weights": True,
            "revision": "v2",
            "layers": [-1, 0],
            "layer_index": -2,
            "head_score": ("topk", 3),
            "map_filter": ("rank", 5),
            "sequence_norm": "token",
        },
    )
    assert fake.asked is not None
    assert fake.asked[1:] == ("What?", "Red.", {"max_new_tokens": 5})


@pytest.mark.parametrize("option", ["--head-score", "--mode", "--sequence-norm", "--text-set", "--layer-index"])
def test_every_knob_of_the_explainer_has_an_option(option: str) -> None:
    parameters = inspect.signature(dexar_fast.Explainer).parameters.values()
    knobs = {f"--{p.name.replace('_', '-')}" for p in parameters if p.kind is p.KEYWORD_ONLY} - {"--pool"}
    assert option in knobs
    assert knobs <= set(re.findall(r"--[a-z-]+", run("explain", "--help").stdout))


def test_a_device_map_is_json_or_text(fake: type[FakeExplainer], image: str, tmp_path: Path) -> None:
    for number, (text, value) in enumerate({"auto": "auto", '{"": "cpu"}': {"": "cpu"}}.items()):
        run("explain", image, "What?", "--out", str(tmp_path / str(number)), "--device-map", text)
        assert fake.loaded is not None and fake.loaded[1]["device_map"] == value


def test_settings_of_generate_are_json_or_else_text(fake: type[FakeExplainer], image: str, tmp_path: Path) -> None:
    given = ["do_sample=true", "temperature=0.7", "stop_strings=a=b", "suppress_tokens=[1, 2]", "top_k=null"]
    options = [each for text in given for each in ("--generate", text)]
    result = run("explain", image, "What?", "--out", str(tmp_path / "out"), "--max-new-tokens", "5", *options)
    assert result.exit_code == 0, result.output
    assert fake.asked is not None
    assert fake.asked[3] == {
        "max_new_tokens": 5,
        "do_sample": True,
        "temperature": 0.7,
        "stop_strings": "a=b",
        "suppress_tokens": [1, 2],
        "top_k": None,
    }


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
    def full(self: Figure, path: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Figure, "savefig", full)
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
            assert drawn.tobytes() == expected.overlay(image=number).tobytes()
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


def test_the_demo_replaces_its_own_result_alone(image: str, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert run("demo", "--out", str(out)).stderr == ""
    again = run("demo", "--out", str(out))
    assert (again.exit_code, again.stderr) == (0, f"dexar-fast: replaced the earlier demo in {out}\n")
    assert run("explain", image, "What?", "--response", "red", "--out", str(out), "--force").exit_code == 0
    assert "holds an earlier result" in refused(run("demo", "--out", str(out)))
    (out / "explanation.safetensors").write_bytes(b"other")
    assert "holds an earlier result" in refused(run("demo", "--out", str(out)))


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


NOT_RUN = {
    "an empty prompt": (["", "--max-new-tokens", "2"], "the prompt is empty"),
    "an empty answer": (["What?", "--response", ""], "the answer is empty"),
    "two image tokens": (["<image> <image> What?"], "2 image tokens"),
    "beyond the context": (["What?", "--max-new-tokens", "100000"], "context"),
    "no such model": (["What?", "--model", "/no/such/folder"], "/no/such/folder"),
    "a folder without a model": (["What?", "--model", "/tmp"], "/tmp"),
    "an unknown dtype": (["What?", "--dtype", "float99"], "float99"),
    "an unknown device": (["What?", "--device", "abacus"], "abacus"),
    "an unknown mode": (["What?", "--mode", "best"], "'best'"),
    "an unknown text set": (["What?", "--text-set", "some"], "'some'"),
    "an unknown way to cut": (["What?", "--by", "letter"], "'letter'"),
    "an unknown backend": (["What?", "--backend", "abacus"], "'abacus'"),
    "a layer that is not there": (["What?", "--layers", "99"], "layer 99 is out of range"),
    "layers twice": (["What?", "--layers", "0", "--layer-index", "1"], "not both"),
    "a rank beyond the neighbours": (["What?", "--map-filter", "rank:10"], "k from 1 to 9"),
    "an unknown sequence norm": (["What?", "--sequence-norm", "sum"], "'sum'"),
    "a revision of no model": (["What?", "--revision", "main"], "--model"),
    "two places": (["What?", "--device", "cpu", "--device-map", "auto"], "leave one out"),
    "an unknown place": (["What?", "--device-map", "abacus"], "abacus"),
    "a setting without a value": (["What?", "--generate", "top_k"], "'top_k' is not NAME=VALUE"),
    "an unknown setting": (["What?", "--generate", "temprature=1"], "do you mean temperature?"),
    "what is no setting": (["What?", "--generate", "response=red"], "'response' is no setting"),
    "text for a number": (["What?", "--generate", "temperature=hot"], "'temperature=hot'"),
    "Python's True": (["What?", "--generate", "do_sample=True"], "true, false"),
    "a setting twice": (["What?", "--generate", "top_k=1", "--generate", "top_k=2"], "top_k is given twice"),
    "two lengths": (["What?", "--max-new-tokens", "3", "--generate", "max_new_tokens=4"], "given twice"),
    "sampling without sampling": (["What?", "--generate", "temperature=0.7"], "add --generate do_sample=true"),
    "what generate() refuses": (["What?", "--generate", "num_beams=0"], "num_beams"),
    "settings for a given answer": (["What?", "--response", "red", "--generate", "top_k=1"], "leave out --response"),
    "a backend that is not there": (["What?", "--backend", "triton"], "'triton'"),
}


@pytest.mark.parametrize("case", NOT_RUN)
def test_the_real_explainer_refuses_in_one_line(image: str, tmp_path: Path, case: str) -> None:
    arguments, words = NOT_RUN[case]
    assert words in refused(run("explain", image, *arguments, "--out", str(tmp_path / "out")))
    assert not list(tmp_path.glob("out/*"))


def test_a_file_that_is_no_image_is_refused(tmp_path: Path) -> None:
    text = tmp_path / "notes.txt"
    text.write_text("not an image")
    assert "notes.txt is not an image" in refused(run("explain", str(text), "What?"))


def test_nan_in_the_weights_is_named_with_its_layer(image: str, tmp_path: Path) -> None:
    explainer = dexar_fast.Explainer.from_pretrained()
    with torch.no_grad():
        explainer.model.model.language_model.layers[1].mlp.down_proj.weight[0, 0] = torch.nan
    explainer.model.save_pretrained(tmp_path / "model")
    explainer.processor.save_pretrained(tmp_path / "model")
    arguments = ["--model", str(tmp_path / "model"), "--response", "red", "--out", str(tmp_path / "out")]
    assert "layer 1" in refused(run("explain", image, "What?", *arguments))
    assert os.listdir(tmp_path / "out") == []


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
    assert list(found) == ["versions", "machine", "operations"]
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
