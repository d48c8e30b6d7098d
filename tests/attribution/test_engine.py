"""What the pass may cost, and that it leaves no trace on the model."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import oracle
import pytest
import torch
import zoo
from engine_cases import SquareTensors, long_prompt
from torch import nn
from torch.overrides import _get_current_function_mode_stack
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM

from dexar_fast import Explainer, InputError, ModelError, NumericalError, OutOfMemoryError
from dexar_fast.backends import ops
from dexar_fast.kvcache.pool import KVPool

TARGETS = torch.tensor([20, 31, 44, 17, 25, 60])
Built = tuple[Any, zoo.Inputs]


@pytest.fixture
def llava() -> Built:
    """A model that has run before: transformers installs hooks of its own in a model's first forward."""
    model, inputs = zoo.build("llava", dtype=torch.float32)
    with torch.no_grad():
        model(**inputs)
    return model, inputs


def first_layer(model: Any) -> nn.Module:
    return model.model.language_model.layers[0]


@contextmanager
def counted_positions(model: Any) -> Iterator[list[int]]:
    """The number of positions of each call of the first decoder layer."""
    seen: list[int] = []
    handle = first_layer(model).register_forward_pre_hook(lambda module, args: seen.append(args[0].shape[1]))
    try:
        yield seen
    finally:
        handle.remove()


@pytest.mark.parametrize("chunk_size", [None, 1, 4])
@pytest.mark.parametrize("family", ["llava", "qwen2_5_vl", "paligemma", "gemma3"])
def test_a_given_answer_takes_p_plus_t_positions(family: str, chunk_size: int | None) -> None:
    model, inputs = zoo.build(family)
    prompt = inputs["input_ids"].shape[1]
    with counted_positions(model) as seen:
        Explainer(model, chunk_size=chunk_size).explain_inputs(inputs, target_ids=TARGETS)
    assert seen[:2] == [prompt, prompt]  # the first prompt is run under the model's own attention, too
    assert sum(seen[1:]) == prompt + len(TARGETS)


def test_generating_takes_p_plus_2t_positions(llava: Built) -> None:
    model, inputs = llava
    explainer = Explainer(model)
    explainer.explain_inputs(inputs, max_new_tokens=1)
    with counted_positions(model) as seen:
        explanation = explainer.explain_inputs(inputs, max_new_tokens=6, do_sample=False)
    assert sum(seen) <= inputs["input_ids"].shape[1] + 2 * len(explanation)


