"""The operations against the reference, on torch and on the backend that is chosen (each kernel: test_kernels.py)."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import kernel_cases
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from dexar_fast.backends import eager, ops, plan, reference
from dexar_fast.backends.operands import HeadGroups, Keys, MapSums, keys_of_heads

QUICK = settings(max_examples=30, deadline=None, derandomize=True)
DIM = 5
MAPS = ("token_map", "unfiltered_map")
SCORES: list[Any] = ["max", "mean", ("topk", 1), ("topk", 3), ("topk", 1000)]
FIELDS = ("visual_score", "text_score", *MAPS)


@pytest.fixture(autouse=True, scope="module", params=["torch", "auto"])
def backend(request: pytest.FixtureRequest) -> Iterator[None]:
    """Everything on torch, and on what this machine takes by itself."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(plan.ENVIRONMENT, request.param)
        yield


def draw(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def causal(queries: int, keys: int) -> Tensor:
    return torch.ones(queries, keys, dtype=torch.bool).tril(keys - queries)


def window(queries: int, keys: int, width: int) -> Tensor:
    """Each query reads itself and the width - 1 keys before it."""
    return causal(queries, keys).triu(keys - queries - width + 1)


def grid(start: int, rows: int, columns: int) -> Tensor:
    """The index of each cell of a grid that begins at visual key `start`."""
    return start + torch.arange(rows * columns).view(rows, columns)


def masked_gradients(u: Tensor, value: Tensor, attendable: Tensor) -> Tensor:
    """G [C, H, S] in float64, 0 at keys that a query cannot attend to."""
    gradients = reference.gradient(u.double(), value.double())
    return torch.where(attendable[:, None], gradients, 0)


def expected(
    u: Tensor,
    value: Tensor,
    visual: Tensor,
    text: Tensor,
    attendable: Tensor,
    head_score: Any = "max",
    map_filter: Any = None,
    grids: tuple[Tensor, ...] = (),
) -> dict[str, Tensor]:
    """Scores and maps from METHOD.md sections 3 and 4."""
    gradients = masked_gradients(u, value, attendable)
    raw = maps = gradients[..., visual]
    if map_filter is not None:
        maps = filtered(raw, map_filter[1], grids) * attendable[:, None, visual]
    visual_score = reference.head_score(maps, attendable[:, visual], head_score)
    if map_filter is not None:
        visual_score = visual_score * gain(raw, maps)[:, None]
    text_score = reference.head_score(gradients[..., text], attendable[:, text], head_score)
    token_map, _ = reference.aggregate(maps, (visual_score - text_score).relu())
    return {
        "visual_score": visual_score,
        "text_score": text_score,
        "token_map": token_map,
        "unfiltered_map": raw.sum(1),
    }


def filtered(maps: Tensor, rank: int, grids: tuple[Tensor, ...]) -> Tensor:
    maps = maps.clone()
    for cells in grids:
        maps[..., cells] = reference.rank_filter(maps[..., cells], rank)
    return maps


def gain(raw: Tensor, maps: Tensor) -> Tensor:
    """[C]: the median over heads of the raw maximum, over that of the filtered maximum."""
    before, after = (raw.new_tensor([median(row) for row in x.amax(-1).tolist()]) for x in (raw, maps))
    return torch.where(after > 0, before / after, 0)


def median(values: list[float]) -> float:
    values = sorted(values)
    return (values[(len(values) - 1) // 2] + values[len(values) // 2]) / 2


def scored(u: Tensor, value: Tensor, keys: Keys, sums: MapSums | None = None, **knobs: Any) -> SimpleNamespace:
    """The scores of a layer, and its maps by themselves or added to sums."""
    sums = MapSums.zeros(u, visual_count(keys)) if sums is None else sums
    scores = ops.head_score(u, value, keys, sums, **knobs)
    return SimpleNamespace(**vars(scores), token_map=sums.token_map, unfiltered_map=sums.unfiltered_map)


def visual_count(keys: Keys) -> int:
    return keys.attendable[:, keys.visual].shape[1]


def check(found: SimpleNamespace, wanted: dict[str, Tensor], tolerance: float = 1e-12) -> None:
    for name, value in wanted.items():
        actual = getattr(found, name)
        assert actual.shape == value.shape, name
        assert (actual.double() - value).abs().max() <= tolerance * value.abs().max(), name


def compare(
    u: Tensor, value: Tensor, visual: Tensor, text: Tensor, attendable: Tensor, tolerance: float = 1e-12, **knobs: Any
) -> SimpleNamespace:
    """The layer's scores and maps, which equal the reference, by themselves and added to those of a layer before."""
    keys, wanted = Keys.of(visual, text, attendable), expected(u, value, visual, text, attendable, **knobs)
    found = scored(u, value, keys, **knobs)
    check(found, wanted, tolerance)
    before = {name: draw(*wanted[name].shape, seed=i) for i, name in enumerate(MAPS)}
    sums = MapSums(torch.stack([before[name].to(found.token_map.dtype) for name in MAPS]))
    added = scored(u, value, keys, sums, **knobs)
    check(added, wanted | {name: x + wanted[name] for name, x in before.items()}, tolerance)
    return found


def split(keys: int, visual: list[int]) -> tuple[Tensor, Tensor]:
    """Positions of the visual keys and of all others."""
    return torch.tensor(visual), torch.tensor([key for key in range(keys) if key not in visual], dtype=torch.long)


# Against the reference


@pytest.mark.parametrize("head_score", SCORES, ids=str)
@pytest.mark.parametrize("visual", [[2, 3, 4, 5], [0], [1, 2, 4, 7, 8], [0, 1, 2], [10]], ids=str)
@pytest.mark.parametrize(("heads", "kv_heads"), [(1, 1), (3, 3), (6, 3), (4, 1), (14, 2)])
def test_equals_the_reference(heads: int, kv_heads: int, visual: list[int], head_score: Any) -> None:
    for queries in (1, 3):
        keys = 13
        u, value = draw(queries, heads, DIM), draw(kv_heads, keys, DIM, seed=1)
        compare(u, value, *split(keys, visual), causal(queries, keys), head_score=head_score)


@pytest.mark.parametrize("head_score", SCORES, ids=str)
@pytest.mark.parametrize("width", [1, 3, 6])
def test_keys_outside_a_sliding_window_do_not_count(width: int, head_score: Any) -> None:
    """At width 1 no query sees an image key, at 3 the last two see none, at 6 all see one."""
    u, value = draw(4, 6, DIM), draw(2, 12, DIM, seed=1)
    attendable = window(4, 12, width)
    visual, text = split(12, [6, 7])
    found = compare(u, value, visual, text, attendable, head_score=head_score)
    hidden = ~attendable[:, visual].any(1)
    assert bool(hidden.any()) == (width < 6)
    assert not found.visual_score[hidden].any()
    assert not found.token_map[hidden].any()
    assert not found.unfiltered_map[~attendable[:, visual]].any()


def test_a_query_without_text_keys_has_no_text_score() -> None:
    u, value = draw(3, 4, DIM), draw(2, 9, DIM, seed=1)
    visual, text = split(9, [1, 2, 3, 4])
    attendable = torch.ones(3, 9, dtype=torch.bool)
    attendable[1, text] = False
    found = compare(u, value, visual, text, attendable)
    assert not found.text_score[1].any()
    assert (found.text_winner[1] == -1).all()
    assert (found.text_winner[[0, 2]] >= 0).any()


@pytest.mark.parametrize("head_score", SCORES, ids=str)
def test_an_empty_text_set_scores_zero(head_score: Any) -> None:
    u, value = draw(3, 4, DIM), draw(2, 9, DIM, seed=1)
    visual, none = torch.arange(2, 6), torch.tensor([], dtype=torch.long)
    found = compare(u, value, visual, none, causal(3, 9), head_score=head_score)
    assert found.text_score.shape == found.text_winner.shape == (3, 4)
    assert not found.text_score.any()
    assert (found.text_winner == -1).all()


def test_negative_gradients_leave_nothing() -> None:
    u, value = draw(3, 4, DIM).abs(), -draw(2, 9, DIM, seed=1).abs()
    found = compare(u, value, *split(9, [2, 3]), causal(3, 9))
    assert not any(getattr(found, name).any() for name in FIELDS)
    assert (found.text_winner == -1).all()


def test_the_winner_is_the_position_of_the_largest_text_gradient() -> None:
    u, value = draw(5, 6, DIM), draw(3, 14, DIM, seed=1)
    visual, text = split(14, [3, 4, 8])
    attendable = window(5, 14, 7)
    found = scored(u, value, Keys.of(visual, text, attendable))
    gradients = masked_gradients(u, value, attendable)
    gradients[..., visual] = 0
    best, winner = gradients.max(-1)
    assert torch.equal(found.text_winner, torch.where(best > 0, winner, -1))
    assert len(found.text_winner.unique()) > 3


def test_ties_count_once() -> None:
    """All text keys alike: the score is theirs, and the winner is one of them."""
    u, value = draw(2, 2, DIM), draw(1, 1, DIM, seed=1).expand(2, 8, DIM)
    visual, text = split(8, [2, 3, 4])
    found = compare(u, value, visual, text, causal(2, 8))
    assert torch.equal(found.visual_score, found.text_score)
    assert not found.token_map.any()
    positive = found.text_score > 0
    assert positive.any()
    assert torch.isin(found.text_winner[positive], text).all()


def test_the_range_is_over_all_visual_gradients() -> None:
    u, value = draw(3, 4, DIM).abs() + 0.1, draw(2, 9, DIM, seed=1).abs() + 0.1
    visual, text = split(9, [1, 2, 5])
    found = scored(u, value, Keys.of(visual, text, causal(3, 9)), with_range=True)
    gradients = reference.gradient(u, value)[..., visual]
    assert gradients.min() > 0
    torch.testing.assert_close(found.range, torch.stack([gradients.min(), gradients.max()]))
    assert scored(u, value, Keys.of(visual, text, causal(3, 9))).range is None


@pytest.mark.parametrize("name", ["strided", "transposed", "expanded"])
def test_views_give_what_their_copies_give(name: str) -> None:
    u = {
        "strided": draw(6, 8, 2 * DIM)[::2, ::2, ::2],
        "transposed": draw(4, 3, DIM).transpose(0, 1),
        "expanded": draw(1, 4, DIM).expand(3, 4, DIM),
    }[name]
    value = {
        "strided": draw(4, 20, 2 * DIM, seed=1)[::2, ::2, ::2],
        "transposed": draw(10, DIM, 2, seed=1).permute(2, 0, 1),
        "expanded": draw(1, 10, DIM, seed=1).expand(2, 10, DIM),
    }[name]
    assert not u.is_contiguous() and not value.is_contiguous()
    keys = Keys.of(*split(10, [2, 3, 4]), causal(3, 10))
    whole, copied = scored(u, value, keys), scored(u.contiguous(), value.contiguous(), keys)
    for field in FIELDS:
        torch.testing.assert_close(getattr(whole, field), getattr(copied, field), rtol=1e-14, atol=0)
    compare(u, value, *split(10, [2, 3, 4]), causal(3, 10))


def test_arguments_are_left_as_they_were() -> None:
    u, value = draw(3, 4, DIM), draw(2, 9, DIM, seed=1)
    kept = u.clone(), value.clone()
    scored(u, value, Keys.of(*split(9, [2, 3]), window(3, 9, 4)), map_filter=("rank", 5), grids=(grid(0, 1, 2),))
    assert torch.equal(u, kept[0]) and torch.equal(value, kept[1])


@pytest.mark.parametrize("knobs", [{}, {"map_filter": ("rank", 5), "grids": (grid(0, 2, 3),)}], ids=["plain", "filter"])
def test_blocks_of_queries_change_nothing(monkeypatch: pytest.MonkeyPatch, knobs: dict[str, Any]) -> None:
    u, value = draw(7, 4, DIM), draw(2, 16, DIM, seed=1)
    keys = Keys.of(*split(16, list(range(2, 8))), window(7, 16, 9))
    whole = scored(u, value, keys, with_range=True, **knobs)
    row = u.element_size() * u.shape[1] * keys.masked.widest
    for queries in (1, 3):
        monkeypatch.setattr(eager, "SCORE_BYTES_ON_CPU", queries * row)
        parts = scored(u, value, keys, with_range=True, **knobs)
        for field in (*FIELDS, "text_winner", "range"):
            torch.testing.assert_close(getattr(parts, field), getattr(whole, field), rtol=1e-14, atol=0)


# Precision


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_summed_in_float32(dtype: torch.dtype) -> None:
    """Off by no more than sums of that many float32 products are in any order (kernel_cases.py): CPUs differ in it."""
    u, value = draw(3, 8, 32, dtype=dtype), draw(2, 60, 32, seed=1, dtype=dtype)
    given = kernel_cases.Problem(u, value, *split(60, list(range(5, 40))), causal(3, 60))
    sums = MapSums(torch.stack(given.before))
    found = scored(u, value, Keys.of(given.visual, given.text, given.attendable), sums)
    assert all(getattr(found, name).dtype == torch.float32 for name in FIELDS)
    kernel_cases.check_scores(vars(found), given)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_the_error_of_a_score_is_bounded_by_its_inputs_rounding(dtype: torch.dtype) -> None:
    """Each input is rounded once, by eps / 2: a product is off by eps, and a maximum by no more than its terms."""
    u, value = draw(3, 8, 32), draw(2, 60, 32, seed=1)
    visual, text = split(60, list(range(5, 40)))
    found = scored(u.to(dtype), value.to(dtype), Keys.of(visual, text, causal(3, 60)))
    wanted = expected(u, value, visual, text, causal(3, 60))
    bound = reference.gradient(u.abs(), value.abs()).amax(-1)
    bound = bound * (1.01 * torch.finfo(dtype).eps + 32 * torch.finfo(torch.float32).eps)
    for name in ("visual_score", "text_score"):
        assert ((getattr(found, name) - wanted[name]).abs() <= bound).all()


def test_float64_stays_float64() -> None:
    found = scored(draw(2, 4, DIM), draw(2, 9, DIM), Keys.of(*split(9, [1, 2]), causal(2, 9)))
    assert all(getattr(found, name).dtype == torch.float64 for name in FIELDS)


# NaN and infinity


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@pytest.mark.parametrize("visual_key", [True, False])
def test_bad_values_reach_every_query_that_attends_to_them(bad: float, visual_key: bool) -> None:
    u, value = draw(3, 4, DIM).abs(), draw(2, 10, DIM, seed=1)
    visual, text = split(10, [3, 4, 5])
    attendable = causal(3, 10)
    key = int(visual[1]) if visual_key else 1
    attendable[0, key] = False
    clean = scored(u, value, Keys.of(visual, text, attendable))
    value[1, key, 2] = bad
    found = scored(u, value, Keys.of(visual, text, attendable))
    score = found.visual_score if visual_key else found.text_score
    assert not score[1:, 2:].isfinite().any()
    assert score[:, :2].isfinite().all()  # heads of the other key/value head
    for name in FIELDS:
        assert torch.equal(getattr(found, name)[0], getattr(clean, name)[0]), name


@pytest.mark.parametrize("head_score", SCORES, ids=str)
def test_a_bad_query_spoils_itself_alone(head_score: Any) -> None:
    u, value = draw(3, 4, DIM), draw(2, 10, DIM, seed=1)
    keys = Keys.of(*split(10, [3, 4, 5]), window(3, 10, 8))
    clean = scored(u, value, keys, head_score=head_score)
    u[1, 2, 0] = float("nan")
    found = scored(u, value, keys, head_score=head_score, with_range=True)
    assert found.visual_score[1].isnan().tolist() == [False, False, True, False]
    assert found.text_score[1].isnan().tolist() == [False, False, True, False]
    assert found.token_map[1].isnan().any() and found.unfiltered_map[1].isnan().any()
    assert found.range is not None and found.range.isnan().all()
    for name in FIELDS:
        assert torch.equal(getattr(found, name)[[0, 2]], getattr(clean, name)[[0, 2]]), name


@pytest.mark.parametrize("rank", [1, 5, 9])
def test_the_map_filter_does_not_hide_a_bad_value(rank: int) -> None:
    u, value = draw(2, 4, DIM).abs(), draw(2, 20, DIM, seed=1)
    keys = Keys.of(*split(20, list(range(2, 14))), causal(2, 20))
    value[0, 7, 0] = float("nan")
    found = scored(u, value, keys, map_filter=("rank", rank), grids=(grid(0, 3, 4),))
    assert found.unfiltered_map.isnan().any(1).all()


# The map filter


@pytest.mark.parametrize("head_score", SCORES, ids=str)
@pytest.mark.parametrize("rank", range(1, 10))
def test_map_filter_equals_the_reference(rank: int, head_score: Any) -> None:
    """Two grids, one with a newline key behind each row, one a single row; heads of an even number."""
    visual = [2, 3, 4, 5, 6, 7, 9, 10, 11, 14]
    u, value = draw(3, 6, DIM), draw(2, 17, DIM, seed=1)
    grids = (torch.tensor([[0, 1], [3, 4]]), grid(7, 1, 3))
    knobs = {"map_filter": ("rank", rank), "grids": grids, "head_score": head_score}
    compare(u, value, *split(17, visual), causal(3, 17), **knobs)


@pytest.mark.parametrize("heads", [1, 2, 3])
def test_map_filter_with_keys_out_of_sight(heads: int) -> None:
    """A filter may not carry a map to keys that the query cannot attend to."""
    u, value = draw(4, heads, DIM), draw(1, 16, DIM, seed=1)
    attendable = window(4, 16, 9)
    visual, text = split(16, list(range(3, 12)))
    knobs: dict[str, Any] = {"map_filter": ("rank", 8), "grids": (grid(0, 3, 3),)}
    found = compare(u, value, visual, text, attendable, **knobs)
    assert (~attendable[:, visual]).any()
    assert not found.token_map[~attendable[:, visual]].any()


def test_rank_filter_by_hand() -> None:
    maps = torch.tensor([[1.0, 2, 3], [4, 5, 6], [7, 8, 9]])
    # the corner sees itself four times, each neighbour at the edge twice
    neighbourhood = sorted([1, 1, 1, 1, 2, 2, 4, 4, 5])
    for rank in range(1, 10):
        result = reference.rank_filter(maps, rank)
        assert result[0, 0] == neighbourhood[rank - 1]
        assert result[1, 1] == rank


def test_an_outlier_does_not_pass_the_median() -> None:
    maps = torch.ones(1, 1, 25)
    maps[..., 12] = 1000
    assert torch.equal(eager.filter_maps(maps, None, 5, (grid(0, 5, 5),)), torch.ones(1, 1, 25))
    assert (eager.filter_maps(maps, None, 9, (grid(0, 5, 5),)) == 1000).sum() == 9


def test_the_filter_works_through_many_queries() -> None:
    maps = draw(2, 2 * eager.FILTER_BLOCK + 3, 12).abs()
    wanted = reference.rank_filter(maps.unflatten(-1, (3, 4)), 5).flatten(-2)
    assert torch.equal(eager.filter_maps(maps, None, 5, (grid(0, 3, 4),)), wanted)


def test_the_gain_keeps_a_flat_map_as_strong_as_it_was() -> None:
    """Where the filter changes nothing the score is the plain one."""
    u, value = draw(2, 4, DIM).abs(), draw(2, 1, DIM, seed=1).abs().expand(2, 12, DIM).clone()
    value[:, 9:] = draw(2, 3, DIM, seed=2)
    keys = Keys.of(*split(12, list(range(9))), causal(2, 12))
    plain = scored(u, value, keys)
    smooth = scored(u, value, keys, map_filter=("rank", 5), grids=(grid(0, 3, 3),))
    torch.testing.assert_close(smooth.visual_score, plain.visual_score)
    torch.testing.assert_close(smooth.token_map, plain.token_map)


# Properties


@st.composite
def problems(drawn: st.DrawFn) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """(u, value, visual, text, attendable) of any small size."""
    kv_heads, group = drawn(st.integers(1, 3)), drawn(st.sampled_from([1, 2, 4, 7]))
    queries, keys, dim = drawn(st.integers(1, 4)), drawn(st.integers(2, 14)), drawn(st.integers(1, 6))
    visual = drawn(st.sets(st.integers(0, keys - 1), min_size=1))
    seed = drawn(st.integers(0, 2**16))
    attendable = torch.rand(queries, keys, generator=torch.Generator().manual_seed(seed)) < drawn(st.floats(0, 1))
    u, value = draw(queries, kv_heads * group, dim, seed=seed), draw(kv_heads, keys, dim, seed=seed + 1)
    return u, value, *split(keys, sorted(visual)), attendable


@QUICK
@given(problem=problems(), head_score=st.sampled_from(SCORES))
def test_any_problem_equals_the_reference(problem: Any, head_score: Any) -> None:
    compare(*problem, head_score=head_score)


@QUICK
@given(problem=problems(), head_score=st.sampled_from(SCORES), exponent=st.integers(-20, 20))
def test_scaling_u_scales_scores_and_maps(problem: Any, head_score: Any, exponent: int) -> None:
    """G and S are linear in u > 0, E is quadratic, and no rounding enters with a power of two."""
    u, value, visual, text, attendable = problem
    keys, factor = Keys.of(visual, text, attendable), 2.0**exponent
    plain = scored(u, value, keys, head_score=head_score)
    scaled = scored(u * factor, value, keys, head_score=head_score)
    for name in ("visual_score", "text_score", "unfiltered_map"):
        assert torch.equal(getattr(scaled, name), getattr(plain, name) * factor)
    assert torch.equal(scaled.token_map, plain.token_map * factor**2)
    assert torch.equal(scaled.text_winner, plain.text_winner)


@QUICK
@given(problem=problems(), seed=st.integers(0, 99), head_score=st.sampled_from(SCORES))
def test_permuting_visual_keys_permutes_maps(problem: Any, seed: int, head_score: Any) -> None:
    u, value, visual, text, attendable = problem
    order = torch.randperm(len(visual), generator=torch.Generator().manual_seed(seed))
    moved_value, moved_mask = value.clone(), attendable.clone()
    moved_value[:, visual], moved_mask[:, visual] = value[:, visual[order]], attendable[:, visual[order]]
    plain = scored(u, value, Keys.of(visual, text, attendable), head_score=head_score)
    moved = scored(u, moved_value, Keys.of(visual, text, moved_mask), head_score=head_score)
    for name in MAPS:
        torch.testing.assert_close(getattr(moved, name), getattr(plain, name)[:, order])
    for name in ("visual_score", "text_score"):
        torch.testing.assert_close(getattr(moved, name), getattr(plain, name))


@QUICK
@given(problem=problems())
def test_the_filtered_weights_are_what_the_maps_were_summed_with(problem: Any) -> None:
    """E is never more than the largest head weight times U, and zero where no head passes."""
    u, value, visual, text, attendable = problem
    found = scored(u, value, Keys.of(visual, text, attendable))
    weights = (found.visual_score - found.text_score).relu()
    assert (found.token_map >= 0).all()
    assert (found.token_map <= weights.amax(1, keepdim=True) * found.unfiltered_map * (1 + 1e-12)).all()


# Keys


def test_consecutive_positions_are_read_in_place() -> None:
    attendable = causal(2, 9)
    assert Keys.of(*split(9, [3, 4, 5]), attendable).visual == slice(3, 6)
    assert torch.equal(torch.as_tensor(Keys.of(*split(9, [3, 5]), attendable).visual), torch.tensor([3, 5]))


def test_a_mask_is_kept_only_where_it_hides_something() -> None:
    keys = Keys.of(*split(9, [3, 4]), causal(2, 9)).masked
    assert keys.visual_hidden is None
    assert keys.text_hidden is not None and keys.text_hidden.tolist() == [[False] * 6 + [True], [False] * 7]
    rest = keys.of_queries(slice(1, 2))
    assert rest.visual_hidden is None
    assert rest.text_hidden is not None and rest.text_hidden.tolist() == [[False] * 7]


@pytest.mark.parametrize("head_score", SCORES[:3], ids=str)
@pytest.mark.parametrize("kv_heads", [1, 2, 6])
def test_heads_that_read_different_keys_are_scored_apart(head_score: Any, kv_heads: int) -> None:
    """As each head by itself, with its own mask; the maps are their sum."""
    queries, keys, heads = 3, 11, 6
    u, value = draw(queries, heads, DIM), draw(kv_heads, keys, DIM, seed=1)
    seen = draw(3, queries, keys, seed=2) > 0
    seen = seen[[2, 0, 1, 0, 2, 2]]  # heads in no order share a mask
    visual, text = torch.tensor([1, 2, 3, 6]), torch.tensor([0, 4, 5, 7, 8, 9, 10])
    found = keys_of_heads(visual, text, seen)
    assert isinstance(found, HeadGroups) and len(found.groups) == 3
    sums, alone = MapSums.zeros(u, len(visual)), MapSums.zeros(u, len(visual))
    scores = ops.head_score(u, value, found, sums, head_score=head_score, with_range=True)
    each = [
        ops.head_score(
            u[:, [head]],
            value[[head * kv_heads // heads]],
            Keys(visual, text, seen[head]),
            alone,
            head_score=head_score,
            with_range=True,
        )
        for head in range(heads)
    ]
    for name in ("visual_score", "text_score", "text_winner"):
        expected = torch.cat([getattr(one, name) for one in each], 1)
        torch.testing.assert_close(getattr(scores, name), expected, rtol=0, atol=1e-12)
    for name in MAPS:
        torch.testing.assert_close(getattr(sums, name), getattr(alone, name), rtol=0, atol=1e-12)
    ranges = torch.stack([one.range for one in each if one.range is not None])
    torch.testing.assert_close(scores.range, torch.stack([ranges[:, 0].min(), ranges[:, 1].max()]))


def test_heads_that_read_the_same_keys_are_no_groups() -> None:
    seen = causal(3, 5).expand(4, -1, -1)
    found = keys_of_heads(slice(0, 2), torch.tensor([2, 3, 4]), seen)
    assert isinstance(found, Keys) and torch.equal(found.attendable, seen[0])
