"""The report without a browser: how an answer is cut, what is said, what the file holds, the animation."""

import re
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from made_explanations import QUICK, explanations
from PIL import Image, ImageDraw, ImageSequence
from report_examples import check_report, data_of, explanation, noise, plain, unpacked

from dexar_fast import compare_html
from dexar_fast.errors import FileError, InputError
from dexar_fast.explanation import Explanation
from dexar_fast.report import plain_words, words
from dexar_fast.report.drawing import animation, caption, colours, lettering
from dexar_fast.report.page import data, document, pictures
from dexar_fast.results.schema import ARRAYS
from dexar_fast.vision.grid import Grid

WOMAN, ZWJ = "\U0001f469", "\u200d"


def written(made: Explanation, tmp_path: Path, **options: Any) -> Path:
    made.to_html(tmp_path / "report.html", **options)
    return tmp_path / "report.html"


# --- cutting


@pytest.mark.parametrize(
    ("tokens", "by_token", "by_word"),
    [
        ([" un", "believ", "able", "!"], [" un", "believ", "able", "!"], [" unbelievable", "!"]),
        ([" don", "'t", " go"], [" don", "'t", " go"], [" don't", " go"]),
        ([" '", "quoted", "'"], [" '", "quoted", "'"], [" '", "quoted", "'"]),
        ([" 3", ".", "14", ".", " 2"], [" 3", ".", "14", ".", " 2"], [" 3.14", ".", " 2"]),
        (["", "", "é", "tude"], ["é", "tude"], ["étude"]),
        ([" x", "", "", "", "\U0001f642"], [" x", "\U0001f642"], [" x", "\U0001f642"]),
        ([" a", "", ""], [" a"], [" a"]),
        (["", ""], [""], [""]),
        ([WOMAN, ZWJ, WOMAN, " x"], [WOMAN + ZWJ + WOMAN, " x"], [WOMAN + ZWJ + WOMAN, " x"]),
        (["e", "\u0301", "t"], ["e\u0301", "t"], ["e\u0301t"]),
        (["\U0001f44d", "\U0001f3fd"], ["\U0001f44d\U0001f3fd"], ["\U0001f44d\U0001f3fd"]),
        (
            ["\U0001f1e9", "\U0001f1ea", "\U0001f1eb", "\U0001f1f7"],
            ["\U0001f1e9\U0001f1ea", "\U0001f1eb\U0001f1f7"],
            ["\U0001f1e9\U0001f1ea", "\U0001f1eb\U0001f1f7"],
        ),
        (
            ["\U0001f3f4", "\U000e0067\U000e0062", "\U000e007f", " x"],
            ["\U0001f3f4\U000e0067\U000e0062\U000e007f", " x"],
            ["\U0001f3f4\U000e0067\U000e0062\U000e007f", " x"],
        ),
        (["می", "\u200c", "روم"], ["می\u200c", "روم"], ["می\u200cروم"]),
        (["猫", "が", "寝"], ["猫", "が", "寝"], ["猫", "が", "寝"]),
        ([" القط", "ة"], [" القط", "ة"], [" القطة"]),
        ([" \u0939", "\u093f", "\u0928"], [" \u0939\u093f", "\u0928"], [" \u0939\u093f\u0928"]),
        ([], [], []),
    ],
)
def test_where_an_answer_is_cut(tokens: list[str], by_token: list[str], by_word: list[str]) -> None:
    for by, expected in (("token", by_token), ("word", by_word)):
        spans = words.cut(tokens, by)
        assert ["".join(tokens[t] for t in span) for span in spans] == expected
        assert [t for span in spans for t in span] == list(range(len(tokens)))


def test_a_word_weighs_as_its_heaviest_token_and_its_map_is_weighted_like_the_answers() -> None:
    made = explanation([" un", "able", " to"], weights=[1.0, 3.0, 0.0])
    found = words.pieces(made, "word")
    assert found.spans == [range(0, 2), range(2, 3)]
    np.testing.assert_allclose(found.weights, [3, 0])
    np.testing.assert_allclose(found.maps[0], (made.token_maps[0] + 3 * made.token_maps[1]).numpy(), rtol=1e-6)
    np.testing.assert_allclose(found.maps[1], made.token_maps[2].numpy(), rtol=1e-6)
    np.testing.assert_allclose(found.heads[0], made.head_weights[:2].amax(0).numpy(), rtol=1e-6)


