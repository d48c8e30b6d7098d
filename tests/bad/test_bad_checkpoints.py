"""A checkpoint and the model made from it are the same weights, or it is refused."""

from __future__ import annotations

import copy
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import bad_input
import peft
import pytest
import torch
import zoo
from adapter_folders import REFUSALS
from adapter_folders import copied as copied_adapter
from bad_input import ANSWER, MODEL, PICTURE, PROMPT, Case, Row
from bad_models import from_folder, in_memory
from input_cases import asked, explained, made_for_inference, with_short_head
from lora import config_of, lora
from safetensors.torch import load_file, save_file

from dexar_fast import Explainer, Explanation
from dexar_fast.errors import ModelError
from dexar_fast.loading import models

Weights = dict[str, torch.Tensor]
SCALE = "language_model.model.layers.0.self_attn.q_proj."


def saved(folder: Path, change: Callable[[Weights], Weights] = dict, model: Any = MODEL) -> Path:
    """A model in a folder, its weights changed."""
    bad_input.save_model(folder, model)
    file = folder / "model.safetensors"
    save_file(change(load_file(file)), file, metadata={"format": "pt"})
    return folder


def without(*parts: str) -> Callable[[Weights], Weights]:
    return lambda weights: {key: value for key, value in weights.items() if not any(part in key for part in parts)}


def prefixed(weights: Weights) -> Weights:
    return {f"module.{key}": value for key, value in weights.items()}


def shorter_head(weights: Weights) -> Weights:
    return {key: value[:-1].clone() if "lm_head" in key else value for key, value in weights.items()}


def with_weight(key: str) -> Callable[[Weights], Weights]:
    return lambda weights: weights | {key: torch.ones(32)}


def lost_shard(folder: Path, index: bool) -> Path:
    """Without its second shard; with index: the list of shards does not name it any more."""
    MODEL.save_pretrained(folder, max_shard_size="40KB")
    bad_input.PROCESSOR.save_pretrained(folder)
    lost = sorted(folder.glob("model-*"))[1]
    lost.unlink()
    file = folder / "model.safetensors.index.json"
    if index:
        listed = json.loads(file.read_text())
        listed["weight_map"] = {key: shard for key, shard in listed["weight_map"].items() if shard != lost.name}
        file.write_text(json.dumps(listed))
    return folder


def case(folder: Path, make: Callable[[Path], Path]) -> Case:
    model = make(folder / "model")
    PICTURE.save(folder / "a.png")
    program = [str(folder / "a.png"), PROMPT, "--response", ANSWER, "--model", str(model), "--device", "cpu"]
    return Case(lambda: load(model).explain(PICTURE, PROMPT, ANSWER), None, program)


def load(folder: Path, **options: Any) -> Explainer:
    return Explainer.from_pretrained(str(folder), device="cpu", **options)


def made(*changes: Callable[[Weights], Weights]) -> Callable[[Path], list[Case]]:
    return lambda folder: [
        case(folder / str(number), lambda to, change=change: saved(to, change)) for number, change in enumerate(changes)
    ]


def other_model(folder: Path) -> list[Case]:
    """The weights of another family beside the config."""

    def make(to: Path) -> Path:
        zoo.build("qwen2_vl", torch.float32)[0].save_pretrained(to)
        weights = load_file(to / "model.safetensors")
        shutil.rmtree(to)
        return saved(to, lambda _: weights)

    return [case(folder, make)]


def adapter_folder(folder: Path) -> list[Case]:
    """Its base has the processor."""
    model = lora()
    model.peft_config["default"].base_model_name_or_path = str(bad_input.save_model(folder / "base"))
    model.save_pretrained(folder / "adapter")
    found = case(folder, lambda _: folder / "adapter")
    return [replace(found, like=lambda: Explainer(model, bad_input.PROCESSOR).explain(PICTURE, PROMPT, ANSWER))]


def spoiled_adapter(folder: Path, fault: str) -> Case:
    if not (folder / "adapter").exists():
        adapter_folder(folder)
    to = copied_adapter(folder / "adapter", folder / fault)
    REFUSALS[fault][1](to)
    return case(folder, lambda _: to)


