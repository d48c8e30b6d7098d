"""The parts of measuring, each against a slow version in float64 or numbers worked out."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional

from dexar_fast.vision.grid import Grid
from dexar_fast.vision.measured import checking, lattice
from dexar_fast.vision.measured.codes import Codes, bits, picture, stretched, stripes, textured
from dexar_fast.vision.measured.decoding import Answers, means, places
from dexar_fast.vision.measured.lattice import Places
from dexar_fast.vision.measured.measuring import Measuring
from dexar_fast.vision.measured.skipping import Blocks
from dexar_fast.vision.measured.unmixed import Unmixed

# Attention off


def by_torch(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return functional.scaled_dot_product_attention(q, k, v)


def by_hand(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    weights = functional.softmax(q @ k.mT, dim=-1, dtype=torch.float64).to(q.dtype)
    return torch.matmul(functional.dropout(weights, 0.1, training=False), v)


def by_product(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return torch.einsum("bij,bjd->bid", torch.softmax(torch.bmm(q, k.mT), -1), v)


def by_turned_product(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return torch.bmm(v.mT, torch.softmax(torch.bmm(q, k.mT), -1).permute(0, 2, 1)).mT


def by_module(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    torch.manual_seed(0)
    return nn.MultiheadAttention(8, 2, batch_first=True, bias=False).eval()(q, k, v)[0]


@pytest.mark.parametrize("attention", [by_torch, by_hand, by_product, by_turned_product, by_module])
def test_attention_returns_zeros_inside_and_what_it_did_outside(attention: Callable[..., Tensor]) -> None:
    q, k, v = torch.randn(3, 2, 5, 8).unbind()
    with torch.no_grad():
        before = attention(q, k, v)
        with Unmixed():
            assert torch.equal(attention(q, k, v), torch.zeros_like(before))
        assert torch.equal(attention(q, k, v), before) and before.any()


@pytest.mark.parametrize("attention", [by_torch, by_hand, by_turned_product])
def test_other_queries_than_keys_get_the_mean_of_the_values(attention: Callable[..., Tensor]) -> None:
    q, k, v = torch.randn(2, 1, 8), torch.randn(2, 4, 8), torch.randn(2, 4, 8)
    with Unmixed():
        found = attention(q, k, v)
    assert torch.allclose(found, v.mean(1, keepdim=True)) and torch.allclose(found[0, 0], sum(v[0]) / 4)


def test_a_choice_among_learned_rows_and_other_products_stay() -> None:
    scores, table = torch.randn(5, 7), nn.Parameter(torch.randn(7, 3))
    expected = scores.softmax(-1) @ table, scores @ table, functional.linear(scores, table.T)
    with Unmixed():
        found = scores.softmax(-1) @ table, scores @ table, functional.linear(scores, table.T)
    assert all(torch.equal(one, other) for one, other in zip(found, expected, strict=True))


# Codes


@pytest.mark.parametrize("count", [1, 2, 5])
def test_neighbouring_stripes_differ_in_one_bit_and_none_are_alike(count: int) -> None:
    signs = stripes(count)
    assert signs.shape == (count, 2**count) and set(np.unique(signs)) == {-1, 1}
    assert (np.abs(np.diff(signs, axis=1)).sum(0) == 2).all()
    assert len(np.unique(signs, axis=1).T) == 2**count


@pytest.mark.parametrize(
    ("cells", "pixels", "count"), [(24, 640, 6), (24, 20, 3), (1, 640, 1), (0.3, 640, 1), (9, 1, 1), (16, 640, 5)]
)
def test_how_many_bits_an_axis_takes(cells: float, pixels: int, count: int) -> None:
    assert bits(cells, pixels) == count


def test_pictures_are_of_their_size_and_their_inverse_is_the_other_colour() -> None:
    signs = stretched(stripes(2)[1:], (7, 3))  # halves, then quarters: black, white, white, black
    assert np.asarray(picture(signs))[0, :, 0].tolist() == [0, 0, 255, 255, 255, 255, 0]
    assert picture(signs).size == (7, 3) and picture(signs).mode == "RGB"
    assert (np.asarray(picture(signs)).astype(int) + np.asarray(picture(-signs)) == 255).all()


@pytest.mark.parametrize("count", [1, 2, 3, 5])
def test_pictures_are_told_apart(count: int) -> None:
    codes = Codes.of([(40, 30)] * count, 100)
    which = codes.patterns()[codes.across + codes.down :]
    shares = np.array([[pattern[image].mean() for pattern in which] for image in range(count)]).reshape(count, -1)
    first, joined = codes.images_of(shares, np.ones(count, bool))
    assert first.tolist() == list(range(count)) and set(joined) == {1}


@pytest.mark.parametrize("weight", [0.5, 0.2])
def test_steps_of_several_frames_are_told_from_single_ones(weight: float) -> None:
    """However a step weighs its two frames; the first picture is none, and the last frame stands alone."""
    codes = Codes.of([(40, 30)] * 6, 100, stills=1)
    which = codes.patterns()[codes.across + codes.down :]
    shares = np.array([[pattern[frame].mean() for pattern in which] for frame in range(6)])
    pairs = [weight * shares[first] + (1 - weight) * shares[first + 1] for first in (1, 3)]
    steps = np.array([shares[0], *pairs, shares[5]])
    first, joined = codes.images_of(0.95 * np.vstack([steps, steps * 0]), np.arange(8) < 4)
    assert (first[:4].tolist(), joined[:4].tolist()) == ([0, 1, 3, 5], [1, 2, 2, 1])


# Decoding


def test_means_equal_those_of_fine_steps() -> None:
    draw = np.random.default_rng(0)
    low = draw.uniform(-1, 7, 20)
    high = low + draw.uniform(0.1, 3, 20)
    fine = np.repeat(stripes(3).astype(float), 1000, axis=1)
    for index, found in enumerate(means(stripes(3), low, high).T):
        ends = (np.clip([low[index], high[index]], 0, 8) * 1000).round().astype(int)
        expected = fine[:, ends[0] : ends[1]].mean(1) if ends[1] > ends[0] else np.zeros(3)
        assert found == pytest.approx(expected, abs=0.05)


@pytest.mark.parametrize("noise", [0.0, 0.2])
def test_centres_of_cells_of_any_width_are_found_within_a_stripe(noise: float) -> None:
    draw = np.random.default_rng(1)
    centres, widths = draw.uniform(2, 30, 300), draw.uniform(1, 3, 300)
    shares = means(stripes(5), centres - widths / 2, centres + widths / 2).T
    found, _ = places(shares + noise * draw.standard_normal(shares.shape), 5)
    assert np.quantile(np.abs(found * 32 - centres), 0.95) < 1


def test_shares_are_those_of_white_and_what_does_not_answer_is_told() -> None:
    white = torch.tensor([[2.0, 0, 0], [0, 0, 4], [0, 0, 0]])
    found = Answers.of(torch.stack([white * 0.5, -white, white * 3]), white)
    assert found.shares[:2].tolist() == [[0.5, -1, 1]] * 2  # three times as much is more than there is
    assert found.answered.tolist() == [True, True, False] and np.isfinite(found.shares).all()


# Grids


def cells(
    box: tuple[float, ...], rows: int, columns: int, image: int = 0, newline: bool = False
) -> list[tuple[float, ...]]:
    """Of each token the image, the centre and the size of its cell."""
    wide, high = (box[2] - box[0]) / columns, (box[3] - box[1]) / rows
    found: list[tuple[float, ...]] = []
    for row in range(rows):
        found += [(image, box[0] + (c + 0.5) * wide, box[1] + (row + 0.5) * high, wide, high) for c in range(columns)]
        found += [(-1, 0, 0, 1, 1)] * newline
    return found


def lying(tokens: list[tuple[float, ...]], noise: float = 0.0, wild: float = 0.0) -> Places:
    """Their places; noise in cells, and the share of tokens that are found just anywhere."""
    draw = np.random.default_rng(0)
    image, x, y, width, height = np.array(tokens).T
    lost = draw.random(len(x)) < wild
    x = np.where(lost, draw.uniform(0, 300, len(x)), x + noise * width * draw.standard_normal(len(x)))
    y = np.where(lost, draw.uniform(0, 300, len(x)), y + noise * height * draw.standard_normal(len(x)))
    return Places(image.astype(int), np.ones(len(x), int), x, y, width, height)


TILES = [((0, 0, 150, 150), 8, 8), ((150, 0, 300, 150), 8, 8), ((0, 150, 150, 300), 8, 8), ((0, 0, 300, 300), 8, 8)]
LAYOUTS: dict[str, list[tuple[tuple[float, ...], int, int, int, bool]]] = {
    "one": [((10, 20, 290, 280), 12, 14, 0, False)],
    "newlines": [((0, 0, 300, 100), 5, 9, 0, True)],
    "tiles and thumbnail": [(box, rows, columns, 0, False) for box, rows, columns in TILES],
    "two images": [((0, 0, 300, 300), 6, 6, 0, False), ((0, 0, 200, 300), 6, 6, 1, False)],
    "a column": [((0, 0, 30, 300), 9, 1, 0, False)],
    "a row": [((0, 0, 300, 30), 1, 9, 0, False)],
    "a cell": [((0, 0, 300, 300), 1, 1, 0, False)],
}


@pytest.mark.parametrize(
    ("name", "wild"), [*((name, 0.0) for name in LAYOUTS), *((name, 0.1) for name in [*LAYOUTS][:4])]
)
def test_grids_are_found_though_some_tokens_are_not(name: str, wild: float) -> None:
    """A majority decides; of a single row or column there is none."""
    layout = LAYOUTS[name]
    tokens = [token for box, rows, columns, *rest in layout for token in cells(box, rows, columns, *rest)]
    found = list(lattice.grids(lying(tokens, noise=0.1, wild=wild)))
    assert [(grid.image, grid.rows, grid.columns) for grid in found] == [(i, r, c) for _, r, c, i, _ in layout]
    for grid, (box, rows, columns, _, newline) in zip(found, layout, strict=True):
        assert grid.row_stride == (columns + 1 if newline else None)
        cell = (box[2] - box[0]) / columns, (box[3] - box[1]) / rows
        assert np.abs(np.subtract(grid.box or (), box) / (cell * 2)).max() < 0.5


@pytest.mark.parametrize("columns", [4, 12])
def test_a_token_that_sees_all_of_the_picture_is_none_of_the_grid_behind_it(columns: int) -> None:
    """A mean over all tokens, in front of them."""
    tokens = [(0.0, 120.0, 80.0, 240.0, 160.0), *cells((0, 0, 240, 160), 8, columns)]
    (grid,) = [grid for grid in lattice.grids(lying(tokens, noise=0.1)) if grid.cells.size > 1]
    assert (grid.start, grid.rows, grid.columns) == (1, 8, columns)


def test_nothing_that_answers_makes_no_grid() -> None:
    assert list(lattice.grids(lying([(-1, 0, 0, 1, 1)] * 4))) == []


def test_a_grid_that_as_good_as_ends_at_an_edge_ends_there() -> None:
    grid = Grid(0, 0, 3, 4, (-5.0, 30.0, 102.0, 118.0))
    assert lattice.snapped(grid, (100, 120)).box == (0, 30.0, 100, 120)
    assert lattice.snapped(Grid(0, 0, 3, 4, (1.0, 2.0, 99.0, 118.0)), (100, 120)).box is None


# The check


def mean_of_pixels(signs: NDArray[np.int8], box: tuple[float, ...], scale: int) -> float:
    """In steps of a fraction of a pixel."""
    fine = np.repeat(np.repeat(signs.astype(float), scale, 0), scale, 1)
    left, top, right, bottom = (round(edge * scale) for edge in box)
    inside = fine[max(0, top) : max(0, bottom), max(0, left) : max(0, right)]
    return float(inside.mean()) if inside.size else float("nan")


@pytest.mark.parametrize("box", [(0, 0, 12, 10), (2.5, 1.25, 9.75, 8.5), (-6, -5, 18, 15), (1, 1, 1.5, 1.75)])
def test_shares_of_cells_are_means_of_their_pixels(box: tuple[float, ...]) -> None:
    signs = np.where(np.random.default_rng(0).random((10, 12)) < 0.5, 1, -1).astype(np.int8)
    rows, columns = 3, 4
    found = checking.shares(Grid(0, 0, rows, columns, (box[0], box[1], box[2], box[3])), (12, 10), signs)
    for row in range(rows):
        for column in range(columns):
            x, y = (box[2] - box[0]) / columns, (box[3] - box[1]) / rows
            cell = (box[0] + column * x, box[1] + row * y, box[0] + (column + 1) * x, box[1] + (row + 1) * y)
            assert found[row, column] == pytest.approx(mean_of_pixels(signs, cell, 240), abs=0.03, nan_ok=True)


def test_agreement_is_the_correlation_along_white() -> None:
    expected = np.array([[1.0, -1, 0.5, np.nan]])
    white = torch.randn(4, 6, dtype=torch.float64)
    answers = torch.from_numpy(np.nan_to_num(expected[0]))[:, None] * white
    assert checking.agreement(expected, answers[None], white) == pytest.approx(1)
    assert checking.agreement(expected, -answers[None], white) == pytest.approx(-1)
    assert checking.agreement(expected, torch.zeros(1, 4, 6), white) == 0


# Blocks left out


class Pair(nn.Module):
    """A block that returns its hidden states in a tuple."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(3, 3)

    def forward(self, hidden: Tensor) -> tuple[Tensor, None]:
        return self.inner(hidden), None