def test_the_map_of_a_word_without_weight_is_the_plain_sum() -> None:
    made = explanation([" un", "able"], weights=[0.0, 0.0])
    np.testing.assert_allclose(words.pieces(made, "word").maps[0], made.token_maps.sum(0).numpy(), rtol=1e-6)


def test_ids_that_stand_for_tokens_are_not_run_together() -> None:
    made = explanation(["0", "1", "2"])
    assert words.pieces(made, "word").texts == [" 0", " 1", " 2"]


@pytest.mark.parametrize("by", ["sentence", None, 3, np.array([1, 2])])
def test_an_unknown_way_to_cut_is_refused(tmp_path: Path, by: Any) -> None:
    for refused in (
        lambda: explanation().to_html(tmp_path / "x", by=by),
        lambda: explanation().frames(by=by),
        lambda: compare_html([explanation()] * 2, tmp_path / "x", by=by),
    ):
        with pytest.raises(InputError, match="'token' or 'word'"):
            refused()
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (" red", (" ", "red", "")),
        ("\n\nThe ", ("\n\n", "The", " ")),
        ("\n", ("", "↵", "\n")),
        (" ", ("", "␣", " ")),
        ("\u200b", ("", "␣", "\u200b")),
        (" \ufeff", ("", "␣␣", " \ufeff")),
        ("", ("", "∅", "")),
        ("a\x00b", ("", "a\u2400b", "")),
        ("\ud800", ("", "\ufffd", "")),
        ("\u202eabc", ("", "\ufffdabc", "")),
    ],
)
def test_what_stands_on_a_chip(text: str, expected: tuple[str, str, str]) -> None:
    assert words.shown(text) == expected


@pytest.mark.parametrize(("text", "expected"), [("12 קט", "rtl"), (" قطة cat", "rtl"), ("cat قطة", "ltr"), ("", "ltr")])
def test_direction(text: str, expected: str) -> None:
    assert words.direction(text) == expected


# --- sentences


def winner(share: float, token: str = "assistant", position: int = 5) -> dict[str, Any]:
    return {"text_winners": [{"position": position, "token": token, "share": share}]}


def said(made: Explanation) -> str:
    return " ".join(map(str, plain_words.diagnose(made)))


def test_a_token_that_hides_the_image_is_named_with_what_to_try() -> None:
    made = explanation([f" w{i}" for i in range(15)], weights=[0.0] * 11 + [1.0] * 4, diagnostics=winner(0.83))
    expected = "11 of 15 tokens have weight 0; the token `assistant` wins the text score in 83 % of heads: "
    expected += "try `text_set=content`."
    assert said(made).startswith(expected)
    generated = explanation(
        weights=[0.0, 1.0, 1.0], diagnostics=winner(0.83, position=9), metadata={"prompt_tokens": 9}
    )
    assert "try `text_set=prompt`" in said(generated)
    done = explanation(
        weights=[0.0, 1.0, 1.0], diagnostics=winner(0.83), metadata={"settings": {"text_set": "content"}}
    )
    assert "83 % of heads." in said(done) and "try" not in said(done)


@pytest.mark.parametrize(
    ("weights", "expected"),
    [
        (
            [0.0, 0.0, 0.0],
            "All 3 tokens have weight 0, so the map of the whole answer, their sum by weight, is blank.",
        ),
        ([0.0, 1.0, 1.0], "1 of 3 tokens has weight 0."),
        ([1.0, 1.0, 1.0], "None of the 3 tokens have weight 0."),
        (
            [0.0],
            "The only token has weight 0, so the map of the whole answer, their sum by weight, is blank.",
        ),
        ([1.0], "The only token does not have weight 0."),
        ([], "The answer holds no tokens."),
    ],
)
def test_how_many_tokens_have_weight(weights: list[float], expected: str) -> None:
    made = explanation([f" w{i}" for i in range(len(weights))], weights=weights)
    assert str(plain_words.diagnose(made)[0]) == expected


def test_heads_are_counted_and_warnings_repeated() -> None:
    made = explanation(diagnostics={"warnings": ["an unknown {family}"]} | winner(0.1))
    kept, total = int((made.head_weights > 0).sum()), made.head_weights.numel()
    text = said(made)
    assert f"counted for each token ({kept} of {total})" in text and "an unknown {family}" in text
    assert "`assistant` is the strongest for the most heads (10 %)" in text


