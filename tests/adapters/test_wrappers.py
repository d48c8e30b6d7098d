"""Models that nnsight and interpreto have wrapped: explained like the bare model, their hooks and the user's kept."""

from __future__ import annotations

import warnings
from typing import Any

import pytest
import small_llava
import torch
from alike import assert_same
from torch import nn
from transformers import AutoModelForImageTextToText

from dexar_fast import Explainer, Explanation, ModelError
from dexar_fast.cli.explain import SAMPLE_IMAGE

PROMPT, ANSWER = "Describe the image.", "the cat is on it"
TOKENIZER = small_llava.byte_level()
PROCESSOR = small_llava.processor(TOKENIZER)
PICTURE = small_llava.noise()


def of_nnsight(model: Any) -> Any:
    nnsight = pytest.importorskip("nnsight")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # 0.8 has another name for it
        return nnsight.VisionLanguageModel(model, tokenizer=TOKENIZER, processor=PROCESSOR)


def of_interpreto(model: Any) -> Any:
    interpreto = pytest.importorskip("interpreto")
    kind = AutoModelForImageTextToText
    layer = "model.language_model.layers.1"
    return interpreto.ModelWithSplitPoints(model, split_point=layer, tokenizer=TOKENIZER, automodel=kind)


def bare() -> Explanation:
    return Explainer(small_llava.model(TOKENIZER), PROCESSOR).explain(PICTURE, PROMPT, ANSWER)


def hooks(model: nn.Module) -> dict[str, list[Any]]:
    found = {name: [*m._forward_hooks.values(), *m._forward_pre_hooks.values()] for name, m in model.named_modules()}
    return {name: each for name, each in found.items() if each}


@pytest.mark.parametrize("wrap", [of_interpreto, of_nnsight])  # after a trace of nnsight interpreto does not import
def test_a_wrapped_model_is_explained_and_goes_on(wrap: Any) -> None:
    """Once its own hooks are there: they fire, stay, and change nothing."""
    model = small_llava.model(TOKENIZER)
    wrapped = wrap(model)
    fired: list[str] = []
    model.model.language_model.layers[0].register_forward_hook(lambda *_: fired.append("the user's"))
    expected = bare()
    inputs = dict(PROCESSOR(images=PICTURE, text=expected.metadata["prompt"], return_tensors="pt"))
    before = traced(wrapped, inputs)
    kept, seen = hooks(model), len(fired)
    explainer = Explainer(wrapped, PROCESSOR)
    assert explainer.model is model
    for _ in range(2):
        assert_same(explainer.explain(PICTURE, PROMPT, ANSWER), expected)
    assert len(fired) > seen and hooks(model) == kept
    assert torch.equal(traced(wrapped, inputs), before)


def traced(wrapped: Any, inputs: dict[str, Any]) -> torch.Tensor:
    """What nnsight reads of a layer."""
    with wrapped.trace(**inputs):
        found = wrapped.model.language_model.layers[1].output.save()
    return found[0] if isinstance(found, tuple) else found


def test_a_wrapper_brings_its_processor() -> None:
    wrapped = of_nnsight(small_llava.model(TOKENIZER))
    assert Explainer(wrapped).processor is PROCESSOR
    assert_same(Explainer(wrapped).explain(PICTURE, PROMPT, ANSWER), bare())


def test_a_model_inside_a_bridge_of_transformer_lens_is_refused() -> None:
    """Its attention is the bridge's own code by then: the same checkpoint, loaded once more, is explained."""
    bridges = pytest.importorskip("transformer_lens.model_bridge")
    explainer = Explainer.from_pretrained()
    folder, answer = explainer.model.config.name_or_path, "A yellow circle."
    before = explainer.explain(SAMPLE_IMAGE, PROMPT, answer)
    bridge = bridges.TransformerBridge.boot_transformers(
        folder, device="cpu", dtype=torch.float32, tokenizer=explainer.processor.tokenizer
    )
    with pytest.raises(ModelError, match="no text decoder that attends through transformers' AttentionInterface"):
        Explainer(bridge.original_model, explainer.processor).explain(SAMPLE_IMAGE, PROMPT, answer)
    assert_same(explainer.explain(SAMPLE_IMAGE, PROMPT, answer), before)