class Halves(Pair):
    """One that says something beside them."""

    def forward(self, hidden: Tensor) -> tuple[Tensor, Tensor]:
        return self.inner(hidden), hidden.sum()


class Bridge(nn.Module):
    """A wrapper that sets what is set of it on what it wraps, too."""

    def __init__(self) -> None:
        super().__init__()
        self.wrapped = nn.Linear(3, 3)

    def __setattr__(self, name: str, value: object) -> None:
        super().__setattr__(name, value)
        if name == "forward":
            self.wrapped.forward = value

    def forward(self, hidden: Tensor) -> Tensor:
        return self.wrapped(hidden)


def test_a_wrapper_is_left_out_without_what_it_wraps() -> None:
    """A function of one that stood in the other, too, would call itself."""
    model, hidden = nn.Module(), torch.randn(2, 3)
    model.bridges, model.decoder = nn.ModuleList([Bridge(), Bridge()]), nn.ModuleList()
    before = model.bridges[0](hidden)
    with Blocks(model, model.decoder).left_out():
        assert torch.equal(model.bridges[0](hidden), hidden)
    assert torch.equal(model.bridges[0](hidden), before)


def test_blocks_are_left_out_inside_and_run_again_outside() -> None:
    """Those that keep the shape of their input; an instance's own forward comes back."""
    model = nn.Module()
    model.plain = nn.ModuleList([nn.Linear(3, 3), nn.Linear(3, 3), nn.Linear(3, 2)])
    model.pairs, model.halves = nn.ModuleList([Pair(), Pair()]), nn.ModuleList([Halves(), Halves()])
    model.decoder = nn.ModuleList([nn.Linear(3, 3), nn.Linear(3, 3)])
    own = model.plain[1].forward = lambda hidden: hidden + 1
    every, hidden = [*model.plain, *model.pairs, *model.halves, *model.decoder], torch.randn(2, 3)
    blocks, before = Blocks(model, model.decoder), [block(hidden) for block in every]
    for _ in range(2):  # the second time it is known what each returns
        with blocks.left_out():
            found = [block(hidden) for block in every]
        assert [torch.equal(each, hidden) for each in found[:2]] == [True, True]
        assert torch.equal(found[2], before[2]) and all(map(torch.equal, found[7:], before[7:]))
        assert all(each[0] is hidden and each[1] is None for each in found[3:5])
        assert all(torch.equal(found[n][0], before[n][0]) for n in (5, 6))
        assert torch.equal(model.plain[0](hidden), before[0]) and model.plain[1].forward is own
        assert "forward" not in vars(model.plain[0])


