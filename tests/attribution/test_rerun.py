"""A layer run again at its last positions, against autograd through its whole run; and layers that may not be."""

from __future__ import annotations

from collections import UserDict
from collections.abc import Callable
from copy import deepcopy
from typing import Any

import pytest
import torch
import types_mixed
import types_zoo
from cut_oracle import expected
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import DynamicCache
from types_agree import agrees

from dexar_fast import Explainer
from dexar_fast.attribution.gradients import is_narrowed, own_gradients, reach
from dexar_fast.attribution.tails.rerun import cut, differ, kept, rerun
from dexar_fast.errors import ModelError
from dexar_fast.model.attention import attention

BATCH, QUERIES, COUNT, HEADS, WIDTH = 2, 11, 4, 3, 5
FEATURES = HEADS * WIDTH
F64 = torch.float64


class Attending(nn.Module):
    """Attention through the interface's function; `behind` is what stands between it and its projection."""

    is_causal = True

    def __init__(self) -> None:
        super().__init__()
        self.project = nn.Linear(FEATURES, 3 * FEATURES, dtype=F64)
        self.out = nn.Linear(FEATURES, FEATURES, dtype=F64)

    def forward(self, hidden: Tensor, read: Tensor) -> Tensor:
        query = self.project(hidden).unflatten(-1, (3, HEADS, WIDTH))[:, :, 0].transpose(1, 2)
        key, value = self.project(read).unflatten(-1, (3, HEADS, WIDTH))[:, :, 1:].permute(2, 0, 3, 1, 4)
        output, _ = attention(self, query, key, value, None, scaling=1.0, is_causal=read is hidden)
        return self.out(output.flatten(2))


class Layer(nn.Module):
    """Attention, then a tail; then such to states beside the sequence."""

    def __init__(self, tail: Callable[[Layer, Tensor, Tensor], Tensor], attentions: int = 1) -> None:
        super().__init__()
        self.attentions = nn.ModuleList(Attending() for _ in range(attentions))
        self.norm = nn.RMSNorm(FEATURES, dtype=F64)
        self.wide = nn.Linear(FEATURES, 14, dtype=F64)
        self.narrow = nn.Linear(7, FEATURES, dtype=F64)
        self.experts = nn.ModuleList(nn.Linear(FEATURES, FEATURES, dtype=F64) for _ in range(3))
        self.conv = nn.Conv1d(FEATURES, FEATURES, 3, groups=FEATURES, dtype=F64)
        self.register_buffer("beside", torch.randn(1, 6, FEATURES, dtype=F64))
        self.tail = tail

    def forward(self, hidden: Tensor, scale: Tensor) -> Tensor:
        for number, attending in enumerate(self.attentions):
            read = self.beside.expand(len(hidden), -1, -1) if number else hidden
            hidden = self.tail(self, hidden, attending(hidden, read)) * scale
        return hidden


def fused(layer: Layer, hidden: Tensor, attended: Tensor) -> Tensor:
    """A norm before and behind, a fused gate, a multiplier."""
    middle = hidden + 0.3 * layer.norm(attended)
    gate, up = layer.wide(layer.norm(middle)).chunk(2, -1)
    return middle + 0.3 * layer.norm(layer.narrow(F.silu(gate) * up))


def parallel(layer: Layer, hidden: Tensor, attended: Tensor) -> Tensor:
    gate, up = layer.wide(hidden).chunk(2, -1)
    return hidden + attended * torch.sigmoid(hidden) + layer.narrow(gate.relu().square() * up)


def routed(layer: Layer, hidden: Tensor, attended: Tensor) -> Tensor:
    """Each token goes to one of three experts, by its state behind the attention."""
    middle = hidden + attended
    weight, chosen = middle[..., :3].softmax(-1).max(-1, keepdim=True)
    out = torch.zeros_like(middle)
    for number, expert in enumerate(layer.experts):
        rows = (chosen[..., 0] == number).nonzero(as_tuple=True)
        out[rows] = weight[rows] * expert(middle[rows])
    return middle + out


