"""Folders of adapters: loaded over the model that they name, or refused."""

from __future__ import annotations

import copy
import shutil
from pathlib import Path
from typing import Any

import bad_input
import peft
import pytest
import torch
from adapter_folders import REFUSALS, copied
from bad_input import MODEL, PICTURE, PROCESSOR
from lora import INVOCATION, fresh, logits, lora

from dexar_fast import Explainer
from dexar_fast.errors import ModelError


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A whole model's and, without a processor, that of an adapter of it."""
    top = tmp_path_factory.mktemp("adapter")
    bad_input.save_model(top / "base")
    model = lora(task_type="CAUSAL_LM")
    model.peft_config["default"].base_model_name_or_path = str(top / "base")
    model.save_pretrained(top / "adapter")
    return top / "base", top / "adapter"


def load(folder: Path, **options: Any) -> Explainer:
    return Explainer.from_pretrained(str(folder), device="cpu", **options)


def test_an_adapters_folder_loads_the_model_that_it_names(folders: tuple[Path, Path]) -> None:
    found = load(folders[1])
    wrapper = peft.PeftModel.from_pretrained(fresh(), folders[1])
    torch.testing.assert_close(logits(found.model), logits(wrapper))
    assert not torch.equal(logits(wrapper), logits(MODEL)) and found.warnings == []
    assert len(found.explain(PICTURE, bad_input.PROMPT, bad_input.ANSWER)) > 0  # by the base's processor


def test_an_adapters_own_processor_goes_first(folders: tuple[Path, Path], tmp_path: Path) -> None:
    folder = copied(folders[1], tmp_path / "own")
    processor = copy.deepcopy(PROCESSOR)
    processor.chat_template = "own"
    processor.save_pretrained(folder)
    assert load(folder).processor.chat_template == "own"


def test_a_tokenizer_alone_is_no_processor(folders: tuple[Path, Path], tmp_path: Path) -> None:
    folder = copied(folders[1], tmp_path / "tokenizer")
    bad_input.TOKENIZER.save_pretrained(folder)
    assert load(folder).processor.image_processor is not None


def test_a_whole_model_beside_its_adapter_is_the_one_under_it(folders: tuple[Path, Path], tmp_path: Path) -> None:
    folder = copied(folders[1], tmp_path / "both", base_model_name_or_path="/nowhere")
    shutil.copytree(folders[0], folder, dirs_exist_ok=True)
    found = load(folder)
    torch.testing.assert_close(logits(found.model), logits(load(folders[1]).model))
    assert found.explain(PICTURE, bad_input.PROMPT, bad_input.ANSWER).metadata["model"] == "both"


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("fault", REFUSALS)
def test_an_adapter_that_is_not_all_there_is_refused(fault: str, folders: tuple[Path, Path], tmp_path: Path) -> None:
    message, spoil = REFUSALS[fault]
    folder = copied(folders[1], tmp_path / "spoiled")
    spoil(folder)
    with pytest.raises(ModelError, match=message):
        load(folder)
    assert load(folder, allow_missing_weights=True).warnings


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"base_model_name_or_path": None}, "names no model under it"),
        ({"base_model_name_or_path": "/no/such/folder"}, "the model under the adapter"),
        ({"target_modules": ["nothing"]}, "nothing"),
        ({"alora_invocation_tokens": INVOCATION}, "activated LoRA"),
        ({"peft_type": "NO_TYPE"}, "NO_TYPE"),
    ],
)
def test_an_adapters_config_that_cannot_be_followed(
    config: dict[str, Any], message: str, folders: tuple[Path, Path], tmp_path: Path
) -> None:
    with pytest.raises(ModelError, match=message):
        load(copied(folders[1], tmp_path / "changed", **config))


def test_an_adapter_on_an_adapter_is_refused(folders: tuple[Path, Path], tmp_path: Path) -> None:
    folder = copied(folders[1], tmp_path / "second", base_model_name_or_path=str(folders[1]))
    with pytest.raises(ModelError, match="is an adapter itself"):
        load(folder)