def test_weight_0_beside_heads_that_were_kept_is_explained() -> None:
    why = "A token may hold such heads and weigh 0"
    assert why in said(explanation(weights=[0.0, 0.0, 0.0]))
    assert why not in said(explanation(weights=[1.0, 1.0, 1.0]))
    assert why not in said(explanation(weights=[0.0, 0.0, 0.0], head_weights=torch.zeros(3, 2, 4)))


def test_one_of_a_thing_is_not_said_in_the_plural(tmp_path: Path) -> None:
    single = explanation([" a"], (Grid(0, 0, 1, 1),), layers=1, heads=1)
    sizes = "1 token · 1 visual token · 1 layer \N{MULTIPLICATION SIGN} 1 head</p>"
    assert sizes in written(single, tmp_path).read_text("utf-8")
    assert "1 token;" in single._repr_html_()
    assert plain_words.counted(1200, "tokens") == "1,200 tokens"


def test_numbers_are_explained_as_the_settings_make_them() -> None:
    def told(**settings: Any) -> str:
        return " ".join(plain_words.numbers(explanation(metadata={"settings": settings} if settings else {})))

    assert "the sum over layers and heads of head weight" in told()
    assert "For the whole answer: the sum over tokens of weight" in told()
    assert "highest G on the image less its highest on the text" in told()
    assert "head score says (topk, 3)" in told(head_score=["topk", 3])
    assert "G after the map filter. For" in told(map_filter=["rank", 5])
    assert "official mode scales to 0 to 1" in told(mode="official")
    assert "each map taken from 0 to 1." in told(sequence_norm="token")
    assert told(mode="paper", sequence_norm="none", head_score="max", map_filter=None) == told()
    assert plain_words.numbers(explanation(metadata={"settings": "none"})) == plain_words.numbers(explanation())


@pytest.mark.parametrize("junk", [{"text_winners": 3}, {"text_winners": [{}]}, {"warnings": "no list"}, {}])
def test_diagnostics_of_another_make_do_not_stop_the_page(tmp_path: Path, junk: dict[str, Any]) -> None:
    assert written(explanation(diagnostics=junk), tmp_path).stat().st_size


def test_facts_name_settings_versions_and_seconds() -> None:
    metadata = {"settings": {"layers": [0, 1, 2], "map_filter": None}, "seconds": {"explain": 0.25}, "prompt": "p"}
    assert plain_words.facts(metadata) == [
        ("settings / layers", "0 to 2"),
        ("settings / map filter", "none"),
        ("seconds", "explain 0.25"),
    ]


def test_facts_of_metadata_whose_names_are_numbers() -> None:
    assert plain_words.facts({3: "a", None: {4: "b"}}) == [("3", "a"), ("None / 4", "b")]  # type: ignore[dict-item]


# --- colours


def test_every_chip_can_be_read() -> None:
    def luminance(colour: np.ndarray) -> float:
        share = colour / 255
        linear = np.where(share <= 0.04045, share / 12.92, ((share + 0.055) / 1.055) ** 2.4)
        return float(linear @ (0.2126, 0.7152, 0.0722))

    for step in range(256):
        ground = colours.of(step / 256)
        ink = np.array([0, 0, 0] if colours.ink_on(ground) == "#000" else [255, 255, 255])
        light, dark = sorted((luminance(ground), luminance(ink)), reverse=True)
        assert (light + 0.05) / (dark + 0.05) >= 4.5


# --- the file


@given(explanations())
@QUICK
def test_every_explanation_can_be_shown(tmp_path_factory: pytest.TempPathFactory, made: Explanation) -> None:
    check_report(made, tmp_path_factory.mktemp("report"))


def test_the_page_is_one_file_that_names_no_other(tmp_path: Path) -> None:
    text = written(explanation(), tmp_path).read_text("utf-8")
    assert not re.search(r"""(?:src|href)\s*=\s*["'](?!data:)|url\(|@import|https?://""", text)
    assert "default-src 'none'" in text


@pytest.mark.parametrize(("layers", "heads"), [(32, 32), (80, 38), (80, 64)])
def test_512_tokens_on_576_cells_with_a_large_photo_stay_under_2_mb(tmp_path: Path, layers: int, heads: int) -> None:
    tokens = [f" word{i}" for i in range(512)]
    made = explanation(tokens, (Grid(0, 0, 24, 24),), (noise(2400, 1800),), layers=layers, heads=heads)
    assert 500_000 < written(made, tmp_path).stat().st_size < 2_000_000


