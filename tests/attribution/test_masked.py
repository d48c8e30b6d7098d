"""Forwards over pictures of which parts are hidden: batches against one picture at a time."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
import types_mixed
import types_zoo
import zoo
from asked import asked as asked_for
from asked import asked_of
from torch import Tensor

from dexar_fast import InputError, OutOfMemoryError
from dexar_fast.attribution.masked import MaskedForwards
from dexar_fast.methods.base import Asked

FAMILIES = ("llava", "llava_next", "qwen2_5_vl", "qwen3_vl", "internvl", "paligemma", "gemma3", "smolvlm", "mistral3")


def pictures(asked: Asked, count: int) -> list[dict[str, Tensor]]:
    """Other pixels of the same shapes."""
    generator = torch.Generator().manual_seed(3)
    pixels = {name: value for name, value in asked.inputs.items() if value.is_floating_point()}
    return [
        {name: torch.randn(value.shape, generator=generator, dtype=value.dtype) for name, value in pixels.items()}
        for _ in range(count)
    ]


def one_by_one(asked: Asked, pixels: list[dict[str, Tensor]], ids: Tensor) -> Tensor:
    """[B, T] by a plain forward for each picture, with all logits."""
    rows = []
    for each in pixels:
        with torch.no_grad():
            logits = stepwise(asked, {**asked.inputs, **each})
        rows.append(logits.softmax(-1).gather(-1, ids[:, None])[:, 0])
    return torch.stack(rows).float()


def stepwise(asked: Asked, inputs: dict[str, Tensor]) -> Tensor:
    """[T, V]: the prompt, then the answer token by token, as generate() runs them."""
    output = asked.model(**inputs, use_cache=True)
    logits = [output.logits[0, -1]]
    for token in asked.targets[:-1]:
        output = asked.model(input_ids=token.reshape(1, 1), past_key_values=output.past_key_values, use_cache=True)
        logits.append(output.logits[0, -1])
    return torch.stack(logits)


def run(forwards: MaskedForwards, pixels: list[dict[str, Tensor]]) -> Tensor:
    return forwards(len(pixels), lambda chosen: [pixels[i] for i in chosen])


def masked(asked: Asked, *chosen: Tensor, batch: int | None = None) -> MaskedForwards:
    given = asked.model, asked.inputs, asked.targets, asked.decoder, asked.visual
    return MaskedForwards(*given, *chosen, batch=batch)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_batch_gives_what_single_pictures_give(family: str) -> None:
    with asked_of(family, tokens=3) as asked:
        pixels = pictures(asked, 5)
        forwards = masked(asked, batch=3)
        found = run(forwards, pixels)
        torch.testing.assert_close(found, one_by_one(asked, pixels, asked.targets), rtol=2e-6, atol=1e-12)
        assert found.dtype == torch.float32


@pytest.mark.parametrize("behind", [[], ["conv"]], ids=["attention", "convolution"])
def test_rows_that_a_layer_behind_the_last_attention_reads_are_there(behind: list[str]) -> None:
    """Of LFM2: a convolution reads the two rows before its own, which nobody asks about."""
    layers = ["conv", "full_attention", *behind]
    text = {"model_type": "lfm2", **zoo.TEXT, "num_hidden_layers": len(layers), "layer_types": layers}
    kind = replace(types_mixed.MIXED["lfm2_vl"], changes={"text_config": text})
    model, inputs = types_zoo.build("lfm2_vl", kind)
    with asked_for(model, inputs, torch.tensor([20, 31, 44])) as asked:
        pixels = pictures(asked, 5)
        forwards = masked(asked, batch=3)
        found = run(forwards, pixels)
        assert forwards._batch == 3  # no batch was refused
        torch.testing.assert_close(found, one_by_one(asked, pixels, asked.targets), rtol=2e-6, atol=1e-12)


def test_a_faint_probability_that_a_batch_changes_is_noticed() -> None:
    """Of 1e-6 a tenth is no rounding, however little it is beside 1."""
    with asked_of("llava", tokens=3) as asked:
        forwards = masked(asked)
    one, other = torch.tensor([1e-6, 0.5]).log(), torch.tensor([1.1e-6, 0.5]).log()
    assert forwards._agree(one, one) and not forwards._agree(one, other)


@pytest.mark.parametrize("family", ["llava", "qwen2_5_vl"])
def test_chosen_tokens_and_other_ids(family: str) -> None:
    with asked_of(family, tokens=4) as asked:
        pixels = pictures(asked, 2)
        other = asked.targets.flip(0)
        forwards = masked(asked, torch.tensor([3, 1]), other[[3, 1]])
        torch.testing.assert_close(
            run(forwards, pixels), one_by_one(asked, pixels, other)[:, [3, 1]], rtol=2e-6, atol=1e-12
        )


def test_no_pictures_take_no_forward() -> None:
    with asked_of("llava", tokens=2) as asked:
        assert run(masked(asked), []).shape == (0, 2)


@pytest.mark.parametrize("positions", [torch.tensor([2]), torch.tensor([-1]), torch.tensor([], dtype=torch.long)])
def test_tokens_that_the_answer_lacks_are_refused(positions: Tensor) -> None:
    with asked_of("llava", tokens=2) as asked, pytest.raises(InputError, match="0 to 1"):
        masked(asked, positions)


def failing_above(asked: Asked, most: int, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Lets the model run out of memory with more than so many pictures; returns the sizes that were tried."""
    tried: list[int] = []
    forward: Callable[..., Any] = asked.model.forward

    def limited(**inputs: Any) -> Any:
        tried.append(len(inputs["input_ids"]))
        if tried[-1] > most:
            raise torch.OutOfMemoryError("Tried to allocate 3.00 GiB")
        return forward(**inputs)

    monkeypatch.setattr(asked.model, "forward", limited)
    return tried


