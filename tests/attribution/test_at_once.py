"""A given answer in one forward with its prompt: which are, and that nothing but the time tells."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import oracle
import pytest
import torch
import zoo
from alike import another_question
from engine_cases import SquareTensors, long_prompt
from parity_arrays import ARRAYS

from dexar_fast import Explainer, InputError
from dexar_fast.attribution.forwards import last_rows
from dexar_fast.attribution.tails import trust as tail
from dexar_fast.attribution.tails import values as tail_values
from dexar_fast.backends import ops
from dexar_fast.explanation import Explanation
from dexar_fast.kvcache import weights
from dexar_fast.kvcache.pool import KVPool

TARGETS = torch.tensor([20, 31, 44, 17, 25, 60])
APART = {
    "qwen3_vl_moe": "routes tokens to experts",
    "paligemma": "its prompt reads ahead",
    "paligemma2": "likewise",
    "gemma3": "likewise, in its image",
}
ALL = [*zoo.FAMILIES, *zoo.VARIANTS]


@pytest.fixture(autouse=True)
def trusting(monkeypatch: pytest.MonkeyPatch) -> None:
    """Norms that sum in float32 in a float64 model keep no tail from agreeing."""
    monkeypatch.setitem(tail.TOLERANCE, torch.float64, 1e-5)
    monkeypatch.setitem(tail_values.EPS, torch.float64, torch.finfo(torch.float32).eps)


@contextmanager
def counted(explainer: Explainer) -> Iterator[list[int]]:
    """The number of positions of each call of the first decoder layer."""
    assert explainer.decoder is not None
    seen: list[int] = []

    def count(module: Any, args: Any, kwargs: Any) -> None:
        seen.append((args[0] if args else kwargs["hidden_states"]).shape[1])

    handle = explainer.decoder.layers[0].register_forward_pre_hook(count, with_kwargs=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(weights, "OBSERVERS", (*weights.OBSERVERS, __name__))  # another hook ends the reuse
        yield seen
    handle.remove()


def assert_same(found: Explanation, expected: Any, tolerance: float = 1e-9) -> None:
    for array in ARRAYS:
        wanted = expected[array] if isinstance(expected, dict) else getattr(expected, array)
        assert (getattr(found, array) - wanted).abs().max() <= tolerance * wanted.abs().max(), array


def twice(model: Any, inputs: Any, targets: Any = TARGETS, **knobs: Any) -> tuple[Explanation, Explanation, list[int]]:
    """The explanations of two calls, and the positions that ran in the second."""
    explainer = Explainer(model, **knobs)
    first = explainer.explain_inputs(inputs, target_ids=targets)
    with counted(explainer) as seen:
        second = explainer.explain_inputs(inputs, target_ids=targets)
    return first, second, seen


@pytest.mark.parametrize("mode", ["paper", "official"])
@pytest.mark.parametrize("family", ALL)
def test_the_second_call_says_the_same(family: str, mode: str) -> None:
    model, inputs = zoo.build(family)
    first, second, seen = twice(model, inputs, mode=mode, layer_index=0)
    prompt = inputs["input_ids"].shape[1]
    assert seen == ([prompt, len(TARGETS)] if family in APART else [prompt + len(TARGETS) - 1])
    assert_same(second, first)
    assert second.diagnostics == first.diagnostics


@pytest.mark.parametrize("targets", [[20], [20, zoo.START, 30, zoo.END, 40]])
@pytest.mark.parametrize("family", ["bakllava", "qwen2_5_vl_video", "llava_two_images"])
def test_it_is_what_the_definitions_say(family: str, targets: list[int]) -> None:
    """bakllava's window is shorter than the prompt; the norms of the oracle's forward, too, are in float32."""
    model, inputs = zoo.build(family)
    ids = torch.tensor(targets)
    _, second, seen = twice(model, inputs, ids)
    assert seen == [inputs["input_ids"].shape[1] + len(targets) - 1]
    assert_same(second, oracle.oracle(model, inputs, ids), 1e-5)


def test_text_behind_a_long_video_goes_on_alike() -> None:
    model, inputs = zoo.qwen2_5_vl(torch.float64, 0, grids=[(8, 4, 6)], placeholder=zoo.VIDEO)
    first, second, seen = twice(model, inputs | {"second_per_grid_ts": torch.tensor([4.0])})
    assert len(seen) == 1
    assert_same(second, first)


@pytest.mark.parametrize("family", ["llava", "qwen2_5_vl", "aya_vision", "internvl"])
def test_the_last_layer_runs_at_the_explained_positions(family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its matrices behind the attention; nothing reads the other rows, which are poisoned here."""
    put_back, ran = last_rows._put_back, []

    def poisoned(module: Any, args: Any, output: Any) -> Any:
        whole = put_back(module, args, output)
        if whole is output:
            return None
        ran.append(args[0].shape[1])
        whole[:, : -len(TARGETS)] = torch.nan
        return whole

    monkeypatch.setattr(last_rows, "_put_back", poisoned)
    model, inputs = zoo.build(family)
    first, second, seen = twice(model, inputs)
    assert_same(second, first)
    assert len(seen) == 1 and set(ran) == {len(TARGETS)}


