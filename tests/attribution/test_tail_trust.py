"""Whatever a model becomes once it is known: an Explainer that knew it says what a new one does, or refuses alike."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import pytest
import torch
import zoo
from tail_agreement import ARRAYS, TARGETS, assert_same, by_autograd, last_layer, trusted, with_text_model
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations, parametrize
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from dexar_fast import DexarError, Explainer
from dexar_fast.attribution.calls.gradients import CallGradients
from dexar_fast.attribution.tails import trust as tail
from dexar_fast.explanation import Explanation

Change = Callable[[Any, ExitStack], Any]  # of a model; the stack undoes what is not of the model alone


def outcome(explainer: Explainer, inputs: Any, targets: Any = TARGETS) -> Explanation | type[DexarError]:
    try:
        return explainer.explain_inputs(inputs, target_ids=targets)
    except DexarError as error:
        return type(error).__mro__[-5]  # of an internal kind the public one


def assert_alike(warm: Explainer, model: Any, inputs: Any, tolerance: float = 2e-5) -> Any:
    """Twice, so that what the first call has learnt of the change is seen, too."""
    expected = outcome(Explainer(model, chunk_size=warm.chunk_size), inputs)
    for _ in range(2):
        found = outcome(warm, inputs)
        if isinstance(expected, Explanation):
            assert isinstance(found, Explanation)
            assert_same(found, expected, tolerance)
        else:
            assert found == expected
    if isinstance(expected, Explanation):
        assert_same(expected, by_autograd(model, inputs, chunk_size=warm.chunk_size), tolerance)
    return expected


def differ(found: Any, before: Explanation) -> bool:
    if not isinstance(found, Explanation):
        return True
    pairs = [(getattr(found, name), getattr(before, name)) for name in ARRAYS]
    return any((x - y).abs().max() > 1e-3 * y.abs().max() for x, y in pairs)


def text(model: Any) -> Any:
    return model.model.language_model


def replaced(stack: ExitStack, owner: Any, name: str, value: Any) -> None:
    stack.enter_context(patching()).setattr(owner, name, value)


@contextmanager
def patching() -> Iterator[pytest.MonkeyPatch]:
    with pytest.MonkeyPatch.context() as patch:
        yield patch


class Gelu(TorchFunctionMode):
    """In place of SiLU."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return F.gelu(args[0]) if func is F.silu else func(*args, **(kwargs or {}))


class DispatchedGelu(TorchDispatchMode):
    """Likewise, below autograd."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return F.gelu(args[0]) if func is torch.ops.aten.silu.default else func(*args, **(kwargs or {}))


class Halved(nn.Module):
    def forward(self, weight: Tensor) -> Tensor:
        return 0.5 * weight


class Repeated(nn.Linear):
    """A Linear of another class."""

    def forward(self, x: Tensor) -> Tensor:
        return 2 * super().forward(x)


def scaled(function: Any, by: float) -> Any:
    return lambda *args, **kwargs: by * function(*args, **kwargs)


def own_class(module: nn.Module, stack: ExitStack, forward: Callable[[Any, Tensor], Tensor]) -> None:
    """Gives a module's class another forward, which is given the one it had and x."""
    kind = type(module)
    before = kind.forward
    replaced(stack, kind, "forward", lambda self, x: forward(before.__get__(self), x))


def one_row(forward: Any, x: Tensor) -> Tensor:
    found = forward(x).clone()
    found[:, -min(2, found.shape[1])] *= 3
    return found


def one_neuron(forward: Any, x: Tensor) -> Tensor:
    return forward(x) * (torch.arange(x.shape[-1]) != 7)


def in_place(model: Any, stack: ExitStack) -> None:
    with torch.no_grad():
        last_layer(model).mlp.up_proj.weight.mul_(-1)


def another_layer(model: Any, stack: ExitStack) -> None:
    layers = text(model).layers
    layers[0].mlp, layers[1].mlp = layers[1].mlp, layers[0].mlp


def another_class(model: Any, stack: ExitStack) -> None:
    mlp = last_layer(model).mlp
    other = Repeated(mlp.down_proj.in_features, mlp.down_proj.out_features, bias=False)
    other.load_state_dict(mlp.down_proj.state_dict())
    mlp.down_proj = other


