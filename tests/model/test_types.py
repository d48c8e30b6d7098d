"""Every image-text-to-text type of transformers is explained as autograd has it, or refused with the true cause."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import transformers
import types_agree
import types_explained
import types_mixed
import types_oracle
import types_refused
import types_zoo
import zoo
from packaging.version import Version
from torch import nn
from transformers import CONFIG_MAPPING
from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES as TYPES

from dexar_fast import Explainer, Explanation
from dexar_fast.errors import InputError, ModelError

TARGETS = torch.tensor([20, 31, 44])
# Of the largest of each array; float64, but for what the classes themselves do in float32
ROUNDING, ROUNDING_OF_FLOAT32 = 1e-12, 1e-6
IN_FLOAT32 = {"deepseek_ocr2", "ernie4_5_vl_moe", "glm4v_moe", "muse_spark"}  # routers and gates


@pytest.fixture(autouse=True)
def one_thread(threads: Callable[[int], None]) -> None:
    """More wait for each other longer than such small models take."""
    threads(1)


# Before transformers 5.24 their configs, what their images' features are, or what their generate() takes is another.
CHANGED = ("fast_vlm", "fuyu", "video_llava", "diffusion_gemma", "vision-encoder-decoder", "got_ocr2")


def known(model_type: str) -> str:
    if model_type not in CONFIG_MAPPING:
        pytest.skip(f"this transformers has no {model_type}")
    if model_type in CHANGED and Version(transformers.__version__) < Version("5.24"):
        pytest.skip(f"{model_type} is another class before transformers 5.24")
    return model_type


def test_every_type_is_tried() -> None:
    """A release that brings another: build it small, and see what comes of it."""
    explained = types_explained.EXPLAINED, types_mixed.MIXED, types_refused.ELSEWHERE
    assert TYPES.keys() <= set().union(*explained, types_refused.AT_THE_DOOR)


@pytest.mark.parametrize("model_type", types_explained.EXPLAINED)
def test_it_is_explained_as_autograd_has_it(model_type: str) -> None:
    model, inputs = types_zoo.build(known(model_type), types_explained.EXPLAINED[model_type])
    explainer = Explainer(model)
    expected = types_oracle.expected(model, inputs, TARGETS)
    for _ in range(2):  # the prompt by itself, then in one forward with its answer
        agrees(explainer.explain_inputs(inputs, target_ids=TARGETS), expected, model_type)
    written = explainer.explain_inputs(inputs, max_new_tokens=2, min_new_tokens=2)
    expected = types_oracle.expected(model, inputs, written.token_ids)
    agrees(written, expected, model_type)
    with explainer.stream_inputs(inputs, chunk_size=1, max_new_tokens=2, min_new_tokens=2) as pieces:
        assert [int(piece.token_ids[0]) for piece in pieces] == written.token_ids.tolist()
        agrees(pieces.explanation(), expected, model_type)


def agrees(found: Explanation, expected: dict[str, torch.Tensor], model_type: str = "") -> None:
    types_agree.agrees(found, expected, ROUNDING_OF_FLOAT32 if model_type in IN_FLOAT32 else ROUNDING)


@pytest.mark.parametrize("model_type", types_refused.AT_THE_DOOR)
def test_it_is_refused_at_the_door_by_its_true_cause(model_type: str) -> None:
    config = CONFIG_MAPPING[known(model_type)](**types_refused.SAID.get(model_type, {}))
    with torch.device("meta"):
        model = getattr(transformers, TYPES[model_type])(config)
    with pytest.raises(ModelError) as refused:
        Explainer(model)
    for words in types_refused.AT_THE_DOOR[model_type]:
        assert words in str(refused.value)


WAYS: dict[str, Callable[[Explainer, Any], Any]] = {
    "given": lambda explainer, inputs: explainer.explain_inputs(inputs, target_ids=TARGETS),
    "generated": lambda explainer, inputs: explainer.explain_inputs(inputs, max_new_tokens=2),
    "streamed": lambda explainer, inputs: list(explainer.stream_inputs(inputs, max_new_tokens=2)),
}


def test_a_class_whose_own_forward_fails_is_not_blamed_on_the_inputs() -> None:
    """Llama 4's reads an attribute that its output has not, in transformers 5.24."""
    model, inputs = types_zoo.build(known("llama4"), types_refused.BROKEN["llama4"])
    try:
        with torch.no_grad():
            model(**inputs)
    except AttributeError:
        for way in WAYS.values():
            with pytest.raises(ModelError, match="own forward fails, without dexar_fast, too, with AttributeError"):
                way(Explainer(model), inputs)
    else:
        explained = Explainer(model).explain_inputs(inputs, target_ids=TARGETS)
        agrees(explained, types_oracle.expected(model, inputs, TARGETS))


@pytest.mark.parametrize("model_type", ["aria", "fuyu", "kimi_k25", "got_ocr2"])
def test_inputs_in_another_dtype_than_the_model_reads_are_told_so(model_type: str) -> None:
    """Processors make float32. generate() of GOT-OCR2 does not cast them either, though its forward does."""
    model, inputs = types_zoo.build(known(model_type), types_explained.EXPLAINED[model_type], torch.bfloat16)
    assert inputs["pixel_values"].dtype == torch.bfloat16
    Explainer(model).explain_inputs(inputs, max_new_tokens=2)
    wide = inputs | {"pixel_values": inputs["pixel_values"].float()}
    words = r"does not cast its inputs, and pixel_values differ from its bfloat16: .* \.to\(model.dtype\)"
    with pytest.raises(InputError, match=words):
        Explainer(model).explain_inputs(wide, max_new_tokens=2, min_new_tokens=2)


class Several(nn.Module):
    """What a model may have in the place of its final norm."""

    def __init__(self, *steps: nn.Module) -> None:
        super().__init__()
        self.steps = nn.ModuleList(steps)

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        for step in self.steps:
            hidden = step(hidden)
        return hidden


def test_a_list_of_modules_behind_the_layers_belongs_to_the_lens() -> None:
    """And is no further layer."""
    model, inputs = zoo.build("llava")
    inner = model.model.language_model
    torch.manual_seed(0)
    inner.norm = Several(inner.norm, nn.Linear(zoo.HIDDEN, zoo.HIDDEN, dtype=torch.float64))
    explained = Explainer(model).explain_inputs(inputs, target_ids=TARGETS)
    agrees(explained, types_oracle.expected(model, inputs, TARGETS))


@pytest.mark.parametrize("lowest", [torch.finfo(torch.float64).min, float("-inf")])
def test_ids_that_the_model_rules_out_are_no_targets(lowest: float) -> None:
    """As Chameleon rules out its image tokens: their logits are no longer what its head gives."""
    model, inputs = zoo.build("llava")
    expected = Explainer(model).explain_inputs(inputs, target_ids=TARGETS)

    def rule_out(_module: nn.Module, _args: Any, output: Any) -> Any:
        output.logits = output.logits.clone()
        output.logits[..., 100:132] = lowest
        return output

    model.register_forward_hook(rule_out)
    explainer = Explainer(model)
    torch.testing.assert_close(
        explainer.explain_inputs(inputs, target_ids=TARGETS).token_maps, expected.token_maps, rtol=0, atol=1e-10
    )
    with pytest.raises(InputError, match="ids that the model can write"):
        explainer.explain_inputs(inputs, target_ids=torch.tensor([20, 110]))
    with pytest.raises(InputError, match="ids that the model can write"):
        Explainer(model).explain_inputs(inputs, target_ids=torch.tensor([110, 20]))