def up_to(inputs: zoo.Inputs, token: int) -> zoo.Inputs:
    """The prompt cut behind the last of these tokens."""
    shape, end = inputs["input_ids"].shape, int((inputs["input_ids"][0] == token).nonzero()[-1]) + 1
    return {name: value[:, :end] if value.shape == shape else value for name, value in inputs.items()}


@pytest.mark.parametrize("family", ["llava", "qwen2_5_vl", "qwen3_vl"])
def test_a_prompt_that_ends_with_an_image_runs_by_itself(family: str) -> None:
    """Of M-RoPE positions, which generate() has go on otherwise than a forward does behind an image."""
    model, inputs = zoo.build(family)
    first, second, seen = twice(model, up_to(inputs, zoo.IMAGE))
    assert len(seen) > 1
    assert_same(second, first)


def without(inputs: zoo.Inputs, *names: str) -> zoo.Inputs:
    return {name: value for name, value in inputs.items() if name not in names}


def test_a_prompt_that_reads_ahead_runs_by_itself() -> None:
    """PaliGemma without token_type_ids: every token reads every other, and those of the answer must not be read."""
    model, inputs = zoo.build("paligemma")
    for less in (("token_type_ids",), ("token_type_ids", "labels")):
        first, second, seen = twice(model, without(inputs, *less))
        assert len(seen) == 2
        assert_same(second, first)


@pytest.mark.parametrize("name", ["position_ids", "something_of_each_token"])
def test_inputs_of_single_tokens_that_are_not_known_are_left_alone(name: str) -> None:
    model, inputs = zoo.build("llava")
    shape = inputs["input_ids"].shape
    _, _, seen = twice(model, inputs | {name: torch.arange(shape[1]).expand(shape)})
    assert len(seen) == 2


def test_it_needs_no_attention_mask() -> None:
    model, inputs = zoo.build("llava")
    first, second, seen = twice(model, without(inputs, "attention_mask"))
    assert len(seen) == 1
    assert_same(second, first)


def test_the_prompt_of_a_long_answer_runs_by_itself() -> None:
    model, inputs = zoo.build("llava")
    first, second, seen = twice(model, inputs, chunk_size=4)
    assert seen == [inputs["input_ids"].shape[1], 4, 2]
    assert_same(second, first)


@pytest.mark.parametrize("mode", ["paper", "official"])
@pytest.mark.parametrize("family", [family for family in ALL if family not in APART])
def test_what_a_pool_does_not_know_of_a_prompt_runs_with_the_answer(family: str, mode: str) -> None:
    """Another question after the same image, and the same again: its last token is always run."""
    model, inputs = zoo.build(family)
    pool = KVPool(512, 4)
    pooled, alone = (Explainer(model, mode=mode, layer_index=0, pool=each) for each in (pool, None))
    pooled.explain_inputs(inputs, target_ids=TARGETS)
    other = another_question(inputs)
    for asked, left in ((other, 2), (other, 1)):
        with counted(pooled) as seen:
            found = pooled.explain_inputs(asked, target_ids=TARGETS)
        assert seen == [left + len(TARGETS) - 1]
        assert_same(found, alone.explain_inputs(asked, target_ids=TARGETS))
    assert pool.books.stats()["held"] == 0