def test_a_batch_that_does_not_fit_is_halved(monkeypatch: pytest.MonkeyPatch) -> None:
    with asked_of("llava", tokens=2) as asked:
        pixels = pictures(asked, 8)
        expected = one_by_one(asked, pixels, asked.targets)
        tried = failing_above(asked, 3, monkeypatch)
        forwards = masked(asked, batch=8)
        torch.testing.assert_close(run(forwards, pixels), expected, rtol=2e-6, atol=1e-12)
        assert max(tried) == 8 and set(tried[-3:]) == {2}


def test_not_even_one_picture_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    with asked_of("llava", tokens=2) as asked:
        failing_above(asked, 0, monkeypatch)
        with pytest.raises(OutOfMemoryError, match=r"3\.00 GiB"):
            run(masked(asked), pictures(asked, 2))


def test_a_model_that_mixes_the_pictures_of_a_batch_runs_them_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    with asked_of("llava", tokens=2) as asked:
        pixels = pictures(asked, 9)
        expected = one_by_one(asked, pixels, asked.targets)
        forward = asked.model.forward

        def mixing(**inputs: Any) -> Any:
            inputs["pixel_values"] = inputs["pixel_values"].mean(0, keepdim=True).expand_as(inputs["pixel_values"])
            return forward(**inputs)

        mixing.__signature__ = inspect.signature(forward)  # type: ignore[attr-defined]
        monkeypatch.setattr(asked.model, "forward", mixing)
        forwards = masked(asked, batch=4)
        for _ in range(2):
            torch.testing.assert_close(run(forwards, pixels), expected, rtol=2e-6, atol=1e-12)


def test_no_more_than_two_batches_of_pictures_are_held() -> None:
    with asked_of("llava", tokens=2) as asked:
        pixels, made = pictures(asked, 7), []

        def make(chosen: range) -> list[dict[str, Tensor]]:
            made.append(list(chosen))
            return [pixels[i] for i in chosen]

        masked(asked, batch=3)(7, make)
        assert made == [[0, 1, 2], [3, 4, 5], [6], []]


def test_what_making_a_picture_raises_ends_the_work() -> None:
    def make(chosen: range) -> list[dict[str, Tensor]]:
        raise InputError("no such picture")

    with asked_of("llava", tokens=2) as asked, pytest.raises(InputError, match="no such picture"):
        masked(asked)(3, make)


