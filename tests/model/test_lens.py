"""The comparison of a lens with the model's own logits: what it lets pass, what it refuses, how often it waits."""

import math

import pytest
import torch
from torch import Tensor, nn

from dexar_fast.errors import InputError, ModelError
from dexar_fast.model.lens.program import LogitLens

WORDS, FEATURES = 50, 8
LOWEST = torch.finfo(torch.float32).min


@pytest.fixture
def head() -> nn.Linear:
    torch.manual_seed(0)
    return nn.Linear(FEATURES, WORDS)


@pytest.fixture
def normed() -> Tensor:
    return torch.randn(1, 3, FEATURES, generator=torch.Generator().manual_seed(1))


def lens(head: nn.Linear) -> LogitLens:
    return LogitLens([], head, [], input_slot=0, logit_slot=1, output_slot=1, rows=WORDS)


def own(head: nn.Linear, normed: Tensor) -> Tensor:
    """[1, 1, V] of the last position."""
    return head(normed)[:, -1:].detach()


def test_a_lens_that_is_the_model_passes(head: nn.Linear, normed: Tensor) -> None:
    lens(head).check(normed, own(head, normed), torch.tensor([3, 3, 49]))


@pytest.mark.parametrize("word", [0, 7, WORDS - 1])
def test_a_target_that_differs_is_named(head: nn.Linear, normed: Tensor, word: int) -> None:
    logits = own(head, normed)
    logits[..., word] += 0.01
    with pytest.raises(ModelError, match=rf"token {word} has logit"):
        lens(head).check(normed, logits, torch.tensor([word]))


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_numbers_that_are_none_pass(head: nn.Linear, normed: Tensor, value: float) -> None:
    """The pass names the layer that they come from."""
    logits = own(head, normed)
    logits[..., 5] = value
    lens(head).check(normed, logits, torch.tensor([5]))


@pytest.mark.parametrize("ruled_out", [LOWEST, -math.inf])
def test_ids_that_the_model_rules_out_do_not_count(head: nn.Linear, normed: Tensor, ruled_out: float) -> None:
    logits = own(head, normed)
    logits[..., 10:40] = ruled_out
    lens(head).check(normed, logits, torch.tensor([3, 44]))
    with pytest.raises(InputError, match="ids that the model can write"):
        lens(head).check(normed, logits, torch.tensor([3, 20]))
    logits[..., 44] += 0.01
    with pytest.raises(ModelError, match="token 44 has logit"):
        lens(head).check(normed, logits, torch.tensor([3, 44]))
    lens(head).check(normed, torch.full_like(logits, ruled_out))


def test_half_precision_is_compared_to_its_rounding(head: nn.Linear, normed: Tensor) -> None:
    half, states = head.bfloat16(), normed.bfloat16()
    logits = own(half, states)
    lens(half).check(states, logits, torch.tensor([3]))
    logits[..., 3] += 8 * torch.finfo(torch.bfloat16).eps * float(logits.abs().max())
    with pytest.raises(ModelError, match="token 3 has logit"):
        lens(half).check(states, logits, torch.tensor([3]))
