"""What generate() is told, by its arguments, by a generation config or by the model's own, is what it goes by."""

from __future__ import annotations

import copy
from functools import cache
from pathlib import Path
from typing import Any

import bad_input
import pytest
import small_llava
import torch
from bad_input import PICTURE, PROCESSOR, PROMPT, TOKENIZER
from transformers import GenerationConfig

from dexar_fast import Explainer, Explanation, InputError
from dexar_fast.model.attention import watcher

INPUTS = dict(PROCESSOR(images=PICTURE, text=f"USER: <image>\n{PROMPT} ASSISTANT:", return_tensors="pt"))
LENGTH = INPUTS["input_ids"].shape[1]
ANSWER = bad_input.MODEL.generate(**INPUTS, max_new_tokens=12)[0, LENGTH:].tolist()
STOP = TOKENIZER.decode(ANSWER[2])
IMAGE = TOKENIZER.convert_tokens_to_ids(small_llava.IMAGE)  # no given answer may hold it
LONG: dict[str, Any] = {"max_new_tokens": 12, "suppress_tokens": [IMAGE]}
WAYS = ["arguments", "config", "model"]

SETTINGS: list[dict[str, Any]] = [
    {"max_new_tokens": 5},
    {"max_length": LENGTH + 4},
    {"max_length": LENGTH + 4, "max_new_tokens": 6},
    LONG | {"stop_strings": [STOP]},
    LONG | {"stop_strings": STOP, "num_beams": 2},
    LONG | {"eos_token_id": ANSWER[4]},
    LONG | {"eos_token_id": [ANSWER[3], ANSWER[4]]},
    LONG | {"eos_token_id": torch.tensor([ANSWER[3]])},
    LONG | {"eos_token_id": ANSWER[3], "min_new_tokens": 6},
    LONG | {"eos_token_id": ANSWER[3], "min_length": LENGTH + 6},
    LONG | {"forced_eos_token_id": ANSWER[1]},
    LONG | {"forced_bos_token_id": ANSWER[1]},
    LONG | {"suppress_tokens": [IMAGE, *ANSWER[:2]]},
    LONG | {"begin_suppress_tokens": ANSWER[:1]},
    LONG | {"repetition_penalty": 1.8},
    LONG | {"no_repeat_ngram_size": 2},
    LONG | {"bad_words_ids": [[ANSWER[1]]]},
    LONG | {"sequence_bias": [[[ANSWER[1]], -50.0]]},
    LONG | {"exponential_decay_length_penalty": (2, 1.5)},
    LONG | {"do_sample": True},
    LONG | {"do_sample": True, "temperature": 0.5, "top_p": 0.5},
    LONG | {"do_sample": True, "top_k": 3},
    LONG | {"do_sample": True, "min_p": 0.2},
    LONG | {"num_beams": 3},
    LONG | {"num_beams": 3, "eos_token_id": ANSWER[3], "length_penalty": 3.0, "early_stopping": True},
    LONG | {"num_beams": 3, "do_sample": True},
    LONG | {"guidance_scale": 1.7},
    LONG | {"watermarking_config": {"bias": 2.5, "seeding_scheme": "selfhash"}},
    LONG | {"cache_implementation": "static"},
    LONG | {"use_cache": False},
    LONG | {"prefill_chunk_size": 7},
    LONG | {"output_scores": True, "output_hidden_states": True, "return_dict_in_generate": True},
    LONG | {"max_time": 100.0},
]


def told(settings: dict[str, Any], way: str) -> tuple[Any, dict[str, Any]]:
    """A model of its own, and the arguments, where the settings are told in that way."""
    model = copy.deepcopy(bad_input.MODEL)
    if way == "arguments":
        return model, dict(settings)
    if way == "config":
        return model, {"generation_config": GenerationConfig(**settings)}
    model.generation_config.update(**settings)
    return model, {}


