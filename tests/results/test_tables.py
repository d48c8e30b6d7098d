"""An explanation as plain values: its text, a dict for JSON, a table for pandas."""

from __future__ import annotations

import json
import sys
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given
from made_explanations import QUICK, explanations, grey, make

from dexar_fast.errors import LibraryError
from dexar_fast.explanation import Explanation
from dexar_fast.generation.stream import Piece
from dexar_fast.report.tables import columns_of
from dexar_fast.results.schema import ARRAYS
from dexar_fast.results.text_relevance import TextRelevance
from dexar_fast.vision.grid import Grid

COLUMNS = ["token", "token_id", "weight", "heads_kept", "image", "x", "y"]


def lit(cell: int, *grids: Grid, images: int = 1) -> Explanation:
    """One token whose map is brightest at a visual token."""
    maps = torch.zeros(1, 12)
    maps[0, cell] = 2.0
    return make(1, token_maps=maps, grids=grids, images=(grey(60, 40),) * images)


def place(explanation: Explanation) -> tuple[float, float, float]:
    columns = columns_of(explanation)
    return columns["image"][0], columns["x"][0], columns["y"][0]


def test_the_text_is_the_answer():
    assert make(tokens=["", "A ", "\N{CAT FACE}"]).text == "A \N{CAT FACE}"
    assert make(0).text == ""
    made = make(2)
    piece = Piece(**{name: value for name, value in vars(made).items()}, first=7)
    assert piece.text == made.text == " word0 word1"


def test_without_a_tokenizer_the_text_is_ids_apart():
    assert make(2, token_ids=torch.tensor([12, 34]), tokens=["12", "34"]).text.split() == ["12", "34"]


@given(explanations())
@QUICK
def test_a_dict_is_plain_json_and_holds_all_but_images(explanation):
    plain = explanation.to_dict()
    assert json.loads(json.dumps(plain, allow_nan=False)) == plain
    assert set(plain) == {"text", "tokens", "grids", "diagnostics", "metadata", "text_relevance", *ARRAYS}
    for name in ARRAYS:
        kept = getattr(explanation, name)
        assert torch.equal(torch.tensor(plain[name], dtype=kept.dtype).reshape(kept.shape), kept)
    assert plain["tokens"] == explanation.tokens and plain["text"] == explanation.text


def test_a_dict_holds_the_text_relevance():
    assert make(2).to_dict()["text_relevance"] is None
    maps = torch.tensor([[0.5, 0], [1, 0.25]], dtype=torch.float64)
    found = TextRelevance(torch.tensor([0, 7]), ["<s>", " a"], maps, maps + 1)
    plain = make(2, text_relevance=found).to_dict()["text_relevance"]
    assert json.loads(json.dumps(plain)) == {
        "tokens": ["<s>", " a"],
        "positions": [0, 7],
        "maps": [[0.5, 0], [1, 0.25]],
        "unfiltered_maps": [[1.5, 1], [2, 1.25]],
    }


def test_a_dict_shares_nothing_with_the_explanation():
    explanation = make(diagnostics={"pair": (1, 2)})
    plain = explanation.to_dict()
    assert plain["diagnostics"] == {"pair": [1, 2]}
    plain["metadata"]["layers"].append(7), plain["tokens"].clear()
    assert explanation.metadata["layers"] == [0, 1] and len(explanation.tokens) == 3
    assert plain["grids"] == [{"image": 0, "start": 0, "rows": 3, "columns": 4, "box": None, "row_stride": None,
                               "frames": 1, "video": False}]  # fmt: skip


def test_a_table_has_a_row_for_each_token():
    weights = torch.zeros(3, 2, 4)
    weights[1, 0, 1] = weights[1, 1, 3] = 0.5
    explanation = make(head_weights=weights)
    columns = columns_of(explanation)
    assert list(columns) == COLUMNS and all(len(column) == 3 for column in columns.values())
    assert columns["token"] == explanation.tokens and columns["token_id"] == explanation.token_ids.tolist()
    assert columns["weight"] == explanation.token_weights.tolist()
    assert columns["heads_kept"] == [0, 2, 0]
    assert all(len(column) == 0 for column in columns_of(make(0)).values())


def test_the_brightest_place_is_in_fractions_of_its_image():
    assert place(lit(6, Grid(0, 0, 3, 4))) == pytest.approx((0, 2.5 / 4, 1.5 / 3))
    crop = Grid(0, 0, 3, 4, (20, 0, 60, 40))
    assert place(lit(0, crop)) == pytest.approx((0, (20 + 5) / 60, 40 / 6 / 40))
    padded = Grid(0, 0, 3, 4, (0, -40, 60, 80))
    assert place(lit(11, padded))[2] == pytest.approx((-40 + 100) / 40)
    strided = Grid(0, 0, 2, 3, row_stride=4)
    assert place(lit(6, strided)) == pytest.approx((0, 2.5 / 3, 0.75))
    two = (Grid(0, 0, 2, 3), Grid(1, 6, 2, 3))
    assert place(lit(9, *two, images=2)) == pytest.approx((1, 0.5 / 3, 0.75))


@pytest.mark.parametrize(
    "explanation", [lit(3), lit(3, Grid(0, 4, 2, 4)), make(1, token_maps=torch.ones(1, 12))],
    ids=["no grid", "a separator", "constant"],
)  # fmt: skip
def test_a_map_without_a_brightest_place_has_none(explanation):
    assert all(value != value for value in place(explanation))


def test_a_table_takes_pandas(monkeypatch):
    monkeypatch.setitem(sys.modules, "pandas", SimpleNamespace(DataFrame=dict))
    assert make().to_pandas() == columns_of(make())


def test_without_pandas_one_line_says_so(monkeypatch):
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(LibraryError, match=r"^to_pandas\(\) needs pandas \(.*\): pip install pandas$"):
        make().to_pandas()