CHANGES: dict[str, Change] = {
    "weights in place": in_place,
    "weights by data": lambda m, _: setattr(last_layer(m).mlp.up_proj.weight, "data", torch.ones(80, 64)),
    "head in place": lambda m, _: m.lm_head.weight.data.neg_(),
    "layers exchanged": another_layer,
    "a Linear of another class": another_class,
    "half": lambda m, _: m.bfloat16(),
    "double": lambda m, _: m.double(),
    "one layer in half": lambda m, _: [last_layer(m).mlp.bfloat16(), cast_around(last_layer(m).mlp)],
    "epsilon": lambda m, _: setattr(text(m).norm, "variance_epsilon", 30.0),
    "scaling of attention": lambda m, _: setattr(last_layer(m).self_attn, "scaling", 2.0),
    "no dropout in eval": lambda m, _: setattr(last_layer(m).self_attn, "attention_dropout", 0.5),
    "training": lambda m, _: m.train(),
    "F.silu": lambda m, s: replaced(s, F, "silu", F.gelu),
    "F.linear": lambda m, s: replaced(s, F, "linear", scaled(F.linear, 1.1)),
    "F.softmax": lambda m, s: replaced(s, F, "softmax", scaled(F.softmax, 2)),
    "torch.rsqrt": lambda m, s: replaced(s, torch, "rsqrt", scaled(torch.rsqrt, 1.2)),
    "a mode of functions": lambda m, s: s.enter_context(Gelu()),
    "a mode of dispatch": lambda m, s: s.enter_context(DispatchedGelu()),
    "class of the MLP": lambda m, s: own_class(last_layer(m).mlp, s, lambda f, x: 2 * f(x)),
    "class of the norms": lambda m, s: own_class(text(m).norm, s, lambda f, x: f(x).tanh()),
    "class of nn.Linear": lambda m, s: own_class(m.lm_head, s, lambda f, x: 2 * f(x)),
    "one row": lambda m, s: own_class(last_layer(m).mlp, s, one_row),
    "one neuron": lambda m, s: own_class(last_layer(m).mlp.act_fn, s, one_neuron),
    "parametrized": lambda m, _: parametrize.register_parametrization(last_layer(m).mlp.down_proj, "weight", Halved()),
    "head parametrized": lambda m, _: parametrize.register_parametrization(m.lm_head, "weight", Halved()),
    "spectral norm": lambda m, _: parametrizations.spectral_norm(last_layer(m).self_attn.o_proj),
    "weight norm": lambda m, _: parametrizations.weight_norm(last_layer(m).mlp.up_proj),
    "an input ablated": lambda m, _: text(m).norm.register_forward_pre_hook(lambda _, x: (x[0] * 0.5 + 1,)),
    "a module ablated": lambda m, _: last_layer(m).mlp.up_proj.register_forward_hook(one_neuron_hook),
    "a layer ablated": lambda m, _: last_layer(m).register_forward_hook(one_neuron_hook),
    "a head ablated": lambda m, _: last_layer(m).self_attn.o_proj.register_forward_pre_hook(one_head_hook),
    "gradients of a module": lambda m, _: last_layer(m).mlp.up_proj.register_full_backward_hook(
        lambda module, into, out: (3 * into[0],)
    ),
    "a hook on lm_head": lambda m, _: m.lm_head.register_forward_hook(lambda _, args, x: 1.5 * x),
    "a hook before lm_head": lambda m, _: m.lm_head.register_forward_pre_hook(lambda _, x: (x[0].tanh(),)),
    "a hook on the model": lambda m, _: m.register_forward_hook(doubled_logits),
    "a forward of lm_head": lambda m, _: setattr(m.lm_head, "forward", scaled(m.lm_head.forward, 2)),
    "a forward of the norm": lambda m, _: setattr(text(m).norm, "forward", scaled(text(m).norm.forward, 2)),
    "a forward of a layer": lambda m, _: setattr(text(m).layers[0], "forward", scaled(text(m).layers[0].forward, 2)),
    "a forward of o_proj": lambda m, _: setattr(
        last_layer(m).self_attn.o_proj, "forward", scaled(last_layer(m).self_attn.o_proj.forward, 2)
    ),
    "a gradient cut": lambda m, _: cut(last_layer(m).mlp),
}
SAME = {"no dropout in eval", "training", "double", "F.softmax", "weight norm"}  # nothing changes but the code


def cast_around(module: nn.Module) -> None:
    module.register_forward_pre_hook(lambda _, args: (args[0].bfloat16(),))
    module.register_forward_hook(lambda _, args, output: output.float())


def one_neuron_hook(module: nn.Module, args: Any, output: Tensor) -> Tensor:
    return output * (torch.arange(output.shape[-1]) != 7)


def one_head_hook(module: nn.Module, args: Any) -> Any:
    return (args[0] * (torch.arange(args[0].shape[-1]) >= zoo.HEAD_DIM),)


def doubled_logits(model: nn.Module, args: Any, output: Any) -> Any:
    output.logits = 2 * output.logits
    return output


def cut(module: Any) -> None:
    forward = module.forward
    module.forward = lambda x: forward(x).detach()


