"""AttnLRP against what lxt 2.1 computes, and its rules by hand; where no rule is defined, it says so."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
import types_cases
import zoo
from asked import asked, asked_of
from oracle import full_sequence, text_model
from torch import Tensor
from torch.nn import functional

from dexar_fast import Explainer
from dexar_fast.errors import InputError, ModelError
from dexar_fast.methods.gradient.attn_lrp import AttnLrp
from dexar_fast.methods.gradient.rules import AttnLrpRules

REFERENCE = sorted(Path(__file__).with_name("reference").glob("lxt_*.npz"))
TOKENS = torch.tensor([165, 19, 144])


def ruled(function: Callable[..., Tensor], *given: Tensor, weight: Tensor | None = None) -> tuple[Tensor, list[Tensor]]:
    """The output, and the relevance of each input for its sum, weighted."""
    leaves = [x.clone().requires_grad_() for x in given]
    with AttnLrpRules():
        output = function(*leaves)
    total = output.sum() if weight is None else (output * weight).sum()
    return output.detach(), [(x * g).detach() for x, g in zip(leaves, torch.autograd.grad(total, leaves), strict=True)]


def draw(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape)), dtype=torch.float64)


@pytest.mark.parametrize("path", REFERENCE, ids=lambda path: path.stem)
def test_the_rules_give_what_lxt_gives(path: Path) -> None:
    kept = dict(np.load(path))
    model_class, config_class, sizes = json.loads(str(kept["built"]))
    config = getattr(transformers, config_class)(**sizes)
    model = (
        getattr(transformers, model_class)
        ._from_config(config, attn_implementation="sdpa")
        .double()
        .eval()
        .requires_grad_(False)
    )
    weights = {name[7:]: torch.from_numpy(x).double() for name, x in kept.items() if name.startswith("weight:")}
    model.load_state_dict(weights)
    embeddings = torch.from_numpy(kept["embeddings"])[None].requires_grad_()
    with AttnLrpRules():
        logits = model(inputs_embeds=embeddings, use_cache=False).logits[0, -1, torch.from_numpy(kept["targets"])]
    np.testing.assert_allclose(logits.detach().numpy(), kept["logits"], rtol=1e-5)
    for logit, expected in zip(logits, kept["relevance"], strict=True):
        (gradient,) = torch.autograd.grad(logit, embeddings, retain_graph=True)
        found = (embeddings * gradient).sum(-1)[0].detach().numpy()
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5 * np.abs(expected).max())


def test_four_decoders_were_recorded() -> None:
    assert [path.stem for path in REFERENCE] == ["lxt_gemma3", "lxt_llama", "lxt_qwen2", "lxt_qwen3"]


CONSERVING: dict[str, Callable[[Tensor], Tensor]] = {
    "silu": functional.silu,
    "gelu of tanh": lambda x: functional.gelu(x, approximate="tanh"),
    "relu squared": lambda x: x.relu().square(),
    "power": lambda x: x**2,
    "rms by hand": lambda x: x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6),
    "rms by a power": lambda x: x * torch.pow(x.pow(2).mean(-1, keepdim=True) + 1e-6, -0.5),
    "rms by division": lambda x: x / (x.square().mean(-1, keepdim=True) + 1e-6).sqrt(),
    "rms of torch": lambda x: functional.rms_norm(x, (6,), draw(6)),
    "layer norm of torch": lambda x: functional.layer_norm(x, (6,), draw(6), None),
    "normalize": lambda x: functional.normalize(x, dim=-1),
    "a gate": lambda x: functional.silu(x[..., :3]) * x[..., 3:],
    "a product in place": lambda x: (1 * x[..., :3]).mul_(x[..., 3:]),
    "a soft cap": lambda x: 30 * torch.tanh(x / 30),
    "a matrix of activations": lambda x: x @ x.transpose(-1, -2),
    "einsum": lambda x: torch.einsum("ij,kj->ik", x, x),
    "chosen experts": lambda x: (x.softmax(-1).topk(2)[0][..., None] * x[:, None]).sum(1),
    "its own linear parts": lambda x: (
        torch.cat([x.flip(0), -x], -1).masked_fill(x.new_ones(12) < 0, 1.0).roll(1) - 2 * x.repeat(1, 2)
    ),
}


@pytest.mark.parametrize("name", CONSERVING)
def test_relevance_is_conserved(name: str) -> None:
    """Relevance of the inputs adds up to the output, with weights of any sign, and the numbers are torch's own."""
    x, function = draw(5, 6), CONSERVING[name]
    weight = draw(*function(x).shape)
    output, (relevance,) = ruled(function, x, weight=weight)
    torch.testing.assert_close(output, function(x))
    torch.testing.assert_close(relevance.sum(), (output * weight).sum())