def convolved(layer: Layer, hidden: Tensor, attended: Tensor) -> Tensor:
    """Each position reads two before it."""
    return hidden + layer.conv(F.pad(attended.mT, (2, 0))).mT.tanh()


def averaged(layer: Layer, hidden: Tensor, attended: Tensor) -> Tensor:
    return hidden + attended.mean(1, keepdim=True)


def shortened(layer: Layer, hidden: Tensor, attended: Tensor) -> Tensor:
    return hidden + attended / hidden.shape[1]


TAILS = [fused, parallel, routed, convolved]


def run_of(layer: Layer) -> tuple[Tensor, dict[str, Tensor], Tensor, dict[nn.Module, Tensor]]:
    """The layer's input and arguments, what it gave, and the outputs [B, Q, H, D] of its attention."""
    torch.manual_seed(0)
    hidden = torch.randn(BATCH, QUERIES, FEATURES, dtype=F64)
    scale = torch.rand(1, QUERIES, 1, dtype=F64) + 0.5
    seen: dict[nn.Module, Tensor] = {}
    hooks = [
        each.out.register_forward_pre_hook(
            lambda _, args, each=each: seen.update({each: args[0].unflatten(-1, (HEADS, WIDTH))})
        )
        for each in layer.attentions
    ]
    with torch.no_grad():
        given = layer(hidden, scale=scale)
    for hook in hooks:
        hook.remove()
    return hidden, {"scale": scale}, given, seen


def again(layer: Layer, count: int) -> tuple[Tensor, dict[nn.Module, Tensor], Tensor]:
    hidden, keywords, given, seen = run_of(layer)
    last = {module: output[:, -count:] for module, output in seen.items()}
    found, leaves = rerun(layer, (hidden,), keywords, last, QUERIES)
    return found, leaves, given


@pytest.mark.parametrize("tail", TAILS, ids=lambda tail: tail.__name__)
@pytest.mark.parametrize("attentions", [1, 2])
def test_the_last_positions_give_what_they_gave_and_the_gradient_of_the_whole(
    tail: Callable[..., Tensor], attentions: int
) -> None:
    """Of two calls of attention the gradient at the first leads through the second, too."""
    if tail is convolved and attentions > 1:
        pytest.skip("a query reads what others of them read")
    layer = Layer(tail, attentions)
    reached = 3 if tail is convolved else 1
    found, leaves, given = again(layer, COUNT + reached - 1)
    assert not differ(found[:, -COUNT:], given[:, -COUNT:])
    weights = torch.randn(BATCH, COUNT, FEATURES, dtype=F64)
    outputs = (found[:, -COUNT:] * weights).sum(-1)
    for module, wanted in whole_gradients(layer, weights).items():
        one = own_gradients(outputs, leaves[module], reached)
        assert (one - wanted).abs().max() <= 1e-12 * wanted.abs().max()


def whole_gradients(layer: Layer, weights: Tensor) -> dict[nn.Module, Tensor]:
    """By one backward pass through the whole layer for each query."""
    hidden, keywords, *_ = run_of(layer)
    leaves: dict[nn.Module, Tensor] = {}

    def replaced(module: nn.Module, args: Any, each: nn.Module) -> Any:
        leaves[each] = args[0] if args[0].requires_grad and leaves else args[0].detach().requires_grad_()
        return (leaves[each],)

    for part in layer.parameters():
        part.requires_grad_(False)
    hooks = [
        each.out.register_forward_pre_hook(lambda module, args, each=each: replaced(module, args, each))
        for each in layer.attentions
    ]
    outputs = (layer(hidden, **keywords)[:, -COUNT:] * weights).sum(-1)
    for hook in hooks:
        hook.remove()
    found = {module: torch.empty(BATCH, COUNT, HEADS, WIDTH, dtype=F64) for module in leaves}
    for row in range(BATCH):
        for query in range(COUNT):
            grads = torch.autograd.grad(outputs[row, query], list(leaves.values()), retain_graph=True)
            for module, grad in zip(leaves, grads, strict=True):
                found[module][row, query] = grad[row, QUERIES - COUNT + query].unflatten(-1, (HEADS, WIDTH))
    return found


