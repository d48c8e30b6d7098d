"""A library that a model or its processor needs and that is not installed: named, with the command that installs it."""

import json
import sys
from pathlib import Path

import pytest
import torch
import transformers.utils.import_utils as imports
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from transformers import PreTrainedTokenizerFast
from transformers.utils import is_torchvision_available

from dexar_fast.errors import ModelError
from dexar_fast.loading import libraries, models

# The processor class, its model type, its image processor: folders as save_pretrained() writes them
PROCESSORS = [
    ("Qwen2VLProcessor", "qwen2_vl", "Qwen2VLImageProcessor"),
    ("Qwen2_5_VLProcessor", "qwen2_5_vl", "Qwen2VLImageProcessor"),
    ("InternVLProcessor", "internvl", "GotOcr2ImageProcessor"),
    ("LlavaOnevisionProcessor", "llava_onevision", "LlavaOnevisionImageProcessor"),
    ("SmolVLMProcessor", "smolvlm", "SmolVLMImageProcessor"),
]


@pytest.mark.skipif(is_torchvision_available(), reason="torchvision is installed")
@pytest.mark.parametrize(("processor", "model", "image_processor"), PROCESSORS)
def test_a_processor_without_torchvision(processor: str, model: str, image_processor: str, tmp_path: Path) -> None:
    words = Tokenizer(WordLevel({"<unk>": 0}, unk_token="<unk>"))
    PreTrainedTokenizerFast(tokenizer_object=words, unk_token="<unk>", pad_token="<unk>").save_pretrained(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": model}))
    settings = {"processor_class": processor, "image_processor_type": image_processor}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(settings))
    with pytest.raises(ModelError) as caught:
        models.load(str(tmp_path), "cpu", None)
    assert "orchvision" in str(caught.value)
    assert libraries.vision() in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", [*imports.BACKENDS_MAPPING])
def test_whatever_transformers_asks_for_is_told_to_the_end(name: str) -> None:
    said = imports.BACKENDS_MAPPING[name][1].replace("{0}", "SomeProcessor")
    told = libraries.missing(ImportError(said))
    assert told is not None
    assert told.startswith("SomeProcessor requires ")
    assert "install" in told
    assert "\n" not in told


@pytest.mark.parametrize(
    ("error", "command"),
    [
        (ImportError(imports.BACKENDS_MAPPING["sentencepiece"][1].format("Speech")), "pip install sentencepiece"),
        (ImportError(imports.BACKENDS_MAPPING["protobuf"][1].format("Tokens")), "pip install protobuf"),
        (ImportError(imports.BACKENDS_MAPPING["timm"][1].format("Tower")), "pip install timm"),
        (ModuleNotFoundError("No module named 'einops.layers'", name="einops.layers"), "pip install einops"),
        (
            ImportError("Package `num2words` is required. Install it with `pip install num2words`."),
            "pip install num2words",
        ),
        (
            ValueError("No tokenizer:\n(1) a file,\nYou need to have sentencepiece installed."),
            "sentencepiece installed",
        ),
        (
            RuntimeError("Failed to import x:\noperator torchvision::nms does not exist"),
            "dexar-fast[vision]",
        ),
    ],
)
def test_the_library_and_its_command_are_in_the_line(error: Exception, command: str) -> None:
    told = libraries.missing(error)
    assert told is not None
    assert command in told


@pytest.mark.parametrize("error", [ValueError("no such file"), OSError("config.json is missing\nlook for it")])
def test_another_error_is_none_of_a_library(error: Exception) -> None:
    assert libraries.missing(error) is None


@pytest.mark.parametrize(
    ("platform", "cuda", "extra"), [("linux", None, True), ("linux", "13.0", False), ("darwin", None, False)]
)
def test_torchvision_comes_from_where_torch_did(
    platform: str, cuda: str | None, extra: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "platform", platform)
    monkeypatch.setattr(torch.version, "cuda", cuda)
    monkeypatch.setattr(torch.version, "hip", None)
    assert (libraries.CPU_INDEX in libraries.vision()) == extra
