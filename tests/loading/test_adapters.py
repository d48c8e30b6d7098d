"""Adapters: of each type of PEFT's registry what its wrapper gives is explained, or the type is refused by name."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from bad_input import MODEL, PROCESSOR
from lora import ASKED, INVOCATION, PLACES, REFUSED, config_of, fresh, logits, lora, moved
from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING

from dexar_fast import Explainer, Explanation
from dexar_fast.errors import InputError, ModelError

TYPES = sorted(kind.value for kind in PEFT_TYPE_TO_CONFIG_MAPPING)


def written(model: Any) -> list[int]:
    ids = model.generate(**ASKED, max_new_tokens=6, min_new_tokens=6, do_sample=False)
    return ids[0, ASKED["input_ids"].shape[1] :].tolist()


def explained(model: Any, **options: Any) -> Explanation:
    return Explainer(model, PROCESSOR).explain_inputs(ASKED, max_new_tokens=6, min_new_tokens=6, **options)


def check_is_explained(model: Any) -> None:
    """The model that is explained gives the wrapper's logits and writes the wrapper's answer."""
    assert torch.equal(logits(Explainer(model).model), logits(model))
    assert explained(model, do_sample=False).token_ids.tolist() == written(model)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", [kind for kind in TYPES if kind not in REFUSED])
def test_what_peft_generates_is_explained(kind: str) -> None:
    try:
        model = moved(peft.get_peft_model(fresh(), config_of(kind)))
    except ImportError as error:
        pytest.skip(str(error))
    assert not torch.equal(logits(model), logits(MODEL))
    check_is_explained(model)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", sorted(REFUSED - {"SHADOW", "XLORA", "ADAPTION_PROMPT"}))
def test_what_acts_in_the_wrapper_is_refused(kind: str) -> None:
    model = peft.get_peft_model(fresh(), config_of(kind))
    with pytest.raises(ModelError, match=f"of type {kind}"):
        Explainer(model, PROCESSOR)


@pytest.mark.filterwarnings("ignore")
def test_a_mixture_of_adapters_by_prompt_is_refused(tmp_path: Path) -> None:
    lora(task_type="CAUSAL_LM").save_pretrained(tmp_path)
    base = fresh()
    base.config.use_cache = False
    both = {"a": str(tmp_path), "b": str(tmp_path)}
    mixed = peft.get_peft_model(
        base, peft.XLoraConfig(hidden_size=32, adapters=both, xlora_depth=1, task_type="CAUSAL_LM")
    )
    with pytest.raises(ModelError, match="of type XLORA"):
        Explainer(mixed, PROCESSOR)


@pytest.mark.parametrize("kind", ["SHADOW", "ADAPTION_PROMPT", "TYPE_OF_TOMORROW"])
def test_types_that_cannot_be_built_here_or_are_not_known_are_refused(kind: str) -> None:
    """A wrapper tells its types in its configs alone; these need other models, or are none of PEFT's yet."""
    model = lora()
    model.peft_config["default"].peft_type = kind
    with pytest.raises(ModelError, match=f"of type {kind}"):
        Explainer(model, PROCESSOR)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("task", [None, "CAUSAL_LM"])
def test_an_adapter_that_begins_at_invocation_tokens_is_refused(task: str | None) -> None:
    model = lora(alora_invocation_tokens=INVOCATION, task_type=task)
    with pytest.raises(ModelError, match="activated LoRA"):
        Explainer(model, PROCESSOR)


@pytest.mark.filterwarnings("ignore")
def test_a_warm_explainer_refuses_what_is_put_in_later() -> None:
    model = lora()
    explainer = Explainer(model, PROCESSOR)
    explainer.explain_inputs(ASKED, [5])
    model.add_adapter("later", peft.LoraConfig(r=2, target_modules=PLACES, alora_invocation_tokens=INVOCATION))
    with pytest.raises(ModelError, match="activated LoRA"):
        explainer.explain_inputs(ASKED, [5])


def test_an_adapter_that_draws_in_every_call_is_refused() -> None:
    config = peft.PveraConfig(target_modules=PLACES, sample_at_inference=True)
    with pytest.raises(ModelError, match="sample_at_inference=False"):
        Explainer(peft.get_peft_model(fresh(), config), PROCESSOR)


def two(active: list[str]) -> Any:
    model = lora()
    model.add_adapter("second", peft.LoraConfig(r=3, target_modules=PLACES, init_lora_weights=False))
    model.base_model.set_adapter(active)
    return moved(model, "second")


def merged() -> Any:
    model = lora()
    model.merge_adapter()
    return model


def disabled() -> Any:
    model = lora()
    model.base_model.disable_adapter_layers()
    return model


def mixed_types() -> Any:
    model = peft.get_peft_model(fresh(), peft.LoraConfig(r=2, target_modules=["q_proj"]), mixed=True)
    model.add_adapter("other", peft.LoHaConfig(r=2, target_modules=["o_proj"]))
    model.set_adapter(["default", "other"])
    return moved(moved(model), "other")


STATES: dict[str, Callable[[], Any]] = {
    "one of two": lambda: two(["second"]),
    "two at once": lambda: two(["default", "second"]),
    "merged": merged,
    "disabled": disabled,
    "mixed types": mixed_types,
    "with whole modules": lambda: lora(modules_to_save=["lm_head", "embed_tokens"]),
    "with tokens": lambda: lora(trainable_token_indices={"embed_tokens": INVOCATION}),
    "dora": lambda: lora(use_dora=True),
    "in the vision tower": lambda: lora(target_modules=r".*vision_tower.*\.(q_proj|v_proj)"),
    "in the projector, the head and the embedding": lambda: lora(
        target_modules=["linear_1", "lm_head", "embed_tokens"]
    ),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("state", STATES)
def test_the_state_of_adapters_is_that_of_the_wrapper(state: str) -> None:
    model = STATES[state]()
    assert torch.equal(logits(model), logits(MODEL)) == (state == "disabled")
    check_is_explained(model)


def test_adapters_by_row_of_a_batch_are_no_argument_here() -> None:
    with pytest.raises(InputError, match="adapter_names"):
        explained(lora(), adapter_names=["default"])
