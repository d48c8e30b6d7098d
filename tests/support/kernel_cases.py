"""Problems for the kernels of `operators.head_score`, and what every kernel must make of them.

Bounds. A sum of D products in an arithmetic of precision eps is off by at most D eps sum |u_d V_d|, whatever the order
of its terms (to first order, and half an eps a term). S is no worse than the worst G; w = S_img - S_txt, E and U follow
by the product and sum rules, and what E and U are added to is a term more. An exponential of x is off by as much of
itself as x is, and by ten eps. Inputs are taken as they are: what rounding them lost is no kernel's error.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from pairwise import pairwise
from torch import Tensor

from dexar_fast.backends import operands, reference
from dexar_fast.backends.cpp import Scored, empty_scores

AXES: dict[str, list[Any]] = {
    "dim": [16, 60, 64, 80, 128, 256],
    "visual": ["none", "all", "run", "scattered", "two images"],
    "dtype": [torch.float32, torch.float64, torch.bfloat16, torch.float16],
    "heads": [(3, 1), (2, 4), (1, 7), (1, 8)],  # H_kv, H / H_kv
    "keys": [1, 63, 500, 1025],
    "queries": [1, 3, 64, 130],
    "sight": ["all", "causal", "window", "holes"],
    "layout": ["contiguous", "strided", "offset", "transposed"],
    "values": ["normal", "whole", "negative"],
    "attended": [False, True],
}
HARD: list[dict[str, Any]] = [  # beside the pairs
    {**dict.fromkeys(AXES), "dim": 17, "visual": "scattered", "dtype": dtype, "heads": (2, 7), "keys": 97,
     "queries": queries, "sight": "window", "layout": "strided", "values": "whole",
     "attended": attended}
    for dtype, attended in ((torch.float32, False), (torch.bfloat16, True)) for queries in (15, 17, 63, 65)
]  # fmt: skip
NAMES = ("visual_score", "text_score", "text_winner", "smallest", "token_map", "unfiltered_map")
MAPS = slice(7, 9)  # among the arguments


@dataclass(frozen=True)
class Problem:
    """The arguments of one call, and all that follows from them in float64."""

    u: Tensor
    value: Tensor
    visual: Tensor  # [N] int64
    text: Tensor  # [M] int64
    attendable: Tensor  # [T, S] bool
    attention: operands.Attention | None = None

    @property
    def arguments(self) -> tuple[Any, ...]:
        sight = operands.Keys.of(self.visual, self.text, self.attendable).lists
        keys = sight.visual, sight.text, sight.first, sight.last, sight.mask
        given = self.u, self.value, *keys, *self.before
        return given if self.attention is None else (*given, *vars(self.attention).values())

    @property
    def before(self) -> tuple[Tensor, Tensor]:
        """What the maps are added to, [T, N] each: small whole numbers, others in E than in U, and nowhere 0."""
        place = torch.arange(len(self.u) * len(self.visual)).view(len(self.u), len(self.visual))
        dtype = torch.promote_types(self.u.dtype, torch.float32)
        return (place % 5 + 1).to(dtype), (place % 7 + 1).to(dtype)

    @property
    def eps(self) -> float:
        return torch.finfo(torch.promote_types(self.u.dtype, torch.float32)).eps

    @cached_property
    def gradient(self) -> Tensor:
        """G [T, H, S]."""
        return torch.where(self.attendable[:, None], self._plain * self._probability[0], 0)

    @cached_property
    def _plain(self) -> Tensor:
        return reference.gradient(self.u.double(), self.value.double())

    @cached_property
    def _probability(self) -> tuple[Tensor, Tensor]:
        """A [T, H, S], and what it may be off by: more than its smallest normal number, which may round to 0."""
        if self.attention is None:
            return torch.ones(()), torch.zeros(())
        query, key, total, scale = (x.double() if isinstance(x, Tensor) else x for x in vars(self.attention).values())
        probability = reference.attention(query, key, total, scale)
        terms = reference.gradient(query.abs(), key.abs()) * (query.shape[-1] + 2) * scale + 2 * total.abs()[:, :, None]
        return probability, probability * (terms * self.eps).expm1() + probability * 10 * self.eps + 1e-37

    @cached_property
    def slack(self) -> Tensor:
        """What G may be off by, [T, H, S]."""
        products = reference.gradient(self.u.double().abs(), self.value.double().abs())
        plain_slack = products * (self.u.shape[-1] + 1) * self.eps
        probability, slack = self._probability
        off = plain_slack * probability + (self._plain + plain_slack) * slack
        return torch.where(self.attendable[:, None], off, 0)

    def scores(self, keys: Tensor) -> tuple[Tensor, Tensor]:
        """S [T, H] over some keys, and what it may be off by."""
        score = reference.head_score(self.gradient[..., keys], self.attendable[:, keys])
        return score, _largest(self.slack[..., keys])


def _largest(values: Tensor) -> Tensor:
    return values.amax(-1) if values.shape[-1] else values.new_zeros(values.shape[:-1])


def name(case: dict[str, Any]) -> str:
    return "-".join(str(value).removeprefix("torch.").replace(" ", "") for value in case.values())


def problem(case: dict[str, Any], seed: int = 0) -> Problem:
    generator = torch.Generator().manual_seed(seed)
    kv_heads, group = case["heads"]
    keys, queries, dim, dtype = case["keys"], case["queries"], case["dim"], case["dtype"]
    u = _values(case["values"], (queries, kv_heads * group, dim), generator).to(dtype)
    value = _values(case["values"], (kv_heads, keys, dim), generator).to(dtype)
    if case["values"] == "negative":
        value = -value
    lay = LAYOUTS[case["layout"]]
    visual, text = _classes(case["visual"], keys, generator)
    attendable = _attendable(case["sight"], queries, keys, generator)
    attention = None
    if case["attended"]:
        query, key = (torch.randn(x.shape, generator=generator).to(dtype) for x in (u, value))
        attention = _attention(lay(query), lay(key), attendable)
    return Problem(lay(u), lay(value), visual, text, attendable, attention)


def _attention(query: Tensor, key: Tensor, attendable: Tensor) -> operands.Attention:
    """With the sum of what the reference makes of the same numbers; -inf for a query that attends to no key."""
    scale = query.shape[-1] ** -0.5
    weights = reference.attention(query.double(), key.double(), torch.zeros(query.shape[:2]), scale)
    total = torch.where(attendable[:, None], weights, 0).sum(-1).log()
    return operands.Attention(query, key, total.to(torch.promote_types(query.dtype, torch.float32)), scale)


def _values(kind: str, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    if kind == "whole":  # few values, exact in every dtype: many ties
        return torch.randint(-2, 3, shape, generator=generator).double()
    drawn = torch.randn(shape, generator=generator, dtype=torch.float64)
    return drawn.abs() if kind == "negative" else drawn


def _strided(x: Tensor) -> Tensor:
    wide = torch.full([2 * size for size in x.shape], torch.nan, dtype=x.dtype)[::2, ::2, ::2]
    return wide.copy_(x)


def _offset(x: Tensor) -> Tensor:
    return torch.full((x.numel() + 1,), torch.nan, dtype=x.dtype)[1:].view(x.shape).copy_(x)


LAYOUTS: dict[str, Callable[[Tensor], Tensor]] = {
    "contiguous": Tensor.contiguous,
    "strided": _strided,
    "offset": _offset,
    "transposed": lambda x: x.permute(2, 1, 0).contiguous().permute(2, 1, 0),
}


def _classes(kind: str, keys: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Positions of the visual and of the text keys; scattered: a quarter of the keys is neither."""
    position = torch.arange(keys)
    visual = {
        "none": position < 0,
        "all": position >= 0,
        "run": (position >= keys // 4) & (position < 3 * keys // 4),
        "scattered": torch.rand(keys, generator=generator) < 0.5,
        "two images": (position % (keys // 2 + 1) > keys // 8) & (position % (keys // 2 + 1) < keys // 3),
    }[kind]
    ignored = (torch.rand(keys, generator=generator) < 0.5) & (kind == "scattered")
    return position[visual], position[~visual & ~ignored]


def _attendable(kind: str, queries: int, keys: int, generator: torch.Generator) -> Tensor:
    """causal: the last query sees all keys, each before it one less, and those before the first key none."""
    causal = torch.ones(queries, keys, dtype=torch.bool).tril(keys - queries)
    if kind == "holes":
        return torch.rand(queries, keys, generator=generator) < torch.rand(queries, 1, generator=generator)
    if kind == "window":
        return causal.triu(keys - queries - keys // 3)
    return causal if kind == "causal" else torch.ones_like(causal)


CASES = [*pairwise(AXES), *HARD]
MARGIN = 64  # elements before and behind each guarded result


class Guarded:
    """Stands in for `cpp.empty_scores`: results that are NaN, or no position at all, with margins around them."""

    def __init__(self) -> None:
        self._whole: list[tuple[Tensor, Tensor]] = []  # memory, and a copy of it

    def __call__(self, u: Tensor) -> Scored:
        return tuple(map(self._guard, empty_scores(u)))  # type: ignore[return-value]

    def copy(self, x: Tensor) -> Tensor:
        """The same numbers, with margins around them."""
        return self._guard(x).copy_(x)

    def _guard(self, output: Tensor) -> Tensor:
        if type(output) is not Tensor:  # torch traces the operator
            return output
        poison = torch.nan if output.is_floating_point() else -(2**40)
        memory = output.new_full((output.numel() + 2 * MARGIN,), poison)
        self._whole.append((memory, memory.clone()))
        return memory[MARGIN : MARGIN + output.numel()].view(output.shape)

    def check(self) -> None:
        """Whether nothing was written in the margins."""
        for memory, before in self._whole:
            for part in (slice(MARGIN), slice(len(memory) - MARGIN, None)):
                torch.testing.assert_close(memory[part], before[part], rtol=0, atol=0, equal_nan=True)


def run(kernel: Callable[..., Scored], given: Problem, before: Sequence[Tensor] | None = None) -> dict[str, Tensor]:
    """All six results of a kernel, the maps as they are once it has added to `before`, or to those of the problem."""
    memory, arguments = Guarded(), list(given.arguments)
    arguments[MAPS] = maps = [memory.copy(x) for x in before or given.before]
    scores = kernel(*arguments)
    memory.check()
    return dict(zip(NAMES, (*scores, *maps), strict=True))


def equal(found: dict[str, Tensor], wanted: dict[str, Tensor]) -> bool:
    """Whether all results are the same to the last bit."""
    return all(torch.equal(found[result], wanted[result]) for result in NAMES)


def check(found: dict[str, Tensor], given: Problem) -> None:
    """Compares all six results of a kernel, as `run` returned them, with the reference."""
    check_scores(found, given)
    _check_smallest(found["smallest"], given)


def check_scores(results: dict[str, Tensor], given: Problem) -> None:
    """Compares scores, winners and maps with the reference."""
    gradient, visual = given.gradient, given.visual
    visual_score, visual_slack = given.scores(visual)
    text_score, text_slack = given.scores(given.text)
    weights, weight_slack = (visual_score - text_score).relu(), visual_slack + text_slack + given.eps * visual_score
    token_map, unfiltered = reference.aggregate(gradient[..., visual], weights)
    largest_map, largest_sum = reference.aggregate(
        gradient[..., visual] + given.slack[..., visual], weights + weight_slack
    )
    terms = (gradient.shape[1] + 3) * given.eps
    _near("visual_score", results, visual_score, visual_slack)
    _near("text_score", results, text_score, text_slack)
    parts = (token_map, largest_map), (unfiltered, largest_sum)
    for result, (part, largest), before in zip(("token_map", "unfiltered_map"), parts, given.before, strict=True):
        _near(result, results, before + part, largest - part + terms * (before + largest))
    _check_winner(results["text_winner"], results["text_score"], given)


def _near(result: str, results: dict[str, Tensor], wanted: Tensor, slack: Tensor) -> None:
    actual = results[result]
    assert actual.shape == wanted.shape, result
    assert actual.dtype == (torch.float64 if wanted.dtype == actual.dtype else torch.float32), result
    assert ((actual.double() - wanted).abs() <= slack).all(), result


def _check_smallest(actual: Tensor, given: Problem) -> None:
    seen = given.attendable[:, None, given.visual]
    inf = torch.tensor(torch.inf, dtype=torch.float64)
    low, high = (
        -_largest(-torch.where(seen, bound[..., given.visual], inf)) if len(given.visual) else None
        for bound in (given.gradient - given.slack, given.gradient + given.slack)
    )
    if low is None or high is None:
        assert (actual == inf).all()
    else:
        assert ((low <= actual) & (actual <= high)).all()


def _check_winner(winner: Tensor, score: Tensor, given: Problem) -> None:
    """The first text key with the largest gradient; which one, only where the gradients are exact."""
    assert torch.equal(winner >= 0, score > 0)
    text = torch.zeros(given.value.shape[1], dtype=torch.bool).index_fill(0, given.text, True)
    won = winner >= 0
    assert (text[winner[won]] & given.attendable[:, None].expand(*winner.shape, -1)[won, winner[won]]).all()
    off = (given.gradient[won, winner[won]] - score[won].double()).abs()
    assert (off <= given.slack[won, winner[won]]).all()
    if (
        given.attention is None
        and len(given.text)
        and bool((given.u == given.u.round()).all() and (given.value == given.value.round()).all())
    ):
        largest, first = given.gradient[..., given.text].max(-1)
        assert torch.equal(winner, torch.where(largest > 0, given.text[first], -1))