@pytest.mark.parametrize("tail", [averaged, shortened])
def test_a_layer_that_reads_all_positions_differs(tail: Callable[..., Tensor]) -> None:
    found, _, given = again(Layer(tail), COUNT)
    assert differ(found, given[:, -COUNT:])


def test_nan_differs() -> None:
    assert differ(torch.full((1, 2, 3), torch.nan), torch.ones(1, 2, 3))


def test_what_stands_before_the_attention_is_not_recorded() -> None:
    layer = Layer(fused)
    found, leaves, _ = again(layer, COUNT)
    (leaf,) = leaves.values()
    assert leaf.is_leaf and leaf.requires_grad and found.requires_grad
    gradients = torch.autograd.grad(found.sum(), list(layer.parameters()), allow_unused=True)
    unused = {name for (name, _), grad in zip(layer.named_parameters(), gradients, strict=True) if grad is None}
    assert "attentions.0.project.weight" in unused


@pytest.mark.parametrize("reached", [1, 2, 3, 5, 9])
def test_queries_that_share_a_vjp_have_their_own_gradients(reached: int) -> None:
    torch.manual_seed(1)
    leaf = torch.randn(BATCH, QUERIES, HEADS, WIDTH, dtype=F64, requires_grad=True)
    taps = torch.randn(reached, dtype=F64)
    padded = F.pad(leaf.sin().sum((2, 3)), (reached - 1, 0))
    outputs = (padded.unfold(1, reached, 1) * taps).sum(-1)[:, -COUNT:].exp()
    assert reach(outputs, leaf) == reached
    expected = torch.stack(
        [
            torch.autograd.grad(outputs[row, query], leaf, retain_graph=True)[0][row, QUERIES - COUNT + query]
            for row in range(BATCH)
            for query in range(COUNT)
        ]
    )
    found = own_gradients(outputs, leaf, reached).flatten(0, 1)
    assert (found - expected).abs().max() <= 1e-12 * expected.abs().max()


def test_tensors_are_cut_where_they_have_an_entry_for_each_position() -> None:
    for shape, wanted in [
        ((1, 7, 5), (1, 3, 5)),
        ((7, 7, 5), (7, 3, 5)),
        ((3, 1, 7, 8), (3, 1, 3, 8)),
        ((4, 1, 7, 6), (4, 1, 3, 6)),
        ((1, 1, 7, 7), (1, 1, 3, 3)),
        ((7, 7), (3, 3)),
        ((7,), (3,)),
        ((1, 1, 7, 20), (1, 1, 3, 20)),
        ((2, 5), (2, 5)),
    ]:
        assert cut(torch.rand(shape), 7, 3).shape == wanted
    assert cut(torch.arange(7), 7, 3).tolist() == [2, 2, 2]  # keys that are there
    assert cut(torch.arange(7.0), 7, 3).tolist() == [4, 5, 6]
    assert cut(torch.arange(7) > 4, 7, 3).tolist() == [False, True, True]


def test_what_layers_share_is_copied_and_no_cache_is_handed_on() -> None:
    class Shared(UserDict):  # type: ignore[type-arg]
        """As some models hand keys and values from layer to layer."""

    shared = Shared(keys=(torch.rand(1, 1, 7, 4), torch.rand(1, 7)))
    mine = cut(shared, 7, 3)
    mine["own"] = 1
    assert type(mine) is Shared and [x.shape for x in mine["keys"]] == [(1, 1, 3, 4), (1, 3)]
    assert list(shared) == ["keys"] and shared["keys"][1].shape == (1, 7)
    assert cut(DynamicCache(), 7, 3) is None
    with pytest.raises(ModelError, match="object may be written into"):
        cut(object(), 7, 3)


