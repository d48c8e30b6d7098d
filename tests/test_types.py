"""Every image-text-to-text type of transformers is explained as autograd has it, or refused with the true cause."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import types_oracle
import types_zoo
from transformers import CONFIG_MAPPING, AutoModelForImageTextToText

from dexar_fast import Explainer, Explanation
from dexar_fast.errors import ModelError

TARGETS = torch.tensor([20, 31, 44])
ARRAYS = ("token_maps", "unfiltered_token_maps", "token_weights", "visual_scores", "text_scores", "head_weights")
# Of the largest of each array; float64, but for what the classes themselves do in float32
ROUNDING, ROUNDING_OF_FLOAT32 = 1e-12, 1e-6
IN_FLOAT32 = {"glm4v_moe"}  # the router


@pytest.fixture(autouse=True)
def one_thread(threads: Callable[[int], None]) -> None:
    """More wait for each other longer than such small models take."""
    threads(1)


def known(model_type: str) -> str:
    if model_type not in CONFIG_MAPPING:
        pytest.skip(f"this transformers has no {model_type}")
    return model_type


@pytest.mark.parametrize("model_type", types_zoo.EXPLAINED)
def test_it_is_explained_as_autograd_has_it(model_type: str) -> None:
    model, inputs = types_zoo.build(known(model_type), types_zoo.EXPLAINED[model_type])
    explainer = Explainer(model)
    for _ in range(2):  # the prompt by itself, then in one forward with its answer
        agrees(explainer.explain_inputs(inputs, target_ids=TARGETS), model, inputs)
    written = explainer.explain_inputs(inputs, max_new_tokens=2, min_new_tokens=2)
    agrees(written, model, inputs)
    with explainer.stream_inputs(inputs, chunk_size=1, max_new_tokens=2, min_new_tokens=2) as pieces:
        assert [int(piece.token_ids[0]) for piece in pieces] == written.token_ids.tolist()
        agrees(pieces.explanation(), model, inputs)


def agrees(found: Explanation, model: Any, inputs: dict[str, torch.Tensor]) -> None:
    expected = types_oracle.expected(model, inputs, torch.as_tensor(found.token_ids))
    assert expected["unfiltered_token_maps"].any()
    bound = ROUNDING_OF_FLOAT32 if model.config.model_type in IN_FLOAT32 else ROUNDING
    for name in ARRAYS:
        one, wanted = torch.as_tensor(getattr(found, name)).double(), expected[name]
        assert float((one - wanted).abs().max()) <= bound * float(wanted.abs().max()), name


@pytest.mark.parametrize("model_type", types_zoo.AT_THE_DOOR)
def test_it_is_refused_at_the_door_by_its_true_cause(model_type: str) -> None:
    config = CONFIG_MAPPING[known(model_type)](**types_zoo.SAID.get(model_type, {}))
    with torch.device("meta"):
        model = AutoModelForImageTextToText.from_config(config)
    with pytest.raises(ModelError) as refused:
        Explainer(model)
    for words in types_zoo.AT_THE_DOOR[model_type]:
        assert words in str(refused.value)
