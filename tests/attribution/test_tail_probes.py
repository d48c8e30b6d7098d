"""The probes of matrices by which products are checked."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import zoo
from tail_agreement import TARGETS, assert_same, by_autograd, trusted
from torch import nn

from dexar_fast.attribution import engine
from dexar_fast.attribution.tails import probes, values
from dexar_fast.attribution.tails.relations import Relation, hold


def linear(out: int, into: int, dtype: torch.dtype = torch.float32) -> nn.Linear:
    torch.manual_seed(0)
    return nn.Linear(into, out, bias=False).to(dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
@pytest.mark.parametrize(("out", "block"), [(61, 16), (48, 16), (7, 16), (1, 1)])
def test_a_probe_is_the_matrix_times_signs(
    out: int, block: int, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Block by block; wider than the matrix's own dtype."""
    monkeypatch.setattr(probes, "BLOCK", block)
    module, wide = linear(out, 23, dtype), torch.promote_types(dtype, torch.float32)
    drawn = probes.signs(out, wide, torch.device("cpu"))
    assert set(drawn.unique().tolist()) <= {-1.0, 1.0} and drawn.shape == (out, probes.PROBES)
    expected = module.weight.detach().double().T @ drawn.double()
    torch.testing.assert_close(probes.probe(module, wide).double(), expected, rtol=0, atol=2e-5)


def test_a_sparse_matrix_has_a_probe() -> None:
    module = linear(61, 23)
    expected = probes.probe(module, torch.float32)
    module.weight = nn.Parameter(module.weight.detach().to_sparse(), requires_grad=False)
    torch.testing.assert_close(probes.probe(module, torch.float32), expected)


CHANGES: list[Callable[[nn.Linear], Any]] = [
    lambda module: module.weight.mul_(2),
    lambda module: module.load_state_dict({"weight": 2 * module.weight}),
    lambda module: setattr(module, "weight", nn.Parameter(2 * module.weight)),
]


@torch.no_grad()
@pytest.mark.parametrize("change", CHANGES)
def test_another_version_of_a_matrix_is_probed_anew(change: Callable[[nn.Linear], Any]) -> None:
    module = linear(61, 23)
    before = probes.probe(module, torch.float32).clone()
    assert probes.probe(module, torch.float32) is probes.probe(module, torch.float32)
    change(module)
    torch.testing.assert_close(probes.probe(module, torch.float32), 2 * before)


def test_a_change_through_data_is_seen_once_it_is_forgotten() -> None:
    module = linear(61, 23)
    before = probes.probe(module, torch.float32).clone()
    module.weight.data.mul_(2)
    torch.testing.assert_close(probes.probe(module, torch.float32), before)
    probes.forget([module])
    torch.testing.assert_close(probes.probe(module, torch.float32), 2 * before)


@pytest.mark.parametrize("name", ["o_proj", "down_proj", "gate_proj"])
def test_weights_that_change_through_data_are_explained_as_they_are(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The probes are stale then: the pass is taken once more, and the layer is trusted again behind it."""
    model, inputs = zoo.build("llava", torch.float32)
    warm = trusted(model, inputs)
    renewed: list[int] = []
    look_again = engine._look_again
    monkeypatch.setattr(engine, "_look_again", lambda *given: [renewed.append(1), look_again(*given)][1])
    for module in model.model.language_model.layers[1].modules():
        if isinstance(each := getattr(module, name, None), nn.Linear):
            each.weight.data.mul_(1.5)
    expected = by_autograd(model, inputs)
    for _ in range(3):
        assert_same(warm.explain_inputs(inputs, target_ids=TARGETS), expected, 2e-5)
    assert set(warm.decoder.trusted_tails) == set(range(len(warm.decoder.layers)))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("size", [1e-3, 0.1, 1.0])
def test_a_residual_hides_no_change_of_what_is_added_to_it(size: float, dtype: torch.dtype) -> None:
    """The product by itself is compared, before it is added: half of it is missed however large the residual."""
    generator = torch.Generator().manual_seed(1)
    own, eps = size * torch.randn(3, 2, 512, generator=generator), torch.finfo(dtype).eps
    rounded = own * (1 + 0.3 * eps * torch.randn(own.shape, generator=generator))
    good = Relation.of(rounded, own, eps, 512)
    bad = Relation.of(torch.stack([rounded[0], 1.5 * rounded[1], rounded[2]]), own, eps, 512)
    nan = Relation.of(torch.stack([rounded[0], rounded[1], rounded[2] * torch.nan]), own, eps, 512)
    assert [each.tolist() for each in hold([good, bad, nan])] == [
        [True, True, True],
        [True, False, True],
        [True, True, False],
    ]


@pytest.mark.parametrize("rows", [1, 2, 3, 4, 5, 48, 192, 511])
def test_rows_that_are_all_alike_do_not_cancel(rows: int) -> None:
    """As those of an answer that says one token again and again: their rounding would look like a difference."""
    drawn, total = values.weights(rows, torch.float64, torch.device("cpu"))
    assert (total[:, 0].abs() > 0.2 * drawn.abs().sum(1)).all()
    assert rows < 4 or (drawn[1] < 0).any()
    module = linear(61, 512)
    read = torch.randn(1, 512, generator=torch.Generator().manual_seed(1)).expand(rows, 512)
    made = values.Sums.made({"read": read, "up": module(read).detach()}, values.EPS[torch.float32])
    sums = values.Sums.stacked([made])
    assert hold([sums.product("up", [module], sums.of["read"])])[0].tolist() == [True]