def test_a_layer_that_writes_into_itself_is_put_back() -> None:
    layer = Layer(fused)
    layer.register_buffer("count", torch.zeros(1))
    layer.norm.last = first = torch.zeros(2)
    with pytest.raises(ModelError, match="Layer writes into itself"), kept(layer):
        layer.norm.last = torch.ones(2)
    assert layer.norm.last is first
    with pytest.raises(ModelError, match="Layer writes into itself"), kept(layer):
        layer.count += 1
    with kept(layer):
        layer(torch.rand(1, 3, FEATURES, dtype=F64), scale=torch.ones(1, 3, 1, dtype=F64))


def test_float64_that_goes_through_float32_is_told() -> None:
    leaf = torch.rand(3, dtype=F64, requires_grad=True)
    assert is_narrowed(leaf.float().exp().double())
    assert not is_narrowed(leaf.exp())
    assert not is_narrowed(leaf.float().exp())


TARGETS = torch.tensor([20, 31, 44, 25, 60])


def hybrid(monkeypatch: pytest.MonkeyPatch) -> tuple[Any, dict[str, Tensor], Explainer]:
    """A model whose prompt and answer run in one forward, with layers whose tails have no formula, and its inputs.

    Float32: in float64 its norms are narrower than the rest, so that its layers do not run again.
    """
    monkeypatch.setattr("dexar_fast.attribution.tails.trust.block_of", lambda *_: None)
    model, inputs = types_zoo.build("lfm2_vl", types_mixed.MIXED["lfm2_vl"], torch.float32)
    return model, inputs, Explainer(model)


def check(explainer: Explainer, inputs: dict[str, Tensor]) -> None:
    """Against float64 autograd over one eager forward."""
    found = explainer.explain_inputs(inputs, target_ids=TARGETS)
    exact = deepcopy(explainer.model).double()
    doubled = {name: x.double() if x.is_floating_point() else x for name, x in inputs.items()}
    agrees(found, expected(exact, doubled, TARGETS), 1e-4)


def recorded(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many positions each recorded layer ran over, from now on."""
    from dexar_fast.attribution.calls import gradients

    seen: list[int] = []
    real = gradients.CallGradients._recorded

    def watched(self: Any, run: Any, index: int, hidden: Tensor, leaf: Tensor) -> Tensor:
        seen.append(hidden.shape[1])
        return real(self, run, index, hidden, leaf)

    monkeypatch.setattr(gradients.CallGradients, "_recorded", watched)
    return seen


def test_the_second_explanation_records_the_explained_positions_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    _, inputs, explainer = hybrid(monkeypatch)
    check(explainer, inputs)
    assert set(explainer.decoder.rerun.values()) == {True}
    seen = recorded(monkeypatch)
    check(explainer, inputs)
    assert seen == [len(TARGETS)] * 2


def test_other_weights_and_other_code_are_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    _, inputs, explainer = hybrid(monkeypatch)
    explainer.explain_inputs(inputs, target_ids=TARGETS)
    layer = explainer.decoder.layers[0]
    with torch.no_grad():
        layer.feed_forward.w1.weight *= -2
    check(explainer, inputs)
    assert all(explainer.decoder.rerun.values())
    fed = type(layer.feed_forward).forward
    monkeypatch.setattr(type(layer.feed_forward), "forward", lambda self, x: fed(self, x) * (x.shape[1] > 9))
    check(explainer, inputs)
    assert not any(explainer.decoder.rerun.values())


def test_a_layer_with_a_hook_is_recorded_as_it_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    _, inputs, explainer = hybrid(monkeypatch)
    explainer.explain_inputs(inputs, target_ids=TARGETS)
    calls: list[int] = []
    hook = explainer.decoder.layers[0].feed_forward.register_forward_hook(lambda *_: calls.append(1))
    seen = recorded(monkeypatch)
    explainer.explain_inputs(inputs, target_ids=TARGETS)
    hook.remove()
    assert len(calls) == 1
    assert seen == [inputs["input_ids"].shape[1] + len(TARGETS) - 1, len(TARGETS)]