@pytest.mark.parametrize("by", ["token", "word"])
@pytest.mark.parametrize("largest", [1e200, sys.float_info.max])
def test_numbers_at_the_end_of_float64_are_shown(tmp_path: Path, by: Any, largest: float) -> None:
    made = explanation([" un", "able", " to"])
    arrays = {name: getattr(made, name).double() for name in ARRAYS if getattr(made, name).is_floating_point()}
    for name in ("token_maps", "token_weights", "head_weights"):
        arrays[name] = torch.full_like(arrays[name], largest)
    arrays["token_maps"][:, 0] = -largest
    report = data_of(written(replace(made, **arrays), tmp_path, by=by))["reports"][0]
    assert unpacked(report["maps"])[:2].tolist() == [0, 255]
    assert report["pieces"][0]["weight"] == pytest.approx(largest, rel=1e-3)
    assert -report["pieces"][0]["low"] == report["pieces"][0]["high"] >= 0.999 * largest


def test_the_heads_of_the_whole_answer_show_their_largest_weights(tmp_path: Path) -> None:
    made = explanation()
    report = data_of(written(made, tmp_path))["reports"][0]
    largest = made.head_weights.amax(0).ravel().numpy()
    whole = unpacked(report["heads"]).reshape(len(made) + 1, -1)[-1]
    np.testing.assert_allclose(whole / 255 * report["pieces"][-1]["peak"], largest, atol=largest.max() / 400)
    assert report["kept"][-1] == (largest > 0).sum()


@pytest.mark.parametrize(
    ("layers", "shown"), [([3, 7], [3, 7]), ([3, 7, 9], [0, 1]), ([3], [0, 1]), (["3", "7"], [0, 1]), (None, [0, 1])]
)
def test_layers_have_the_models_numbers_where_these_are_known(tmp_path: Path, layers: Any, shown: list[int]) -> None:
    made = explanation(metadata={"settings": {"layers": layers}})
    assert data_of(written(made, tmp_path))["reports"][0]["layers"] == shown


@pytest.mark.parametrize(
    ("grids", "size", "box"),
    [
        ((Grid(0, 0, 2, 2, (0, 0, 100, 50)), Grid(0, 4, 2, 2, (100, 0, 300, 80))), (480, 128), [0, 0, 1 / 3, 5 / 8]),
        ((Grid(0, 0, 2, 2, (-9, 0, 90, 360)), Grid(0, 4, 2, 2)), (120, 480), [-0.1, 0, 1, 1]),
        ((Grid(0, 0, 3, 4), Grid(0, 12, 2, 3)), (480, 360), [0, 0, 1, 1]),
    ],
)
def test_an_image_that_was_not_kept_is_as_large_as_its_grids_tell(
    tmp_path: Path, grids: tuple[Grid, ...], size: tuple[int, int], box: list[float]
) -> None:
    report = data_of(written(explanation(grids=grids, images=()), tmp_path))["reports"][0]
    assert (report["pictures"][0]["width"], report["pictures"][0]["height"]) == size
    assert report["grids"][0]["box"] == pytest.approx(box)


def test_infinity_is_never_written_into_a_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(data, "_short", lambda value: float("inf"))
    with pytest.raises(ValueError, match="JSON"):
        written(explanation(), tmp_path)


def test_many_frames_share_the_bytes_of_one_page(tmp_path: Path) -> None:
    grids = tuple(Grid(2 * i, 4 * i, 2, 2, frames=2, video=True) for i in range(8))
    path = written(explanation(grids=grids, images=tuple(noise(640, 480, i) for i in range(16))), tmp_path)
    assert path.stat().st_size < 1_500_000
    assert [p["name"] for p in data_of(path)["reports"][0]["pictures"]] == [f"frame {i}" for i in range(1, 17)]


@pytest.mark.parametrize(
    ("video", "names"),
    [
        ([Grid(1, 4, 2, 2, frames=2, video=True), Grid(3, 8, 2, 2, video=True)], ["frame 1", "frame 2", "frame 3"]),
        ([Grid(1, 4, 2, 2, video=True)], ["frame 1"]),
        ([Grid(1, 4, 2, 2)], ["image 2"]),
    ],
)
def test_the_frames_of_a_video_are_called_so(tmp_path: Path, video: list[Grid], names: list[str]) -> None:
    made = explanation(grids=(Grid(0, 0, 2, 2), *video), images=(plain(),) * (1 + len(names)))
    found = [picture["name"] for picture in data_of(written(made, tmp_path))["reports"][0]["pictures"]]
    assert found == ["image 1", *names]