@pytest.mark.parametrize(
    "config",
    [
        {"guidance_scale": 2.0},
        {"prefill_chunk_size": 2},
        {"prompt_lookup_num_tokens": 2},
        {"stop_strings": ["a"]},
        {"do_sample": True, "num_return_sequences": 2},
    ],
    ids=lambda config: ",".join(config),
)
def test_how_the_model_is_told_to_generate_does_not_matter(config: dict[str, Any]) -> None:
    """The rest of a pooled prompt runs in generate(), which would run more forwards than one, or ask for more."""
    model, inputs = zoo.build("llava")
    for name, value in config.items():
        setattr(model.generation_config, name, value)
    pooled, alone = (Explainer(model, pool=each) for each in (KVPool(512, 4), None))
    for _ in range(2):
        found = pooled.explain_inputs(inputs, target_ids=TARGETS)
    assert_same(found, alone.explain_inputs(inputs, target_ids=TARGETS))


def test_a_hook_of_the_user_is_seen_between_the_calls() -> None:
    model, inputs = zoo.build("llava")
    explainer = Explainer(model)
    explainer.explain_inputs(inputs, target_ids=TARGETS)
    model.model.language_model.layers[1].mlp.register_forward_hook(lambda module, args, output: output * 2)
    with counted(explainer) as seen:
        found = explainer.explain_inputs(inputs, target_ids=TARGETS)
    assert len(seen) == 2
    assert_same(found, oracle.oracle(model, inputs, TARGETS), 1e-5)


def test_it_stays_right_after_an_error_in_mid_forward(monkeypatch: pytest.MonkeyPatch) -> None:
    model, inputs = zoo.build("qwen2_5_vl")
    explainer = Explainer(model)
    first = explainer.explain_inputs(inputs, target_ids=TARGETS)
    attribute, calls = ops.head_score, []

    def fail(*args: Any, **kwargs: Any) -> Any:
        calls.append(args)
        if len(calls) == 2:
            raise RuntimeError("boom")
        return attribute(*args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(ops, "head_score", fail)
        with pytest.raises(RuntimeError, match="boom"):
            explainer.explain_inputs(inputs, target_ids=TARGETS)
    assert not torch.is_inference_mode_enabled() and torch.is_grad_enabled()
    assert_same(explainer.explain_inputs(inputs, target_ids=TARGETS), first)


@pytest.mark.parametrize("pool", [None, KVPool(64, 4)], ids=["alone", "pooled"])
def test_one_that_does_not_fit_runs_in_chunks(pool: KVPool | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a pool without room for a second sequence, too."""
    model, inputs = zoo.build("llava")
    explainer = Explainer(model, pool=pool)
    first = explainer.explain_inputs(inputs, target_ids=TARGETS)
    attribute = ops.head_score

    def limited(u: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        if len(u) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.50 GiB. GPU 0 has ...")
        return attribute(u, *args, **kwargs)

    monkeypatch.setattr(ops, "head_score", limited)
    assert_same(explainer.explain_inputs(inputs, target_ids=TARGETS), first)


def test_inputs_that_do_not_fit_the_model_are_refused_as_at_first() -> None:
    model, inputs = zoo.build("llava")
    explainer = Explainer(model)
    explainer.explain_inputs(inputs, target_ids=TARGETS)
    for pixels in (inputs["pixel_values"][:, :2], inputs["pixel_values"].expand(2, -1, -1, -1)):
        with pytest.raises(InputError, match="refuses its inputs"):
            explainer.explain_inputs(inputs | {"pixel_values": pixels}, target_ids=TARGETS)


@pytest.mark.parametrize("family", ["llava", "qwen2_5_vl", "idefics3"])
def test_no_tensor_has_two_sequence_axes(family: str) -> None:
    model, inputs = zoo.build(family, dtype=torch.float32)
    inputs = long_prompt(inputs, 220)
    prompt = inputs["input_ids"].shape[1]
    explainer = Explainer(model)
    explainer.explain_inputs(inputs, target_ids=TARGETS)
    with SquareTensors(range(prompt - 1, prompt + len(TARGETS) + 1)) as squares, counted(explainer) as seen:
        explainer.explain_inputs(inputs, target_ids=TARGETS)
    assert seen == [prompt + len(TARGETS) - 1]
    assert squares.found == []