def test_one_block_of_a_kind_runs_once() -> None:
    model, runs = nn.Module(), []
    model.blocks, model.decoder = nn.ModuleList([Pair() for _ in range(5)]), nn.ModuleList([nn.Linear(3, 3)])
    for block in model.blocks:
        block.inner.register_forward_hook(lambda *_: runs.append(1))
    blocks = Blocks(model, model.decoder)
    for _ in range(3):
        with blocks.left_out():
            for block in model.blocks:
                block(torch.randn(2, 3))
    assert len(runs) == 1


@pytest.mark.parametrize("sides", [(4, 4), (2, 4, 4)])
@pytest.mark.parametrize("bias", [True, False])
def test_a_convolution_over_one_patch_is_a_product(sides: tuple[int, ...], bias: bool) -> None:
    kind = nn.Conv2d if len(sides) == 2 else nn.Conv3d
    for padding, patch in ((0, sides), (1, sides), (0, tuple(2 * side for side in sides))):
        layer = kind(3, 5, sides, stride=sides, padding=padding, bias=bias).double()
        patches = torch.randn(7, 3, *patch, dtype=torch.float64)
        with torch.no_grad():
            expected = layer(patches)
            with Unmixed():
                assert torch.allclose(layer(patches), expected, rtol=0, atol=1e-12)