@pytest.mark.parametrize("by", ["token", "word"])
def test_the_numbers_of_the_page_are_those_of_the_explanation(tmp_path: Path, by: Any) -> None:
    grids = (Grid(0, 1, 3, 4, row_stride=5), Grid(0, 16, 2, 2))
    made = explanation([" un", "able", " to"], grids, weights=[1.0, 3.0, 0.0])
    report = data_of(written(made, tmp_path, by=by))["reports"][0]
    cells = unpacked(report["maps"]).reshape(len(report["pieces"]), -1)
    last = 1 if by == "word" else 2
    for row, token in ((last, 2), (-1, None)):
        pieces = [part.ravel() for part in _normalised(made, token)]
        np.testing.assert_allclose(cells[row] / 255, np.concatenate(pieces), atol=0.5 / 255 + 1e-6)
    heads = unpacked(report["heads"]).reshape(len(report["pieces"]), -1)
    peak = report["pieces"][last]["peak"]
    np.testing.assert_allclose(heads[last] * peak / 255, made.head_weights[2].ravel(), atol=peak / 400)
    np.testing.assert_allclose(report["pieces"][last]["weight"], 0)
    assert report["pieces"][0]["weight"] == (3 if by == "word" else 1)
    assert report["pieces"][last]["high"] == pytest.approx(
        max(float(made.token_maps[2][grid.cells].max()) for grid in grids), rel=1e-3
    )


def _normalised(made: Explanation, token: int | None) -> list[np.ndarray]:
    values = (made.sequence_map if token is None else made.token_maps[token]).numpy()
    used = np.concatenate([values[grid.cells].ravel() for grid in made.grids])
    return [(values[grid.cells] - used.min()) / (used.max() - used.min()) for grid in made.grids]


HOSTILE = '</script><script>alert(1)</script><img src=x onerror="alert(2)"><!-- {{ 7 * 7 }} \u2028'


def test_markup_is_text_wherever_it_comes_from(tmp_path: Path) -> None:
    made = explanation(
        [HOSTILE, " b"],
        diagnostics=winner(0.9, HOSTILE) | {"warnings": [HOSTILE]},
        metadata={"model": HOSTILE, "prompt": HOSTILE, HOSTILE: HOSTILE, "settings": {HOSTILE: [HOSTILE]}},
    )
    compare_html([made, made], tmp_path / "both.html", titles=[HOSTILE, HOSTILE])
    for path in (written(made, tmp_path), tmp_path / "both.html"):
        text = path.read_text("utf-8")
        assert text.count("<script") == 2 and text.count("</script") == 2
        assert "<img src=x" not in text and "<!--" not in text and "{{ 7 * 7 }}" in text
        assert data_of(path)["reports"]


@pytest.mark.parametrize("token", ["\ud800", "\x00", "\U0001f642", "{}", "%s"])
def test_any_text_can_be_written(tmp_path: Path, token: str) -> None:
    made = explanation([token, " b"], diagnostics=winner(0.9, token), metadata={"prompt": token, "model": token})
    written(made, tmp_path).read_text("utf-8")


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"grids": ()}, "There is no map to show"),
        ({"grids": (), "images": ()}, "There is no map to show"),
        ({"images": ()}, "The image was not kept"),
    ],
)
def test_what_is_missing_is_said(tmp_path: Path, change: dict[str, Any], sentence: str) -> None:
    text = written(explanation(**change), tmp_path).read_text("utf-8")
    assert sentence in text and 'role="option"' in text


@pytest.mark.parametrize("size", [(1, 1), (1, 5000), (5000, 1), (3, 2)])
def test_images_of_odd_sizes(tmp_path: Path, size: tuple[int, int]) -> None:
    made = explanation(images=(Image.new("RGB", size, "red"),))
    (shown,) = pictures.pictures(made)
    assert min(shown.width, shown.height) >= 1 and max(shown.width, shown.height) <= 960
    assert 1 / 6 <= shown.ratio <= 6
    assert written(made, tmp_path).stat().st_size < 100_000


def test_an_answer_without_tokens(tmp_path: Path) -> None:
    assert "(no tokens)" in written(explanation([]), tmp_path).read_text("utf-8")
    with pytest.raises(InputError, match="no tokens to animate"):
        explanation([]).to_gif(tmp_path / "x.gif")


