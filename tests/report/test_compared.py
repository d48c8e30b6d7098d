"""The picture of a comparison: its panels are those of overlay(), in rows and columns, with the tokens that count."""

import io
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from report_examples import explanation, plain

from dexar_fast import InputError
from dexar_fast.comparison import Comparison
from dexar_fast.explanation import Explanation

WORDS = (" one", ",", " two", " three", "!", " four", "?", " five", ".")


def unweighted(**changes: Any) -> Explanation:
    return explanation(WORDS, **{"weights": [1] * len(WORDS), "diagnostics": {"weighted": False}} | changes)


def flat() -> Explanation:
    """Every value alike: no heat."""
    count = len(WORDS)
    return unweighted(token_maps=torch.ones(count, 12), sequence_map=torch.full((12,), float(count)))


def weighted(weights: Any = (0, 1, 2, 3, 4, 5, 6, 7, 8), **changes: Any) -> Explanation:
    return explanation(WORDS, **{"weights": weights, "seed": 3} | changes)


def runs(mask: np.ndarray) -> list[tuple[int, int]]:
    """Where a row of truth values is true: (start, stop) of each run."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], mask.astype(int), [0]])))
    return list(zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True))


@pytest.mark.parametrize(("size", "width"), [((60, 40), 1200), ((61, 47), 333), ((20, 90), 640), ((333, 11), 801)])
def test_panels_are_overlays_in_rows_and_columns(size: tuple[int, int], width: int) -> None:
    image, tokens = plain(*size), [8, -2, 0]
    rows = [flat(), weighted(), flat()]
    rows = [explanation(WORDS, weights=row.token_weights.tolist(), images=(image,), token_maps=row.token_maps,
                        sequence_map=row.sequence_map, diagnostics=row.diagnostics) for row in rows]  # fmt: skip
    picture = Comparison(["above", "in the middle", "below"], rows).picture(tokens, width=width)
    assert picture.width == width and picture.mode == "RGB"
    blank = (np.asarray(picture) == image.getpixel((0, 0))).all(2)
    tops = runs(blank.sum(1) > width / 8)
    across = runs(blank[tops[0][0]])
    assert len(across) == 1 + len(tokens) and len({stop - start for start, stop in across}) == 1
    top, small = (tops[0][0] + tops[-1][0]) // 2, image.resize((across[0][1] - across[0][0], tops[0][1] - tops[0][0]))
    for (left, right), token in zip(across, [None, *tokens], strict=True):
        expected = rows[1].overlay(token, small, scale="weight")
        assert picture.crop((left, top, right, top + small.height)).tobytes() == expected.tobytes()


def titles_of(monkeypatch: pytest.MonkeyPatch, *explanations: Explanation, **options: Any) -> list[str]:
    """The texts that are written on the picture."""
    from dexar_fast.report.drawing import lettering

    written: list[str] = []
    draw = lettering.draw_text
    monkeypatch.setattr(
        lettering, "draw_text", lambda d, at, text, *rest: (written.append(text), draw(d, at, text, *rest))
    )
    Comparison([f"m{n}" for n in range(len(explanations))], explanations).picture(**options)
    return written


def test_the_tokens_are_those_of_the_greatest_weight(monkeypatch: pytest.MonkeyPatch) -> None:
    other = weighted([9, 9, 9, 0, 0, 0, 0, 0, 0], head_weights=torch.zeros(9, 0, 0), visual_scores=torch.zeros(9, 0, 0),
                     text_scores=torch.zeros(9, 0, 0))  # fmt: skip
    for rows, expected in (
        ((unweighted(), weighted()), ["four", "?", "five", "."]),
        ((other, weighted()), ["four", "?", "five", "."]),
        ((unweighted(), other), ["one", ",", "two", "three"]),
    ):
        written = titles_of(monkeypatch, *rows, max_tokens=4)
        start = written.index("whole answer") + 1
        assert [text for text in written[start:] if text not in ("m0", "m1")][:4] == expected


def test_without_weights_they_are_words_evenly_spaced(monkeypatch: pytest.MonkeyPatch) -> None:
    for row in (unweighted(), weighted([0] * 9)):
        written = titles_of(monkeypatch, row, flat(), max_tokens=3)
        start = written.index("whole answer") + 1
        assert written[start : start + 3] == ["one", "three", "five"]
    signs = explanation((",", "!"), weights=[1, 1], diagnostics={"weighted": False})
    assert {",", "!"} < {*titles_of(monkeypatch, signs, max_tokens=6)}


def test_question_answer_methods_and_the_meaning_of_colours_are_written(monkeypatch: pytest.MonkeyPatch) -> None:
    row = weighted(metadata={"question": "Why?"})
    written = titles_of(monkeypatch, row, unweighted(), width=2000)
    text = " ".join(written)
    assert written[:2] == ["Question: Why?", "Answer: one, two three! four? five."]
    assert {"m0", "m1", "0", "1"} < {*written}
    assert "from its lowest value (0) to its highest (1)" in text and "m0: the map of a token times its weight" in text
    assert "weight 0" not in " ".join(titles_of(monkeypatch, unweighted(), flat(), width=2000))


def test_long_names_and_tokens_are_cut() -> None:
    long = explanation(["W" * 300, "猫" * 90, "\n", ""], weights=[1, 2, 3, 4])
    assert Comparison(["name " * 60, "b"], [long, long]).picture(width=320).width == 320


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"width": 319}, "width must be an integer from 320, not 319"),
        ({"width": 500.0}, "width must be an integer"),
        ({"tokens": [9]}, "token 9 is out of range: there are 9"),
        ({"tokens": 3}, "tokens must be a list of indices, not 3"),
        ({"tokens": list(range(9)) * 9}, "81 tokens do not fit into 1200 pixels"),
        ({"max_tokens": 0}, "max_tokens"),
    ],
)
def test_bad_input_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Comparison(["a", "b"], [weighted(), unweighted()]).picture(**options)


def test_tokens_of_answers_that_differ_are_refused() -> None:
    shown = Comparison(["a", "b"], [explanation([" a", " b"]), explanation([" a"])])
    for token in (0, 1):
        with pytest.raises(InputError, match="the answers differ, so that no token stands in all"):
            shown.picture([token])
    assert shown.picture([]).size == shown.picture().size


def test_without_a_picture_or_its_geometry_it_says_why() -> None:
    with pytest.raises(InputError, match="no image was kept"):
        Comparison(["a"], [weighted(images=())]).picture()
    with pytest.raises(InputError, match="unknown"):
        Comparison(["a"], [weighted(grids=())]).picture()


def test_a_notebook_shows_the_picture_where_there_is_one() -> None:
    shown = Comparison(["a", "b"], [weighted(), unweighted()])
    assert Image.open(io.BytesIO(shown._repr_png_() or b"")).size == shown.picture().size
    assert repr(shown) == "<Comparison: a, b; 9 tokens>"
    assert Comparison(["a"], [weighted(images=())])._repr_png_() is None