# Pictures of another kind


def test_a_texture_stands_for_white_and_its_inverse_for_black() -> None:
    signs = stretched(stripes(1), (12, 6))
    found = textured(signs, 2)
    assert found.shape == signs.shape and set(np.unique(found)) == {-1, 1}
    plain = textured(np.ones_like(signs), 2)
    assert (found == plain * signs).all() and 0.2 < (plain > 0).mean() < 0.8
    assert (plain[::2] == plain[1::2]).all() and (plain[:, ::2] == plain[:, 1::2]).all()
    assert (textured(-signs, 2) == -found).all() and textured(signs[:5, :7], 2).shape == (5, 7)


def norms_of_patches(pictures: list[Image.Image]) -> Tensor:
    """[16, 16 * 3] patches of a picture of 40 x 40 pixels, the mean of each taken off."""
    pixels = torch.from_numpy(np.asarray(pictures[0])).double() / 255
    patches = pixels.unflatten(0, (4, 10)).unflatten(2, (4, 10)).movedim(2, 1).flatten(0, 1).flatten(1)
    return functional.layer_norm(patches, patches.shape[1:]).float()


def test_patches_whose_mean_is_taken_off_are_shown_a_texture() -> None:
    """Plain white and plain black are alike to them."""
    measuring = Measuring.at_first([norms_of_patches], lambda layer, pictures: layer(pictures), [(40, 40)])
    assert measuring is not None and measuring.grain == 3
    assert measuring.grids() == [Grid(0, 0, 4, 4)]


