"""The table of bad input: types of models that are not explained, pools of another model, and libraries that lack."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import bad_input
import pytest
import small_llava
import torch
import types_mixed
import types_zoo
from bad_input import ANSWER, MODEL, PICTURE, PROCESSOR, PROMPT, TOKENIZER, Case, Row
from transformers import CONFIG_MAPPING
from transformers.utils import is_torchvision_available

from dexar_fast import Explainer, Explanation
from dexar_fast.kvcache.pool import KVPool


def of_type(model_type: str, **changes: Any) -> Callable[[Path], list[Case]]:
    """By the constructor, and by the program from a folder."""

    def cases(folder: Path) -> list[Case]:
        if model_type not in CONFIG_MAPPING:
            pytest.skip(f"this transformers has no {model_type}")
        model = types_zoo.model_of(types_zoo.config_of(model_type, **changes), torch.float32)
        PICTURE.save(folder / "a.png")
        bad_input.save_model(folder / "model", model, PROCESSOR)
        program = [str(folder / "a.png"), PROMPT, "--response", ANSWER, "--model", str(folder / "model")]
        return [Case(partial(Explainer, model, PROCESSOR), program=program)]  # type: ignore[arg-type]

    return cases


def with_knobs(model_type: str, **knobs: Any) -> Callable[[Path], list[Case]]:
    """Of a type that is explained without them."""

    def cases(_: Path) -> list[Case]:
        if model_type not in CONFIG_MAPPING:
            pytest.skip(f"this transformers has no {model_type}")
        model, inputs = types_zoo.build(model_type, types_mixed.MIXED[model_type])
        return [Case(partial(Explainer(model, **knobs).explain_inputs, inputs, target_ids=[20, 31]))]

    return cases


def pool_of_another(model: Callable[[], Any]) -> Callable[[Path], list[Case]]:
    """A pool in which the small model has left a prompt."""

    def explain() -> Explanation:
        pool = KVPool(512)
        Explainer(MODEL, PROCESSOR, pool=pool).explain(PICTURE, PROMPT, ANSWER)
        return Explainer(model(), PROCESSOR, pool=pool).explain(PICTURE, PROMPT, ANSWER)

    return lambda _: [Case(explain)]


def without_torchvision(folder: Path) -> list[Case]:
    if is_torchvision_available():
        pytest.skip("torchvision is installed")
    TOKENIZER.save_pretrained(folder / "model")
    settings = {"processor_class": "Qwen2VLProcessor", "image_processor_type": "Qwen2VLImageProcessor"}
    (folder / "model" / "config.json").write_text(json.dumps({"model_type": "qwen2_vl"}))
    (folder / "model" / "preprocessor_config.json").write_text(json.dumps(settings))
    PICTURE.save(folder / "a.png")
    program = [str(folder / "a.png"), PROMPT, "--model", str(folder / "model")]
    return [Case(partial(Explainer.from_pretrained, str(folder / "model")), program=program)]  # type: ignore[arg-type]


ROWS = {
    "model that writes no text (pi0)": Row(
        "ModelError", ("PI0ForConditionalGeneration shows no output head", "it writes no text"), of_type("pi0")
    ),
    "mode='official', of a model of several residual streams (Gemma 3n, ...)": Row(
        "ModelError",
        ("hands on several streams", "mode='official', which norms twice, is not defined there"),
        with_knobs("gemma3n", mode="official"),
    ),
    "mode='official', of layers that differ in their number of heads (Step 3.7)": Row(
        "ModelError", ("differ in their number of heads", "not defined"), with_knobs("step3p7", mode="official")
    ),
    "map_filter, of a model whose heads read different keys (MiniMax-M3)": Row(
        "ModelError",
        ("where the heads of a layer read different keys",),
        with_knobs("minimax_m3_vl", map_filter=("rank", 5)),
    ),
    "processor of a library that is not installed": Row(
        "ModelError", ("orchvision", "pip install 'dexar-fast[vision]'"), without_torchvision
    ),
    "pool of a model in another dtype": Row(
        "CacheError",
        ("the pool holds keys of", "in float32", "and the model makes", "in float64", "give it a KVPool of its own"),
        pool_of_another(lambda: small_llava.model(TOKENIZER).double()),
    ),
}


@pytest.mark.parametrize("row", ROWS)
def test_type(row: str, tmp_path: Path, model_folder: Path) -> None:
    bad_input.check(ROWS[row], tmp_path, model_folder)