def written(model: Any, arguments: dict[str, Any]) -> list[int]:
    """generate()'s answer, its end included."""
    torch.manual_seed(0)
    found = model.generate(**INPUTS, **arguments, tokenizer=TOKENIZER)
    return (found if isinstance(found, torch.Tensor) else found.sequences)[0, LENGTH:].tolist()


@cache
def chunks_keep_the_image() -> bool:
    """Transformers 5.17 writes another answer to a prompt with an image that it runs in chunks."""
    whole, chunks = (written(bad_input.MODEL, {"max_new_tokens": 6, "prefill_chunk_size": size}) for size in (None, 7))
    return whole == chunks


def explained(model: Any, arguments: dict[str, Any]) -> Explanation:
    torch.manual_seed(0)
    return Explainer(model, PROCESSOR).explain(PICTURE, PROMPT, **arguments)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_the_answer_is_the_one_generate_writes(settings: dict[str, Any], way: str) -> None:
    if "prefill_chunk_size" in settings and not chunks_keep_the_image():
        pytest.skip("this transformers loses the image where it runs a prompt in chunks")
    model, arguments = told(settings, way)
    wanted = written(model, copy.deepcopy(arguments))
    ends = torch.as_tensor(settings.get("eos_token_id", model.generation_config.eos_token_id)).flatten().tolist()
    wanted = wanted[: min([wanted.index(end) for end in ends if end in wanted], default=len(wanted))]
    found = explained(model, arguments)
    assert found.token_ids.tolist() == wanted
    given = Explainer(copy.deepcopy(bad_input.MODEL), PROCESSOR).explain_inputs(INPUTS, wanted, images=PICTURE)
    torch.testing.assert_close(found.text_scores, given.text_scores, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(found.unfiltered_token_maps, given.unfiltered_token_maps, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("settings", [{"max_new_tokens": 5}, LONG | {"stop_strings": [STOP]}], ids=str)
def test_so_is_a_streamed_one(settings: dict[str, Any]) -> None:
    model, arguments = told(settings, "model")
    stream = Explainer(model, PROCESSOR).stream(PICTURE, PROMPT, chunk_size=2, **arguments)
    assert [token for piece in stream for token in piece.token_ids.tolist()] == written(model, arguments)


@pytest.mark.parametrize(
    ("own", "asked"),
    [
        ({"max_new_tokens": 9}, {"max_new_tokens": 4}),
        ({"max_new_tokens": 9}, {"max_length": LENGTH + 4}),  # generate() takes the number of new tokens all the same
        ({"max_length": LENGTH + 9}, {"max_new_tokens": 4}),
        ({"max_length": 5}, {"generation_config": GenerationConfig(max_new_tokens=4)}),
        (LONG | {"stop_strings": [STOP]}, {"stop_strings": None}),
        (LONG | {"num_beams": 3}, {"num_beams": 1}),
        (LONG | {"num_beams": 3}, {"generation_config": GenerationConfig(max_new_tokens=5)}),
        (LONG | {"cache_implementation": "static"}, {"generation_config": GenerationConfig(max_new_tokens=5)}),
        (LONG | {"prefill_chunk_size": 7}, {"generation_config": GenerationConfig(max_new_tokens=5)}),
        (LONG | {"num_return_sequences": 2, "num_beams": 2}, {"num_return_sequences": 1}),
    ],
    ids=str,
)
def test_who_asks_comes_before_the_model(own: dict[str, Any], asked: dict[str, Any]) -> None:
    if "prefill_chunk_size" in own and not chunks_keep_the_image():
        pytest.skip("this transformers loses the image where it runs a prompt in chunks")
    model, _ = told(own, "model")
    assert explained(model, asked).token_ids.tolist() == written(model, copy.deepcopy(asked))


def test_several_beams_of_the_models_own_config_find_room_in_a_pool() -> None:
    model, arguments = told(LONG | {"num_beams": 3}, "model")
    found = Explainer(model, PROCESSOR).explain_many(PICTURE, [PROMPT, PROMPT], max_new_tokens=5)
    wanted = written(model, arguments | {"max_new_tokens": 5})
    assert [each.token_ids.tolist() for each in found] == [wanted, wanted]


def test_where_nobody_says_it_is_128_tokens() -> None:
    model, arguments = told({"eos_token_id": None}, "model")
    assert len(explained(model, arguments)) == 128


@pytest.mark.parametrize("settings", [{"max_new_tokens": 5000}, {"max_length": 5000}])
def test_a_limit_of_the_models_own_config_ends_with_the_context(settings: dict[str, Any]) -> None:
    model, arguments = told(settings | {"eos_token_id": None}, "model")
    assert len(explained(model, arguments)) == 256 - LENGTH


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"num_return_sequences": 2, "num_beams": 2}, "pass num_return_sequences=1"),
    ({"token_healing": True}, "pass token_healing=False"),
    ({"cache_implementation": "quantized"}, "pass cache_implementation=None"),
    ({"max_length": LENGTH}, f"max_length {LENGTH} ends before the prompt of {LENGTH} tokens: pass max_new_tokens"),
]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(("settings", "message"), REFUSED, ids=str)
def test_what_no_explanation_follows_is_refused_by_name(settings: dict[str, Any], message: str, way: str) -> None:
    model, arguments = told(settings, way)
    with pytest.raises(InputError, match=message):
        explained(model, arguments)
    with pytest.raises(InputError, match=message):
        Explainer(model, PROCESSOR).stream(PICTURE, PROMPT, **arguments)