@pytest.mark.parametrize("axes", [{"layers": 0}, {"heads": 0}])
def test_an_explanation_without_heads(tmp_path: Path, axes: dict[str, int]) -> None:
    text = written(explanation(**axes), tmp_path).read_text("utf-8")
    assert "Head weights" not in text and "Layer weights" not in text


def test_a_layers_curve_is_the_sum_of_the_heads_beside_it(tmp_path: Path) -> None:
    made = explanation([" un", "able", " to"], layers=5, heads=3)
    for by in ("token", "word"):
        (report,) = data_of(written(made, tmp_path, by=by))["reports"]
        heads = made.head_weights.double().numpy()
        spans = [range(*piece["tokens"]) for piece in report["pieces"]]
        curves = unpacked(report["curves"]).reshape(len(spans), 5)
        for curve, piece, span in zip(curves, report["pieces"], spans, strict=True):
            expected = [sum(max(heads[t, layer, h] for t in span) for h in range(3)) for layer in range(5)]
            assert piece["height"] == pytest.approx(max(expected), rel=1e-3)
            np.testing.assert_allclose(curve / 255 * piece["height"], expected, atol=piece["height"] * 0.003)
    token = data_of(written(made, tmp_path))["reports"][0]["pieces"][1]
    assert token["height"] == pytest.approx(float(made.layer_weights[1].max()), rel=1e-3)


def test_a_curve_of_numbers_at_the_edge_of_float64_is_finite(tmp_path: Path) -> None:
    huge = torch.full((1, 2, 4), sys.float_info.max, dtype=torch.float64)
    changes = {
        name: getattr(explanation([" a"]), name).double() for name in ARRAYS if "ids" not in name and "pos" not in name
    }
    made = explanation([" a"], **changes | {"head_weights": huge})
    (report,) = data_of(written(made, tmp_path))["reports"]
    assert report["pieces"][0]["height"] == sys.float_info.max
    assert unpacked(report["curves"]).tolist() == [255] * 4


def test_an_explanation_without_visual_tokens(tmp_path: Path) -> None:
    none = torch.zeros(3, 0)
    names = ("token_maps", "unfiltered_token_maps", "sequence_map", "unfiltered_sequence_map")
    arrays = {name: none if name.endswith("token_maps") else none[0] for name in names}
    made = explanation(grids=(), visual_positions=torch.arange(0), **arrays)
    assert "There is no map to show" in written(made, tmp_path).read_text("utf-8")


def test_a_page_is_replaced_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    path.write_text("old")
    explanation().to_html(path)
    assert path.read_text("utf-8").endswith("</html>")
    with pytest.raises(FileError, match="does not exist"):
        explanation().to_html(tmp_path / "none" / "report.html")
    assert [file.name for file in tmp_path.iterdir()] == ["report.html"]


def test_an_empty_path_is_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    made = explanation()
    for write in (made.to_html, made.save, made.to_gif, lambda path: compare_html([made, made], path)):
        with pytest.raises(FileError, match="path is empty: pass the name of a file"):
            write("")
    assert not list(tmp_path.iterdir())


def test_compare_needs_two_and_as_many_titles(tmp_path: Path) -> None:
    made = explanation(metadata={"model": "org/model-7b"})
    for too_few in ([], [made]):
        with pytest.raises(InputError, match="two explanations or more"):
            compare_html(too_few, tmp_path / "x")
    with pytest.raises(InputError, match="2 explanations, but 1 titles"):
        compare_html([made, made], tmp_path / "x", titles=["a"])
    for no_list in (made, None, 3, [made, "a.safetensors"]):
        with pytest.raises(InputError, match=r"must be a list|takes Explanations"):
            compare_html(no_list, tmp_path / "x")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="titles must be a list"):
        compare_html([made, made], tmp_path / "x", titles="ab")
    assert not list(tmp_path.iterdir())
    compare_html((made for _ in range(2)), tmp_path / "x")
    text = (tmp_path / "x").read_text("utf-8")
    assert "model-7b (1)" in text and "model-7b (2)" in text


# --- the caption under a picture


def inked(picture: Image.Image, below: int) -> np.ndarray:
    """Whether a pixel under the row `below` differs from the paper."""
    return np.abs(np.asarray(picture)[below:].astype(int) - 255).max(-1) > 40


