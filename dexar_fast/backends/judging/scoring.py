"""The trial of head_score: a layer's heads, keys and masks, as operators.head_score takes them.

What G may be off by: a sum of D products in float32 errs by less than (D + 1) eps sum |u_d V_d| <= (D + 1) eps |u| |V|.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from dexar_fast.backends import cpp, eager, operators, reference
from dexar_fast.backends.judging.trial import Compared, Trial, drawn
from dexar_fast.backends.operands import Keys, MapSums
from dexar_fast.backends.verdicts.case import Case

EPS = torch.finfo(torch.float32).eps
HARD = ((1, 40, "causal"), (17, 97, "holes"), (65, 83, "window"))  # queries, keys, what each query reads
Results = tuple[Tensor, Tensor, Tensor, Tensor]  # S_img, S_txt, E, U
Run = Callable[["Problem"], Results]


@dataclass(frozen=True)
class Problem:
    """u [C, H, D], V [H_kv, S, D], the keys and the mask [C, S], on the CPU and where the kernel runs."""

    u: Tensor
    value: Tensor
    visual: Tensor
    text: Tensor
    reads: Tensor
    keys: Keys

    @property
    def sums(self) -> MapSums:
        return MapSums.zeros(self.u, len(self.visual))

    def slack(self) -> Results:
        """What the results may be off by."""
        queries, heads, dim = self.u.shape
        lengths = [torch.linalg.vector_norm(x.double().nan_to_num(), dim=-1) for x in (self.u, self.value)]
        largest = lengths[0] * lengths[1].amax(-1).repeat_interleave(heads // len(self.value))  # [C, H]
        score = (dim + 2) * EPS * largest
        more = 3 + (heads + 2) / (dim + 2)
        of_token = (more * score * largest).sum(1, keepdim=True).expand(queries, len(self.visual))
        of_all = (more * score).sum(1, keepdim=True).expand_as(of_token)
        return score, score, of_token, of_all


def trial(case: Case) -> Trial:
    """Of a kernel by its name: `triton` against torch, an instruction set against the best that needs no verdict."""
    heads, kv_heads, dim, queries, keys = case.sizes
    run: Run = fused if case.kernel == "triton" else partial(by_instructions, name=case.kernel)
    baseline: Run = plain if case.kernel == "triton" else partial(by_instructions, name=cpp.best_instruction_set())
    large = problem(case, (heads, kv_heads, dim), queries, keys, "causal")

    def checks() -> Iterator[Compared]:
        few = (2 * heads // kv_heads, 2) if kv_heads > 1 else (heads, 1)
        for number, (count, length, sight) in enumerate(HARD):
            given = problem(case, (*few, dim), count, length, sight, bad=number == len(HARD) - 1)
            yield from compared(run(given), oracle(given), given.slack())
        yield from compared(run(large), baseline(large), tuple(2 * slack for slack in large.slack()))

    return Trial(partial(run, large), partial(baseline, large), checks)


def compared(found: Results, wanted: Results, slack: tuple[Tensor, ...]) -> Iterator[Compared]:
    for some in zip(found, wanted, slack, strict=True):
        yield Compared(*some)


def problem(case: Case, heads: tuple[int, int, int], queries: int, keys: int, sight: str, bad: bool = False) -> Problem:
    """Random, with an image in the middle half of the keys.

    Args:
        heads: H, H_kv, D. bad: one number of V is NaN.
    """
    count, kv_heads, dim = heads
    device = torch.device(case.device)
    shapes = (queries, count, dim), (kv_heads, keys, dim)
    u, value = drawn(shapes, case.torch_dtype, device, seed=queries)
    if bad:
        value[-1, keys // 2, 1] = torch.nan
    position = torch.arange(keys, device="cpu")
    is_visual = (position >= keys // 4) & (position < 3 * keys // 4)
    reads = _reads(sight, queries, keys)
    visual, text = position[is_visual], position[~is_visual]
    return Problem(u, value, visual, text, reads, Keys.of(visual, text, reads.to(device)))


def _reads(sight: str, queries: int, keys: int) -> Tensor:
    causal = torch.ones(queries, keys, dtype=torch.bool, device="cpu").tril(keys - queries)
    if sight == "window":
        return causal.triu(keys - queries - keys // 3)
    if sight == "holes":
        generator = torch.Generator("cpu").manual_seed(0)
        return torch.rand(queries, keys, generator=generator, device="cpu") < 0.5
    return causal


def fused(given: Problem) -> Results:
    """By the kernel of the device."""
    return _by(operators.head_score, given)


def by_instructions(given: Problem, name: str) -> Results:
    """By the C++ kernels for an instruction set."""
    return _by(partial(cpp.head_score, instructions=name), given)


def _by(head_score: Callable[..., cpp.Scored], given: Problem) -> Results:
    keys, sums = given.keys.lists, given.sums
    lists = keys.visual, keys.text, keys.first, keys.last, keys.mask
    visual_score, text_score, *_ = head_score(given.u, given.value, *lists, sums.token_map, sums.unfiltered_map)
    return visual_score, text_score, sums.token_map, sums.unfiltered_map


def plain(given: Problem) -> Results:
    """By torch."""
    sums = given.sums
    scores = eager.head_score(
        given.u, given.value, given.keys.masked, sums, "max", None, (), with_range=False, attention=None
    )
    return scores.visual_score, scores.text_score, sums.token_map, sums.unfiltered_map


def oracle(given: Problem) -> Results:
    """By the reference in float64, on the CPU."""
    u, value = given.u.cpu().double(), given.value.cpu().double()
    scored = reference.score_layer(u, value, given.visual, given.text, given.reads)
    return scored.visual_score, scored.text_score, scored.token_map, scored.unfiltered_map
