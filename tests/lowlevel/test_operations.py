"""The operations alone against their reference in float64, on every backend that is here, and what they refuse."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from dexar_fast.errors import BackendError, InputError
from dexar_fast.lowlevel import Attention, LayerTail, Norm, ScoredLayer, layer_tail_vjp, reference, score_layer

T, H, KV, S, D = 5, 6, 2, 23, 7
VISUAL, TEXT = torch.arange(4, 13), torch.tensor([0, 1, 3, 14, 15, 21, 22])
BOUNDS = {torch.float64: 1e-12, torch.float32: 1e-5, torch.bfloat16: 1e-5, torch.float16: 1e-5}


def drawn(*shape: int, dtype: torch.dtype = torch.float64, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed + sum(shape))
    return torch.randn(shape, dtype=torch.float64, generator=generator).to(dtype)


def causal() -> Tensor:
    return torch.ones(T, S, dtype=torch.bool).tril(S - T)


def by_head() -> Tensor:
    """[T, H, S]: heads 1 and 4 read every third key."""
    reads = causal()[:, None].repeat(1, H, 1)
    reads[:, [1, 4]] &= torch.arange(S) % 3 == 0
    return reads


def attention(dtype: torch.dtype = torch.float64) -> Attention:
    query, key = drawn(T, H, D, dtype=dtype, seed=1), drawn(KV, S, D, dtype=dtype, seed=2)
    logits = 0.4 * torch.einsum("thd,hsd->ths", query.double(), key.double().repeat_interleave(H // KV, 0))
    return Attention(query, key, logits.logsumexp(-1).to(torch.promote_types(dtype, torch.float32)), 0.4)


def assert_same(found: ScoredLayer, wanted: ScoredLayer, bound: float) -> None:
    for name, value in vars(wanted).items():
        actual = getattr(found, name)
        assert actual.shape == value.shape, name
        if name == "text_winner":
            assert torch.equal(actual, value)
        elif value.numel():
            assert float((actual.double() - value).abs().max()) <= bound * max(1e-30, float(value.abs().max())), name


@pytest.mark.parametrize("backend", ["torch", "auto"])
@pytest.mark.parametrize("dtype", BOUNDS, ids=str)
@pytest.mark.parametrize(
    "reads", [causal(), causal() & (torch.arange(S) > 6), by_head()], ids=["all", "some", "by head"]
)
@pytest.mark.parametrize("weighted", [False, True])
def test_a_layer_is_scored_as_by_the_reference(backend: str, dtype: torch.dtype, reads: Tensor, weighted: bool) -> None:
    u, value = drawn(T, H, D, dtype=dtype), drawn(KV, S, D, dtype=dtype)
    by = attention(dtype) if weighted else None
    found = score_layer(u, value, VISUAL, TEXT, reads, weighted_by=by, backend=backend)
    double = None if by is None else Attention(by.query.double(), by.key.double(), by.log_sum_exp.double(), by.scale)
    wanted = reference.score_layer(u.double(), value.double(), VISUAL, TEXT, reads, weighted_by=double)
    assert found.token_map.dtype == torch.promote_types(dtype, torch.float32)
    assert float(wanted.token_map.max()) > 0
    assert_same(found, wanted, BOUNDS[dtype])


@pytest.mark.parametrize("score", ["max", "mean", ("topk", 2), ["topk", 3]])
@pytest.mark.parametrize(("visual", "text"), [(VISUAL, TEXT), (VISUAL[:0], TEXT), (VISUAL, TEXT[:0])])
def test_other_scores_and_empty_sets(score: Any, visual: Tensor, text: Tensor) -> None:
    u, value = drawn(T, H, D), drawn(KV, S, D)
    found = score_layer(u, value, visual, text, causal(), score=score)
    kind = tuple(score) if isinstance(score, list) else score
    assert_same(found, reference.score_layer(u, value, visual, text, causal(), score=kind), 1e-12)


def test_the_reference_is_the_equations() -> None:
    """One number of each kind, from METHOD.md section 3 by hand."""
    u, value = torch.tensor([[[1.0, 2.0]]]).double(), torch.tensor([[[1.0, 0.0], [0.0, 2.0], [3.0, -1.0]]]).double()
    found = reference.score_layer(u, value, torch.tensor([1]), torch.tensor([0, 2]), torch.ones(1, 3).bool())
    assert (found.visual_score.item(), found.text_score.item(), found.text_winner.item()) == (4, 1, 0)
    assert (found.token_map.item(), found.unfiltered_map.item()) == (12, 4)


def test_keys_that_are_not_read_may_hold_anything() -> None:
    u, value, reads = drawn(T, H, D), drawn(KV, S, D), causal() & (torch.arange(S) != 5)
    found = score_layer(u, value, VISUAL, TEXT, reads)
    value[:, 5] = 1e30
    assert_same(score_layer(u, value, VISUAL, TEXT, reads), found, 1e-12)


SCORED: dict[str, Any] = {
    "u": drawn(T, H, D),
    "value": drawn(KV, S, D),
    "visual": VISUAL,
    "text": TEXT,
    "reads": causal(),
}
BAD_SCORES: list[tuple[dict[str, Any], str]] = [
    ({"u": drawn(T, H)}, r"u must be \[any, any, any\]"),
    ({"u": drawn(T, H, D).long()}, "u must be a tensor of float32, float64"),
    ({"u": [[1.0]]}, "u must be a tensor of .*, not list"),
    ({"u": drawn(T, H, D).float()}, "value is torch.float64 on cpu, and u torch.float32"),
    ({"u": drawn(T, 5, D)}, "u has 5 heads, which cannot share the 2 of value"),
    ({"value": drawn(0, S, D)}, "u has 6 heads, which cannot share the 0 of value"),
    ({"value": drawn(KV, S, D + 1)}, r"value must be \[any, any, 7\]"),
    ({"visual": torch.ones(S).bool()}, "visual must be positions of keys"),
    ({"visual": VISUAL.flip(0)}, "visual must be ascending positions"),
    ({"visual": torch.tensor([3, 3])}, "visual must be ascending positions, each once"),
    ({"text": torch.tensor([22, 23])}, "text must be ascending positions, each once, of the 23 keys"),
    ({"text": torch.tensor([-1, 2])}, "text must be ascending"),
    ({"text": torch.tensor([2, 4])}, "key 4 is both visual and text"),
    ({"reads": causal().int()}, "reads must be a tensor of bool"),
    ({"reads": causal()[:, :-1]}, r"reads must be \[5, 6, 23\], not \[5, 22\]"),
    ({"value": drawn(KV, 0, D), "visual": VISUAL[:0], "text": TEXT[:0]}, "value holds no key"),
    ({"score": "sum"}, "head_score 'sum' is none of"),
    ({"weighted_by": "attention"}, "weighted_by must be of class Attention, not str"),
    ({"weighted_by": replace(attention(), scale=None)}, "weighted_by.scale must be of class Real, not NoneType"),
    ({"weighted_by": replace(attention(), query=drawn(T, 1, D))}, r"query must be \[5, 6, 7\]"),
    ({"weighted_by": replace(attention(), key=drawn(KV, S, 1))}, r"key must be \[2, 23, 7\]"),
    ({"weighted_by": replace(attention(), log_sum_exp=drawn(T))}, r"log_sum_exp must be \[5, 6\]"),
    ({"weighted_by": attention(torch.float32)}, "query is torch.float32 on cpu, and u torch.float64"),
]


@pytest.mark.parametrize(("changed", "message"), BAD_SCORES)
def test_arrays_that_do_not_fit_are_refused(changed: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        score_layer(**(SCORED | changed))


def test_a_backend_that_cannot_run_is_refused() -> None:
    with pytest.raises(InputError, match="unknown backend 'fast'"):
        score_layer(**SCORED, backend="fast")
    with pytest.raises(BackendError, match="works on cuda, not on cpu"):
        score_layer(**SCORED, backend="triton")


WIDTH, INNER, C = 13, 19, 4


def tail_of(gated: bool, behind: bool, parallel: bool, bias: bool, activation: str, centred: bool) -> LayerTail:
    def affine(rows: int, columns: int) -> tuple[Tensor, Tensor | None]:
        return 0.3 * drawn(rows, columns), drawn(rows) if bias else None

    def norm(seed: int) -> Norm:
        shift = drawn(WIDTH, seed=seed + 9) if bias else None
        return Norm(1 + 0.3 * drawn(WIDTH, seed=seed), 1e-3, shift, centred)

    return LayerTail(
        affine(WIDTH, H * D),
        norm(1),
        affine(INNER, WIDTH),
        affine(WIDTH, INNER),
        activation,
        affine(INNER, WIDTH) if gated else None,
        norm(2) if behind else None,
        norm(3) if behind else None,
        parallel,
    )


def cast(x: Any, dtype: torch.dtype) -> Any:
    if isinstance(x, Tensor):
        return x.to(dtype)
    if isinstance(x, tuple):
        return tuple(cast(each, dtype) for each in x)
    return replace(x, **{k: cast(v, dtype) for k, v in vars(x).items()}) if isinstance(x, LayerTail | Norm) else x


TAILS = {
    "llama": tail_of(True, False, False, False, "silu", False),
    "gemma": tail_of(True, True, False, False, "gelu_tanh", False),
    "cohere": tail_of(True, False, True, False, "silu", True),
    "phi": tail_of(False, False, True, True, "gelu_tanh", True),
    "opt": tail_of(False, False, False, True, "relu", True),
    "gelu": tail_of(False, False, False, True, "gelu", True),
    "clip": tail_of(False, False, False, True, "quick_gelu", True),
}
GIVEN = drawn(C, H * D), drawn(C, WIDTH)
FINAL, ROWS = Norm(1 + 0.2 * drawn(WIDTH, seed=5), 1e-3), drawn(C, WIDTH, seed=6)


@pytest.mark.parametrize("backend", ["torch", "auto"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("name", TAILS)
def test_a_tail_is_differentiated_as_by_autograd(name: str, dtype: torch.dtype, backend: str) -> None:
    if name == "opt" and dtype == torch.bfloat16:
        pytest.skip("the slope of relu jumps where rounding changes the sign")
    tail, final, rows, *given = (cast(x, dtype) for x in (TAILS[name], FINAL, ROWS, *GIVEN))
    found = layer_tail_vjp(*given, tail, final, rows, backend=backend)
    double = (cast(x, torch.float64) for x in (*given, tail, final, rows))
    wanted = reference.layer_tail_vjp(*double)
    assert found.dtype == dtype and found.shape == (C, H * D) and not found.requires_grad
    bound = {torch.float64: 1e-12, torch.float32: 1e-5, torch.bfloat16: 5e-2}[dtype]
    assert float((found.double() - wanted).abs().max()) <= bound * float(wanted.abs().max())


def test_weights_in_training_are_read_and_left_alone() -> None:
    tail = replace(TAILS["llama"], up=(TAILS["llama"].up[0].clone().requires_grad_(), None))
    found = layer_tail_vjp(*GIVEN, tail, FINAL, ROWS)
    assert not found.requires_grad and tail.up[0].requires_grad and tail.up[0].grad is None
    torch.testing.assert_close(found, layer_tail_vjp(*GIVEN, TAILS["llama"], FINAL, ROWS))


BAD_TAILS: list[tuple[dict[str, Any], str]] = [
    ({"attended": drawn(C, 3)}, r"attended must be \[any, 42\]"),
    ({"attended": drawn(42)}, r"attended must be \[any, any\], not \[42\]"),
    ({"tail": "llama"}, "tail must be of class LayerTail, not str"),
    ({"tail": replace(TAILS["llama"], o_proj=TAILS["llama"].o_proj[0])}, "o_proj must be a pair: its weight"),
    ({"tail": replace(TAILS["llama"], up=None)}, "up must be a pair"),
    ({"tail": replace(TAILS["llama"], norm=None)}, "norm must be of class Norm, not NoneType"),
    ({"tail": replace(TAILS["llama"], behind_mlp=drawn(WIDTH))}, "behind_mlp must be of class Norm, not Tensor"),
    ({"final": drawn(WIDTH)}, "final must be of class Norm, not Tensor"),
    ({"residual": drawn(C + 1, WIDTH)}, r"residual must be \[4, any\]"),
    ({"rows": drawn(C, 3)}, r"rows must be \[4, 13\]"),
    ({"rows": ROWS.float()}, "rows is torch.float32 on cpu, and attended torch.float64"),
    ({"final": replace(FINAL, scale=FINAL.scale.float())}, "final's weight is torch.float32"),
    ({"final": replace(FINAL, scale=drawn(3))}, r"final's weight must be \[13\]"),
    ({"tail": replace(TAILS["llama"], activation="gelu")}, "activation 'gelu' is none of silu, gelu_tanh"),
    ({"tail": replace(TAILS["phi"], activation="mish")}, "activation 'mish' is none of silu, gelu, "),
    ({"tail": replace(TAILS["llama"], down=(drawn(3, INNER), None))}, r"down's weight must be \[13, 19\]"),
    ({"tail": replace(TAILS["phi"], up=(drawn(INNER, WIDTH), drawn(3)))}, r"up's bias must be \[19\]"),
]


@pytest.mark.parametrize(("changed", "message"), BAD_TAILS)
def test_weights_that_do_not_fit_are_refused(changed: dict[str, Any], message: str) -> None:
    given = {"attended": GIVEN[0], "residual": GIVEN[1], "tail": TAILS["llama"], "final": FINAL, "rows": ROWS}
    with pytest.raises(InputError, match=message):
        layer_tail_vjp(**(given | changed))