@pytest.mark.parametrize("family", ["qwen2_vl", "qwen2_5_vl", "qwen3_vl", "llava"])
def test_a_prompt_that_ends_with_its_image(family: str) -> None:
    """generate() counts positions on one by one behind an image; a forward of its own would count from the largest."""
    model, inputs = zoo.build(family)
    end = int((inputs["input_ids"][0] == model.config.image_token_id).nonzero()[-1]) + 1
    inputs = {
        name: value[:, :end] if value.shape == inputs["input_ids"].shape else value for name, value in inputs.items()
    }
    options = {"max_new_tokens": 4, "min_new_tokens": 4, "do_sample": False, "output_logits": True}
    written = model.generate(**inputs, **options, return_dict_in_generate=True)
    targets = written.sequences[0, end:]
    expected = torch.stack(written.logits)[:, 0].softmax(-1).gather(-1, targets[:, None])[:, 0]
    with asked_for(model, inputs, targets) as asked:
        own = {name: value for name, value in inputs.items() if value.is_floating_point()}
        found = run(masked(asked, batch=2), [own] * 3)
        torch.testing.assert_close(found, expected.float().expand(3, -1), rtol=1e-5, atol=1e-9)


@pytest.mark.parametrize("family, count", [("llava", 3), ("llava", 19), ("qwen3_vl", 10), ("gemma3", 10)])
def test_several_threads_give_what_single_pictures_give(
    family: str, count: int, threads: Callable[[int], None]
) -> None:
    with asked_of(family, tokens=3) as asked:
        pixels = pictures(asked, count)
        expected = one_by_one(asked, pixels, asked.targets)
        threads(2)
        forwards = masked(asked)
        for _ in range(2):
            torch.testing.assert_close(run(forwards, pixels), expected, rtol=2e-6, atol=1e-12)


def test_several_threads_halve_what_does_not_fit(
    monkeypatch: pytest.MonkeyPatch, threads: Callable[[int], None]
) -> None:
    with asked_of("llava", tokens=2) as asked:
        pixels = pictures(asked, 19)
        expected = one_by_one(asked, pixels, asked.targets)
        threads(2)
        failing_above(asked, 3, monkeypatch)
        torch.testing.assert_close(run(masked(asked), pixels), expected, rtol=2e-6, atol=1e-12)


def test_what_making_a_picture_raises_ends_the_work_of_all_threads(threads: Callable[[int], None]) -> None:
    threads(2)
    with asked_of("llava", tokens=2) as asked:
        pixels = pictures(asked, 30)

        def make(chosen: range) -> list[dict[str, Tensor]]:
            if 20 in chosen:
                raise InputError("no such picture")
            return [pixels[i] for i in chosen]

        with pytest.raises(InputError, match="no such picture"):
            masked(asked)(30, make)
    assert torch.get_num_threads() == 2


@pytest.mark.parametrize("count", [2, 21])
def test_a_last_layer_that_mixes_tokens_behind_its_attention_runs_whole(
    count: int, monkeypatch: pytest.MonkeyPatch, threads: Callable[[int], None]
) -> None:
    with asked_of("llava", tokens=3) as asked:
        mlp = asked.decoder.layers[-1].mlp
        forward: Callable[[Tensor], Tensor] = mlp.forward
        monkeypatch.setattr(mlp, "forward", lambda hidden: forward(hidden) + 5 * hidden.cumsum(1))
        pixels = pictures(asked, count)
        expected = at_once(asked, pixels)
        threads(2)
        torch.testing.assert_close(run(masked(asked), pixels), expected, rtol=2e-6, atol=1e-12)


def at_once(asked: Asked, pixels: list[dict[str, Tensor]]) -> Tensor:
    """[B, T] by one plain forward of prompt and answer for each picture."""
    prompt = asked.inputs["input_ids"]
    ids = torch.cat([prompt, asked.targets[None]], 1)
    rows = []
    for each in pixels:
        with torch.no_grad():
            logits = asked.model(input_ids=ids, attention_mask=torch.ones_like(ids), **each).logits
        rows.append(logits[0, prompt.shape[1] - 1 : -1].softmax(-1).gather(-1, asked.targets[:, None])[:, 0])
    return torch.stack(rows).float()


def test_the_last_layers_matrices_run_only_for_the_rows_that_count() -> None:
    with asked_of("llava", tokens=4) as asked:
        seen: list[int] = []
        hook = asked.decoder.layers[-1].mlp.gate_proj.register_forward_hook(
            lambda module, args, output: seen.append(output.shape[1])
        )
        pixels = pictures(asked, 3)
        found = run(masked(asked, torch.tensor([3, 1])), pixels)
        hook.remove()
        assert seen[0] == 2 and not asked.decoder.layers[-1].mlp._forward_hooks
        expected = at_once(asked, pixels)[:, [3, 1]]
        torch.testing.assert_close(found, expected, rtol=2e-6, atol=1e-12)