def test_a_generated_answer_is_explained_like_the_same_answer_given(llava: Built) -> None:
    model, inputs = llava
    generated = Explainer(model).explain_inputs(inputs, max_new_tokens=6, do_sample=False)
    given = Explainer(model).explain_inputs(inputs, target_ids=generated.token_ids)
    torch.testing.assert_close(generated.token_maps, given.token_maps, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("pooled", [False, True])
@pytest.mark.parametrize("family", ["llava", "qwen2_5_vl", "gemma3", "paligemma2"])
def test_beams_are_explained_from_the_cache_they_leave(family: str, pooled: bool) -> None:
    model, inputs = zoo.build(family)
    pool = KVPool(512) if pooled else None
    with counted_positions(model) as seen:
        found = Explainer(model, pool=pool).explain_inputs(inputs, max_new_tokens=5, num_beams=3, do_sample=False)
    assert sum(seen) - inputs["input_ids"].shape[1] <= inputs["input_ids"].shape[1] + 2 * len(found)
    given = Explainer(model).explain_inputs(inputs, target_ids=found.token_ids)
    assert given.unfiltered_token_maps.max() > 0
    for name in ("text_scores", "visual_scores", "token_maps", "unfiltered_token_maps"):
        torch.testing.assert_close(getattr(found, name), getattr(given, name), rtol=1e-9, atol=1e-9)
    if pool:
        assert pool.books.stats()["held"] == 0


@pytest.mark.parametrize("family", ["llava", "qwen2_5_vl", "idefics3"])
def test_no_tensor_has_two_sequence_axes(family: str) -> None:
    """For causal models. Windows and bidirectional prompts get transformers' own [1, 1, S, S] mask in the prefill."""
    model, inputs = zoo.build(family, dtype=torch.float32)
    inputs = long_prompt(inputs, 220)
    prompt = inputs["input_ids"].shape[1]  # longer than the vocabulary, so that no other axis is as long
    with SquareTensors(range(prompt - 1, prompt + len(TARGETS) + 1)) as squares:
        Explainer(model).explain_inputs(inputs, target_ids=TARGETS)
    assert squares.found == []


def test_the_check_for_square_tensors_sees_eager_attention() -> None:
    model, inputs = zoo.build("llava", dtype=torch.float32)
    inputs = long_prompt(inputs, 220)
    model.set_attn_implementation("eager")
    prompt = inputs["input_ids"].shape[1]
    with SquareTensors(range(prompt - 1, prompt + 1)) as squares, torch.no_grad():
        model(**inputs)
    assert squares.found


def state(model: Any) -> dict[str, Any]:
    return {
        "requires_grad": [p.requires_grad for p in model.parameters()],
        "grad": [p.grad for p in model.parameters()],
        "training": [m.training for m in model.modules()],
        "hooks": [(len(m._forward_hooks), len(m._forward_pre_hooks)) for m in model.modules()],
        "attention": [c._attn_implementation for c in (model.config, model.config.text_config)],
        "config": model.config.to_dict(),
        "grad_mode": torch.is_grad_enabled(),
        "weights": [p.clone() for p in model.parameters()],
    }


def assert_same_state(model: Any, before: dict[str, Any]) -> None:
    after = state(model)
    assert all(torch.equal(a, b) for a, b in zip(after.pop("weights"), before.pop("weights"), strict=True))
    assert after == before


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_the_model_is_left_as_it_was(llava: Built, attention: str) -> None:
    model, inputs = llava
    model.set_attn_implementation(attention)
    model.train()
    model.model.language_model.layers[1].eval()
    next(model.parameters()).requires_grad_(False)
    before = state(model)
    Explainer(model).explain_inputs(inputs, target_ids=TARGETS)
    assert_same_state(model, before)


@pytest.mark.parametrize("error", [RuntimeError("boom"), KeyboardInterrupt()])
@pytest.mark.parametrize("first_use", [True, False])
def test_the_model_is_left_as_it_was_after_an_error(
    llava: Built, monkeypatch: pytest.MonkeyPatch, error: BaseException, first_use: bool
) -> None:
    model, inputs = llava
    explainer = Explainer(model)
    if not first_use:
        explainer.explain_inputs(inputs, target_ids=TARGETS)
    model.train()
    before = state(model)
    calls = []

    def fail(*args: Any, **kwargs: Any) -> Any:
        calls.append(args)
        raise error

    monkeypatch.setattr(ops, "head_score", fail)
    with pytest.raises(type(error)):
        explainer.explain_inputs(inputs, target_ids=TARGETS)
    assert calls
    assert_same_state(model, before)


@pytest.mark.parametrize("error", [RuntimeError("boom"), KeyboardInterrupt()])
@pytest.mark.parametrize("first_use", [True, False])
def test_an_error_in_a_layer_leaves_nothing_watching(llava: Built, error: BaseException, first_use: bool) -> None:
    """torch runs no hooks at Ctrl-C: what records the lens has to end by itself."""
    model, inputs = llava
    explainer = Explainer(model)
    if not first_use:
        explainer.explain_inputs(inputs, target_ids=TARGETS)

    def fail(*_: Any) -> None:
        raise error

    hook = model.model.language_model.layers[1].register_forward_pre_hook(fail)
    try:
        with pytest.raises(type(error)):
            explainer.explain_inputs(inputs, target_ids=TARGETS)
    finally:
        hook.remove()
    assert _get_current_function_mode_stack() == []


def test_dropout_of_a_training_model_is_off(llava: Built) -> None:
    model, inputs = llava
    expected = Explainer(model).explain_inputs(inputs, target_ids=TARGETS)
    for layer in model.model.language_model.layers:
        layer.self_attn.attention_dropout = 0.5
    model.train()
    found = Explainer(model).explain_inputs(inputs, target_ids=TARGETS)
    assert torch.equal(found.token_maps, expected.token_maps)


def test_it_works_in_inference_mode_and_without_grad(llava: Built) -> None:
    model, inputs = llava
    expected = Explainer(model).explain_inputs(inputs, target_ids=TARGETS)
    for context in (torch.inference_mode(), torch.no_grad()):
        with context:
            found = Explainer(model).explain_inputs(inputs, target_ids=TARGETS)
        assert torch.equal(found.token_maps, expected.token_maps)


def in_thread(work: Callable[[], Any]) -> Any:
    results: list[Any] = []
    thread = threading.Thread(target=lambda: results.append(work()))
    thread.start()
    thread.join(60)
    return results[0]


def test_another_threads_forward_is_not_captured(llava: Built, monkeypatch: pytest.MonkeyPatch) -> None:
    model, inputs = llava
    with torch.no_grad():
        plain = model(**inputs).logits
    expected = Explainer(model).explain_inputs(inputs, target_ids=TARGETS)
    attribute, seen = ops.head_score, []

    def forward() -> torch.Tensor:
        logits = model(**inputs).logits
        assert logits.requires_grad  # its graph is whole: nothing of it was detached
        return logits.detach()

    def attribute_during_another_forward(*args: Any, **kwargs: Any) -> Any:
        seen.append(in_thread(forward))
        return attribute(*args, **kwargs)

    monkeypatch.setattr(ops, "head_score", attribute_during_another_forward)
    found = Explainer(model).explain_inputs(inputs, target_ids=TARGETS)
    assert len(seen) == len(model.model.language_model.layers)
    for logits in seen:
        torch.testing.assert_close(logits, plain)
    assert torch.equal(found.token_maps, expected.token_maps)


def test_two_explainers_share_a_model_between_threads(llava: Built) -> None:
    model, inputs = llava
    answers = [TARGETS, TARGETS.flip(0), TARGETS[:2]]
    expected = [Explainer(model).explain_inputs(inputs, target_ids=ids) for ids in answers]
    found: dict[int, Any] = {}

    def work(i: int) -> None:
        found[i] = Explainer(model).explain_inputs(inputs, target_ids=answers[i])

    threads = [threading.Thread(target=work, args=(i,)) for i in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    for i in range(3):
        assert torch.equal(found[i].token_maps, expected[i].token_maps)


def largest_error(explanation: Any, expected: dict[str, torch.Tensor]) -> float:
    names = ("visual_scores", "text_scores", "token_maps", "sequence_map")
    errors = [(getattr(explanation, name) - expected[name]).abs().max() / expected[name].abs().max() for name in names]
    return float(max(errors))


@pytest.mark.parametrize("chunk_size", [None, 1])
def test_text_behind_a_long_video_counts_on_from_the_last_position(chunk_size: int | None) -> None:
    """M-RoPE: the video's last frame has a later position than the text behind it."""
    model, inputs = zoo.qwen2_5_vl(torch.float64, 0, grids=[(8, 4, 6)], placeholder=zoo.VIDEO)
    inputs["second_per_grid_ts"] = torch.tensor([4.0])
    expected = oracle.oracle(model, inputs, TARGETS)
    found = Explainer(model, chunk_size=chunk_size).explain_inputs(inputs, target_ids=TARGETS)
    assert largest_error(found, expected) < 1e-9


def test_given_position_ids_go_on_in_the_answer() -> None:
    model, inputs = zoo.build("llava")
    length = inputs["input_ids"].shape[1]
    plain = Explainer(model).explain_inputs(inputs, target_ids=TARGETS)
    shifted = {**inputs, "position_ids": torch.arange(length)[None] + 7}  # RoPE is relative
    found = Explainer(model).explain_inputs(shifted, target_ids=TARGETS)
    torch.testing.assert_close(found.token_maps, plain.token_maps, rtol=1e-4, atol=1e-4)
    spread = {**inputs, "position_ids": torch.arange(length)[None] * 3}
    assert not torch.allclose(Explainer(model).explain_inputs(spread, target_ids=TARGETS).token_maps, plain.token_maps)


def test_autocast_around_it_changes_nothing(llava: Built) -> None:
    model, inputs = llava
    expected = Explainer(model).explain_inputs(inputs, target_ids=TARGETS)
    with torch.autocast("cpu", torch.bfloat16):
        found = Explainer(model).explain_inputs(inputs, target_ids=TARGETS)
    assert torch.equal(found.sequence_map, expected.sequence_map)


def test_a_replaced_head_is_noticed(llava: Built) -> None:
    model, inputs = llava
    explainer = Explainer(model)
    before = explainer.explain_inputs(inputs, target_ids=TARGETS)
    model.lm_head = nn.Linear(zoo.HIDDEN, zoo.VOCABULARY, bias=False)
    after = explainer.explain_inputs(inputs, target_ids=TARGETS)
    assert torch.equal(after.token_maps, Explainer(model).explain_inputs(inputs, target_ids=TARGETS).token_maps)
    assert not torch.allclose(after.token_maps, before.token_maps)


def test_a_compiled_model_is_explained_like_its_own_model(llava: Built) -> None:
    model, inputs = llava
    compiled = torch.compile(model, backend="eager")
    assert Explainer(compiled).model is model
    expected = Explainer(model).explain_inputs(inputs, max_new_tokens=4, do_sample=False)
    found = Explainer(compiled).explain_inputs(inputs, max_new_tokens=4, do_sample=False)
    assert torch.equal(found.token_maps, expected.token_maps)


def test_a_wrapper_with_a_base_model_is_unwrapped(llava: Built) -> None:
    class Adapter(nn.Module):
        def __init__(self, base: nn.Module) -> None:
            super().__init__()
            self.base = base

        def get_base_model(self) -> nn.Module:
            return self.base

    assert Explainer(Adapter(llava[0])).model is llava[0]


@pytest.mark.parametrize("given", ["config", "model", "argument"])
def test_the_end_token_is_not_explained_wherever_it_is_named(llava: Built, given: str) -> None:
    model, inputs = llava
    model.generation_config.eos_token_id = None
    answer = Explainer(model).explain_inputs(inputs, max_new_tokens=6, do_sample=False).token_ids.tolist()
    end = answer[3]
    arguments: dict[str, Any] = {"max_new_tokens": 6, "do_sample": False}
    if given == "config":
        arguments = {"generation_config": GenerationConfig(**arguments, eos_token_id=end)}
    elif given == "model":
        model.generation_config.eos_token_id = [end]
        arguments = {"generation_config": GenerationConfig(**arguments)}
    else:
        arguments["eos_token_id"] = end
    found = Explainer(model).explain_inputs(inputs, **arguments)
    assert found.token_ids.tolist() == answer[: answer.index(end)]


def test_an_error_of_the_users_streamer_passes(llava: Built) -> None:
    class Broken:
        def put(self, value: torch.Tensor) -> None:
            if value.numel() == 1:
                raise ValueError("the printer is out of paper")

        def end(self) -> None: ...

    model, inputs = llava
    with pytest.raises(ValueError, match="out of paper") as raised:
        Explainer(model).explain_inputs(inputs, max_new_tokens=3, do_sample=False, streamer=Broken())
    assert not isinstance(raised.value, InputError)


@pytest.mark.parametrize(
    "inputs_like",
    [
        {"pixel_values": None},
        {"past_key_values": object()},
        {"cache": object()},
        {"input_ids": torch.tensor([[999, 190, 5]])},
    ],
)
def test_inputs_that_cannot_be_are_refused(llava: Built, inputs_like: dict[str, Any]) -> None:
    model, inputs = llava
    with pytest.raises(InputError):
        Explainer(model).explain_inputs({**inputs, **inputs_like}, target_ids=TARGETS)


def test_several_answers_at_once_are_refused(llava: Built) -> None:
    model, inputs = llava
    with pytest.raises(InputError, match="one answer"):
        Explainer(model).explain_inputs(inputs, max_new_tokens=3, do_sample=True, num_return_sequences=2)


def test_a_cache_implementation_is_overruled(llava: Built) -> None:
    model, inputs = llava
    expected = Explainer(model).explain_inputs(inputs, max_new_tokens=4, do_sample=False)
    model.generation_config.cache_implementation = "static"
    found = Explainer(model).explain_inputs(inputs, max_new_tokens=4, do_sample=False)
    assert torch.equal(found.token_maps, expected.token_maps)


@pytest.mark.parametrize("layer", [0, 2])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_bad_weights_are_named_with_their_layer(llava: Built, layer: int, value: float) -> None:
    model, inputs = llava
    with torch.no_grad():
        model.model.language_model.layers[layer].self_attn.v_proj.weight[0, 0] = value
    with pytest.raises(NumericalError, match=f"layer {layer}"):
        Explainer(model).explain_inputs(inputs, target_ids=TARGETS)


def out_of_memory_above(limit: int, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    attribute, sizes = ops.head_score, []

    def limited(u: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        sizes.append(len(u))
        if len(u) > limit:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.50 GiB. GPU 0 has ...")
        return attribute(u, *args, **kwargs)

    monkeypatch.setattr(ops, "head_score", limited)
    return sizes


def test_a_chunk_that_does_not_fit_is_halved(llava: Built, monkeypatch: pytest.MonkeyPatch) -> None:
    model, inputs = llava
    expected = Explainer(model).explain_inputs(inputs, target_ids=TARGETS)
    sizes = out_of_memory_above(2, monkeypatch)
    found = Explainer(model).explain_inputs(inputs, target_ids=TARGETS)
    assert sizes[:2] == [6, 3]  # then 1 at a time: 3 // 2
    torch.testing.assert_close(found.token_maps, expected.token_maps, rtol=1e-4, atol=1e-4)


def test_out_of_memory_says_how_much_was_asked_for(llava: Built, monkeypatch: pytest.MonkeyPatch) -> None:
    model, inputs = llava
    out_of_memory_above(0, monkeypatch)
    with pytest.raises(OutOfMemoryError, match=r"2\.50 GiB"):
        Explainer(model).explain_inputs(inputs, target_ids=TARGETS)


def test_an_offloaded_model_is_explained_alike(llava: Built) -> None:
    from accelerate import cpu_offload

    model, inputs = llava
    expected = Explainer(model).explain_inputs(inputs, target_ids=TARGETS)
    cpu_offload(model, execution_device=torch.device("cpu"))
    assert next(first_layer(model).parameters()).is_meta
    found = Explainer(model).explain_inputs(inputs, target_ids=TARGETS)
    torch.testing.assert_close(found.token_maps, expected.token_maps, rtol=1e-4, atol=1e-4)


def test_a_model_that_is_partly_on_disk_is_explained_alike(llava: Built, tmp_path: Path) -> None:
    """As `device_map` places what memory does not hold."""
    from accelerate import dispatch_model

    model, inputs = llava
    expected = Explainer(model).explain_inputs(inputs, target_ids=TARGETS)
    last, text = model.model.language_model.layers[-1], "model.language_model"
    names = ["model.vision_tower", "model.multi_modal_projector", "lm_head", f"{text}.embed_tokens", f"{text}.norm"]
    layers = [f"{text}.layers.{index}" for index in range(len(model.model.language_model.layers))]
    placed = dict.fromkeys([*names, *layers], "cpu") | {layers[-1]: "disk"}
    dispatch_model(model, placed, offload_dir=tmp_path)
    assert next(last.parameters()).is_meta
    for _ in range(2):
        found = Explainer(model).explain_inputs(inputs, target_ids=TARGETS)
        torch.testing.assert_close(found.token_maps, expected.token_maps, rtol=1e-4, atol=1e-4)


def test_hooks_of_the_user_see_the_pass(llava: Built) -> None:
    model, inputs = llava
    expected = Explainer(model).explain_inputs(inputs, target_ids=TARGETS)
    first_layer(model).register_forward_hook(lambda module, args, output: output * 2)
    doubled = Explainer(model).explain_inputs(inputs, target_ids=TARGETS)
    assert not torch.allclose(doubled.token_maps, expected.token_maps)


def test_a_model_that_bypasses_the_attention_interface_is_refused(llava: Built) -> None:
    model, inputs = llava
    for layer in model.model.language_model.layers:
        layer.self_attn.forward = lambda hidden_states, **kwargs: (hidden_states, None)
    with pytest.raises(ModelError, match=r"LlavaForConditionalGeneration.*AttentionInterface"):
        Explainer(model).explain_inputs(inputs, target_ids=TARGETS)


def test_a_forward_that_scales_its_logits_unseen_is_refused(llava: Built) -> None:
    model, inputs = llava
    plain = model.lm_head.forward
    model.lm_head.forward = lambda x: plain(x) * 2  # the lens reads rows off the weight and does not see it
    with pytest.raises(ModelError, match="does not reproduce the model"):
        Explainer(model).explain_inputs(inputs, target_ids=TARGETS)


def test_a_text_model_is_refused() -> None:
    config = LlamaConfig(hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=1, vocab_size=9)
    with pytest.raises(ModelError, match="takes no images"):
        Explainer(LlamaForCausalLM(config))


def test_tensor_functions_are_watched_in_the_first_forward_alone(llava: Built) -> None:
    """generate() goes on for thousands of them."""
    model, inputs = llava
    modes: list[Any] = []

    def look(ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        modes.append(torch.overrides._get_current_function_mode())
        return scores

    Explainer(model).explain_inputs(inputs, max_new_tokens=2, do_sample=False, logits_processor=[look])
    assert modes == [None, None]


def test_a_first_forward_that_raises_is_watched_no_longer() -> None:
    model, inputs = zoo.build("llava", torch.float32)

    def fail(module: nn.Module, args: Any) -> None:
        raise ZeroDivisionError

    first_layer(model).register_forward_pre_hook(fail)
    with pytest.raises(ZeroDivisionError):
        Explainer(model).explain_inputs(inputs, target_ids=TARGETS)
    assert torch.overrides._get_current_function_mode() is None
