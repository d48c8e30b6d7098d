"""Prompt and answer through the model: what the head reads, and chosen columns of its logits, are the model's own."""

from __future__ import annotations

import pytest
import torch
import zoo
from asked import Asked, asked, asked_of
from oracle import full_sequence
from torch import nn

from dexar_fast.errors import ModelError
from dexar_fast.model.teacher_forcing import head_inputs

IDS = torch.tensor([3, 150, 0, 77, 3])


@torch.no_grad()
def compare(request: Asked, answer: torch.Tensor) -> None:
    """The chosen logits at every position, ours and the model's own."""
    normed = head_inputs(request.model, request.inputs, answer, request.decoder, request.visual)
    own = request.model(**full_sequence(request.model, dict(request.inputs), answer)).logits[0]
    found = request.decoder.lens.table(normed, IDS)
    assert found.shape == (request.inputs["input_ids"].shape[1] + len(answer), len(IDS))
    torch.testing.assert_close(found, own[:, IDS], rtol=0, atol=2e-5)


@pytest.mark.parametrize("family", [*zoo.FAMILIES, *zoo.VARIANTS])
def test_logits_are_the_models_own(family: str) -> None:
    with asked_of(family, 4) as request:
        compare(request, request.targets)


@pytest.mark.parametrize("family", ["llava", "gemma3"])
def test_a_prompt_without_an_answer(family: str) -> None:
    with asked_of(family, 1) as request:
        compare(request, request.targets[:0])


def test_an_image_that_ends_the_prompt_counts_on_as_generate_does() -> None:
    """M-RoPE numbers an image on several axes, and a forward of the whole would go on from the largest."""
    model, inputs = zoo.build("qwen2_5_vl")
    end = int((inputs["input_ids"][0] == zoo.IMAGE).nonzero()[-1]) + 1
    cut = {name: x[:, :end] if x.shape == inputs["input_ids"].shape else x for name, x in inputs.items()}
    written = model.generate(
        **cut, max_new_tokens=4, min_new_tokens=4, do_sample=False, output_logits=True, return_dict_in_generate=True
    )
    answer, own = written.sequences[0, end:], torch.cat(written.logits)[:, IDS]
    with asked(model, cut, answer) as request, torch.no_grad():
        normed = head_inputs(model, request.inputs, answer[:-1], request.decoder, request.visual)
        found = request.decoder.lens.table(normed[:, end - 1 :], IDS)
    torch.testing.assert_close(found, own.double(), rtol=0, atol=2e-5)


class Wrapped(nn.Module):
    """A head whose rows cannot be picked, like an adapted one."""

    def __init__(self, head: nn.Linear) -> None:
        super().__init__()
        self.inner, self.weight = head, head.weight
        self.rows: list[int] = []

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.rows.append(x.shape[1])
        return 1.5 * self.inner(x)


def test_a_head_with_a_bias() -> None:
    model, inputs = zoo.build("llava")
    model.lm_head.bias = nn.Parameter(zoo.Draw(3).normal(zoo.VOCABULARY).double())
    with asked(model, inputs, IDS) as request:
        compare(request, IDS)


def test_a_head_without_rows_runs_in_blocks() -> None:
    model, inputs = zoo.build("llava")
    model.lm_head = Wrapped(model.lm_head)
    long = torch.tensor(zoo.Draw(5).words(60))
    with asked(model, inputs, long) as request, torch.no_grad():
        own = model(**full_sequence(model, inputs, long)).logits[0, :, IDS]
        model.lm_head.rows.clear()
        normed = head_inputs(model, request.inputs, long, request.decoder, request.visual)
        found = request.decoder.lens.table(normed, IDS)
    torch.testing.assert_close(found, own, rtol=0, atol=2e-5)
    assert max(model.lm_head.rows) == 64 < normed.shape[1] and sum(model.lm_head.rows[-2:]) == normed.shape[1]


def test_a_model_that_changed_since_is_refused() -> None:
    with asked_of("llava", 2) as request, torch.no_grad():
        request.model.lm_head.register_forward_hook(lambda module, args, output: 2 * output)
        request.decoder.lens.head = nn.Linear(zoo.HIDDEN, zoo.VOCABULARY, dtype=torch.float64)
        with pytest.raises(ModelError, match="does not reproduce the model"):
            head_inputs(request.model, request.inputs, request.targets, request.decoder, request.visual)
