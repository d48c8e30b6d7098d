"""Work that nobody waits for ends at a layer or a gradient, and leaves the model as it was, free for others."""

from concurrent.futures import ThreadPoolExecutor
from itertools import count

import pytest
import torch
import zoo
from torch import nn

from dexar_fast import Explainer
from dexar_fast.model.lending.session import borrowed
from dexar_fast.model.wanted import Abandoned, check_wanted, is_watched, while_wanted

METHODS = ("dex-ar", "attention", "relevancy", "tam", "llava-cam", "input-gradient", "attn-lrp")
STATE = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "training", "_compiled_call_impl")


def state(model: nn.Module) -> list[object]:
    """What of a model an explanation changes for a while."""
    found = [getattr(module, name) for module in model.modules() for name in STATE]
    own = [dict(each) if isinstance(each, dict) else each for each in found]
    return [*own, *(p.requires_grad for p in model.parameters()), model.config.get_text_config()._attn_implementation]


@pytest.mark.parametrize("method", METHODS)
def test_it_ends_at_any_check_and_the_next_explanation_is_the_same(method: str) -> None:
    model, inputs = zoo.build("llava")
    explainer = Explainer(model, method=method)
    answer = torch.arange(5) + 3
    truth = explainer.explain_inputs(inputs, answer)
    before, checks = state(model), count()
    with while_wanted(lambda: next(checks) >= 0):
        explainer.explain_inputs(inputs, answer)
    total = next(checks)
    assert total >= 2
    for at in sorted({0, 1, total // 2, total - 1}):
        left = count()
        with pytest.raises(Abandoned), while_wanted(lambda left=left, at=at: next(left) < at):  # type: ignore[misc]
            explainer.explain_inputs(inputs, answer)
        assert state(model) == before
        with ThreadPoolExecutor(1) as other:
            found = other.submit(explainer.explain_inputs, inputs, answer).result(60)
        assert torch.equal(found.token_maps, truth.token_maps)


def test_who_waits_for_the_model_may_leave() -> None:
    model, inputs = zoo.build("llava")
    explainer = Explainer(model)

    def leaves() -> None:
        looks = count()
        with while_wanted(lambda: next(looks) < 3):
            explainer.explain_inputs(inputs, torch.arange(3) + 3)

    with ThreadPoolExecutor(1) as other, borrowed(model), pytest.raises(Abandoned):
        other.submit(leaves).result(60)


def test_outside_the_block_nothing_is_checked() -> None:
    with while_wanted(lambda: False):
        assert is_watched()
        with pytest.raises(Abandoned):
            check_wanted()
    assert not is_watched()
    check_wanted()