@pytest.mark.parametrize("chunk", [None, 3])
@pytest.mark.parametrize("name", CHANGES)
def test_what_has_changed_is_explained_as_it_is(name: str, chunk: int | None) -> None:
    model, inputs = zoo.build("llava", torch.float32)
    warm = trusted(model, inputs)
    warm.chunk_size = chunk
    before = warm.explain_inputs(inputs, target_ids=TARGETS)
    with ExitStack() as stack:
        CHANGES[name](model, stack)
        half = {"half", "one layer in half"}
        found = assert_alike(warm, model, inputs, 0.1 if name in half else 2e-5)
        assert name in SAME or name in half or differ(found, before)


STATEFUL: dict[str, Callable[[Any], Any]] = {
    "mlp": lambda m: last_layer(m).mlp,
    "activation": lambda m: last_layer(m).mlp.act_fn,
    "up": lambda m: last_layer(m).mlp.up_proj,
    "down": lambda m: last_layer(m).mlp.down_proj,
    "o_proj": lambda m: last_layer(m).self_attn.o_proj,
    "norm": lambda m: getattr(last_layer(m), "post_attention_layernorm", last_layer(m).input_layernorm),
    "final norm": lambda m: text(m).norm,
    "head": lambda m: m.lm_head,
}


@pytest.mark.parametrize("how", ["instance", "class"])
@pytest.mark.parametrize("where", STATEFUL)
@pytest.mark.parametrize("family", ["llava", "gemma3", "aya_vision"])
def test_what_a_patched_forward_keeps_may_change(family: str, where: str, how: str) -> None:
    """`lambda x: o(mlp, x) * st["a"]`, patched before the model is known: of one module, or of all of its class."""
    model, inputs = zoo.build(family, torch.float32)
    module = STATEFUL[where](model)
    state = {"a": 1.0}
    with ExitStack() as stack:
        forward = type(module).forward
        if how == "class":
            replaced(
                stack, type(module), "forward", lambda self, x: forward(self, x) * (state["a"] if self is module else 1)
            )
        else:
            module.forward = lambda x: forward(module, x) * state["a"]
        warm = Explainer(model)
        before = warm.explain_inputs(inputs, target_ids=TARGETS)
        for a in (0.5, 0.0, 1.0):
            state["a"] = a
            found = assert_alike(warm, model, inputs)
            assert a == 0.5 or (a == 1.0) != differ(found, before)  # a norm may undo a half


@pytest.mark.parametrize("cut_first", [False, True])
def test_a_way_that_is_cut_for_gradients_alone(cut_first: bool) -> None:
    """No number of the forward tells."""
    model, inputs = zoo.build("llava", torch.float32)
    mlp = last_layer(model).mlp
    forward, state = mlp.forward, {"cut": cut_first}
    mlp.forward = lambda x: 0.5 * forward(x) + 0.5 * (forward(x).detach() if state["cut"] else forward(x))
    warm = Explainer(model)
    before = outcome(warm, inputs)
    state["cut"] = not cut_first
    assert differ(assert_alike(warm, model, inputs), before)  # type: ignore[arg-type]


class Flagged(nn.Module):
    """An MLP that looks like the common one, and has a flag."""

    def __init__(self, mlp: Any, cuts: bool) -> None:
        super().__init__()
        self.flag, self._cuts = False, cuts
        for name, child in mlp.named_children():
            self.add_module(name, child)

    def forward(self, x: Tensor) -> Tensor:
        found = self.down_proj(self.act_fn(self.gate_proj(x)) * self.up_proj(x))
        if not self.flag:
            return found
        return found - 0.5 * (found.detach() if self._cuts else found) + (0.5 * found.detach() if self._cuts else 0)


@pytest.mark.parametrize("cuts", [False, True])
def test_a_flag_may_be_flipped(cuts: bool) -> None:
    model, inputs = zoo.build("llava", torch.float32)
    mlp = last_layer(model).mlp = Flagged(last_layer(model).mlp, cuts)
    warm = trusted(model, inputs)
    for flag in (True, False):
        mlp.flag = flag
        assert_alike(warm, model, inputs)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_notices_a_scale(dtype: torch.dtype) -> None:
    """Of the MLP, beside residuals that are far larger."""
    model, inputs = zoo.build("llava", dtype)
    text(model).embed_tokens.weight.data *= 30
    mlp, scale = last_layer(model).mlp, {"a": 1.0}
    forward = type(mlp).forward
    with ExitStack() as stack:
        replaced(stack, type(mlp), "forward", lambda self, x: forward(self, x) * scale["a"])
        warm = trusted(model, inputs)
        scale["a"] = 0.8
        assert_same(warm.explain_inputs(inputs, target_ids=TARGETS), by_autograd(model, inputs), 1e-2)


