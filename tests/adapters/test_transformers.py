"""transformers' own objects: a pipeline as the model, what generate() returns as the answer."""

from __future__ import annotations

from typing import Any

import pytest
import small_llava
import torch
import zoo
from alike import assert_same
from transformers import LlamaConfig, LlamaForCausalLM, pipeline
from types_beyond import BEYOND

from dexar_fast import Explainer, InputError, ModelError
from dexar_fast.prompt.answers import targets, written

PROMPT = "Describe the image."
TOKENIZER = small_llava.byte_level()
PROCESSOR = small_llava.processor(TOKENIZER)
MODEL = small_llava.model(TOKENIZER)
PICTURE = small_llava.noise()
UNTOLD = {"blip"}  # whose generate() puts other ids before its answer than the prompt's


@pytest.fixture(scope="module")
def explainer() -> Explainer:
    return Explainer(MODEL, PROCESSOR)


@pytest.fixture(scope="module")
def inputs(explainer: Explainer) -> Any:
    prompt = explainer.explain(PICTURE, PROMPT, "the cat").metadata["prompt"]
    return PROCESSOR(images=PICTURE, text=prompt, return_tensors="pt")


def generated(inputs: Any, **more: Any) -> Any:
    return MODEL.generate(**inputs, max_new_tokens=6, do_sample=False, return_dict_in_generate=True, **more)


def test_a_pipeline_is_its_model_and_processor(explainer: Explainer) -> None:
    pipe = pipeline("image-text-to-text", model=MODEL, processor=PROCESSOR)
    found = Explainer(pipe)
    assert found.model is MODEL and found.processor is PROCESSOR
    asked = [{"role": "user", "content": [{"type": "image", "image": PICTURE}, {"type": "text", "text": PROMPT}]}]
    (told,) = pipe(text=asked, max_new_tokens=6, return_full_text=False, generate_kwargs={"do_sample": False})
    assert found.explain(PICTURE, PROMPT, max_new_tokens=6).text == told["generated_text"]
    other = small_llava.processor(TOKENIZER)
    assert Explainer(pipe, other).processor is other


def test_another_pipeline_is_refused_by_name() -> None:
    config = LlamaConfig(vocab_size=len(TOKENIZER), hidden_size=32, intermediate_size=16, num_hidden_layers=1)
    pipe = pipeline("text-generation", model=LlamaForCausalLM(config), tokenizer=TOKENIZER)
    with pytest.raises(ModelError, match="TextGenerationPipeline is for 'text-generation': pass a pipeline for 'image"):
        Explainer(pipe)


@pytest.mark.parametrize("more", [{}, {"num_beams": 2}])
def test_what_generate_returns_is_an_answer(explainer: Explainer, inputs: Any, more: dict[str, int]) -> None:
    """With its prompt or without, as an output or as the bare tensor, wherever an answer is given."""
    output = generated(inputs, **more)
    ids = output.sequences[0, inputs["input_ids"].shape[1] :]
    expected = explainer.explain_inputs(inputs, ids, images=PICTURE)
    alone = ids[None]
    for answer in (output, output.sequences, alone):
        assert_same(explainer.explain(PICTURE, PROMPT, answer), expected)
        assert_same(explainer.explain_inputs(inputs, answer, images=PICTURE), expected)
    batch = explainer.explain_batch([(PICTURE, PROMPT, output), (PICTURE, PROMPT, "the cat")])
    pairs = explainer.explain_batch_inputs([(inputs, output)])
    many = explainer.explain_many(PICTURE, [PROMPT, PROMPT], [output, [output.sequences, "the cat"]])
    compared = explainer.compare(PICTURE, PROMPT, ["dex-ar", "attention"], output)
    for found in (batch[0], pairs[0], *many[:2], compared[0]):
        assert_same(found, expected)
    assert many[2].text == batch[1].text == " the cat"


def test_an_answer_ends_before_the_end(explainer: Explainer, inputs: Any) -> None:
    """As one that is generated here: the end-of-sequence token is no word of it."""
    ids = TOKENIZER(" the cat", add_special_tokens=False).input_ids
    ended = torch.tensor([[*inputs["input_ids"][0].tolist(), *ids, TOKENIZER.eos_token_id]])
    assert explainer.explain(PICTURE, PROMPT, ended).token_ids.tolist() == ids
    with pytest.raises(InputError, match="empty: it holds no token before its end"):
        explainer.explain(PICTURE, PROMPT, torch.tensor([[TOKENIZER.eos_token_id]]))


def test_what_is_refused(explainer: Explainer, inputs: Any) -> None:
    two = generated(inputs, num_beams=2, num_return_sequences=2)
    for call in (lambda: explainer.explain(PICTURE, PROMPT, two), lambda: explainer.explain_inputs(inputs, two)):
        with pytest.raises(InputError, match=r"generate\(\) returned 2 sequences: pass the one"):
            call()
    with pytest.raises(InputError, match="answered another prompt"):
        explainer.explain(PICTURE, "the dog is on it", generated(inputs))
    with pytest.raises(InputError, match="inputs must be what the processor returns"):
        explainer.explain_inputs(None, two.sequences[:1])
    ragged = {"input_ids": [[1, 2], [3]], "pixel_values": inputs["pixel_values"]}
    with pytest.raises(InputError, match="input_ids is no regular array"):
        explainer.explain_inputs(ragged, torch.tensor([[5, 6]]))
    with pytest.raises(InputError, match="responses must hold an answer, or a list of them, to each of the 2 prompts"):
        explainer.explain_many(PICTURE, [PROMPT, PROMPT], two.sequences[:1])


@pytest.mark.parametrize("name", BEYOND)
def test_models_that_read_their_image_elsewhere(name: str) -> None:
    """What their generate() puts before an answer goes; where that is not known the output is refused."""
    beyond = BEYOND[name]()
    asked = {key: each.clone() for key, each in beyond.inputs.items()}
    more = {"max_new_tokens": 3, "min_new_tokens": 3, "do_sample": False, "return_dict_in_generate": True}
    answer = written(beyond.model.generate(**asked, **more))
    assert answer is not None
    try:
        found = targets(answer, beyond.model, None, beyond.inputs, set())
    except InputError as error:
        assert name in UNTOLD and "does not begin its output with the prompt" in str(error)
    else:
        assert name not in UNTOLD and found.tolist() == answer.ids[-3:].tolist()


def test_a_family_of_each_kind_takes_its_own_output() -> None:
    model, inputs = zoo.build("qwen2_5_vl", torch.float32)
    output = model.generate(**inputs, max_new_tokens=4, min_new_tokens=4, do_sample=False)
    found = Explainer(model).explain_inputs(inputs, output)
    assert found.token_ids.tolist() == output[0, -4:].tolist()