def test_grids_that_hold_few_of_the_tokens_that_answer_were_found_by_chance() -> None:
    """Two tokens of twenty lie somewhere, the others answer to all of the picture in ways of their own."""
    weights = torch.randn(18, 40 * 40 * 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)

    def see(layer: None, pictures: list[Image.Image]) -> Tensor:
        pixels = torch.from_numpy(np.asarray(pictures[0])).double().flatten(1)
        halves = torch.stack([pixels[:, :60].mean().repeat(8), pixels[:, 60:].mean().repeat(8)])
        return torch.cat([halves, (weights @ pixels.flatten()).unsqueeze(1).repeat(1, 8) / 20])

    measuring = Measuring.at_first([None], see, [(40, 40)])
    assert measuring is not None and measuring.confirmed([Grid(0, 0, 1, 2)]) and measuring.grids() == []


def test_a_picture_of_one_token_is_its_place() -> None:
    measuring = Measuring.at_first([None], lambda _, pictures: torch.ones(1, 2) * np.mean(pictures[0]), [(9, 5)])
    assert measuring is not None and measuring.grids() == [Grid(0, 0, 1, 1)]
    assert measuring.confirmed([Grid(0, 0, 1, 1)]) == [Grid(0, 0, 1, 1)]
    assert measuring.confirmed([Grid(0, 0, 1, 1, (0, 0, 2, 5))]) == []
