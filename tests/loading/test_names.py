"""What a model is called in results: never a path of this machine."""

from __future__ import annotations

import os
from pathlib import Path

import bad_input
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from dexar_fast import Explainer
from dexar_fast.cli.output import folder, results
from dexar_fast.loading.names import EMBEDDED, shown

PICTURE = Image.new("RGB", (32, 32), "red")
COMMIT = "a" * 40


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("llava-hf/llava-1.5-7b-hf", "llava-hf/llava-1.5-7b-hf"),
        ("gpt2", "gpt2"),
        ("/home/ann/models/my-llava", "my-llava"),
        ("/home/ann/models/my-llava/", "my-llava"),
        ("./my-llava", "my-llava"),
        ("~/my-llava", "my-llava"),
        ("runs/7/last", "last"),
        ("C:\\Users\\ann\\my-llava", "my-llava"),
        (f"/home/ann/hub/models--llava-hf--llava-1.5-7b-hf/snapshots/{COMMIT}", "llava-hf/llava-1.5-7b-hf"),
        (Path("/home/ann/models/my-llava"), "my-llava"),
        (str(EMBEDDED), "shapes-llava (embedded)"),
        ("", ""),
        (None, ""),
    ],
)
def test_a_name_says_nothing_of_the_way_to_a_folder(name: object, expected: str) -> None:
    assert shown(name) == expected


def test_a_folder_that_is_there_has_its_own_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "models" / "mine").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    assert shown("models/mine") == "mine"
    monkeypatch.chdir(tmp_path / "models" / "mine")
    assert shown(".") == "mine"


def test_no_file_of_a_run_names_the_folder_of_the_install(tmp_path: Path) -> None:
    found = Explainer.from_pretrained().explain(
        PICTURE, "Describe the image.", "A red square.", out=tmp_path / "shards"
    )
    assert found.metadata["model"] == "shapes-llava (embedded)"
    out = tmp_path / "out"
    folder.check(out, results.results_in, force=False)
    results.write(found, out, "token")
    files = [file for file in tmp_path.rglob("*") if file.is_file()]
    assert len(files) > 5
    for place in (EMBEDDED, Path.home(), tmp_path):
        assert not [file.name for file in files if os.fsencode(str(place)) in file.read_bytes()]


def test_a_local_model_and_its_warnings_bear_the_folders_name(tmp_path: Path) -> None:
    folder = bad_input.save_model(tmp_path / "my-llava")
    weights = load_file(folder / "model.safetensors")
    save_file(weights | {"beside": torch.ones(1)}, folder / "model.safetensors", metadata={"format": "pt"})
    explainer = Explainer.from_pretrained(str(folder), device="cpu")
    found = explainer.explain(bad_input.PICTURE, bad_input.PROMPT, bad_input.ANSWER)
    assert found.metadata["model"] == "my-llava"
    (warning,) = found.diagnostics["warnings"]
    assert warning.startswith("weights of 'my-llava': nothing in the model takes")