def test_a_caption_says_question_and_answer_under_the_picture() -> None:
    made = explanation([" red", " car"], images=(noise(400, 200),), metadata={"question": "What is it?"})
    picture = made.overlay()
    shown = caption.under(picture, made)
    np.testing.assert_array_equal(np.asarray(shown)[:200, :400], np.asarray(picture))
    assert shown.width == 400
    assert caption.lines(made, 12, 380) == ["Question: What is it?", "Answer: red car"]
    assert caption.lines(replace(made, metadata={}), 12, 380) == ["Answer: red car"]
    assert caption.lines(replace(made, metadata={"prompt": "USER: it?"}), 12, 380)[0] == "Question: USER: it?"
    unasked = caption.under(picture, replace(made, metadata={}))
    assert unasked.height < shown.height and inked(unasked, 200).any()


@pytest.mark.parametrize("size", [(1, 1), (3, 900), (900, 3), (2000, 1000)])
@pytest.mark.parametrize(
    "text", ["x" * 5000, "中文" * 300, "שלום cat", "\x00\ud800\u202e", "a\n\n\n\nb", "$x_1$ \\frac{"]
)
def test_any_text_fits_under_any_picture(size: tuple[int, int], text: str) -> None:
    made = explanation([text], images=(plain(*size),), metadata={"question": text}, weights=[1.0])
    shown = caption.under(made.images[0], made)
    ink = inked(shown, size[1])
    assert ink.any() and not ink[:, :5].any() and not ink[:, -5:].any() and not ink[-5:].any()
    assert len(caption.lines(made, 12, 300)) <= 16


def test_words_from_right_to_left_are_read_in_their_order() -> None:
    first, second = "שלום", "עולם"
    assert caption.lines(explanation([f" {first}", f" {second}"]), 12, 380) == [f"Answer: {first} {second}"]

    def drawn(*texts: tuple[float, str]) -> np.ndarray:
        page = Image.new("RGB", (300, 40), "white")
        for left, text in texts:
            lettering.draw_text(ImageDraw.Draw(page), (left, 0), text, 20, "black")
        return np.asarray(page)

    right = 10 + lettering.length(second, 20) + lettering.length(" ", 20)
    np.testing.assert_array_equal(drawn((10, f"{first} {second}")), drawn((10, second), (right, first)))


# --- the animation


def test_one_frame_for_each_token_with_its_overlay_and_the_answer_so_far() -> None:
    made = explanation([" red", " car", " here"], images=(noise(200, 100),))
    shown = made.frames(width=200)
    assert len(shown) == 3 and {frame.size for frame in shown} == {shown[0].size}
    for token, frame in enumerate(shown):
        expected = made.overlay(token, scale="weight")
        np.testing.assert_array_equal(np.asarray(frame)[:100], np.asarray(expected))
    ink = [int((np.asarray(frame)[100:] != np.asarray(shown[0])[-1, -1]).sum()) for frame in shown]
    assert ink[0] < ink[1] < ink[2]


def test_frames_share_a_scale_by_weight_or_keep_their_own(tmp_path: Path) -> None:
    made = explanation([" un", "able", " to"], images=(noise(200, 100),), weights=[0.5, 2.0, 0.0])
    phrases = (slice(0, 2), slice(2, 3))
    for scale in ("weight", "own"):
        shown = made.frames(by="word", width=200, scale=scale)
        for frame, phrase in zip(shown, phrases, strict=True):
            expected = np.asarray(made.overlay(phrase, scale=scale))
            np.testing.assert_array_equal(np.asarray(frame)[:100], expected)
    assert (np.asarray(shown[1])[:100] != np.asarray(made.images[0])).any(), "its own scale"
    by_weight = made.frames(by="word", width=200)[1]
    np.testing.assert_array_equal(np.asarray(by_weight)[:100], np.asarray(made.images[0]), "weight 0 shows no heat")
    for scale in ("weight", "own"):
        made.to_gif(tmp_path / f"{scale}.gif", width=64, scale=scale)
    assert (tmp_path / "weight.gif").read_bytes() != (tmp_path / "own.gif").read_bytes()


def test_words_can_be_animated_over_another_picture() -> None:
    made = explanation([" un", "able", " to"])
    shown = made.frames(noise(640, 320), by="word", width=320)
    assert len(shown) == 2 and shown[0].width == 320 and shown[0].mode == "RGB"


def test_long_answers_scroll_and_tall_images_fit() -> None:
    made = explanation([f" word{i}\n" for i in range(40)], images=(noise(20, 400),))
    shown = made.frames(width=100)
    assert len({frame.size for frame in shown}) == 1 and shown[0].height < 400
    assert np.asarray(shown[-1])[200:].std() > 0