ROWS = {
    "checkpoint that lacks weights: a projector, a head, a layer": Row(
        "ModelError",
        ("is not all there: these weights are missing and would be random", "allow_missing_weights=True"),
        made(without("projector"), without("lm_head"), without("layers.1.mlp"), without("vision_tower")),
    ),
    "checkpoint with a prefix on every weight, or of another model": Row(
        "ModelError",
        ("missing and would be random", "more (instead it holds", "more)"),
        lambda folder: [*made(prefixed)(folder), *other_model(folder / "other")],
    ),
    "checkpoint with a weight of another size": Row(
        "ModelError", ("would be random: lm_head.weight (311 x 32 instead of 312 x 32)",), made(shorter_head)
    ),
    "checkpoint with an adapter, a scale or a bias that the model's modules do not have": Row(
        "ModelError",
        ("modules of the model have no place for these weights", "q_proj"),
        made(with_weight(SCALE + "bias"), with_weight(SCALE + "weight_scale"), with_weight(SCALE + "lora_A.weight")),
    ),
    "checkpoint without one of its shards": Row(
        "ModelError", ("cannot load", "model-00002-of"), lambda f: [case(f, lambda to: lost_shard(to, False))]
    ),
    "checkpoint whose list of shards lacks one": Row(
        "ModelError", ("missing and would be random",), lambda f: [case(f, lambda to: lost_shard(to, True))]
    ),
    "folder of an adapter alone": Row("explained", ("with the model that it names",), adapter_folder),
    "folder of an adapter whose weights do not fit the model": Row(
        "ModelError", ("is not all there",), lambda folder: [spoiled_adapter(folder, fault) for fault in REFUSALS]
    ),
    "PEFT adapter that acts in its wrapper, call by call: activated LoRA, X-LoRA, Poly, Shadow, any unknown type": Row(
        "ModelError",
        ("the adapter is of type", "would leave", "It explains adapters"),
        lambda folder: [
            *in_memory(lambda: lora(alora_invocation_tokens=[5, 6]))(folder),
            *in_memory(lambda: peft.get_peft_model(copy.deepcopy(MODEL), config_of("POLY")))(folder),
        ],
    ),
    "weights made or cast under torch.inference_mode()": Row(
        "explained",
        ("like any others",),
        lambda folder: [
            *in_memory(lambda: made_for_inference("copied"), lambda: MODEL)(folder),
            *in_memory(lambda: made_for_inference("some"), lambda: MODEL)(folder),
        ],
    ),
    "processor output as lists or arrays": Row(
        "explained",
        ("like tensors",),
        lambda folder: [
            Case(lambda: explained(asked(None)), lambda: explained(asked())),
            Case(lambda: explained(asked("np")), lambda: explained(asked())),
        ],
    ),
    "answer's id behind the rows of the head": Row(
        "InputError",
        ("target_ids must be ids that the model can write", "fewer rows than its embedding"),
        lambda folder: [Case(lambda: explained(asked(), with_short_head(300), [300]))],
    ),
}


@pytest.mark.parametrize("row", ROWS)
def test_checkpoint(row: str, tmp_path: Path, model_folder: Path) -> None:
    for number in range(9):
        (tmp_path / str(number)).mkdir()
    (tmp_path / "other").mkdir()
    bad_input.check(ROWS[row], tmp_path, model_folder)


@pytest.mark.parametrize("family", [*zoo.FAMILIES])
def test_every_family_that_is_saved_is_loaded(family: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, _ = zoo.build(family, torch.float32)
    model.save_pretrained(tmp_path)
    monkeypatch.setattr(models, "_processor", lambda *_: None)
    found, _, warnings = models.load(str(tmp_path), "cpu", "float32")
    assert warnings == []
    for key, parameter in model.named_parameters():
        assert torch.equal(parameter, found.get_parameter(key)), key


def test_a_tied_head_need_not_be_saved(tmp_path: Path) -> None:
    model = copy.deepcopy(MODEL)
    model.config.tie_word_embeddings = model.config.text_config.tie_word_embeddings = True
    model.lm_head.weight = model.get_input_embeddings().weight
    for number, lost in enumerate(("lm_head", "embed_tokens")):
        folder = saved(tmp_path / str(number), lambda w: w | {"lm_head.weight": w[EMBEDDING].clone()}, model)
        file = folder / "model.safetensors"
        save_file(without(lost)(load_file(file)), file, metadata={"format": "pt"})
        assert load(folder).warnings == []
    with pytest.raises(ModelError, match=r"would be random: .*embed_tokens"):
        load(saved(tmp_path / "neither", without("lm_head", "embed_tokens"), model))


EMBEDDING = "language_model.model.embed_tokens.weight"


def test_one_may_go_on_with_a_warning(tmp_path: Path) -> None:
    folder = saved(tmp_path, without("projector"))
    with pytest.warns(UserWarning, match="multi_modal_projector"):
        explainer = load(folder, allow_missing_weights=True)
    found = explainer.explain(PICTURE, PROMPT, ANSWER)
    (warning,) = found.diagnostics["warnings"]
    assert "missing" in warning and "multi_modal_projector.linear_1.weight" in warning


def test_the_program_may_go_on_with_a_warning(tmp_path: Path) -> None:
    folder = saved(tmp_path / "model", without("projector"))
    PICTURE.save(tmp_path / "a.png")
    arguments = [str(tmp_path / "a.png"), PROMPT, "--response", ANSWER, "--model", str(folder), "--device", "cpu"]
    status, _, stderr = bad_input.program(*arguments, "--allow-missing-weights", "--out", str(tmp_path / "out"))
    assert status == 0
    bad_input.one_line(stderr)
    assert "warning: weights of" in stderr and "multi_modal_projector" in stderr
    found = Explanation.load(tmp_path / "out" / "explanation.safetensors")
    assert "multi_modal_projector" in found.diagnostics["warnings"][0]


def test_weights_that_nothing_takes_are_a_warning(tmp_path: Path) -> None:
    folder = saved(tmp_path, with_weight("language_model.model.layers.7.mlp.gate_proj.weight"))
    with pytest.warns(UserWarning, match=r"nothing in the model takes .*layers\.7"):
        assert load(folder).warnings


def test_mismatched_sizes_are_not_waved_through(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="lm_head"):
        load(saved(tmp_path, shorter_head), ignore_mismatched_sizes=True)


def test_a_device_map_hides_nothing(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="multi_modal_projector"):
        load(saved(tmp_path, without("projector")), device_map={"": "cpu"})


def test_whole_folders_load_without_a_warning(tmp_path: Path) -> None:
    (whole,) = from_folder(tmp_path)
    assert whole.program is not None
    assert load(tmp_path / "model").warnings == []