def test_an_activation_keeps_relevance_where_it_is() -> None:
    x = draw(4, 4)
    output, (relevance,) = ruled(functional.silu, x)
    torch.testing.assert_close(relevance, output)


def test_a_product_gives_each_half() -> None:
    output, (left, right) = ruled(torch.mul, draw(3, 4), draw(3, 4) + 1)
    torch.testing.assert_close(left, output / 2)
    torch.testing.assert_close(right, output / 2)


def test_values_take_half_of_attention_and_a_fixed_softmax_the_rest() -> None:
    query, key, value = draw(1, 2, 5, 4), draw(1, 2, 5, 4) + 1, draw(1, 2, 5, 4) + 2
    output, (of_query, of_key, of_value) = ruled(functional.scaled_dot_product_attention, query, key, value)
    torch.testing.assert_close(of_value.sum(), output.sum() / 2)
    query.requires_grad_(), key.requires_grad_()
    total = functional.scaled_dot_product_attention(query, key, value).sum()
    plain = torch.autograd.grad(total, (query, key))
    torch.testing.assert_close(of_query, (query * plain[0]).detach() / 4)
    torch.testing.assert_close(of_key, (key * plain[1]).detach() / 4)


def test_an_input_of_zero_gets_none() -> None:
    _, (relevance,) = ruled(functional.gelu, torch.zeros(3, dtype=torch.float64))
    assert torch.equal(relevance, torch.zeros(3, dtype=torch.float64))


@pytest.mark.parametrize(
    ("name", "function"),
    [
        ("exp", torch.exp),
        ("cumsum", lambda x: x.cumsum(0)),
        ("clamp", lambda x: x.clamp(min=0)),
        ("amax", lambda x: x.amax(0)),
        ("rdiv", lambda x: 1 / x),
        ("relu_", lambda x: (1 * x).relu_()),
        ("silu", lambda x: functional.silu(1 * x, inplace=True)),
    ],
)
def test_what_has_no_rule_is_refused_by_name(name: str, function: Callable[[Tensor], Tensor]) -> None:
    with AttnLrpRules(), pytest.raises(ModelError, match=rf"AttnLRP has no rule for .*{name}\(\)"):
        function(draw(3, 4).requires_grad_())


def test_what_needs_no_gradient_needs_no_rule() -> None:
    with AttnLrpRules():
        x = draw(3, 4)
        torch.testing.assert_close(torch.exp(x), x.exp())
        assert x.requires_grad_().argmax().dtype == torch.int64