def test_any_text_can_be_drawn() -> None:
    tokens = ["\ud800", "\x00", " שלום", " 猫", "\U0001f642", "", "\t", "a" * 300, "\n\n", " \u0939\u093f"]
    assert len(explanation(tokens).frames()) == len(words.cut(tokens, "token"))


def written_below(made: Explanation, width: int) -> np.ndarray:
    """[height, width] whether a pixel of the last frame's text differs from the paper."""
    below = np.asarray(made.frames(plain(width, width), width=width)[-1])[width:].astype(int)
    return np.abs(below - below[-1, -1]).any(-1)


@pytest.mark.parametrize("token", [" " + "x" * 60, " " + "e\u0301" * 50])
def test_a_piece_wider_than_the_frame_is_broken(token: str) -> None:
    inked = written_below(explanation([token], weights=[0.0]), 300)
    rows, columns = inked.any(1), inked.any(0)
    assert not columns[295:].any() and not columns[:5].any()
    assert rows[10:20].any() and rows[35:45].any(), "it goes on in the next line"


@pytest.mark.parametrize(
    ("answer", "direction", "expected"),
    [
        (["שלום", " ", "cat", " ", "dog", "."], "rtl", [".", "cat", " ", "dog", " ", "שלום"]),
        (["cat", " ", "שלום", " ", "עולם", " ", "dog"], "ltr", ["cat", " ", "עולם", " ", "שלום", " ", "dog"]),
        (["שלום", " ", "1", "2", " ", "עולם"], "rtl", ["עולם", " ", "1", "2", " ", "שלום"]),
        (["a", " ", "b", "!"], "ltr", ["a", " ", "b", "!"]),
        ([], "ltr", []),
    ],
)
def test_words_of_one_direction_stand_together(answer: list[str], direction: str, expected: list[str]) -> None:
    assert [text for _, text in lettering.from_the_left(list(enumerate(answer)), direction)] == expected


def test_a_line_from_right_to_left_ends_at_the_right_margin() -> None:
    columns = np.flatnonzero(written_below(explanation([" שלום", " cat", " dog"], weights=[0.0] * 3), 300).any(0))
    assert columns[0] > 150 and 280 < columns[-1] < 295


def test_only_the_last_lines_are_shown() -> None:
    lines = ["iiii\n", "mmmmmm\n", "ii\n", "mm mm\n", "iii"]
    long, short = (explanation(tokens, weights=[1.0] * len(tokens)) for tokens in (lines, lines[-animation._LINES :]))
    np.testing.assert_array_equal(written_below(long, 300), written_below(short, 300))
    assert (written_below(long, 300) != written_below(explanation(lines[:3], weights=[1.0] * 3), 300)).any()


def test_browsers_show_no_frame_for_less_than_20_ms(tmp_path: Path) -> None:
    explanation().to_gif(tmp_path / "a.gif", width=64, seconds=0.001)
    with Image.open(tmp_path / "a.gif") as shown:
        assert shown.info["duration"] == 20


def test_a_gif_repeats_every_frame(tmp_path: Path) -> None:
    made = explanation()
    made.to_gif(tmp_path / "a.gif", width=128, seconds=0.25)
    with Image.open(tmp_path / "a.gif") as animation:
        frames = [frame.copy() for frame in ImageSequence.Iterator(animation)]
        assert len(frames) == len(made)
        assert animation.info["loop"] == 0 and animation.info["duration"] == 250
    assert [file.name for file in tmp_path.iterdir()] == ["a.gif"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"width": 10}, "from 64"),
        ({"width": 99.5}, "integer"),
        ({"seconds": 0}, "seconds"),
        ({"scale": "heat"}, "scale must be 'weight' or 'own'"),
        ({"seconds": "1"}, "seconds"),
    ],
)
def test_a_gif_of_impossible_size_speed_or_scale_is_refused(
    tmp_path: Path, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        explanation().to_gif(tmp_path / "a.gif", **options)


def test_no_animation_without_a_place_for_the_map() -> None:
    with pytest.raises(InputError, match="geometry"):
        explanation(grids=()).frames()


def test_the_script_and_style_are_plain_files_without_closing_tags() -> None:
    for name in ("report.js", "layers.js", "report.css"):
        assert "</" not in document._source(name)