@pytest.mark.parametrize("way", WAYS)
def test_stop_strings_without_a_tokenizer_are_refused(way: str) -> None:
    model, arguments = told({"stop_strings": STOP}, way)
    with pytest.raises(InputError, match="need the tokenizer: give the Explainer a processor"):
        Explainer(model).explain_inputs(INPUTS, **arguments)
    found = Explainer(model).explain_inputs(INPUTS, tokenizer=TOKENIZER, **arguments)
    assert found.token_ids.tolist() == ANSWER[:3]


@pytest.mark.parametrize("ids", ["abc", ["abc"], {"id": 3}, [[1], [2, 3]]])
def test_an_end_that_is_no_id_is_refused(ids: Any) -> None:
    with pytest.raises(InputError, match="eos_token_id must be a token's id or a list of ids"):
        Explainer(bad_input.MODEL, PROCESSOR).explain(PICTURE, PROMPT, eos_token_id=ids)


@pytest.mark.parametrize("way", ["arguments", "config"])
def test_a_cache_that_is_asked_for_is_the_one_generate_has(way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The model writes as its owner has it: with its own attention, and no watcher of ours."""
    model, arguments = told(LONG | {"cache_implementation": "static"}, way)
    wanted, own = written(model, copy.deepcopy(arguments)), model.config.text_config._attn_implementation
    plain, seen = model.generate, []

    def generate(**given: Any) -> Any:
        config = given.get("generation_config")
        cache = given.get("cache_implementation") or getattr(config, "cache_implementation", None)
        seen.append((cache, model.config.text_config._attn_implementation, watcher.get()))
        return plain(**given)

    monkeypatch.setattr(model, "generate", generate)
    assert explained(model, arguments).token_ids.tolist() == wanted
    assert seen[0] == ("static", own, None)


@pytest.mark.parametrize("where", ["stream", "out", "pool"])
def test_a_cache_that_is_asked_for_is_refused_where_another_is_needed(where: str, tmp_path: Path) -> None:
    explainer = Explainer(bad_input.MODEL, PROCESSOR)
    knobs = LONG | {"cache_implementation": "static"}
    with pytest.raises(InputError, match=r"cache_implementation='static': .* leave it out"):
        if where == "stream":
            list(explainer.stream(PICTURE, PROMPT, **knobs))
        elif where == "out":
            explainer.explain(PICTURE, PROMPT, out=tmp_path / "out", **knobs)
        else:
            explainer.explain_many(PICTURE, [PROMPT, PROMPT], **knobs)
