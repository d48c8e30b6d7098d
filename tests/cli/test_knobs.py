"""Knobs given in the terminal: how they reach the Explainer, and how bad ones are refused."""

import inspect
import os
import re
from pathlib import Path

import pytest
import torch
from command_line import FakeExplainer, refused, run

import dexar_fast


def test_options_reach_the_explainer(fake: type[FakeExplainer], image: str, tmp_path: Path) -> None:
    options = "--model m --device cpu --dtype float64 --mode official --chunk-size 3 --text-set prompt"
    more = "--backend torch --max-new-tokens 5 --response Red. --allow-missing-weights --revision v2"
    knobs = "--layers -1,0 --layer-index -2 --head-score topk:3 --map-filter rank:5 --sequence-norm token"
    given = f"{options} {more} {knobs} --text-relevance".split()
    result = run("explain", image, "What?", "--out", str(tmp_path / "out"), *given)
    assert result.exit_code == 0, result.output
    assert fake.loaded == (
        "m",
        {
            "device": "cpu",
            "dtype": "float64",
            "method": "dex-ar",
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
            "text_relevance": True,
        },
    )
    assert fake.asked is not None
    assert fake.asked[1:] == ("What?", "Red.", {"max_new_tokens": 5})


@pytest.mark.parametrize(
    "option",
    ["--head-score", "--method", "--mode", "--sequence-norm", "--text-relevance", "--text-set", "--layer-index"],
)
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