def test_what_is_put_back_is_trusted_again(recorded_layers: list[int]) -> None:
    model, inputs = zoo.build("llava", torch.float32)
    warm = trusted(model, inputs)
    before = warm.explain_inputs(inputs, target_ids=TARGETS)
    mlp = last_layer(model).mlp
    mlp.forward = scaled(mlp.forward, 2)
    handle = model.lm_head.register_forward_hook(lambda module, args, output: None)
    warm.explain_inputs(inputs, target_ids=TARGETS)
    del mlp.forward
    handle.remove()
    warm.explain_inputs(inputs, target_ids=TARGETS)
    recorded_layers.clear()
    assert_same(warm.explain_inputs(inputs, target_ids=TARGETS), before, 1e-6)
    assert not recorded_layers


@pytest.fixture
def recorded_layers(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    layers: list[int] = []
    original = CallGradients._recorded
    monkeypatch.setattr(CallGradients, "_recorded", lambda self, *args: (layers.append(1), original(self, *args))[1])
    return layers


def test_a_cap_of_the_logits_may_change() -> None:
    model, inputs = zoo.build("paligemma2", torch.float32)
    warm = trusted(model, inputs)
    before = warm.explain_inputs(inputs, target_ids=TARGETS)
    model.config.text_config.final_logit_softcapping = 1.0
    if not zoo.caps_logits(model, inputs):
        pytest.skip("PaliGemma of this transformers does not cap its logits")
    assert differ(assert_alike(warm, model, inputs), before)


def test_a_scale_of_the_logits_may_change() -> None:
    model, inputs = with_text_model("cohere")
    warm = trusted(model, inputs)
    before = warm.explain_inputs(inputs, target_ids=TARGETS)
    for module in model.modules():
        for name in ("logit_scale", "logits_scaling"):
            if hasattr(module, name):
                setattr(module, name, 3.0)
    found = assert_alike(warm, model, inputs)
    assert differ(found, before) == (found is not None and hasattr(model, "logit_scale"))


def test_a_window_may_change() -> None:
    model, inputs = zoo.build("bakllava", torch.float32)
    warm = trusted(model, inputs)
    before = warm.explain_inputs(inputs, target_ids=TARGETS)
    model.config.text_config.sliding_window = 6
    for layer in text(model).layers:
        layer.self_attn.sliding_window = 6
    assert differ(assert_alike(warm, model, inputs), before)


def test_a_decoder_that_reads_ahead_from_now_on() -> None:
    """The prompt must not see its answer."""
    model, inputs = zoo.build("llava", torch.float32)
    warm = trusted(model, inputs)
    before = warm.explain_inputs(inputs, target_ids=TARGETS)
    for layer in text(model).layers:
        layer.self_attn.is_causal = False
    model.config.text_config.is_causal = False
    found = assert_alike(warm, model, inputs)
    assert isinstance(found, Explanation)
    assert warm.decoder is not None
    assert warm.decoder.causal or differ(found, before)


@pytest.mark.parametrize("size", [1, 3])
def test_what_changes_while_an_answer_is_written(size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between two tokens, and so between two pieces of a stream."""
    model, inputs = zoo.build("llava", torch.float32)
    scale, mlp = {"a": 1.0}, last_layer(model).mlp
    forward = type(mlp).forward
    monkeypatch.setattr(type(mlp), "forward", lambda self, x: forward(self, x) * scale["a"])
    warm = trusted(model, inputs)

    def shrink(ids: Tensor, scores: Tensor) -> Tensor:
        scale["a"] *= 0.5
        return scores

    def streamed(explainer: Explainer) -> Explanation:
        scale["a"] = 1.0
        knobs = {"logits_processor": [shrink], "max_new_tokens": 6, "eos_token_id": None}
        pieces = explainer.stream_inputs(inputs, chunk_size=size, **knobs)
        assert len(list(pieces)) > 1
        return pieces.explanation()

    found = streamed(warm)
    monkeypatch.setattr(tail, "block_of", lambda layer, attention: None)
    expected = streamed(Explainer(model))
    assert found.token_ids.tolist() == expected.token_ids.tolist()
    assert_same(found, expected, 2e-5)


def test_a_model_that_never_computes_the_same_is_refused() -> None:
    model, inputs = zoo.build("llava", torch.float32)
    warm = trusted(model, inputs)
    calls = iter(range(1, 1000))
    model.lm_head.register_forward_hook(lambda module, args, output: output * next(calls))
    with pytest.raises(DexarError, match="logit lens"):
        warm.explain_inputs(inputs, target_ids=TARGETS)