class Doubling(torch.autograd.Function):
    """A kernel with a backward of its own."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return 2 * x

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        return 2 * gradients[0]


def test_code_with_a_backward_of_its_own_is_refused_by_name() -> None:
    model, inputs = zoo.build("llava")
    model.model.language_model.layers[1].mlp.down_proj.register_forward_hook(lambda m, args, x: Doubling.apply(x))
    with asked(model, inputs, TOKENS) as request, pytest.raises(ModelError, match="no rule for Doubling"):
        AttnLrp().maps(request)


@pytest.mark.parametrize("family", ["llava", "qwen2_5_vl", "qwen3_vl_moe", "paligemma2", "gemma3", "aya_vision"])
def test_maps_are_the_relevance_at_the_visual_embeddings(family: str) -> None:
    """The same forward under the rules, with nothing of the engine between."""
    model, inputs = zoo.build(family)
    model.requires_grad_(False)
    inputs = {name: x for name, x in inputs.items() if name != "labels"}
    visual = (inputs["input_ids"][0] == zoo.IMAGE).nonzero()[:, 0]
    kept: list[Tensor] = []

    def enter(module: Any, args: Any) -> Any:
        kept.append(args[0].detach().requires_grad_())
        return (kept[0], *args[1:])

    text_model(model).layers[0].register_forward_pre_hook(enter)
    with AttnLrpRules():
        logits = model(**full_sequence(model, inputs, TOKENS), use_cache=False).logits[0]
    first = inputs["input_ids"].shape[1] - 1
    rows = []
    for t, token in enumerate(TOKENS.tolist()):
        (gradient,) = torch.autograd.grad(logits[first + t, token], kept[0], retain_graph=True)
        rows.append((gradient * kept[0].detach())[0].sum(-1)[visual])
    expected = torch.stack(rows)
    with asked(*zoo.build(family), TOKENS) as request:
        found = AttnLrp().maps(request)
    if family != "qwen3_vl_moe":  # whose deepstack takes a share of its own
        torch.testing.assert_close(found.token_maps, expected.relu(), rtol=0, atol=1e-5 * float(expected.abs().max()))
        torch.testing.assert_close(
            torch.tensor(found.diagnostics["relevance"]).double(), expected.sum(1), rtol=1e-5, atol=1e-6
        )
        torch.testing.assert_close(
            found.sequence_map, expected.sum(0).relu(), rtol=0, atol=1e-5 * float(expected.abs().max())
        )


def test_the_whole_answers_map_takes_one_backward(monkeypatch: pytest.MonkeyPatch) -> None:
    """That of the tokens' relevances, weighted; a token that is not chosen has no map."""
    with asked_of("llava", 4) as request:
        every = AttnLrp(weights=[0.5, 2, 0, 1]).maps(request)
        backwards: list[int] = []
        grad = torch.autograd.grad
        monkeypatch.setattr(
            torch.autograd, "grad", lambda *args, **kwargs: backwards.append(1) or grad(*args, **kwargs)
        )
        found = AttnLrp(tokens=(), weights=[0.5, 2, 0, 1]).maps(request)
        assert len(backwards) == 1
        one = AttnLrp(tokens=[-1]).maps(request)
    torch.testing.assert_close(found.sequence_map, every.sequence_map)
    assert found.token_maps.abs().max() == 0 and found.sequence_map.max() > 0
    torch.testing.assert_close(one.token_maps[3], every.token_maps[3])
    assert one.token_maps[:3].abs().max() == 0 and one.diagnostics["tokens"] == [3]


@pytest.mark.parametrize(
    ("knobs", "message"),
    [
        ({"weights": [1]}, "one for each of the 2 tokens, not 1"),
        ({"weights": [1, -1]}, "each of weights is a finite number of at least 0"),
        ({"weights": "12"}, "weights is a list of numbers"),
        ({"tokens": [2]}, "must name tokens of the answer, 0 to 1"),
        ({"tokens": [0.5]}, "each of tokens is a whole number"),
    ],
)
def test_bad_knobs_are_refused(knobs: dict[str, Any], message: str) -> None:
    with asked_of("llava", 2) as request, pytest.raises(InputError, match=message):
        AttnLrp(**knobs).maps(request)


def test_half_precision_gives_float32_maps() -> None:
    with asked_of("llava", 2, dtype=torch.bfloat16) as request:
        assert AttnLrp().maps(request).token_maps.dtype == torch.float32


@pytest.mark.parametrize(("family", "outcome"), [("lfm2_vl", None), ("kimi_k25", None), ("qwen3_5", "cumsum")])
def test_decoders_of_other_layers_are_explained_or_refused(family: str, outcome: str | None) -> None:
    """Short convolutions and norms by a vector's length have rules, gated delta rules have none."""
    given = types_cases.case(family)
    explainer = Explainer(given.model, None, method="attn-lrp")
    if outcome is None:
        assert explainer.explain_inputs(given.inputs, TOKENS % 100).token_maps.max() > 0
    else:
        with pytest.raises(ModelError, match=rf"AttnLRP has no rule for {outcome}\(\)"):
            explainer.explain_inputs(given.inputs, TOKENS % 100)
